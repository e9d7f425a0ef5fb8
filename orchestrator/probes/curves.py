"""pass@k over k, of one checkpoint and between two, with intervals.

Estimates of each prompt are unbiased whatever plan ended its draws (`Plan.pass_at_k`; for a fixed n they are Chen et
al.'s, arXiv 2107.03374). A prompt with fewer verdicts than k says nothing of k and is left out, by its NaN; one that
stopped high before k has a pass among its first k draws whatever would have followed, and counts.

Intervals have two senses. `prompts`: of the distribution that the prompts come from. `samples`: of exactly these
prompts, over what might have been drawn for them. Both are Wilson's at the effective sample size, that of the binomial
whose variance is the estimate's (Korn and Graubard, Survey Methodology 24, 1998): over prompts the variance seen
between prompts, with Student's quantile; over samples the exact variance of each prompt's design at the pass
probabilities that its counts and the other prompts allow (empirical Bayes). A percentile bootstrap over prompts has the
same variance and falls short where it matters: of 20 prompts of which a tenth is ever passed its 95 % interval holds
the truth in 80 % of draws, this in 96 %. A change is a rise less a fall, each such a mean within [0, 1], put together
as Zou and Donner do (Statistics in Medicine 27, 2008), and at no end narrower than Student's.

Over samples the guarantee is for the prompts on average: of a dozen prompts of which one passes about once in k draws,
with k near n, nothing can see that one prompt's spread.
"""

import functools
from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
from scipy import special

from orchestrator.probes import mixture
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.sequential import Counts, Plan
from orchestrator.probes.snapshot import Float64

Over = Literal["prompts", "samples"]
RATES: Float64 = np.sin(np.linspace(0.0, np.pi / 2, 41)) ** 2
"""Pass probabilities that the spread over prompts is fitted on."""
MOST_UNKNOWN = 0.1
"""Share of the prompts that may be unknown at the largest k that is shown."""


def estimates(of: Counts, k: int) -> Float64:
    """[P]: the unbiased estimate of each prompt's pass@k; NaN where its verdicts are fewer than k."""
    out = np.full(len(of.n_P), np.nan)
    for design, rows in of.designs():
        out[rows] = design.pass_at_k(k)[design.outcomes().place(of.n_P[rows], of.c_P[rows])]
    return out


def steps(*sides: Counts) -> tuple[int, ...]:
    """The ks to show: powers of two, and the largest k that at least nine in ten of the prompts with verdicts allow, on
    every side."""
    tops = [_allows(side) for side in sides]
    top = min((int(np.quantile(one, MOST_UNKNOWN, method="lower")) for one in tops if len(one)), default=0)
    return tuple(sorted({1 << at for at in range(top.bit_length())} | {top} - {0})) if top else ()


def curve(of: Counts, ks: Sequence[int], *, confidence: float, over: Over = "prompts") -> list[Interval]:
    """Mean pass@k over the prompts that allow k, for each k; UNKNOWN where none does."""
    return [_mean(of, k, confidence, over) for k in ks]


def change(
    before: Counts, after: Counts, ks: Sequence[int], *, confidence: float, over: Over = "prompts"
) -> list[Interval]:
    """Mean of pass@k after less pass@k before, over the prompts that allow k at both; rows are the same prompts."""
    return [_difference(before, after, k, confidence, over) for k in ks]


def mean(x_P: Float64, trials: float, confidence: float) -> Interval:
    """The mean of values within [0, 1] over the distribution that they come from; NaN are left out. `trials` is the
    number of independent draws behind them, which the effective sample size never exceeds."""
    known = x_P[~np.isnan(x_P)]
    if len(known) == 0:
        return UNKNOWN
    low, high = _wilson(float(known.mean()), _spread(known), len(known), trials, _student(len(known), confidence))
    return Interval(float(known.mean()), low, high)


def mean_change(d_P: Float64, trials: float, confidence: float) -> Interval:
    """The mean of values within [-1, 1], as `mean`."""
    known = d_P[~np.isnan(d_P)]
    if len(known) == 0:
        return UNKNOWN
    count, quantile = len(known), _student(len(known), confidence)
    rise, fall = np.maximum(known, 0.0), np.maximum(-known, 0.0)
    up, down = float(rise.mean()), float(fall.mean())
    ups = _wilson(up, _spread(rise), count, trials, quantile)
    downs = _wilson(down, _spread(fall), count, trials, quantile)
    found = _less((up, *ups), (down, *downs))
    if count == 1:
        return found
    half = quantile * float(np.sqrt(_spread(known)))
    low, high = min(found.low, found.value - half), max(found.high, found.value + half)
    return Interval(found.value, max(low, -1.0), min(high, 1.0))


def proportion(hits: float, of: float, confidence: float) -> tuple[float, float]:
    """Wilson's bounds of a share."""
    value = hits / of
    return _wilson(value, value * (1 - value) / of, of, of, float(special.ndtri((1 + confidence) / 2)))


def ratio(value: float, error_P: Float64, size: float, confidence: float) -> Interval:
    """A ratio within [0, 1] of two sums over prompts, with each prompt's part of its error; `size` is the sum that
    divides."""
    count = len(error_P)
    variance = float(error_P.var(ddof=1) * count) if count > 1 else np.nan
    low, high = _wilson(value, variance, size, np.inf, _student(count, confidence))
    return Interval(value, low, high)


def _allows(of: Counts) -> Float64:
    """The largest k of each prompt that has verdicts."""
    out = np.zeros(len(of.n_P))
    for design, rows in of.designs():
        outcomes = design.outcomes()
        out[rows] = outcomes.n_O[outcomes.c_O == 0].min()
    return out[of.n_P > 0]


def _trials(of: Counts, k: int) -> float:
    """Independent draws of k that the verdicts hold."""
    return float(np.sum(np.maximum(of.n_P // k, of.n_P > 0)))


def _mean(of: Counts, k: int, confidence: float, over: Over) -> Interval:
    x_P = estimates(of, k)
    match over:
        case "prompts":
            return mean(x_P, _trials(of, k), confidence)
        case "samples":
            known = ~np.isnan(x_P)
            if not known.any():
                return UNKNOWN
            value = float(x_P[known].mean())
            return Interval(value, *_of_these(value, of.rows(np.flatnonzero(known)), k, confidence))
        case _:
            assert_never(over)


def _difference(before: Counts, after: Counts, k: int, confidence: float, over: Over) -> Interval:
    x0, x1 = estimates(before, k), estimates(after, k)
    match over:
        case "prompts":
            return mean_change(x1 - x0, min(_trials(before, k), _trials(after, k)), confidence)
        case "samples":
            both = np.flatnonzero(~np.isnan(x0 + x1))
            if len(both) == 0:
                return UNKNOWN
            first, last = float(x0[both].mean()), float(x1[both].mean())
            firsts = _of_these(first, before.rows(both), k, confidence)
            return _less((last, *_of_these(last, after.rows(both), k, confidence)), (first, *firsts))
        case _:
            assert_never(over)


def _of_these(value: float, of: Counts, k: int, confidence: float) -> tuple[float, float]:
    variance = _sampling_variance(of, k) / len(of.n_P) ** 2
    quantile = float(special.ndtri((1 + confidence) / 2))
    return _wilson(value, variance, _trials(of, k), np.inf, quantile)


def _sampling_variance(of: Counts, k: int) -> float:
    """Sum over prompts of the variance of their estimates, at the pass probabilities that the counts allow."""
    width = int(of.n_P.max()) + 1
    keys, back, times = np.unique(of.n_P * width + of.c_P, return_inverse=True, return_counts=True)
    told = mixture.log_likelihood(keys // width, keys % width, RATES)
    like = np.exp(told - told.max(1, keepdims=True))
    spread = mixture.refit(like, _jeffreys(), times[None].astype(float), _jeffreys())[0]
    posterior = like * spread
    posterior /= posterior.sum(1, keepdims=True)
    return sum(float((posterior[back[rows]] @ _variances(design, k)).sum()) for design, rows in of.designs())


@functools.lru_cache(maxsize=256)
def _variances(design: Plan, k: int) -> Float64:
    """[RATES]: variance of the design's estimate of pass@k at each pass probability."""
    chances, x_O = design.outcomes().chances(RATES), design.pass_at_k(k)[:, None]
    variances: Float64 = (chances * x_O**2).sum(0) - (chances * x_O).sum(0) ** 2
    return np.maximum(variances, 0.0)


@functools.lru_cache(maxsize=1)
def _jeffreys() -> Float64:
    cut = np.concatenate([[0.0], (RATES[1:] + RATES[:-1]) / 2, [1.0]])
    mass: Float64 = np.diff(special.betainc(0.5, 0.5, cut))
    return mass


def _spread(x_P: Float64) -> float:
    """Variance of the mean; NaN of one value."""
    return float(x_P.var(ddof=1) / len(x_P)) if len(x_P) > 1 else np.nan


def _student(count: int, confidence: float) -> float:
    """Of a single value nothing is known but its range: infinite."""
    return float(special.stdtrit(count - 1, (1 + confidence) / 2)) if count > 1 else np.inf


def _wilson(value: float, variance: float, at_least: float, at_most: float, quantile: float) -> tuple[float, float]:
    """Wilson's bounds at the effective size; where no variance was seen, that of `at_least` draws."""
    if np.isinf(quantile):
        return 0.0, 1.0
    seen = value * (1 - value) / variance if variance > 0 and 0 < value < 1 else at_least
    size = float(np.clip(seen, 1.0, max(at_most, 1.0)))
    square = quantile**2 / size
    middle = (value + square / 2) / (1 + square)
    half = np.sqrt(square * (value * (1 - value) + square / 4)) / (1 + square)
    return float(max(min(middle - half, value), 0.0)), float(min(max(middle + half, value), 1.0))


def _less(first: tuple[float, float, float], second: tuple[float, float, float]) -> Interval:
    """First less second, of (value, low, high) each."""
    value = first[0] - second[0]
    low = value - np.hypot(first[0] - first[1], second[2] - second[0])
    high = value + np.hypot(first[2] - first[0], second[0] - second[1])
    return Interval(value, float(max(low, -1.0)), float(min(high, 1.0)))
