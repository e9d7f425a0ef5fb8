"""Support at the level of answers: how many different ones a policy gives to a prompt, and how evenly.

A response count says nothing of answers that were not drawn, so that more draws show more answers. Counts are therefore
compared at an equal number of draws (rarefaction: Hurlbert, 1971), the number of answers is estimated with those that
were never drawn (Chao1: Chao, Scandinavian Journal of Statistics 11, 1984; a lower bound), and entropy without the
downward bias of the plug-in (Chao, Wang and Jost, Methods in Ecology and Evolution 4, 2013: Zhang's unbiased part, sum
of x/n (psi(n) - psi(x)), and the rest from the answers that came once and twice).

Draws that a plan ended early are those of prompts whose responses agree in passing: their figures are of few draws, and
at an equal number of draws for both checkpoints. Entropies are in nats. P = prompts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import special

from orchestrator.probes import clusters
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.sequential import matched
from orchestrator.probes.snapshot import Float64, Sampled

Given = Mapping[str, int]
"""Distinct answer -> responses that gave it."""
MOST_TERMS = 100_000
"""Of a sum whose terms fall below rounding long before, unless nearly all answers differ."""


def draws(given: Given) -> int:
    """Responses whose answer could be read."""
    return sum(given.values())


def distinct(given: Given, at: int) -> float:
    """Distinct answers expected among `at` of the draws; NaN where there are fewer."""
    n = draws(given)
    if not 1 <= at <= n:
        return math.nan
    x = np.array([count for count in given.values() if count > 0])
    rest, fits = n - x, n - x >= at
    missed = np.zeros(len(x))
    missed[fits] = np.exp(_log_choose(rest[fits], at) - _log_choose(np.array(n), at))
    return float(np.sum(1.0 - missed))


def richness(given: Given) -> float:
    """Chao1, bias-corrected: distinct answers, with a lower bound of those never drawn. NaN without draws."""
    x = np.array([count for count in given.values() if count > 0])
    if not len(x):
        return math.nan
    once, twice, n = int(np.sum(x == 1)), int(np.sum(x == 2)), int(x.sum())
    return len(x) + (n - 1) / n * once * (once - 1) / (2 * (twice + 1))


def entropy(given: Given) -> float:
    """Of the distribution of answers, in nats. NaN of fewer than two draws, which say nothing of it."""
    x = np.array([count for count in given.values() if count > 0], np.float64)
    n = float(x.sum())
    if n < 2:
        return math.nan
    once, twice = float(np.sum(x == 1)), float(np.sum(x == 2))
    seen = float(np.sum(x / n * (special.digamma(n) - special.digamma(x))))
    return seen + once / n * _unseen(n, _next_new(n, once, twice))


def _next_new(n: float, once: float, twice: float) -> float:
    """Mean probability of an answer that came once, by how many came twice (Good and Turing)."""
    if twice > 0:
        return 2 * twice / ((n - 1) * once + 2 * twice)
    return 2 / ((n - 1) * (once - 1) + 2) if once > 0 else 1.0


def _unseen(n: float, chance: float) -> float:
    """Sum over j of (1 - chance)^j / (n - 1 + j): what the terms beyond n draws add."""
    j = np.arange(1, min(int(40 / chance) + 2, MOST_TERMS))
    return float(np.sum((1 - chance) ** j / (n - 1 + j)))


def document(before: Sampled | None, after: Sampled, *, confidence: float) -> dict[str, Any] | None:
    """Means over prompts, as JSON values; None where no answer could be read.

    {"prompts": with answers, "draws": mean number at which `distinct` is compared, "distinct", "richness", "entropy":
    {"before", "after", "change"}, an Interval each, before and change null without a checkpoint before}. `distinct` is
    taken at the smaller number of draws that a prompt has at the two checkpoints; prompts that one of them lacks are
    left out.
    """
    if not any(map(draws, after.answers_P)):
        return None
    rows = matched(before, after) if before is not None else None
    old = [before.answers_P[at] for at in rows[0]] if before is not None and rows is not None else None
    new = after.answers_P if rows is None else [after.answers_P[at] for at in rows[1]]
    ids = after.prompts if rows is None else tuple(after.prompts[at] for at in rows[1])
    sizes = [draws(one) if old is None else min(draws(one), draws(old[at])) for at, one in enumerate(new)]
    figures = {
        "distinct": (_each(distinct, old, sizes), _each(distinct, new, sizes)),
        "richness": (_of(richness, old), _of(richness, new)),
        "entropy": (_of(entropy, old), _of(entropy, new)),
    }
    shown = {name: _figure(first, last, ids, confidence) for name, (first, last) in figures.items()}
    known = [size for size in sizes if size > 0]
    return {"prompts": len(known), "draws": float(np.mean(known)) if known else None, **shown}


def _of(figure: Any, given: Sequence[Given] | None) -> Float64 | None:
    return None if given is None else np.array([figure(one) for one in given], np.float64)


def _each(figure: Any, given: Sequence[Given] | None, sizes: Sequence[int]) -> Float64 | None:
    return None if given is None else np.array([figure(one, at) for one, at in zip(given, sizes, strict=True)])


def _figure(first: Float64 | None, last: Float64 | None, ids: Sequence[str], confidence: float) -> dict[str, Any]:
    assert last is not None
    if first is None:
        return {"before": None, "after": asdict(_mean(last, ids, confidence)), "change": None}
    return {
        "before": asdict(_mean(first, ids, confidence)),
        "after": asdict(_mean(last, ids, confidence)),
        "change": asdict(_mean(last - first, ids, confidence)),
    }


def _mean(x_P: Float64, ids: Sequence[str], confidence: float) -> Interval:
    known = np.flatnonzero(~np.isnan(x_P))
    if len(known) == 0:
        return UNKNOWN
    terms = (x_P[known], np.ones(len(known)), [ids[at] for at in known.tolist()])
    return clusters.ratio(terms, confidence=confidence)


def _log_choose(n: Any, k: int) -> Float64:
    chosen: Float64 = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return chosen
