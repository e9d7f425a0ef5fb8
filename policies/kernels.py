"""The three kernels: a loss for each token (point, div) or each set (set). Nothing is reduced here."""

from functools import cache
from typing import assert_never

import torch
from torch import Tensor

from policies import shapes
from policies.config import Div, Log, Point
from policies.ratios import log_ratio
from policies.slots import Slots, WholeVocabulary


def point(kernel: Point, slots: Slots) -> Tensor:
    """-f(r, A) for each token.

    A logarithm of r against `current` is 0 for every token, so it is read against `one`: the same gradient, and the
    loss is the negative log-likelihood.
    """
    if isinstance(kernel.shape, Log) and kernel.denominator == "current":
        kernel = _against_one(kernel)
    advantages_N = advantages(kernel, slots)
    return -shapes.value(kernel.shape, log_ratio(kernel, slots), advantages_N)


def advantages(kernel: Point, slots: Slots) -> Tensor:
    """A of each token: the strand's credit, or 1."""
    if kernel.advantage == "one":
        return torch.ones_like(slots.logps_N, requires_grad=False)
    return slots.known("advantages_N", "a point kernel")


@cache
def _against_one(kernel: Point) -> Point:
    return kernel.model_copy(update={"denominator": "one"})


# ---------------------------------------------------------------- div


def divergence(kernel: Div, slots: Slots) -> Tensor:
    """The divergence (or its sampled estimate, or the negative entropy) at each token, in nats."""
    match kernel.form:
        case "entropy":
            return -slots.known("entropy_N", "div entropy")
        case "k1" | "k2" | "k3" | "rk3":
            return sampled_divergence(kernel, slots)
        case "forward" | "reverse" | "jsd":
            return distribution_divergence(kernel, slots)
        case _:
            assert_never(kernel.form)


def sampled_divergence(kernel: Div, slots: Slots) -> Tensor:
    """k1, k2 and k3 of the sampled token (Schulman, "Approximating KL divergence").

    As losses their gradients are, on the policy's own samples: 0, that of the reverse KL, that of the forward KL. rk3
    is k3 times the policy's ratio against the sampler, not detached: the reverse KL's from anybody's samples.
    """
    if kernel.target == "uniform" or kernel.temperature != 1.0:
        raise ValueError(
            f"strand {slots.strand!r}: div {kernel.form} reads sampled tokens, so it takes target reference or teacher "
            f"and temperature 1; got {kernel.target!r} and {kernel.temperature}"
        )
    gap_N = slots.known(f"{kernel.target}_logps_N", f"div {kernel.form}") - slots.logps_N
    if kernel.form == "k1":
        return -gap_N
    if kernel.form == "k2":
        return 0.5 * gap_N**2
    k3_N = gap_N.exp() - gap_N - 1.0
    if kernel.form == "k3":
        return k3_N
    return (slots.logps_N - slots.known("behavior_logps_N", "div rk3")).exp() * k3_N


def distribution_divergence(kernel: Div, slots: Slots) -> Tensor:
    """Over the whole vocabulary as it was computed chunk by chunk, or over the target's top-k."""
    reader = f"div {kernel.form}"
    if kernel.target == "uniform":
        raise ValueError(f"strand {slots.strand!r}: {reader} has no target uniform; use form entropy")
    if kernel.support == "full":
        return whole_divergence(kernel, slots)
    theirs, ours = _TOP_K[kernel.target]
    target_NK, policy_NK = slots.known(theirs, reader), slots.known(ours, reader)
    match kernel.tail:
        case "bucket":
            return bucket_divergence(kernel, with_tail(policy_NK), with_tail(target_NK))
        case "renormalise":
            return bucket_divergence(kernel, policy_NK.log_softmax(-1), target_NK.log_softmax(-1))
        case "raw":
            return bucket_divergence(kernel, policy_NK, target_NK)
        case _:
            assert_never(kernel.tail)


def whole_divergence(kernel: Div, slots: Slots) -> Tensor:
    """The value that was computed over the whole vocabulary; ValueError where there is none."""
    reader = f"div {kernel.form} over the whole vocabulary"
    found = slots.whole.get(WholeVocabulary.of(kernel))
    if found is None:
        if len(slots.logps_N):
            raise ValueError(
                f"strand {slots.strand!r}: {reader} reads the {kernel.target}'s distributions, which are missing; "
                f"bring {kernel.target}_hidden_BTH and its head, or use support top_k"
            )
        return slots.logps_N[:0]
    # NaN beside a finite log-probability is a target that nobody knows, not a policy that broke
    missing = int((found.detach().isnan() & slots.logps_N.detach().isfinite()).sum())
    if missing:
        raise ValueError(
            f"strand {slots.strand!r}: {reader} reads the {kernel.target}'s distributions, unknown (NaN) on {missing} "
            f"of {len(found)} trained tokens; ask the {kernel.target} for them, or drop the term"
        )
    return found


_TOP_K = {
    "teacher": ("teacher_topk_logps_NK", "topk_logps_NK"),
    "reference": ("reference_topk_logps_NK", "reference_ids_logps_NK"),
}
"""Target -> its log-probabilities of its top-k, and the policy's of the same tokens."""


def with_tail(logps_NK: Tensor) -> Tensor:
    """[N, K + 1]: the top-k log-probabilities and that of everything else together, so that the sum is one."""
    rest_N1 = 1.0 - logps_NK.exp().sum(-1, keepdim=True)
    return torch.cat([logps_NK, rest_N1.clamp(min=torch.finfo(logps_NK.dtype).eps).log()], dim=-1)


def bucket_divergence(kernel: Div, policy_NK: Tensor, target_NK: Tensor) -> Tensor:
    """forward KL(target, policy), reverse KL(policy, target), or GKD's generalised JSD (arXiv 2306.13649, eq. 1).

    A temperature tempers both distributions. As in GKD, beta 0 and 1 are the forward and the reverse KL, not the
    limits of the JSD, which are 0.
    """
    if kernel.temperature != 1.0:
        policy_NK, target_NK = ((one / kernel.temperature).log_softmax(-1) for one in (policy_NK, target_NK))
    if kernel.form == "forward" or (kernel.form == "jsd" and kernel.beta == 0.0):
        return kl(target_NK, policy_NK)
    if kernel.form == "reverse" or kernel.beta == 1.0:
        return kl(policy_NK, target_NK)
    beta = torch.tensor(kernel.beta, dtype=policy_NK.dtype, device=policy_NK.device)
    mixture_NK = torch.logaddexp(policy_NK + torch.log1p(-beta), target_NK + torch.log(beta))
    return kernel.beta * kl(target_NK, mixture_NK) + (1.0 - kernel.beta) * kl(policy_NK, mixture_NK)


def kl(left_NK: Tensor, right_NK: Tensor) -> Tensor:
    """KL(left, right) of distributions given as log-probabilities."""
    return (left_NK.exp() * (left_NK - right_NK)).sum(-1)
