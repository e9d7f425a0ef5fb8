"""f(r, A): what a point kernel makes of a token's ratio and advantage. Maximised; the kernel takes the minus."""

import math
from typing import assert_never

import torch
from torch import Tensor

from policies.config import BoxCox, Clip, Identity, Log, Parabola, Saturate, Shape, SoftGate


def value(shape: Shape, log_ratio_N: Tensor, advantages_N: Tensor) -> Tensor:
    """f(r, A) for each token, r = exp(log_ratio)."""
    match shape:
        case Identity():
            return log_ratio_N.exp() * advantages_N
        case Log():
            return log_ratio_N * advantages_N
        case Clip():
            return clipped(log_ratio_N, advantages_N, low=shape.low, high=shape.high, dual=shape.dual)
        case Saturate():
            # r / (r + gamma) as a sigmoid: no overflow where r is large
            return torch.sigmoid(log_ratio_N - math.log(shape.gamma)) * advantages_N
        case BoxCox():
            return box_cox(log_ratio_N, alpha=shape.alpha) * advantages_N
        case Parabola():
            ratio_N = log_ratio_N.exp()
            return (ratio_N - 0.5 * ratio_N**2) * advantages_N
        case SoftGate():
            above_N = (advantages_N > 0).to(log_ratio_N.dtype)
            tau_N = above_N * shape.tau_positive + (1.0 - above_N) * shape.tau_negative
            return torch.sigmoid(tau_N * (log_ratio_N.exp() - 1.0)) * (4.0 / tau_N) * advantages_N
        case _:
            assert_never(shape)


def clipped(log_ratio_N: Tensor, advantages_N: Tensor, *, low: float, high: float, dual: float | None) -> Tensor:
    """Pessimistic clipped surrogate (PPO, arXiv 1707.06347, eq. 7), for A < 0 at least dual x A (arXiv 1912.09729)."""
    ratio_N = log_ratio_N.exp()
    bounded_N = ratio_N.clamp(1.0 - low, 1.0 + high)
    surrogate_N = torch.minimum(ratio_N * advantages_N, bounded_N * advantages_N)
    if dual is None:
        return surrogate_N
    return torch.where(advantages_N < 0, torch.maximum(surrogate_N, dual * advantages_N), surrogate_N)


def box_cox(log_ratio_N: Tensor, *, alpha: float) -> Tensor:
    """(r^alpha - 1) / alpha, the logarithm at alpha 0 (arXiv 2510.00526, eq. 4): its coefficient is r^alpha."""
    return log_ratio_N if alpha == 0 else torch.expm1(alpha * log_ratio_N) / alpha


def cut(shape: Shape, log_ratio_N: Tensor, advantages_N: Tensor) -> Tensor:
    """bool: tokens whose gradient the clip takes away."""
    if not isinstance(shape, Clip):
        return torch.zeros_like(log_ratio_N, dtype=torch.bool)
    ratio_N = log_ratio_N.exp()
    cut_N = ((advantages_N > 0) & (ratio_N > 1 + shape.high)) | ((advantages_N < 0) & (ratio_N < 1 - shape.low))
    return cut_N if shape.dual is None else cut_N | ((advantages_N < 0) & (ratio_N > shape.dual))
