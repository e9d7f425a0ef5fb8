"""One set of prompts, as several runs answered it: pass@k, solved sets and answers, paired prompt by prompt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from orchestrator.comparison_sides import Side
from orchestrator.probes import support
from orchestrator.probes.crossed import Span, crossed
from orchestrator.probes.curves import estimates
from orchestrator.probes.intervals import Interval
from orchestrator.probes.sequential import Counts
from orchestrator.probes.snapshot import Float64, Int64, Sampled, SetName

UNIT: Span = (0.0, 1.0)
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

    def most(self) -> int:
        """The largest number of verdicts that a prompt has."""
        return int(self.counts.n_P.max(initial=0))


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
    depths = _depths(found)
    first = found[0]
    pairs = [None if first is None or one is None else (first, one) for one in found[1:]]
    return told | {
        "runs": [one and _about(one, depths, confidence) for one in found],
        "differences": [None, *(pair and _differences(*pair, depths, confidence) for pair in pairs)],
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


def _depths(found: Sequence[Measured | None]) -> list[int]:
    """1, 2, 4 ... as far as every run has a prompt with so many verdicts, and that number itself."""
    most = min((one.most() for one in found if one is not None), default=0)
    doubling = [1 << at for at in range(most.bit_length())]
    return sorted({k for k in (*doubling, most) if 1 <= k <= most})


# ---------------------------------------------------------------- figures


def _about(one: Measured, depths: Sequence[int], confidence: float) -> Parts:
    return {
        "pass_at_k": [{"k": k, **_mean(estimates(one.counts, k), confidence, UNIT)} for k in depths],
        "greedy": _mean(one.greedy_P, confidence, UNIT),
        "n": int(one.counts.n_P.sum()),
        "tokens": one.sampled.tokens,
    }


def _differences(first: Measured, other: Measured, depths: Sequence[int], confidence: float) -> Parts:
    """This one less the first, prompt by prompt."""
    return {
        "pass_at_k": [
            {"k": k, **_mean(estimates(other.counts, k) - estimates(first.counts, k), confidence, (-1.0, 1.0))}
            for k in depths
        ],
        "greedy": _mean(other.greedy_P - first.greedy_P, confidence, (-1.0, 1.0)),
    }


def _mean(value_P: Float64, confidence: float, span: Span) -> Parts:
    return interval(crossed(value_P[None, :], confidence=confidence, span=span).interval)


def interval(one: Interval) -> Parts:
    """As JSON has it."""
    return {"value": one.value, "low": one.low, "high": one.high}


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
    span = (0.0, float(draws_P.max()))
    told = [None if one is None else _distinct([one.answers[at] for at in use], draws_P[use]) for one in found]
    first, *others = told
    apart = [None if first is None or own is None else own - first for own in others]
    wide = (-span[1], span[1])
    return {
        "draws": float(draws_P[use].mean()),
        "prompts": len(use),
        "distinct": [None if own is None else _mean(own, confidence, span) for own in told],
        "differences": [None, *(None if own is None else _mean(own, confidence, wide) for own in apart)],
    }


def _distinct(answers: Sequence[Mapping[str, int]], draws_P: Int64) -> Float64:
    """[P] expected number of different answers among so many of a prompt's draws: sum over answers of
    1 - C(n - x, m) / C(n, m) (rarefaction, Hurlbert 1971, Ecology 52:577)."""
    found = []
    for own, m in zip(answers, draws_P.tolist(), strict=True):
        n, x = sum(own.values()), np.array(list(own.values()), np.float64)
        rest = n - x
        absent = np.where(
            rest >= m,
            np.exp(
                gammaln(rest + 1) - gammaln(np.maximum(rest - m, 0) + 1) - math.lgamma(n + 1) + math.lgamma(n - m + 1)
            ),
            0.0,
        )
        found.append(float((1.0 - absent).sum()))
    return np.array(found)
