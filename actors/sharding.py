"""Which rank trains on what, and what the ranks' facts add up to. Pure, deterministic, no torch."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from policies.example import Example
from policies.trajectory import Float32

Share = list[Example]
"""What one rank trains on in one update."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What the learner says of one step; counts are over all ranks and updates."""

    loss: float
    """Sum over the step's updates; each is already divided by its global normaliser."""
    gradient_norm: float
    """Mean over the applied updates of the global norm before clipping; NaN when none was applied."""
    learning_rate: float
    """Of the step's last update."""
    skipped: int
    tokens: int
    """Trained tokens."""
    seconds: float
    by_strand: Mapping[str, Mapping[str, float]]
    by_origin: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Origin's name in small letters -> fact -> value: tokens, loss, gradient_mass, ess and what they are made of."""
    interference: Mapping[str, float] = field(default_factory=dict)
    """`first|second` -> cosine between two strands' gradients of the step, in the strands' order; NaN where one has
    none. Empty in steps that do not measure it."""
    coefficients: Float32 | None = field(default=None, compare=False)
    """g of every token of the examples, one example after the other in the order in which the step was given them
    (policies.coefficients); NaN where it is not defined or the update was skipped. None where nobody says."""
    scored: Mapping[str, int] = field(default_factory=dict)
    """What the pass before the first update read, over all ranks, as `actors.meter.Work` counts; empty without one."""


def split(examples: Sequence[Example], updates: int, world_size: int) -> list[list[Share]]:
    """Examples as [update][rank]: balanced by tokens, whole groups in one update, whole preference sets on one rank.

    Each update gets its share of every strand. Fewer groups than updates give fewer updates; a rank's share may be
    empty. Order inside a share is the given one.
    """
    return [
        [[examples[place] for place in share] for share in update] for update in deal(examples, updates, world_size)
    ]


def deal(examples: Sequence[Example], updates: int, world_size: int) -> list[list[list[int]]]:
    """`split`, as places of the examples."""
    by_update = _deal(_units(examples, _group), updates)
    return [_to_ranks(part, world_size) for part in by_update if part]


def in_order(
    examples: Sequence[Example], places: Sequence[Sequence[Sequence[int]]], ranks: Sequence[Float32 | None]
) -> Float32 | None:
    """The ranks' flat coefficients, each in the order of its own shares, in the order of the examples.

    `places` is as `deal` gave them. None where a rank says nothing.
    """
    known = [rank for rank in ranks if rank is not None]
    if len(known) < len(ranks):
        return None
    lengths = np.array([len(one.trajectory.tokens) for one in examples], np.int64)
    starts = np.cumsum(lengths) - lengths
    whole = np.full(int(lengths.sum()), np.nan, np.float32)
    for rank, own in enumerate(known):
        at = 0
        for place in (place for update in places for place in update[rank]):
            whole[starts[place] : starts[place] + lengths[place]] = own[at : at + lengths[place]]
            at += int(lengths[place])
    return whole


def merge_facts(ranks: Sequence[StepFacts]) -> StepFacts:
    """The ranks already agree on the whole step's facts; it took as long as the slowest."""
    return replace(ranks[0], seconds=max(rank.seconds for rank in ranks))


# ---------------------------------------------------------------- dealing


def _to_ranks(examples: Sequence[tuple[int, Example]], world_size: int) -> list[list[int]]:
    units = _units([example for _, example in examples], _set)
    return [[examples[at][0] for at, _ in part] for part in _deal(units, world_size)]


def _units(examples: Sequence[Example], name: Callable[[int, Example], Hashable]) -> list[list[tuple[int, Example]]]:
    """Examples that belong together, each with its place in the given order."""
    units: dict[Hashable, list[tuple[int, Example]]] = {}
    for place, example in enumerate(examples):
        units.setdefault(name(place, example), []).append((place, example))
    return list(units.values())


def _group(place: int, example: Example) -> Hashable:
    trajectory = example.trajectory
    if trajectory.group_id:
        return "group", trajectory.group_id
    return _set(place, example)


def _set(place: int, example: Example) -> Hashable:
    return ("one", place) if example.together is None else ("set", example.together)


def _deal(units: Sequence[list[tuple[int, Example]]], bins: int) -> list[list[tuple[int, Example]]]:
    """Units over bins, longest first to the emptiest; each mix of strands is dealt out evenly by itself."""
    kinds: dict[Hashable, list[list[tuple[int, Example]]]] = {}
    for unit in units:
        kinds.setdefault(frozenset(example.strand for _, example in unit), []).append(unit)
    dealt: list[list[tuple[int, Example]]] = [[] for _ in range(bins)]
    loads = [0] * bins
    for kind in kinds.values():
        own = [0] * bins
        for unit in sorted(kind, key=_tokens, reverse=True):
            chosen = min(range(bins), key=lambda b: (own[b], loads[b], b))
            dealt[chosen].extend(unit)
            own[chosen] += _tokens(unit)
            loads[chosen] += _tokens(unit)
    return [sorted(part, key=lambda placed: placed[0]) for part in dealt]


def _tokens(unit: Sequence[tuple[int, Example]]) -> int:
    """Positions that the model computes for a unit."""
    return sum(len(e.trajectory.train_context) + len(e.trajectory.tokens) for _, e in unit)
