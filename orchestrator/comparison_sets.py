"""One set of prompts, as several runs answered it: pass@k, solved sets and answers, paired prompt by prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.comparison_sides import Side
from orchestrator.probes import answers, curves, support
from orchestrator.probes.crossed import Span, crossed
from orchestrator.probes.intervals import Interval
from orchestrator.probes.sequential import Counts
from orchestrator.probes.snapshot import Float64, Int64, Sampled, SetName

Parts = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one run said of the prompts in common; P prompts, in the first run's order."""

    sampled: Sampled
    rows_P: Int64
    counts: Counts
    """Of these prompts."""

    @property
    def greedy_P(self) -> Float64:
        """1, 0 or NaN."""
        return self.sampled.greedy_P[self.rows_P]

    @property
    def answers(self) -> list[Mapping[str, int]]:
        """[P] answer -> draws that gave it."""
        return [self.sampled.answers_P[at] for at in self.rows_P]


def compared(name: SetName, sides: Sequence[Side], confidence: float, epsilon: float) -> Parts:
    """The set's part of the comparison's document (`comparison.document`)."""
    asked = [one for one in sides if has(one, name)]
    keys = [_keys(one, name) for one in asked]
    common = [key for key in keys[0] if all(key in own for own in keys[1:])]
    places = iter([np.array([own[key] for key in common], np.int64) for own in keys])
    found = [_measured(one, name, next(places)) if has(one, name) else None for one in sides]
    told: Parts = {
        "prompts": len(common),
        "left_out": [None if one is None else len(one.sampled.prompts) - len(common) for one in found],
    }
    if not common:
        return told
    ks = curves.steps(*(one.counts for one in found if one is not None))
    first = found[0]
    pairs = [None if first is None or one is None else (first, one) for one in found[1:]]
    return told | {
        "runs": [one and _about(one, ks, confidence) for one in found],
        "differences": [None, *(pair and _differences(*pair, ks, confidence) for pair in pairs)],
        "solved": [None, *(pair and _solved(*pair, confidence, epsilon) for pair in pairs)],
        "answers": _answers(found, confidence),
    }


def has(one: Side, name: SetName) -> bool:
    """Whether the side was asked the set."""
    return one.snapshot is not None and name in one.snapshot.sets


def _keys(one: Side, name: SetName) -> dict[tuple[str, str], int]:
    """What makes a prompt the same in two runs -> its row: its id and text; its id and where the set came from, in
    probes that do not hold texts."""
    assert one.snapshot is not None, "only of a side that was asked"
    source = repr((one.history.config.get("prompts") or {}).get("probe" if name == "scaffolded" else name))
    prompts = one.snapshot.sets[name].prompts
    return {(prompt, one.texts.get((name, prompt)) or source): row for row, prompt in enumerate(prompts)}


def _measured(one: Side, name: SetName, rows_P: Int64) -> Measured:
    assert one.snapshot is not None, "only of a side that was asked"
    return Measured(one.snapshot.sets[name], rows_P, one.counts(name).rows(rows_P))


# ---------------------------------------------------------------- figures


def _about(one: Measured, ks: Sequence[int], confidence: float) -> Parts:
    return {
        "pass_at_k": _by_k(ks, curves.curve(one.counts, ks, confidence=confidence)),
        "greedy": asdict(curves.mean(one.greedy_P, len(one.rows_P), confidence)),
        "n": int(one.counts.n_P.sum()),
        "tokens": one.sampled.tokens,
    }


def _differences(first: Measured, other: Measured, ks: Sequence[int], confidence: float) -> Parts:
    """This one less the first, prompt by prompt."""
    apart = other.greedy_P - first.greedy_P
    return {
        "pass_at_k": _by_k(ks, curves.change(first.counts, other.counts, ks, confidence=confidence)),
        "greedy": asdict(curves.mean_change(apart, len(apart), confidence)),
    }


def _by_k(ks: Sequence[int], found: Sequence[Interval]) -> list[Parts]:
    return [{"k": k, **asdict(one)} for k, one in zip(ks, found, strict=True)]


def _solved(first: Measured, other: Measured, confidence: float, epsilon: float) -> Parts:
    """Prompts in effective support of both, of one alone, of neither; multiplicity-corrected (`probes.support`)."""
    change = support.change(first.counts, other.counts, epsilon=epsilon, confidence=confidence)
    names = [first.sampled.prompts[at] for at in first.rows_P]
    alone = {"only_first": change.attrited, "only_this": change.expanded}
    counted = alone | {"both": change.retained, "neither": change.absent, "undecided": change.undecided}
    return {
        **{name: len(where) for name, where in counted.items()},
        "ids": {name: [names[at] for at in where.tolist()] for name, where in alone.items()},
    }


# ---------------------------------------------------------------- answers


def _answers(found: Sequence[Measured | None], confidence: float) -> Parts | None:
    """How many different answers a prompt gets: {"draws": counted a prompt, "prompts", "distinct": [Interval or null],
    "differences": [null, Interval or null]}; null where answers cannot be read.

    Every prompt is counted at the number of draws that all runs have of it: more draws find more answers.
    """
    known = [one for one in found if one is not None]
    totals = np.array([[sum(own.values()) for own in one.answers] for one in known])
    draws_P = totals.min(axis=0)
    use = np.flatnonzero(draws_P > 0)
    if not len(use):
        return None
    told = [None if one is None else _distinct([one.answers[at] for at in use], draws_P[use]) for one in found]
    first, *others = told
    apart = [None if first is None or own is None else own - first for own in others]
    most = float(draws_P.max())
    return {
        "draws": float(draws_P[use].mean()),
        "prompts": len(use),
        "distinct": [None if own is None else _mean(own, confidence, (0.0, most)) for own in told],
        "differences": [None, *(None if own is None else _mean(own, confidence, (-most, most)) for own in apart)],
    }


def _distinct(given: Sequence[Mapping[str, int]], draws_P: Int64) -> Float64:
    """[P] different answers expected among so many of a prompt's draws."""
    return np.array([answers.distinct(own, at) for own, at in zip(given, draws_P.tolist(), strict=True)])


def _mean(value_P: Float64, confidence: float, span: Span) -> Parts:
    return asdict(crossed(value_P[None, :], confidence=confidence, span=span).interval)
