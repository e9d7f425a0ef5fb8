"""How far two judges, or a judge and a verifier, agree: shares with an interval, and chance-corrected coefficients.

Values are labels or numbers; None and NaN are unknown. A coefficient that is not defined, because nobody ever said
two different things, is NaN.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from verifiers.score import Score, Status

Value = float | str | bool | None
Metric = Literal["nominal", "ordinal", "interval"]

Z95 = 1.959963984540054
"""97.5 % point of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of `count` cases, with Wilson's 95 % interval (Wilson 1927); NaN of none."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two raters over the cases that both judged: the share that agrees, and Cohen's kappa."""

    same: Share
    kappa: float


def agreement(first: Sequence[Score], second: Sequence[Score]) -> Agreement:
    """How two verifiers of the same responses agree on what passes; cases that either left unjudged count nothing."""
    one, other = [_passed(score) for score in first], [_passed(score) for score in second]
    pairs = _both(one, other)
    return Agreement(share(sum(a == b for a, b in pairs), len(pairs)), cohen_kappa(one, other))


def _passed(score: Score) -> bool | None:
    return score.passed if score.status == Status.OK else None


def share(hits: int, count: int) -> Share:
    """hits / count with Wilson's interval."""
    if count == 0:
        return Share(math.nan, math.nan, math.nan, 0)
    p, z2 = hits / count, Z95**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Share(p, max(0.0, middle - half), min(1.0, middle + half), count)


def cohen_kappa(first: Sequence[Value], second: Sequence[Value]) -> float:
    """(observed - expected) / (1 - expected) agreement of two raters (Cohen 1960), over the cases that both judged."""
    pairs = _both(first, second)
    if not pairs:
        return math.nan
    count = len(pairs)
    left, right = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / count
    expected = sum(left[value] * right[value] for value in left) / count**2
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(raters: Sequence[Sequence[Value]], metric: Metric = "nominal") -> float:
    """1 - observed / expected disagreement of any number of raters with gaps (Krippendorff 2004, chapter 11).

    `raters`: one row a rater, one column a case. `ordinal` and `interval` need numbers.
    """
    if len({len(row) for row in raters}) > 1:
        raise ValueError(f"raters judged different numbers of cases ({', '.join(str(len(row)) for row in raters)})")
    units = [[value for value in column if _known(value)] for column in zip(*raters, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in units for value in unit)
    count = sum(totals.values())
    apart = _distance(metric, totals)
    observed = math.fsum(
        apart(a, b) * ours * theirs / (len(unit) - 1)
        for unit in units
        for a, ours in Counter(unit).items()
        for b, theirs in Counter(unit).items()
    )
    expected = math.fsum(apart(a, b) * totals[a] * totals[b] for a in totals for b in totals)
    return math.nan if expected == 0 else 1 - (count - 1) * observed / expected


def _distance(metric: Metric, totals: Counter[Value]) -> Callable[[Value, Value], float]:
    """Squared difference of two values."""
    if metric == "nominal":
        return lambda a, b: float(a != b)
    place = {value: _number(value) for value in totals}
    if metric == "ordinal":
        below = 0.0
        for value in sorted(totals, key=_number):  # a value's rank is the middle of the places that its cases take
            place[value] = below + totals[value] / 2
            below += totals[value]
    return lambda a, b: (place[a] - place[b]) ** 2


def _number(value: Value) -> float:
    if value is None or isinstance(value, str):
        raise ValueError(f"ordinal and interval agreement need numbers (got {value!r})")
    return float(value)


def _known(value: Value) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _both(first: Sequence[Value], second: Sequence[Value]) -> list[tuple[Value, Value]]:
    return [(a, b) for a, b in zip(first, second, strict=True) if _known(a) and _known(b)]
