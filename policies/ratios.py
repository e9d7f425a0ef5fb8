"""Log-ratios of the policy against a denominator, for each token or as the sequence's mean."""

from typing import assert_never

from torch import Tensor

from policies.config import Point
from policies.slots import Slots


def log_ratio(point: Point, slots: Slots) -> Tensor:
    """log r for each token; with level `geometric` the trajectory's mean of it (GSPO, arXiv 2507.18071, eq. 7)."""
    log_ratio_N = slots.logps_N - denominator(point, slots)
    match point.level:
        case "token":
            return log_ratio_N
        case "geometric":
            return slots.mean_by_trajectory(log_ratio_N)[slots.trajectory_N]
        case _:
            assert_never(point.level)


def denominator(point: Point, slots: Slots) -> Tensor:
    """Log-probability that the ratio divides by; a constant, never differentiated."""
    match point.denominator:
        case "current":
            return slots.logps_N.detach()
        case "one":
            return slots.logps_N.detach() * 0.0
        case "old":
            return slots.known("old_logps_N", "denominator old")
        case "behavior":
            return slots.known("behavior_logps_N", "denominator behavior")
        case _:
            assert_never(point.denominator)
