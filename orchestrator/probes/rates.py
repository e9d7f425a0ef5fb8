"""Retention and discovery between two checkpoints: SRR, NDR, SDS and NSCR (Wu et al., arXiv 2507.14843).

With P prompts in support at both, E only after, S only before:

SRR  = P / (P + S)                  support retention rate
NDR  = E / (P + E)                  net discovery rate
SDS  = 2 SRR NDR / (SRR + NDR)      support dynamics score
NSCR = (E - S) / (P + E + S)        net support change rate

From samples they come in two kinds. `effective` are of effective support at epsilon, from verdicts. `solved` are the
paper's: of prompts of which any of k responses passed. The second have a catch: prompts that pass about once in k
responses go in and out by chance, so that with no change at all SRR is below 1 and NDR above 0, by as much as
`by_chance` says.
"""

import math
from dataclasses import dataclass

import numpy as np

from orchestrator.probes import curves
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.sequential import Counts
from orchestrator.probes.snapshot import Float64
from orchestrator.probes.support import SupportChange


@dataclass(frozen=True, slots=True)
class Rates:
    """NaN where a rate would divide by nothing."""

    srr: float
    ndr: float
    sds: float
    nscr: float


@dataclass(frozen=True, slots=True)
class Estimated:
    """The four with intervals."""

    srr: Interval
    ndr: Interval
    sds: Interval
    nscr: Interval


def rates(preserved: float, expanded: float, shrunk: float) -> Rates:
    """The four rates of counts of prompts. ValueError if one is negative."""
    if min(preserved, expanded, shrunk) < 0:
        raise ValueError(f"rates: counts of prompts are 0 or more (got {preserved}, {expanded}, {shrunk})")
    srr, ndr = _over(preserved, preserved + shrunk), _over(expanded, preserved + expanded)
    return Rates(srr, ndr, _harmonic(srr, ndr), _over(expanded - shrunk, preserved + expanded + shrunk))


def epsilon_of(k: int, zeta: float) -> float:
    """-ln(zeta) / k: a prompt of which none of k responses passed has a pass probability below this, but for a risk of
    at most zeta (arXiv 2507.14843, appendix). ValueError unless k >= 1 and 0 < zeta < 1."""
    if k < 1 or not 0.0 < zeta < 1.0:
        raise ValueError(f"epsilon_of: k={k}, zeta={zeta}; it needs k >= 1 and 0 < zeta < 1")
    return -math.log(zeta) / k


def effective(change: SupportChange, *, confidence: float) -> Estimated:
    """The rates of effective support. Values are of the decided prompts alone, and lean to "no change" where few
    samples leave changes undecided; the intervals hold the worst and the best that the undecided could be, and what
    other prompts of the kind could have given. SRR is among prompts shown to be in support before, NDR among those
    after, NSCR among those at either."""
    kept, gained, lost = (float(len(one)) for one in (change.retained, change.expanded, change.attrited))
    before, after = change.before_P == 1, change.after_P == 1
    sizes = float(before.sum()), float(after.sum()), float((before | after).sum())
    open_before, open_after = sizes[0] - kept - lost, sizes[1] - kept - gained
    value = rates(kept, gained, lost)
    outer = (1.0 + confidence) / 2  # SDS is a rising function of two rates, each surer for it

    def srr(sure: float) -> Interval:
        return _between(value.srr, kept, kept + open_before, sizes[0], sure)

    def ndr(sure: float) -> Interval:
        return _between(value.ndr, gained, gained + open_after, sizes[1], sure)

    halves = [size / 2 for size in (sizes[2] + gained - lost - open_before, sizes[2] + gained + open_after - lost)]
    share = _between((value.nscr + 1) / 2, halves[0], halves[1], sizes[2], confidence)
    return Estimated(srr(confidence), ndr(confidence), _score(value.sds, srr(outer), ndr(outer)), _twice(share))


def solved(before: Counts, after: Counts, k: int, *, confidence: float) -> Estimated:
    """The paper's rates: a prompt is solved where any of k responses passes. Numerators and denominators are sums of
    unbiased estimates, so that n may exceed k and may differ; what is estimated depends on k."""
    first, last = curves.estimates(before, k), curves.estimates(after, k)
    known = ~np.isnan(first + last)
    q0, q1 = first[known], last[known]
    both, only_after, only_before = q0 * q1, (1 - q0) * q1, q0 * (1 - q1)
    value = rates(float(both.sum()), float(only_after.sum()), float(only_before.sum()))
    outer = (1.0 + confidence) / 2
    srr, ndr = (_share(up, down, confidence) for up, down in ((both, q0), (only_after, q1)))
    wide = (_share(both, q0, outer), _share(only_after, q1, outer))
    union = both + only_after + only_before
    return Estimated(srr, ndr, _score(value.sds, *wide), _twice(_share(both / 2 + only_after, union, confidence)))


def by_chance(of: Counts, k: int) -> Rates:
    """The rates that `solved` would show if the policy stayed as it is: the same prompts drawn twice. Unbiased in their
    parts; NaN where prompts have fewer than 2k verdicts, which no estimate could do with."""
    once, twice = curves.estimates(of, k), curves.estimates(of, 2 * k)
    known = ~np.isnan(twice)
    if not known.any():
        return Rates(math.nan, math.nan, math.nan, math.nan)
    both = float((2 * once - twice)[known].sum())  # (1 - a)^2 = 2 (1 - a) - (1 - a^2), with a the chance of no pass
    one = max(float((twice - once)[known].sum()), 0.0)
    return rates(max(both, 0.0), one, one)


def _over(up: float, down: float) -> float:
    return float(up / down) if down > 0 else math.nan


def _harmonic(srr: float, ndr: float) -> float:
    if math.isnan(srr + ndr):
        return math.nan
    return 2 * srr * ndr / (srr + ndr) if srr + ndr > 0 else 0.0


def _between(value: float, fewest: float, most: float, of: float, confidence: float) -> Interval:
    """A share whose count is known to lie between two bounds. Without a value (nothing is decided) it is unknown."""
    if of <= 0 or math.isnan(value):
        return UNKNOWN
    low, high = (curves.proportion(count, of, confidence) for count in (fewest, most))
    return Interval(value, min(low[0], value), max(high[1], value))


def _share(up_P: Float64, down_P: Float64, confidence: float) -> Interval:
    """A ratio of sums within [0, 1], over the distribution of prompts (linearised)."""
    whole = float(down_P.sum())
    if whole <= 0:
        return UNKNOWN
    value = min(max(float(up_P.sum()) / whole, 0.0), 1.0)
    return curves.ratio(value, (up_P - value * down_P) / whole, whole, confidence)


def _score(value: float, srr: Interval, ndr: Interval) -> Interval:
    if math.isnan(value) or not (srr.known and ndr.known):
        return UNKNOWN
    low, high = _harmonic(srr.low, ndr.low), _harmonic(srr.high, ndr.high)
    return Interval(value, min(low, value), max(high, value))


def _twice(share: Interval) -> Interval:
    """From [0, 1] to [-1, 1]."""
    return Interval(2 * share.value - 1, 2 * share.low - 1, 2 * share.high - 1)
