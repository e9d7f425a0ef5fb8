"""Where a gain comes from: expansion, reshaping and attrition, with what is uncertain of each prompt in the intervals.

With p0 and p1 a prompt's pass rates before and after, and epsilon the threshold of effective support:

expansion  E[(p1 - p0) 1{p0 < epsilon <= p1}]     what was outside effective support and is inside
reshaping  E[(p1 - p0) 1{p0, p1 >= epsilon}]      probability moved on what was inside both times
attrition  E[(p1 - p0) 1{p1 < epsilon <= p0}]     what was inside and is no longer; 0 or less
outside    E[(p1 - p0) 1{p0, p1 < epsilon}]       below epsilon both times; at most epsilon in size

The four sum to the total. Sorting prompts by their observed rates would be biased: of 16 draws that all fail one in
twelve could pass, and the next draws' regression to the mean would read as expansion. So a prompt is in each class
with its posterior probability: the joint spread of (p0, p1) over the prompts is fitted without a form, and an interval
is the range of a part over every spread that the counts do not rule out (`probes.profile`). The target is the
distribution that the prompts are a sample of.

P = prompts, R = distinct rows of counts, G = cells of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, xlog1py, xlogy

from orchestrator.probes import curves, mixture, profile
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.sequential import Counts
from orchestrator.probes.snapshot import Float64

CLASSES = ("expansion", "reshaping", "attrition", "outside")
COARSE, MOST_SEEN, SEEN_PRIOR = 0.5, 400, 0.1
"""Log-likelihood that the grid may lack at a prompt's counts; cells added at most; prior of all these together."""

DOMINANT = 1.5
"""A part is dominant where it is more than this many times as large as the other."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A change in pass rate (or pass@k), and its parts; UNKNOWN throughout where no prompt was drawn both times."""

    k: int
    prompts: int
    """Measured both times, with at least k draws each unless rates are given."""
    total: Interval
    expansion: Interval
    reshaping: Interval
    attrition: Interval
    outside: Interval
    expansion_share: Interval
    """expansion / total; UNKNOWN unless the total is above 0 with confidence."""
    reshaping_share: Interval
    expansion_lead: Interval
    """expansion - DOMINANT x reshaping. A lead is one-sided: at the confidence, it is above its low end."""
    reshaping_lead: Interval
    """reshaping - DOMINANT x expansion."""


def decompose(
    before: Counts,
    after: Counts,
    least: tuple[Float64, Float64] | None = None,
    *,
    epsilon: float,
    confidence: float,
    k: int = 1,
) -> Gain:
    """The change of mean pass@k over the prompts that both can tell it of, in its four parts.

    Rows of `before` and `after` are the same prompts; what ended their draws is in their plans. least: known lower
    bounds of each prompt's pass rate before and after, such as the probability of a good trajectory of the bank (0
    where none is known): evidence of reach where no sample passed. The parts are of the fitted spread; what it leaves
    of the observed change is dealt out by the classes' shares, so that they sum to the observed total.
    """
    keep = ~np.isnan(curves.estimates(before, k) + curves.estimates(after, k))
    keep &= (before.n_P > 0) & (after.n_P > 0)
    if not keep.any():
        return Gain(k, 0, *[UNKNOWN] * 9)
    rows = np.flatnonzero(keep)
    bounds = [np.nan_to_num(one[rows], nan=0.0) for one in least or (np.zeros(len(keep)),) * 2]
    before, after = before.rows(rows), after.rows(rows)
    total = curves.change(before, after, [k], confidence=confidence)[0]
    grid = _with_seen(cells(epsilon), before, after, epsilon)
    data = _data(grid, (before, after), bounds)
    spread = profile.best(data)
    classes, moved = _classes(grid, epsilon), (1 - grid.earlier_G) ** k - (1 - grid.now_G) ** k
    four = classes * moved
    figures = [*four]
    if grew := total.low > 0:  # a share is s where (part - s total) is 0: linear, as the search wants it
        figures += [part - float(part @ spread) / total.value * moved for part in four[:2]]
    found = profile.intervals(data, spread, np.stack(figures), confidence)
    left = (total.value - float(moved @ spread)) * (classes @ spread)
    parts = [_interval(found, at, shift) for at, shift in enumerate(left)]
    ahead = np.stack([four[0] - DOMINANT * four[1], four[1] - DOMINANT * four[0]])
    leading = profile.intervals(data, spread, ahead, 2 * confidence - 1)
    leads = [_interval(leading, at, 0.0) for at in range(2)]
    shares = [_share(found, at, parts[at].value / total.value, total.value) if grew else UNKNOWN for at in range(2)]
    return Gain(k, len(rows), total, *parts, *shares, *leads)


def cells(epsilon: float) -> mixture.Cells:
    """Pairs of rates, none on epsilon. Prior: half that nothing changed, half that both are Jeffreys' and apart."""
    below = epsilon * np.array([0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
    angle = np.arcsin(np.sqrt(epsilon))
    above = np.sin(angle + (np.pi / 2 - angle) * np.array([0.02, 0.07, 0.14, 0.22, *np.linspace(0.3, 1, 9)])) ** 2
    one_K = np.concatenate([below, above])
    mass_K = np.diff(betainc(0.5, 0.5, np.concatenate([[0.0], (one_K[1:] + one_K[:-1]) / 2, [1.0]])))
    earlier, now = np.meshgrid(one_K, one_K, indexing="ij")
    prior = 0.5 * np.outer(mass_K, mass_K) + 0.5 * np.diag(mass_K)
    return mixture.Cells(earlier.ravel(), now.ravel(), prior.ravel())


def _with_seen(grid: mixture.Cells, before: Counts, after: Counts, epsilon: float) -> mixture.Cells:
    """The grid and, where so many draws were taken that it is too coarse for some counts, cells at what was seen."""
    told = mixture.log_likelihood(before.n_P, before.c_P, grid.earlier_G)
    told = (told + mixture.log_likelihood(after.n_P, after.c_P, grid.now_G)).max(1)
    rates = [side.c_P / side.n_P for side in (before, after)]
    best = [
        xlogy(side.c_P, rate) + xlog1py(side.n_P - side.c_P, -rate)
        for side, rate in zip((before, after), rates, strict=True)
    ]
    coarse = best[0] + best[1] - told > COARSE
    if not coarse.any():
        return grid
    for spacing in 0.01 * 2.0 ** np.arange(7):
        seen = np.unique(np.stack([_rounded(rate[coarse], spacing, epsilon) for rate in rates]), axis=1)
        if seen.shape[1] <= MOST_SEEN:
            break
    prior = np.full(seen.shape[1], SEEN_PRIOR / seen.shape[1])
    return mixture.Cells(
        *(
            np.concatenate(one)
            for one in zip((grid.earlier_G, grid.now_G, grid.prior_G), (seen[0], seen[1], prior), strict=True)
        )
    )


def _rounded(rate: Float64, spacing: float, epsilon: float) -> Float64:
    """Rates on a lattice of equal standard errors, each on its own side of epsilon."""
    near = np.sin(np.clip(np.round(np.arcsin(np.sqrt(rate)) / spacing) * spacing, 0, np.pi / 2)) ** 2
    return np.asarray(np.where(rate >= epsilon, np.maximum(near, epsilon), np.minimum(near, 0.99 * epsilon)))


def _classes(grid: mixture.Cells, epsilon: float) -> Float64:
    """[4, G] 1 in the cells of each class, in the order of CLASSES."""
    inside0, inside1 = grid.earlier_G >= epsilon, grid.now_G >= epsilon
    return np.stack([~inside0 & inside1, inside0 & inside1, inside0 & ~inside1, ~inside0 & ~inside1]).astype(float)


def _data(grid: mixture.Cells, sides: tuple[Counts, Counts], bounds: Sequence[Float64]) -> profile.Data:
    """Distinct rows of counts and their likelihoods, each row's largest 1. Cells below a known bound are ruled out.

    A likelihood is the same whatever ended the draws.
    """
    columns = [one for side, least in zip(sides, bounds, strict=True) for one in (side.n_P, side.c_P, least)]
    rows, count = np.unique(np.stack(columns, axis=1).astype(float), axis=0, return_counts=True)
    n0, c0, least0, n1, c1, least1 = rows.T
    told = mixture.log_likelihood(n0, c0, grid.earlier_G) + mixture.log_likelihood(n1, c1, grid.now_G)
    for least, rate_G in ((least0, grid.earlier_G), (least1, grid.now_G)):
        told[rate_G < np.minimum(least, np.max(rate_G[rate_G < 1]))[:, None]] = -np.inf
    return profile.Data(np.exp(told - told.max(1, keepdims=True)), count.astype(float), grid.prior_G)


def _interval(found: profile.Profile, at: int, shift: float) -> Interval:
    """A part, with what is dealt out to it; that is no evidence, so an end stays where it is or makes room."""
    value = float(found.value_M[at]) + shift
    return Interval(value, min(float(found.low_M[at]), value), max(float(found.high_M[at]), value))


def _share(found: profile.Profile, part: int, value: float, total: float) -> Interval:
    """That of expansion is never below 0; that of reshaping is where it lost, and above 1 where attrition took some."""
    at, least = len(CLASSES) + part, 0.0 if part == 0 else -np.inf
    low, middle, high = (float(one[at]) for one in (found.low_M, found.value_M, found.high_M))
    return Interval(value, max(value + (low - middle) / total, least), value + (high - middle) / total)
