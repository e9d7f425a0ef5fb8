"""Advantages of spans of a response: process steps, turns, and parts. Scores name their tokens as [start, end).

Axes: G trajectories of one group, T tokens of one trajectory, S spans of one trajectory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from policies.config import PartCredit, ProcessCredit, TurnCredit
from policies.credit_token import outcome_advantages
from policies.credit_views import Assigned, Float64, Views, penalty
from policies.trajectory import ScoreEntry, Trajectory

# ---------------------------------------------------------------- spans


@dataclass(frozen=True, slots=True)
class Span:
    """A scored piece of a response: tokens [start, end)."""

    start: int
    end: int
    value: float
    passed: bool | None = None

    @property
    def correct(self) -> bool:
        """What the scorer said, or whether the value is positive where it gave no verdict."""
        return self.value > 0 if self.passed is None else self.passed


def spans_of(trajectory: Trajectory, name: str) -> list[Span] | str:
    """Its spans with this name in order of tokens, or why they are not known.

    One unknown span leaves the whole response unknown: what the others add up to would be made up.
    Raises ValueError when a span reaches outside the response.
    """
    entries = [entry for entry in trajectory.scores if entry.name == name and entry.start is not None]
    if not entries:
        return f"no scores named {name} with a span"
    for entry in entries:
        if entry.status != "ok" or not math.isfinite(entry.value):
            return f"no {name} score at token {entry.start}: {entry.status if entry.status != 'ok' else 'unscored'}"
    return sorted((_span(trajectory, entry) for entry in entries), key=lambda span: (span.start, span.end))


def _span(trajectory: Trajectory, entry: ScoreEntry) -> Span:
    size = len(trajectory.tokens)
    if entry.start is None or entry.end is None or not 0 <= entry.start < entry.end <= size:
        raise ValueError(
            f"trajectory {trajectory.id!r}: score {entry.name!r} spans [{entry.start}, {entry.end}) of {size} tokens; "
            "want 0 <= start < end <= tokens"
        )
    return Span(entry.start, entry.end, entry.value, entry.passed)


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """A group's spans: an empty list for a member of which something is unknown."""

    by_member: list[list[Span]]
    unknown: dict[int, str]


def _spans(group: Sequence[Trajectory], name: str, unknown: dict[int, str]) -> _Spans:
    """`unknown` are the members left out already; those without known spans join them."""
    unknown = dict(unknown)
    by_member: list[list[Span]] = []
    for index, one in enumerate(group):
        found = spans_of(one, name)
        if isinstance(found, str):
            unknown.setdefault(index, found)
        by_member.append([] if index in unknown or isinstance(found, str) else found)
    return _Spans(by_member, unknown)


def _painted(trajectory: Trajectory, spans: Sequence[Span], values: Sequence[float]) -> Float64:
    """[T] each span's value on its tokens, 0 elsewhere."""
    painted_T = np.zeros(len(trajectory.tokens))
    for span, value in zip(spans, values, strict=True):
        painted_T[span.start : span.end] = value
    return painted_T


def _assigned(advantages: Sequence[Float64], unknown: dict[int, str]) -> Assigned:
    return Assigned([one.astype(np.float32) for one in advantages], excluded=tuple(sorted(unknown)), reasons=unknown)


def _less_mean(values: Sequence[float]) -> Float64:
    """Values less their mean; exact zeros where they do not differ."""
    array = np.array(values, np.float64)
    if len(array) == 0 or array.min() == array.max():
        return np.zeros(len(array))
    return array - float(array.mean())


# ---------------------------------------------------------------- process


def process_credit(credit: ProcessCredit, group: Sequence[Trajectory]) -> Assigned:
    """Step scores, normalised over the group's steps and spread, plus the outcome's advantage on every token.

    DeepSeekMath's process supervision (arXiv 2402.03300, 4.1.3): suffix_sum, group. PAV (2410.08146): the scores are
    the prover's advantages, not normalised, and the outcome counts.
    """
    outcomes_G, unknown = outcome_advantages(credit.outcome, group)
    steps = _spans(group, credit.score, unknown)
    flat = [span.value for spans in steps.by_member for span in spans]
    scores = iter(_normalised(credit, flat))
    advantages = []
    for index, (one, spans) in enumerate(zip(group, steps.by_member, strict=True)):
        steps_T = _process_spread(credit, one, spans, [float(next(scores)) for _ in spans])
        outcome = 0.0 if index in steps.unknown else outcomes_G[index]
        advantages.append(credit.scale * steps_T + outcome)
    return _assigned(advantages, steps.unknown)


def _normalised(credit: ProcessCredit, scores: Sequence[float]) -> Float64:
    if credit.normalise == "none":
        return np.array(scores, np.float64)
    centred = _less_mean(scores)
    return centred / (float(centred.std(ddof=1)) + credit.eps) if centred.any() else centred


def _process_spread(
    credit: ProcessCredit, trajectory: Trajectory, spans: Sequence[Span], scores: Sequence[float]
) -> Float64:
    """[T]; a token between two steps is worth the later ones."""
    match credit.spread:
        case "step":
            return _painted(trajectory, spans, scores)
        case "min":
            return np.full(len(trajectory.tokens), min(scores, default=0.0))
        case "suffix_sum":
            worth_T = np.zeros(len(trajectory.tokens))
            for span, score in zip(spans, scores, strict=True):
                worth_T[: span.end] += score
            return worth_T
        case _:
            assert_never(credit.spread)


# ---------------------------------------------------------------- turns


def turn_credit(credit: TurnCredit, group: Sequence[Trajectory]) -> Assigned:
    """Each turn's worth on its tokens, less the group's mean worth of the turn with the same number.

    SCoRe (arXiv 2409.12917): the last turn is worth its reward and `bonus` x what it gained on the one before.
    """
    turns = _spans(group, "turn", {})
    worths = [_turn_worths(credit, [span.value for span in spans]) for spans in turns.by_member]
    if credit.baseline == "mean":
        worths = _by_bin(worths, [list(range(len(one))) for one in worths])
    return _assigned([_painted(*each) for each in zip(group, turns.by_member, worths, strict=True)], turns.unknown)


def _turn_worths(credit: TurnCredit, rewards: Sequence[float]) -> list[float]:
    if not rewards:
        return []
    *earlier, last = rewards
    progress = last - earlier[-1] if earlier else 0.0
    return [*(credit.first * value for value in earlier), last + credit.bonus * progress]


# ---------------------------------------------------------------- parts


def part_credit(credit: PartCredit, group: Sequence[Trajectory], views: Sequence[Views]) -> Assigned:
    """Each part's value, less the mean over the group's parts with as many correct ones before, less its KL penalty.

    The penalty is kl x the mean k1 of the part's trained tokens. Raises ValueError when it lacks a log-probability.
    """
    parts = _spans(group, "part", {})
    values = [[span.value for span in spans] for spans in parts.by_member]
    compared = _by_bin(values, [_correct_before(spans) for spans in parts.by_member])
    advantages = []
    for index, (one, spans) in enumerate(zip(group, parts.by_member, strict=True)):
        worths = compared[index]
        if credit.kl > 0 and spans:
            k1_T = penalty("part", one, views[index])
            worths = [w - credit.kl * _mean_trained(one, span, k1_T) for w, span in zip(worths, spans, strict=True)]
        advantages.append(_painted(one, spans, worths))
    return _assigned(advantages, parts.unknown)


def _correct_before(spans: Sequence[Span]) -> list[int]:
    """[S] number of correct spans before each."""
    return [sum(one.correct for one in spans[:index]) for index in range(len(spans))]


def _mean_trained(trajectory: Trajectory, span: Span, k1_T: Float64) -> float:
    trained = int(trajectory.train_mask[span.start : span.end].sum())
    return float(k1_T[span.start : span.end].sum()) / max(trained, 1)


def _by_bin(values: Sequence[Sequence[float]], bins: Sequence[Sequence[int]]) -> list[list[float]]:
    """Each value less the mean of all that share its bin, over every member of the group."""
    out = [list(one) for one in values]
    places = [(member, k) for member, one in enumerate(values) for k in range(len(one))]
    for wanted in {bins[member][k] for member, k in places}:
        shared = [(member, k) for member, k in places if bins[member][k] == wanted]
        centred = _less_mean([values[member][k] for member, k in shared])
        for (member, k), value in zip(shared, centred, strict=True):
            out[member][k] = float(value)
    return out
