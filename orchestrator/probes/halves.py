"""What prompts gained and what stands of it, without the prompts that luck chose: chosen by some of the draws, measured
by the others.

A prompt that looks solved at n = 16 is, on average, less often solved when it is asked again (regression to the mean):
of a policy that did not change, some of the prompts that it "newly solved" would read as lost. So the draws before and
after are split. Some choose (did this prompt gain?) and the others, which are independent of them, measure; what stands
is measured by draws of a third checkpoint. Under no change what was gained and what stands of it have the same
expectation, prompt by prompt. The mean over all splits is taken exactly, by counting the orders of passes and failures
that end so: hypergeometric where n is fixed, and right where draws stopped once a prompt's answer was clear.

P = prompts, O = outcomes of a design (`probes.sequential`), S = possible passes of the choosing draws.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import gammaln, stdtrit

from orchestrator.probes.clusters import proportion
from orchestrator.probes.curves import estimates
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.sequential import Counts, Plan
from orchestrator.probes.snapshot import Float64, Int64

Kind = Literal["rate", "solved"]
TINY = 1e-9
"""Rates closer than this are equal."""
LUCK = 1 / 16
"""A prompt that did not change is chosen with this probability at most: else what it loses later, for other reasons,
would be told as loss of a gain that it never made."""
MOST_CHOOSING = 32
"""Draws that choose, at most; half of the first look otherwise."""
RATES: Float64 = np.linspace(0.0, 1.0, 41)
SLACK = 1.0
"""Added to the squares about a mean: the squares of one prompt that is wholly elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Stood:
    """[P] what each prompt gained and what stands of it, zero in expectation where it gained nothing."""

    gain_P: Float64
    stands_P: Float64
    chosen_P: Float64
    """Probability that the choosing draws say that the prompt gained."""


def stood(before: Counts | None, after: Counts, now: Counts, kind: Kind) -> Stood:
    """What each prompt gained from `before` to `after`, and what of that stands `now`. Rows are the same prompts.

    rate: in pass rate, of the prompts whose choosing draws passed clearly more often after than before (`highest`).
    More than all of it stands where later stages added to the same prompts. solved: in pass@k for the k of `depth`, of
    the prompts whose choosing draws never passed before and clearly after. Without `before`, all that passes after is
    gained. Zeros throughout for prompts with too few draws: four before and after, one now.
    """
    keep = measurable(before, after, now)
    found = np.zeros((3, len(after.n_P)))
    if len(keep):
        one = None if before is None else before.rows(keep)
        found[:, keep] = _stood(one, after.rows(keep), now.rows(keep), kind)
    return Stood(*found)


def measurable(before: Counts | None, after: Counts, now: Counts) -> Int64:
    """Rows of the prompts that have two draws or more before and after, and one or more now."""
    keep = (after.n_P >= 2) & (now.n_P >= 1)
    if before is not None:
        keep &= before.n_P >= 2
    return np.flatnonzero(keep).astype(np.int64)


def depth(before: Counts | None, after: Counts, now: Counts) -> int:
    """The k of `solved`: as many draws as are left at every prompt's first look once the choosing ones are made."""
    left = [design.looks[0] - _half(design) for one in (before, after) if one for design, _ in one.designs()]
    return min([*left, *(design.looks[0] for design, _ in now.designs())], default=1)


def _stood(before: Counts | None, after: Counts, now: Counts, kind: Kind) -> Float64:
    """[3, P] as `Stood` has them, of prompts with draws enough."""
    k = 1 if kind == "rate" else depth(before, after, now)
    ends = [_Ends.of(one, k) for one in (before, after) if one is not None]
    places = np.stack([one.place_P for one in ends])
    different, back_P = np.unique(places, axis=1, return_inverse=True)
    table = np.array(
        [
            _chosen(None if before is None else ends[0].split(pair[0]), ends[-1].split(pair[-1]), kind)
            for pair in different.T
        ]
    )
    chosen_P, base_P, reached_P = table[back_P.reshape(-1)].T
    return np.stack([reached_P - base_P, chosen_P * estimates(now, k) - base_P, chosen_P])


@dataclass(frozen=True, slots=True)
class _Ends:
    """How each prompt's draws ended at one checkpoint, and what that says of its first draws and of the others."""

    splits: list[tuple[Float64, Float64, Float64]]
    place_P: Int64
    """[P] index into `splits`."""

    @classmethod
    def of(cls, found: Counts, k: int) -> "_Ends":
        splits: list[tuple[Float64, Float64, Float64]] = []
        place_P = np.full(len(found.n_P), -1, np.int64)
        for design, rows in found.designs():
            at = design.outcomes().place(found.n_P[rows], found.c_P[rows])
            different, back = np.unique(at, return_inverse=True)
            place_P[rows] = len(splits) + back
            splits += _splits(design, different, k)
        return cls(splits, place_P)

    def split(self, at: int) -> tuple[Float64, Float64, Float64]:
        return self.splits[at]


def _half(design: Plan) -> int:
    """How many of the first draws choose."""
    return min(design.looks[0] // 2, MOST_CHOOSING)


def _splits(design: Plan, outcomes: Int64, k: int) -> list[tuple[Float64, Float64, Float64]]:
    """Of each outcome, [S] each: rates of the choosing draws, rising; how likely each is; that, times pass@k of what
    was drawn after them. The choosing draws are of the first look: no end lies between."""
    half = _half(design)
    hits = range(half + 1)
    orders = _log_binomial(half, np.arange(half + 1))
    every = design.outcomes().log_paths_O[outcomes]
    likely = np.stack([np.exp(orders[hit] + _paths(design, half, hit)[outcomes] - every) for hit in hits])
    failing = np.stack([np.exp(orders[hit] + _paths(design, half + k, hit)[outcomes] - every) for hit in hits])
    rate = np.arange(half + 1) / half
    return [(rate, likely[:, at], likely[:, at] - failing[:, at]) for at in range(len(outcomes))]


def _paths(design: Plan, drawn: int, passed: int) -> Float64:
    """[O]: log of the number of orders that lead on from `passed` passes in the first `drawn` draws, at most as many as
    the first look, to each outcome; minus infinity where none does."""
    of = design.outcomes()
    if len(design.looks) == 1:
        return _log_binomial(design.looks[0] - drawn, of.c_O - passed)
    alive, found = {passed: 0.0}, np.full(len(of.n_O), -np.inf)
    for look, low, high in zip(design.looks, design.low, design.high, strict=True):
        for _ in range(drawn, look):
            alive = _drawn(alive)
        drawn = look
        there = of.n_O == look
        found[there] = [alive.get(int(c), -np.inf) for c in of.c_O[there]]
        alive = {c: told for c, told in alive.items() if low < c < high}
    return found


def _drawn(alive: dict[int, float]) -> dict[int, float]:
    """One draw more."""
    return {
        c: float(np.logaddexp(alive.get(c, -np.inf), alive.get(c - 1, -np.inf)))
        for c in sorted({*alive, *(c + 1 for c in alive)})
    }


def _log_binomial(n: int, k: Int64) -> Float64:
    """Log of n over k; minus infinity where that is none."""
    inside = (k >= 0) & (k <= n)
    low = np.where(inside, k, 0)
    return np.where(inside, gammaln(n + 1) - gammaln(low + 1) - gammaln(n - low + 1), -np.inf)


def _chosen(
    before: tuple[Float64, Float64, Float64] | None, after: tuple[Float64, Float64, Float64], kind: Kind
) -> tuple[float, float, float]:
    """(probability of being chosen, and pass@k of the measuring draws before and after, summed over that)."""
    x1, p1, up1 = after
    x0, p0, up0 = NOBODY if before is None else before
    limit = np.where(x1 > 0, TINY, -1.0) if before is None else highest(len(x0) - 1, len(x1) - 1, kind)
    count = np.searchsorted(x0, limit + TINY)  # how many of the rates before are low enough
    below, base = (np.concatenate([[0.0], np.cumsum(own)])[count] for own in (p0, up0))
    return float(p1 @ below), float(p1 @ base), float(up1 @ below)


NOBODY = (np.zeros(1), np.ones(1), np.zeros(1))
"""Of a policy that passes nothing."""


@functools.lru_cache(maxsize=256)
def highest(half0: int, half1: int, kind: Kind) -> Float64:
    """[half1 + 1]: the highest rate before at which so many passes after choose a prompt; below 0 where none does.

    The least rise that an unchanged prompt, whatever its pass rate, shows with probability `LUCK` at most: in rate, or
    from no pass at all.
    """
    x0, x1 = np.arange(half0 + 1) / half0, np.arange(half1 + 1) / half1
    both = _binomial(half0)[:, :, None] * _binomial(half1)[:, None, :]
    rise = x1[None, :] - x0[:, None] if kind == "rate" else np.where(x0[:, None] == 0, x1[None, :], -1.0)
    steps = np.unique(np.round(rise[rise > 0], 9))
    few = [step for step in steps if (both * (rise >= step - TINY)).sum((1, 2)).max() <= LUCK + TINY]
    if not few:
        return np.full(half1 + 1, -1.0)
    allowed = rise >= few[0] - TINY
    return np.where(allowed.any(0), np.where(allowed, x0[:, None], -1.0).max(0), -1.0)


def _binomial(n: int) -> Float64:
    """[rates, n + 1]: how likely each number of passes is."""
    passes = np.arange(n + 1)
    likely = np.exp(_log_binomial(n, passes)) * RATES[:, None] ** passes * (1 - RATES[:, None]) ** (n - passes)
    return np.asarray(likely)


# ---------------------------------------------------------------- intervals over prompts


def mean(value_P: Float64, confidence: float) -> Interval:
    """Mean of values within [-1, 1] with a t interval over prompts, clipped to that.

    `SLACK` keeps a set on which nothing moved from being called certain: of 256 such prompts the interval reaches 0.008
    to each side, of 4 nearly 1.
    """
    value_P = value_P[~np.isnan(value_P)]
    if not len(value_P):
        return UNKNOWN
    value, half = float(value_P.mean()), _reach(len(value_P), confidence) * math.sqrt(_spread(value_P))
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def contrast(first_P: Float64, second_P: Float64, confidence: float) -> Interval:
    """Mean of the second less mean of the first, of different prompts (Welch)."""
    first_P, second_P = first_P[~np.isnan(first_P)], second_P[~np.isnan(second_P)]
    if not len(first_P) or not len(second_P):
        return UNKNOWN
    value = float(second_P.mean() - first_P.mean())
    half = _welch(first_P, second_P, confidence) * math.sqrt(_spread(first_P) + _spread(second_P))
    return Interval(value, max(-2.0, value - half), min(2.0, value + half))


def quotient(top_P: Float64, bottom_P: Float64, confidence: float, *, paired: bool, slack: float = SLACK) -> Interval:
    """Ratio of two means with Fieller's interval (1954): all ratios r for which mean(top - r bottom) may be 0.

    UNKNOWN where the bottom is not shown to be above 0: nothing can be said of a share of it. Without `paired` the two
    are of different prompts.
    """
    top_P, bottom_P = top_P[~np.isnan(top_P)], bottom_P[~np.isnan(bottom_P)]
    if not len(top_P) or not len(bottom_P) or not mean(bottom_P, confidence).low > 0:
        return UNKNOWN
    top, bottom = float(top_P.mean()), float(bottom_P.mean())
    t = _reach(len(top_P), confidence) if paired else _welch(top_P, bottom_P, confidence)
    spreads = _spread(top_P, slack), _spread(bottom_P, slack)
    both = float(np.sum((top_P - top) * (bottom_P - bottom))) / _pairs(len(top_P)) if paired else 0.0
    a = bottom**2 - t**2 * spreads[1]
    b = top * bottom - t**2 * both
    c = top**2 - t**2 * spreads[0]
    inside = max(b * b - a * c, 0.0)
    return Interval(top / bottom, (b - math.sqrt(inside)) / a, (b + math.sqrt(inside)) / a) if a > 0 else UNKNOWN


def share(found: Stood, confidence: float) -> Interval:
    """What stands of the gain, as a share. Never narrower than so many prompts, kept or lost whole, would allow."""
    told = quotient(found.stands_P, found.gain_P, confidence, paired=True, slack=0.0)
    if not told.known:
        return UNKNOWN
    prompts = max(1.0, float(found.chosen_P.sum()))
    low, high = proportion(min(max(told.value, 0.0), 1.0) * prompts, prompts, confidence)
    return Interval(told.value, min(told.low, low), max(told.high, high))


def forgotten(then: Counts, now: Counts, confidence: float) -> Interval:
    """Of the pass@k that the prompts had which passed then, the share that is gone now."""
    kept = share(stood(None, then, now, "solved"), confidence)
    return Interval(1 - kept.value, 1 - kept.high, 1 - kept.low) if kept.known else UNKNOWN


def together(found: Sequence[Stood]) -> Stood:
    """Several stages' gains and what stands of them, prompt by prompt."""
    sums = [np.sum([getattr(one, name) for one in found], axis=0) for name in ("gain_P", "stands_P", "chosen_P")]
    return Stood(*sums)


def _pairs(count: int) -> float:
    return float(count * max(count - 1, 1))


def _spread(value_P: Float64, slack: float = SLACK) -> float:
    """Variance of the mean."""
    return (float(np.sum((value_P - value_P.mean()) ** 2)) + slack) / _pairs(len(value_P))


def _reach(count: int, confidence: float) -> float:
    return float(stdtrit(max(count - 1, 1), (1 + confidence) / 2))


def _welch(first_P: Float64, second_P: Float64, confidence: float) -> float:
    """Student's quantile at Welch's and Satterthwaite's degrees of freedom."""
    one, two = _spread(first_P), _spread(second_P)
    parts = one**2 / max(len(first_P) - 1, 1) + two**2 / max(len(second_P) - 1, 1)
    return float(stdtrit((one + two) ** 2 / parts, (1 + confidence) / 2))
