"""Log-ratios of the policy against a denominator: for each token, or shared by its part or its response."""

from typing import assert_never

import torch
from torch import Tensor

from policies.config import Point
from policies.slots import Slots


def log_ratio(point: Point, slots: Slots) -> Tensor:
    """log r for each token, at the kernel's level.

    geometric: the response's mean (GSPO, arXiv 2507.18071, eq. 7), after a one-sided clip of each token's where
    `log_clip` is set (GMPO, 2507.20673, eq. 5); sequence: its sum; part: the mean over the token's part (S2R).
    """
    base_N = denominator(point, slots)
    log_ratio_N = slots.logps_N if base_N is None else slots.logps_N - base_N
    if point.log_clip is not None:
        log_ratio_N = held(log_ratio_N, slots.known("advantages_N", "log_clip"), bound=point.log_clip)
    match point.level:
        case "token":
            return log_ratio_N
        case "geometric":
            return slots.spread(slots.mean_by_trajectory(log_ratio_N))
        case "sequence":
            return slots.spread(slots.sum_by_trajectory(log_ratio_N))
        case "part":
            return mean_by_part(slots, log_ratio_N)
        case _:
            assert_never(point.level)


def held(log_ratio_N: Tensor, advantages_N: Tensor, *, bound: float) -> Tensor:
    """At most `bound` where the advantage is positive, at least -`bound` where it is negative: pessimistic as PPO."""
    return torch.where(
        advantages_N > 0,
        log_ratio_N.clamp(max=bound),
        torch.where(advantages_N < 0, log_ratio_N.clamp(min=-bound), log_ratio_N),
    )


def mean_by_part(slots: Slots, values_N: Tensor) -> Tensor:
    """The mean over each slot's part of its response; slots outside every part (-1) form one of their own."""
    part_N = slots.known("part_N", "level part").long()
    if not len(part_N):
        return values_N
    _, unit_N = torch.unique(slots.trajectory_N * (int(part_N.max()) + 2) + part_N + 1, return_inverse=True)
    units = int(unit_N.max()) + 1
    total_U = values_N.new_zeros(units).index_add(0, unit_N, values_N)
    count_U = values_N.new_zeros(units).index_add(0, unit_N, torch.ones_like(values_N, requires_grad=False))
    return (total_U / count_U)[unit_N]


def denominator(point: Point, slots: Slots) -> Tensor | None:
    """Log-probability that the ratio divides by, None for that of `one`; a constant, never differentiated."""
    match point.denominator:
        case "current":
            return slots.logps_N.detach()
        case "one":
            return None
        case "old":
            return slots.known("old_logps_N", "denominator old")
        case "behavior":
            return slots.known("behavior_logps_N", "denominator behavior")
        case _:
            assert_never(point.denominator)
