"""Sums over each trajectory's slots, and a value for each trajectory at all of its slots: each is the other's gradient.

Axes: N slots, B trajectories. A trajectory's slots lie together, and trajectories ascend, so that a sum is one pass
in a fixed order, with no scattered writes.
"""

from typing import Any

import torch
from torch import Tensor


def counts(trajectory_N: Tensor, trajectories: int) -> Tensor:
    """int64 [B]: slots of each trajectory."""
    edges = torch.arange(trajectories + 1, device=trajectory_N.device, dtype=trajectory_N.dtype)
    return torch.searchsorted(trajectory_N, edges).diff()


def total(values_N: Tensor, trajectory_N: Tensor, trajectories: int) -> Tensor:
    """[B] sums; 0 for a trajectory without slots."""
    found_B: Tensor = _Total.apply(values_N, trajectory_N, trajectories)  # type: ignore[no-untyped-call]
    return found_B


def spread(values_B: Tensor, trajectory_N: Tensor) -> Tensor:
    """[N]: each trajectory's value at its slots."""
    found_N: Tensor = _Spread.apply(values_B, trajectory_N)  # type: ignore[no-untyped-call]
    return found_N


def _sum(values_N: Tensor, trajectory_N: Tensor, trajectories: int) -> Tensor:
    if not len(values_N) or not trajectories:
        return values_N.new_zeros(trajectories)
    lengths_B = counts(trajectory_N, trajectories)
    return torch.segment_reduce(values_N.contiguous(), "sum", lengths=lengths_B, unsafe=True)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_N: Tensor, trajectory_N: Tensor, trajectories: int) -> Tensor:
        ctx.save_for_backward(trajectory_N)
        return _sum(values_N, trajectory_N, trajectories)

    @staticmethod
    def backward(ctx: Any, gradient_B: Tensor) -> tuple[Tensor, None, None]:
        return gradient_B.index_select(0, ctx.saved_tensors[0]), None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_B: Tensor, trajectory_N: Tensor) -> Tensor:
        ctx.save_for_backward(trajectory_N)
        ctx.trajectories = len(values_B)
        return values_B.index_select(0, trajectory_N)

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient_N, ctx.saved_tensors[0], ctx.trajectories), None
