"""Confidence intervals of linear figures of a mixture by profile likelihood.

Counts of few draws do not tell every spread of rates from every other: a prompt that failed 16 times may never pass,
or pass once in twenty. The interval of a figure c . g of the spread g is the range it has over all spreads whose
likelihood is within the chi-squared bound of the best one's (profile, or empirical, likelihood: Owen 2001; mixtures:
Lindsay 1995). It is wide where the data leave the figure open, and errs on the wide side there; where they settle it,
it is the usual one.

R = distinct rows of data, G = cells, M = figures, S = 2M searches, one for each end.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv

from orchestrator.probes.snapshot import Float64

FITS, SEARCHES, NEWTONS = 3000, 150, 8
PRIOR_PROMPTS = 0.1
"""Prompts that the spread before evidence weighs as much as: it settles what the data leave open, and no more."""
TINY, STILL = 1e-300, 3e-3
NEAR = 1.02
"""The search closes in on the allowed deviance from either side; this close to it counts as there."""


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What a spread is judged by."""

    like_RG: Float64
    """Likelihood of each distinct row of data in each cell."""
    count_R: Float64
    """How many prompts have that row."""
    prior_G: Float64
    """Before evidence; weighs as much as `PRIOR_PROMPTS` prompts."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Each figure in the best spread, and its range."""

    value_M: Float64
    low_M: Float64
    high_M: Float64


def best(data: Data) -> Float64:
    """[G] the spread of the largest likelihood, the prior counted in."""
    return _climb(data, data.prior_G / data.prior_G.sum())


def intervals(data: Data, spread_G: Float64, figures_MG: Float64, confidence: float) -> Profile:
    """The range of each figure c . g over the spreads g that the data do not rule out, each figure by itself.

    `spread_G` is the best one.
    """
    most = float(_fit(data, spread_G[None])[0])
    allowed = 2 * float(gammaincinv(0.5, confidence))  # chi-squared with one degree of freedom
    signed = np.concatenate([figures_MG, -figures_MG])
    ends = _furthest(data, spread_G, signed, most, allowed)
    ends = np.maximum(ends, _without(data, figures_MG, _told(data, spread_G), allowed))
    count = len(figures_MG)
    return Profile(figures_MG @ spread_G, 0.0 - ends[count:], ends[:count] + 0.0)


def _climb(data: Data, start_G: Float64) -> Float64:
    """Expectation-maximisation within the cells where `start` has mass, until the likelihood stands still."""
    prior = np.where(start_G > 0, PRIOR_PROMPTS * data.prior_G, 0.0)
    total, spread, last = data.count_R.sum() + prior.sum(), start_G, -np.inf
    for turn in range(FITS):
        told_R = data.like_RG @ spread
        spread = (spread * ((data.count_R / np.maximum(told_R, TINY)) @ data.like_RG) + prior) / total
        if turn % 100 == 99:
            now = _told(data, spread)
            if now - last < STILL:
                break
            last = now
    return spread


def _fit(data: Data, spread_SG: Float64) -> Float64:
    """[S] penalised log-likelihood."""
    told = np.log(np.maximum(spread_SG @ data.like_RG.T, TINY)) @ data.count_R
    return np.asarray(told + np.log(np.maximum(spread_SG, TINY)) @ (PRIOR_PROMPTS * data.prior_G))


def _furthest(data: Data, spread_G: Float64, figures_SG: Float64, most: float, allowed: float) -> Float64:
    """[S] the largest value of each figure among spreads that are within `allowed` (deviance) of the best.

    Expectation-maximisation of likelihood + pull x figure, while the pull is led to where the deviance is the allowed
    one. Every spread on the way that is within it counts, so that stopping early can only narrow.
    """
    prior = PRIOR_PROMPTS * data.prior_G
    spread = np.repeat(spread_G[None], len(figures_SG), 0)
    furthest = figures_SG @ spread_G
    variance = np.maximum((figures_SG - furthest[:, None]) ** 2 @ spread_G / data.count_R.sum(), 1e-12)
    pull = np.sqrt(allowed / variance)[:, None]
    for _ in range(SEARCHES):
        weight = spread * ((data.count_R / np.maximum(spread @ data.like_RG.T, TINY)) @ data.like_RG) + prior
        spread = _pulled(weight, pull * figures_SG)
        deviance = 2 * (most - _fit(data, spread))
        furthest = np.where(deviance <= NEAR * allowed, np.maximum(furthest, (figures_SG * spread).sum(1)), furthest)
        pull = pull * np.exp(np.clip(0.1 * (allowed - deviance) / allowed, -0.3, 0.1))[:, None]
    return furthest


def _pulled(weight_SG: Float64, pull_SG: Float64) -> Float64:
    """The spread g that maximises weight . log g + pull . g: g = weight / (m - pull), with m such that it sums to 1."""
    m = (pull_SG + weight_SG).max(1, keepdims=True)  # at or left of it: one term alone is 1 here
    for _ in range(NEWTONS):  # on 1 / sum - 1, which is concave and nearly straight: it cannot overshoot
        part = weight_SG / np.maximum(m - pull_SG, TINY)
        whole = part.sum(1, keepdims=True)
        m = m + (whole - 1) * whole / (part / np.maximum(m - pull_SG, TINY)).sum(1, keepdims=True)
    spread = weight_SG / np.maximum(m - pull_SG, TINY)
    return np.asarray(spread / spread.sum(1, keepdims=True))


def _told(data: Data, spread_G: Float64) -> float:
    """Log-likelihood."""
    return float(np.log(np.maximum(data.like_RG @ spread_G, TINY)) @ data.count_R)


def _without(data: Data, figures_MG: Float64, most: float, allowed: float) -> Float64:
    """[S] 0 for a figure that no cell takes below 0, or above it, and that the data allow to be 0; else -infinity.

    The prior gives each cell some mass, so the search above never gets to the edge.
    """
    ends = np.full(2 * len(figures_MG), -np.inf)
    for at, figure in enumerate(figures_MG):
        side = at + len(figures_MG) if (figure >= 0).all() else at if (figure <= 0).all() else None
        start = np.where(figure == 0, data.prior_G, 0.0)
        if side is None or not (data.like_RG @ start > 0).all():
            continue
        if 2 * (most - _told(data, _climb(data, start / start.sum()))) <= allowed:
            ends[side] = 0.0
    return ends
