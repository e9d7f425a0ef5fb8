"""The three kernels: a loss for each token (point, div) or each pair of sequences (set). Nothing is reduced here."""

from typing import assert_never

import torch
from torch import Tensor
from torch.nn.functional import softplus

from policies import shapes
from policies.config import Div, Log, Point, Set
from policies.ratios import log_ratio
from policies.slots import Slots


def point(kernel: Point, slots: Slots) -> Tensor:
    """-f(r, A) for each token.

    A logarithm of r against `current` is 0 for every token, so it is read against `one`: the same gradient, and the
    loss is the negative log-likelihood.
    """
    if isinstance(kernel.shape, Log) and kernel.denominator == "current":
        kernel = kernel.model_copy(update={"denominator": "one"})
    advantages_N = slots.known("advantages_N", "a point kernel")
    return -shapes.value(kernel.shape, log_ratio(kernel, slots), advantages_N)


# ---------------------------------------------------------------- div


def divergence(kernel: Div, slots: Slots) -> Tensor:
    """The divergence (or its sampled estimate, or the negative entropy) at each token, in nats."""
    match kernel.form:
        case "entropy":
            return -slots.known("entropy_N", "div entropy")
        case "k2" | "k3":
            return sampled_divergence(kernel, slots)
        case "forward" | "reverse" | "jsd":
            if kernel.target != "teacher":
                raise ValueError(
                    f"strand {slots.strand!r}: div {kernel.form} needs a distribution, and only the teacher gives its "
                    f"top-k; got target {kernel.target!r}; use target teacher, or form k2 or k3"
                )
            reader = f"div {kernel.form}"
            target_NK = slots.known("teacher_topk_logps_NK", reader)
            policy_NK = slots.known("topk_logps_NK", reader)
            return bucket_divergence(kernel, with_tail(policy_NK), with_tail(target_NK))
        case _:
            assert_never(kernel.form)


def sampled_divergence(kernel: Div, slots: Slots) -> Tensor:
    """k2 and k3 of the sampled token (Schulman, "Approximating KL divergence"): as losses, the gradients of the
    reverse and of the forward KL on the policy's own samples."""
    if kernel.target == "uniform" or kernel.temperature != 1.0:
        raise ValueError(
            f"strand {slots.strand!r}: div {kernel.form} reads sampled tokens, so it takes target reference or teacher "
            f"and temperature 1; got {kernel.target!r} and {kernel.temperature}"
        )
    gap_N = slots.known(f"{kernel.target}_logps_N", f"div {kernel.form}") - slots.logps_N
    return 0.5 * gap_N**2 if kernel.form == "k2" else gap_N.exp() - gap_N - 1.0


def with_tail(logps_NK: Tensor) -> Tensor:
    """[N, K + 1]: the top-k log-probabilities and that of everything else together, so that the sum is one."""
    rest_N1 = 1.0 - logps_NK.exp().sum(-1, keepdim=True)
    return torch.cat([logps_NK, rest_N1.clamp(min=torch.finfo(logps_NK.dtype).eps).log()], dim=-1)


def bucket_divergence(kernel: Div, policy_NK: Tensor, target_NK: Tensor) -> Tensor:
    """forward KL(target, policy), reverse KL(policy, target), or GKD's generalised JSD (arXiv 2306.13649, eq. 1).

    A temperature tempers both bucket distributions. As in GKD, beta 0 and 1 are the forward and the reverse KL,
    not the limits of the JSD, which are 0.
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


# ---------------------------------------------------------------- set


def preference(kernel: Set, slots: Slots) -> Tensor:
    """The link at beta x (S chosen - S rejected) - margin for each pair, divided by the pairs of its set.

    logistic: DPO (arXiv 2305.18290, eq. 7), and SimPO with mean, margin and no reference; hinge: SLiC; square: IPO.
    """
    chosen_P, rejected_P, pairs_P = pairs(slots)
    score_B = scores(kernel, slots)
    z_P = kernel.beta * (score_B[chosen_P] - score_B[rejected_P]) - kernel.margin
    return link(kernel, z_P) / pairs_P


def scores(kernel: Set, slots: Slots) -> Tensor:
    """S of each trajectory: sum or mean over its tokens of log p, less the reference's."""
    gain_N = slots.logps_N
    if kernel.reference:
        gain_N = gain_N - slots.known("reference_logps_N", "a set kernel with a reference")
    match kernel.aggregate:
        case "sum":
            return slots.sum_by_trajectory(gain_N)
        case "mean":
            return slots.mean_by_trajectory(gain_N)
        case _:
            assert_never(kernel.aggregate)


def link(kernel: Set, z_P: Tensor) -> Tensor:
    """Loss of a pair by its scaled score difference."""
    match kernel.link:
        case "logistic":
            return softplus(-z_P)
        case "hinge":
            return (1.0 - z_P).clamp(min=0.0)
        case "square":
            return ((z_P - 0.5) / kernel.beta) ** 2
        case _:
            assert_never(kernel.link)


def pairs(slots: Slots) -> tuple[Tensor, Tensor, Tensor]:
    """Trajectories (chosen, rejected) of every pair, and how many pairs its set has.

    Raises ValueError when a trajectory of the strand has no partner here: a set is never parted.
    """
    member_B = slots.counts_B() > 0
    if slots.set_B is None or slots.label_B is None:
        if len(slots.logps_N):
            raise ValueError(f"strand {slots.strand!r}: a set kernel reads set_B and label_B, which are missing")
        none = torch.zeros(0, dtype=torch.int64, device=slots.logps_N.device)
        return none, none, none
    chosen_B, rejected_B = member_B & (slots.label_B > 0.5), member_B & (slots.label_B <= 0.5)
    same_BB = (slots.set_B[:, None] == slots.set_B) & (slots.set_B >= 0)
    pair_BB = same_BB & chosen_B[:, None] & rejected_B
    alone = int((member_B & ~pair_BB.any(0) & ~pair_BB.any(1)).sum())
    if alone:
        raise ValueError(
            f"strand {slots.strand!r}: {alone} trajectories have no partner in this batch; a set needs label 1 and "
            "label 0, and all of it in one micro-batch (plan_micro_batches(together=...))"
        )
    chosen_P, rejected_P = pair_BB.nonzero(as_tuple=True)
    of_set_B = (pair_BB.sum(1)[:, None] * same_BB).sum(0)
    return chosen_P, rejected_P, of_set_B[chosen_P]
