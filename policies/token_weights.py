"""Detached factors >= 0 on the tokens of a term."""

from collections.abc import Mapping
from typing import assert_never

import torch
from torch import Tensor

from policies.config import Term, TokenWeight
from policies.slots import Slots
from policies.statistics import key


def product(term: Term, slots: Slots, statistics: Mapping[str, float]) -> Tensor:
    """The product of the term's weights, for each token; 1 when there are none."""
    total_N = torch.ones_like(slots.logps_N, requires_grad=False)
    for one in term.weights:
        total_N = total_N * weight(one, slots, statistics.get(key(slots.strand, term.name, one.kind)))
    return total_N


def weight(one: TokenWeight, slots: Slots, statistic: float | None) -> Tensor:
    """One factor; `statistic` is what it needs to know of the whole step, where it needs anything.

    DFT (arXiv 2508.05629), CHORD's phi (2508.11408), SRFT (2506.19767), 80/20 (2506.01939), truncated and masked
    importance, CISPO (2506.13585), TOPR (2503.14286).
    """
    match one.kind:
        case "probability" | "chord_phi" | "probability_window":
            return _of_probability(slots.logps_N.detach(), one)
        case "entropy":
            return (one.power * slots.known("entropy_N", "weight entropy").detach()).exp()
        case "top_entropy":
            return _top_entropy(slots, statistic)
        case "truncated_importance" | "masked_importance":
            return _importance(one, slots)
        case "clipped_ratio" | "tapered":
            return _corrected(one, slots)
        case "positive" | "negative":
            positive_N = slots.known("advantages_N", f"weight {one.kind}") > 0
            return (positive_N if one.kind == "positive" else ~positive_N).to(slots.logps_N.dtype)
        case _:
            assert_never(one.kind)


def _of_probability(logps_N: Tensor, one: TokenWeight) -> Tensor:
    p_N = logps_N.exp()
    if one.kind == "probability":
        return (one.power * logps_N).exp()
    if one.kind == "chord_phi":
        return p_N * (1.0 - p_N)
    inside_N = p_N >= one.low
    return (inside_N if one.high is None else inside_N & (p_N <= one.high)).to(p_N.dtype)


def _top_entropy(slots: Slots, threshold: float | None) -> Tensor:
    """1 on tokens whose entropy reaches the step's threshold: by the entropy at the step's start where it is known."""
    given = "old_entropy_N" if slots.old_entropy_N is not None else "entropy_N"
    entropy_N = slots.known(given, "weight top_entropy").detach()
    if threshold is None:
        if len(entropy_N):
            raise ValueError(
                f"strand {slots.strand!r}: weight top_entropy compares with a threshold over the whole step, which is "
                "missing; pass the step's statistics"
            )
        return entropy_N
    return (entropy_N >= threshold).to(slots.logps_N.dtype)


def _importance(one: TokenWeight, slots: Slots) -> Tensor:
    """exp(old - behavior), truncated at the cap, or masked outside [1/cap, cap]."""
    ratio_N = importance(one, slots)
    if one.kind == "truncated_importance":
        return ratio_N.clamp(max=one.cap)
    inside_N = (ratio_N >= 1.0 / one.cap) & (ratio_N <= one.cap)
    return ratio_N * inside_N if one.keep_ratio else inside_N.to(ratio_N.dtype)


def importance(one: TokenWeight, slots: Slots) -> Tensor:
    """How much likelier the learner held the token than the engine that sampled it, at the weight's level."""
    reader = f"weight {one.kind}"
    return leveled(one, slots, slots.known("old_logps_N", reader) - slots.known("behavior_logps_N", reader))


def leveled(one: TokenWeight, slots: Slots, gap_N: Tensor) -> Tensor:
    """exp of each token's log-ratio, or of its sum or mean over the response."""
    match one.level:
        case "token":
            return gap_N.exp()
        case "sequence":
            return slots.spread(slots.sum_by_trajectory(gap_N).exp())
        case "geometric":
            return slots.spread(slots.mean_by_trajectory(gap_N).exp())
        case _:
            assert_never(one.level)


def _corrected(one: TokenWeight, slots: Slots) -> Tensor:
    """A ratio of the policy itself, detached: CISPO's against old, TOPR's against the sampler."""
    reader = f"weight {one.kind}"
    if one.kind == "clipped_ratio":
        ratio_N = (slots.logps_N.detach() - slots.known("old_logps_N", reader)).exp()
        return ratio_N.clamp(min=one.low, max=one.high)
    ratio_N = leveled(one, slots, slots.logps_N.detach() - slots.known("behavior_logps_N", reader))
    return torch.where(slots.known("advantages_N", reader) > 0, torch.ones_like(ratio_N), ratio_N.clamp(max=1.0))
