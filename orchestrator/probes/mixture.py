"""How solve rates are spread over the prompts, from counts alone, and what that says of each single prompt.

The spread is a mixture over a grid of rates, fitted by expectation-maximisation (empirical Bayes; Kiefer and Wolfowitz
1956 for the likelihood without a form). The same fit answers two questions: the share of prompts in a range of rates,
which counting the prompts that look so would bias, and the probability that one prompt lies there, which is the more
careful the less the other prompts support it: that is what corrects for asking many prompts at once.

P = prompts, G = cells of the grid, B = resamples. A cell is a pair of rates (earlier, now); their joint spread is
fitted, for a prompt's two rates are anything but independent.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import betainc, xlog1py, xlogy

from orchestrator.probes.snapshot import Float64, Int64

PRIOR_PROMPTS = 4.0
"""Prompts that the spread before any evidence weighs as much as."""

ITERATIONS = 60
"""Of the fit; further ones sharpen the spread beyond what the counts say."""
REFITS = 30
"""Iterations for each resample, from the fit of all prompts on."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The grid: pairs of rates, and how probable each is before anything was seen."""

    earlier_G: Float64
    now_G: Float64
    prior_G: Float64


def rates(marks: tuple[float, ...]) -> Float64:
    """Rates from 0 to 1 that stand on either side of each mark, none on one; rising."""
    edges = np.unique(np.array([0.0, *marks, 1.0]))
    first, last = edges[1], 1.0 - edges[-2]
    low = first * np.array([0.0, 0.01, 0.05, 0.15, 0.35, 0.65, 0.9])
    high = 1.0 - last * np.array([0.0, 0.02, 0.1, 0.3, 0.6, 0.9])
    between = [_between(a, b) for a, b in pairwise(edges[1:-1])]
    return np.unique(np.concatenate([low, *between, high]))


def _between(low: float, high: float) -> Float64:
    """Rates inside (low, high), closer to each other at both ends, as evidence of few draws tells them apart."""
    shares = np.array([0.04, 0.2, 0.4, 0.6, 0.8, 0.96])
    angle_low, angle_high = (np.arcsin(np.sqrt(one)) for one in (low, high))
    found: Float64 = np.sin(angle_low + shares * (angle_high - angle_low)) ** 2
    return found


def cells(marks: tuple[float, ...], *, pairs: bool) -> Cells:
    """The grid; without `pairs` the earlier rate is unknown (NaN) in every cell.

    Before evidence: Jeffreys' Beta(1/2, 1/2) for a rate; of pairs, half that nothing changed and half that the two have
    nothing to do with each other.
    """
    one_K = rates(marks)
    cut = np.concatenate([[0.0], (one_K[1:] + one_K[:-1]) / 2, [1.0]])
    mass_K = np.diff(betainc(0.5, 0.5, cut))
    if not pairs:
        return Cells(np.full(one_K.size, np.nan), one_K, mass_K)
    joint = 0.5 * np.outer(mass_K, mass_K) + 0.5 * np.diag(mass_K)
    earlier, now = np.meshgrid(one_K, one_K, indexing="ij")
    return Cells(earlier.ravel(), now.ravel(), joint.ravel())


def log_likelihood(n_P: Int64, c_P: Int64, rate_G: Float64) -> Float64:
    """[P, G] of c passed among n, without the factor that depends on the counts alone."""
    n, c = n_P[:, None].astype(float), c_P[:, None].astype(float)
    told: Float64 = xlogy(c, rate_G) + xlog1py(n - c, -rate_G)
    return told


def likelihood(grid: Cells, now: tuple[Int64, Int64], earlier: tuple[Int64, Int64] | None, least_P: Float64) -> Float64:
    """[P, G], each row's largest 1. `now` and `earlier` are (n, c).

    `least_P`: a rate that is known to be reached, such as the exact probability of a good response; cells below it are
    ruled out, all but the two highest (the grid is coarse, and its last rate, 1, allows no failure).
    """
    told = log_likelihood(*now, grid.now_G)
    if earlier is not None:
        told = told + log_likelihood(*earlier, grid.earlier_G)
    bound_P = np.minimum(least_P, np.unique(grid.now_G)[-2:].min())
    told[grid.now_G[None] < bound_P[:, None]] = -np.inf
    found: Float64 = np.exp(told - told.max(axis=1, keepdims=True))
    return found


def fit(like_PG: Float64, prior_G: Float64, weight_P: Float64 | None = None) -> Float64:
    """[G] the spread over the cells; `weight_P`: how many prompts each row stands for, 1 by default."""
    weights = np.ones((1, len(like_PG))) if weight_P is None else weight_P[None]
    (found,) = _climb(like_PG, prior_G, weights, prior_G[None].copy(), ITERATIONS)
    return np.asarray(found)


def refit(
    like_PG: Float64, prior_G: Float64, weights_BP: Float64, start_G: Float64, draws: np.random.Generator | None = None
) -> Float64:
    """[B, G] the spread as it is fitted to each resample of the prompts, a weight for each prompt.

    With `draws` each has a prior of its own, drawn around the one given, and begins there: where the counts do not tell
    one spread from another, resamples differ as far as that leaves them free, and are not all what `start_G` is.
    """
    if draws is None:
        return _climb(like_PG, prior_G, weights_BP, np.repeat(start_G[None], len(weights_BP), 0), REFITS)
    prior = draws.dirichlet(PRIOR_PROMPTS * prior_G, len(weights_BP))
    return _climb(like_PG, prior, weights_BP, prior, REFITS)


def posterior(like_PG: Float64, spread_G: Float64) -> Float64:
    """[P, G] where each prompt lies."""
    joint = like_PG * spread_G
    found: Float64 = joint / joint.sum(axis=1, keepdims=True)
    return found


def _climb(like_PG: Float64, prior_G: Float64, weights_BP: Float64, spread_BG: Float64, times: int) -> Float64:
    total = weights_BP.sum(axis=1, keepdims=True) + PRIOR_PROMPTS
    for _ in range(times):
        told_BP = spread_BG @ like_PG.T
        share_BP = np.divide(weights_BP, told_BP, out=np.zeros_like(told_BP), where=told_BP > 0)
        spread_BG = (spread_BG * (share_BP @ like_PG) + PRIOR_PROMPTS * prior_G) / total
    return spread_BG
