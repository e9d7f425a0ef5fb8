"""`Interval`: an estimate with the range that holds the truth at a stated confidence."""

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval; NaN throughout where nothing is known."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an estimate."""
        return not math.isnan(self.value)


UNKNOWN = Interval(math.nan, math.nan, math.nan)
"""Of something that was not measured."""


def wilson(passed: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share of n independent verdicts (Wilson 1927, JASA 22:209); NaN of none."""
    if n == 0 or math.isnan(passed):
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (passed + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(passed * (1 - passed) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
