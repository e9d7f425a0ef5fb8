"""Means over seeds with their doubt: Student's t intervals, of values and of paired differences."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and its two-sided confidence interval; NaN bounds where one value says nothing of the spread."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of zero; 0 where it holds zero or is not known."""
        return (self.low > 0) - (self.high < 0)


def interval(values: Sequence[float]) -> Interval:
    """Mean and t interval with n - 1 degrees of freedom. ValueError for no values."""
    if not values:
        raise ValueError("interval: no values; give one for each seed")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan)
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (len(values) - 1) / len(values))
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * spread
    return Interval(mean, mean - reach, mean + reach)


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """Seed by seed, ours less theirs. ValueError where the seeds are not the same."""
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"difference: seeds {sorted(ours)} and {sorted(theirs)} are not the same; run the missing ones"
        )
    return interval([ours[seed] - theirs[seed] for seed in sorted(ours)])
