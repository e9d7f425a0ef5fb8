"""Detached factors >= 0 on the tokens of a term."""

from collections.abc import Sequence
from typing import assert_never

import torch
from torch import Tensor

from policies.config import TokenWeight
from policies.slots import Slots


def product(weights: Sequence[TokenWeight], slots: Slots) -> Tensor:
    """The product of the term's weights, for each token; 1 when there are none."""
    total_N = torch.ones_like(slots.logps_N, requires_grad=False)
    for one in weights:
        total_N = total_N * weight(one, slots)
    return total_N


def weight(one: TokenWeight, slots: Slots) -> Tensor:
    """One factor: DFT (arXiv 2508.05629), CHORD's phi (2508.11408), truncated importance, IcePop's mask."""
    p_N = slots.logps_N.detach().exp()
    match one.kind:
        case "probability":
            return p_N
        case "chord_phi":
            return p_N * (1.0 - p_N)
        case "truncated_importance":
            return importance(one, slots).clamp(max=one.cap)
        case "masked_importance":
            ratio_N = importance(one, slots)
            return ratio_N * ((ratio_N >= 1.0 / one.cap) & (ratio_N <= one.cap))
        case _:
            assert_never(one.kind)


def importance(one: TokenWeight, slots: Slots) -> Tensor:
    """exp(old - behavior): how much likelier the learner held the token than the engine that sampled it."""
    reader = f"weight {one.kind}"
    return (slots.known("old_logps_N", reader) - slots.known("behavior_logps_N", reader)).exp()
