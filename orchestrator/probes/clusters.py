"""Intervals of ratios whose terms come in groups: the tokens and responses of a prompt stand or fall together.

R = responses, in any order; `prompts` names the prompt of each.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from orchestrator.probes.intervals import UNKNOWN, Interval

Floats = npt.NDArray[np.float64]
Terms = tuple[npt.ArrayLike, npt.ArrayLike, Sequence[str]]
"""[R] numerators, [R] denominators, [R] prompts: a mean over tokens is (sums over a response, its tokens, prompts)."""


def ratio(terms: Terms, *, confidence: float) -> Interval:
    """sum of numerators / sum of denominators, with a t interval over prompts (linearised ratio estimator).

    UNKNOWN where there is nothing to divide by. Of one prompt there is a value, and bounds that are NaN: a single
    prompt says nothing of the spread between prompts.
    """
    value, scores = _linearised(terms)
    return _around(value, np.array([*scores.values()]), confidence)


def difference(first: Terms, second: Terms, *, confidence: float) -> Interval:
    """The second ratio less the first one, paired by prompt: what a prompt does to both does not widen the interval."""
    value0, scores0 = _linearised(first)
    value1, scores1 = _linearised(second)
    names = dict.fromkeys([*scores0, *scores1])
    return _around(
        value1 - value0, np.array([scores1.get(one, 0.0) - scores0.get(one, 0.0) for one in names]), confidence
    )


def share(terms: Terms, *, confidence: float) -> Interval:
    """A ratio within [0, 1]: Clopper and Pearson's interval at the effective sample size that the clustering leaves.

    (Korn and Graubard, Survey Methodology 24, 1998; never more than the number of trials.) Where all or none of the
    trials hit, spread cannot be seen, and the effective size is the number of prompts. Never collapses to a point.
    """
    value, scores = _linearised(terms)
    if not scores or math.isnan(value):
        return UNKNOWN
    trials = float(np.sum(np.asarray(terms[1], np.float64)))
    variance = _variance(np.array([*scores.values()]))
    spread = value * (1 - value)
    size = float(len(scores)) if not variance > 0 or spread <= 0 else min(trials, spread / variance)
    low, high = proportion(value * size, size, confidence)
    return Interval(value, low, high)


def proportion(hits: float, trials: float, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a probability; hits and trials need not be whole."""
    tail = (1 - confidence) / 2
    if trials <= 0:
        return 0.0, 1.0
    hits = min(max(hits, 0.0), trials)
    low = 0.0 if hits == 0 else float(special.betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits >= trials else float(special.betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high


def resampled(prompts: Sequence[str], replicates: int, seed: int) -> Floats:
    """[replicates, R]: how often each response stands in a bootstrap sample of whole prompts."""
    names, group = np.unique(np.asarray(prompts, dtype=object).astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    return drawn.astype(np.float64)[:, group]


def _linearised(terms: Terms) -> tuple[float, dict[str, float]]:
    """The ratio, and each prompt's part of its error."""
    up, down, prompts = np.asarray(terms[0], np.float64), np.asarray(terms[1], np.float64), terms[2]
    whole = float(down.sum())
    if not len(prompts) or whole <= 0:
        return math.nan, {}
    value = float(up.sum()) / whole
    scores: dict[str, float] = {}
    for name, one in zip(prompts, (up - value * down) / whole, strict=True):
        scores[name] = scores.get(name, 0.0) + float(one)
    return value, scores


def _variance(scores: Floats) -> float:
    """Of the sum of the prompts' parts; NaN of one prompt."""
    count = len(scores)
    return math.nan if count < 2 else float(count / (count - 1) * np.sum((scores - scores.mean()) ** 2))


def _around(value: float, scores: Floats, confidence: float) -> Interval:
    if math.isnan(value):
        return UNKNOWN
    deviation = math.sqrt(_variance(scores)) if len(scores) > 1 else math.nan
    half = deviation * float(special.stdtrit(max(len(scores) - 1, 1), (1 + confidence) / 2))
    return Interval(value, value - half, value + half)
