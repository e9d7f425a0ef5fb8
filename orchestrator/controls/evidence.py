"""What is known of a prompt's solve rate: decaying counts of verdicts, and what they say with which probability."""

from functools import lru_cache
from typing import NamedTuple


class Evidence(NamedTuple):
    """Counts of fresh verdicts, older ones weighing less."""

    passed: float = 0.0
    failed: float = 0.0

    @property
    def seen(self) -> float:
        """How many verdicts it amounts to."""
        return self.passed + self.failed

    def after(self, passed: int, failed: int, decay: float) -> "Evidence":
        """With one more look, before which everything known weighs `decay` of what it did."""
        return Evidence(decay * self.passed + passed, decay * self.failed + failed)

    def below(self, rate: float) -> float:
        """Probability that the solve rate is below `rate`: Jeffreys' prior, Beta(passed + 1/2, failed + 1/2)."""
        return _below(round(self.passed, 3), round(self.failed, 3), rate)

    def above(self, rate: float) -> float:
        """Probability that it is above."""
        return 1.0 - self.below(rate)

    def surely_below(self, rate: float, sure: float) -> bool:
        """Whether it is below with probability `sure`; by Markov's inequality most means rule that out at once."""
        return (1.0 - self._mean) >= sure * (1.0 - rate) and self.below(rate) >= sure

    def surely_above(self, rate: float, sure: float) -> bool:
        """Whether it is above with probability `sure`."""
        return self._mean >= sure * rate and self.above(rate) >= sure

    @property
    def _mean(self) -> float:
        return (self.passed + 0.5) / (self.passed + self.failed + 1.0)


@lru_cache(maxsize=1 << 16)
def _below(passed: float, failed: float, rate: float) -> float:
    """The regularised incomplete beta function; few counts are met, most of them again and again."""
    from scipy.special import betainc  # `braid check` must not wait for it

    return float(betainc(passed + 0.5, failed + 0.5, rate))
