"""The set kernel: a link over the scores of sequences that are compared, or of rows and tokens that bear a label.

Axes: B trajectories of the batch, C chosen and R rejected ones, P pairs of one set, U units of a unary link (rows or
tokens).
"""

import math
from typing import assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from policies import links
from policies.config import Set
from policies.reduce import UNARY
from policies.slots import Slots


def loss(kernel: Set, slots: Slots, statistic: float | None = None) -> Tensor:
    """The loss of each pair, divided by the pairs of its set, or of each unit of a unary link.

    `statistic` is KTO's baseline z over the whole step.
    """
    if kernel.unit == "token":
        return of_tokens(kernel, slots)
    if kernel.link in UNARY:
        return of_rows(kernel, slots, statistic)
    return of_pairs(kernel, slots)


# ---------------------------------------------------------------- scores


def scores(kernel: Set, slots: Slots) -> Tensor:
    """S of each trajectory: sum or mean over its tokens of log p, less the reference's; or the head's last output."""
    if kernel.score == "head":
        return head_scores(slots)
    gain_N = slots.logps_N
    if kernel.reference:
        gain_N = gain_N - slots.known("reference_logps_N", "a set kernel with a reference")
    if kernel.tail < 1:
        gain_N = gain_N * tail_discount(slots, kernel.tail)
    score_B = transformed(kernel, slots.sum_by_trajectory(gain_N))
    match kernel.aggregate:
        case "sum":
            return score_B
        case "mean":
            return score_B / slots.counts_B().clamp(min=1)
        case _:
            assert_never(kernel.aggregate)


def head_scores(slots: Slots) -> Tensor:
    """The scalar head's output at each trajectory's last trained slot; 0 for a trajectory without one."""
    if not slots.scalar and len(slots.logps_N):
        raise ValueError(f"strand {slots.strand!r}: score head needs a model with a scalar head; use score likelihood")
    last_N = slots.position_N() + 1 == slots.counts_B().long()[slots.trajectory_N]
    return slots.sum_by_trajectory(torch.where(last_N, slots.logps_N, 0.0))


def tail_discount(slots: Slots, tail: float) -> Tensor:
    """1 up to the length of the set's shortest response, `tail` beyond it (LD-DPO, arXiv 2409.06411, eq. 11)."""
    lengths_B = slots.counts_B()
    if slots.set_B is None:
        return torch.ones_like(slots.logps_N, requires_grad=False)
    member_B = lengths_B > 0
    same_BB = (slots.set_B[:, None] == slots.set_B) & (slots.set_B >= 0)[:, None] & member_B
    shortest_B = torch.where(same_BB, lengths_B, math.inf).amin(1) if len(lengths_B) else lengths_B
    beyond_N = (slots.position_N() >= shortest_B[slots.trajectory_N]).to(slots.logps_N.dtype)
    return 1.0 - (1.0 - tail) * beyond_N


def transformed(kernel: Set, ratio_B: Tensor) -> Tensor:
    """f'(u) of the sequence ratio u for f-DPO (arXiv 2309.16240, table 1); the log-ratio itself for the reverse KL."""
    match kernel.divergence:
        case "reverse_kl":
            return ratio_B
        case "forward_kl":
            return 1.0 - torch.exp(-ratio_B)
        case "jensen_shannon":
            return math.log(2.0) + logsigmoid(ratio_B)
        case "alpha":
            power = kernel.divergence_alpha - 1.0
            return torch.expm1(power * ratio_B) / power
        case _:
            assert_never(kernel.divergence)


# ---------------------------------------------------------------- pairs


def of_pairs(kernel: Set, slots: Slots) -> Tensor:
    """[P] losses. A set with several chosen or rejected members counts once: its pairs share it."""
    chosen_P, rejected_P, pairs_P = pairs(slots)
    score_B = scores(kernel, slots)
    won_P, lost_P = score_B.index_select(0, chosen_P), score_B.index_select(0, rejected_P)
    if kernel.link == "aot":
        sums_B = [
            slots.sum_by_trajectory(one_N * tail_discount(slots, kernel.tail))
            for one_N in (slots.logps_N, slots.known("reference_logps_N", "link aot"))
        ]
        policy_P, reference_P = (one_B[chosen_P] - one_B[rejected_P] for one_B in sums_B)
        won_P, lost_P = policy_P.sort().values, reference_P.sort().values
    elif kernel.link == "aot_unpaired":
        won_P, lost_P = won_P.sort().values, lost_P.sort().values
    margin_P = kernel.margin + row_margins(slots, chosen_P) if kernel.row_margin else kernel.margin
    loss_P = links.of_pair(kernel, won_P, lost_P, margin_P) / pairs_P
    return loss_P * alignment(slots, chosen_P, rejected_P) if kernel.weighted else loss_P


def row_margins(slots: Slots, chosen_P: Tensor) -> Tensor:
    """The margins that the data state; ValueError where one is missing."""
    if slots.margin_B is None or bool(slots.margin_B[chosen_P].isnan().any()):
        raise ValueError(f"strand {slots.strand!r}: row_margin needs a margin for every pair; state it or drop the key")
    return slots.margin_B[chosen_P]


def alignment(slots: Slots, chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """WPO's weight of each pair, detached (arXiv 2406.11827, eq. 2): exp of the means of log p - log sum p^2."""
    aligned_N = slots.logps_N.detach() - slots.known("collision_N", "weighted pairs")
    weight_B = slots.mean_by_trajectory(aligned_N).exp()
    return weight_B[chosen_P] * weight_B[rejected_P]


def pairs(slots: Slots) -> tuple[Tensor, Tensor, Tensor]:
    """Trajectories (chosen, rejected) of every pair, and how many pairs its set has.

    Raises ValueError when a trajectory of the strand has no partner here: a set is never parted.
    """
    if slots.set_B is None or slots.label_B is None:
        if len(slots.logps_N):
            raise ValueError(f"strand {slots.strand!r}: a set kernel reads set_B and label_B, which are missing")
        none = torch.zeros(0, dtype=torch.int64, device=slots.logps_N.device)
        return none, none, none
    # on the host: a few dozen rows, and what is found has to be known here anyway
    sets_B, labels_B, slots_B = (one.cpu().numpy() for one in (slots.set_B, slots.label_B, slots.counts_B()))
    won_C = np.flatnonzero((slots_B > 0) & (labels_B > 0.5))
    lost_R = np.flatnonzero((slots_B > 0) & (labels_B <= 0.5))
    pair_CR = (sets_B[won_C][:, None] == sets_B[lost_R]) & (sets_B[lost_R] >= 0)
    rivals_C, rivals_R = pair_CR.sum(1), pair_CR.sum(0)
    alone = int((slots_B > 0).sum() - (rivals_C > 0).sum() - (rivals_R > 0).sum())
    if alone:
        raise ValueError(
            f"strand {slots.strand!r}: {alone} trajectories have no partner in this batch; a set needs label 1 and "
            "label 0, and all of it in one micro-batch (plan_micro_batches(together=...))"
        )
    c_P, r_P = np.nonzero(pair_CR)
    found = (won_C[c_P], lost_R[r_P], rivals_C[c_P] * rivals_R[r_P])
    chosen_P, rejected_P, pairs_P = (torch.from_numpy(one).to(slots.logps_N.device) for one in found)
    return chosen_P, rejected_P, pairs_P


# ---------------------------------------------------------------- rows and tokens


def of_rows(kernel: Set, slots: Slots, statistic: float | None) -> Tensor:
    """[U] losses of the labelled trajectories: KTO (arXiv 2402.01306, eq. 7), or binary cross-entropy of the score."""
    score_B = scores(kernel, slots)
    if slots.label_B is None:
        if len(slots.logps_N):
            raise ValueError(f"strand {slots.strand!r}: link {kernel.link} reads label_B, which is missing")
        return slots.logps_N[:0]
    labelled_B = (slots.counts_B() > 0) & slots.label_B.isfinite()
    score_U, label_U = score_B[labelled_B], slots.label_B[labelled_B]
    if kernel.link == "bce":
        z_U = kernel.beta * score_U - kernel.margin
        return softplus(z_U) - label_U * z_U
    if kernel.link != "kto":
        raise ValueError(f"strand {slots.strand!r}: link {kernel.link} reads tokens; set unit: token")
    if len(score_U) and (statistic is None or math.isnan(statistic)):
        raise ValueError(
            f"strand {slots.strand!r}: link kto compares with the mean log-ratio of mismatched responses over the "
            "whole step, which is unknown; bring 2 rows or more, and the step's statistics"
        )
    return links.kto(kernel, score_U, label_U, statistic or 0.0)


def of_tokens(kernel: Set, slots: Slots) -> Tensor:
    """[U] losses of the tokens that have a target: step labels, returns (arXiv 1707.06347; 2305.20050)."""
    if not slots.scalar and len(slots.logps_N):
        raise ValueError(f"strand {slots.strand!r}: unit token needs a model with a scalar head; use unit sequence")
    targets_N = slots.targets_N
    if targets_N is None:
        return slots.logps_N[:0] * slots.known("targets_N", f"link {kernel.link}")
    asked_N = targets_N.isfinite()
    value_U, target_U = slots.logps_N[asked_N], targets_N[asked_N]
    if kernel.link == "bce":
        z_U = kernel.beta * value_U - kernel.margin
        return softplus(z_U) - target_U * z_U
    if kernel.link == "regression":
        return (value_U - target_U) ** 2
    if kernel.link != "value":
        raise ValueError(f"strand {slots.strand!r}: link {kernel.link} compares sequences; set unit: sequence")
    error_U = (value_U - target_U) ** 2
    if kernel.clip is not None:
        old_U = slots.known("old_values_N", "link value")[asked_N]
        held_U = old_U + (value_U - old_U).clamp(-kernel.clip, kernel.clip)
        error_U = torch.maximum(error_U, (held_U - target_U) ** 2)
    return 0.5 * error_U
