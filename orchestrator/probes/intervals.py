"""`Interval`: an estimate with the range that holds the truth at a stated confidence."""

import math
from dataclasses import dataclass


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
