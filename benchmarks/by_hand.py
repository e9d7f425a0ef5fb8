"""The formulas of `benchmarks.objectives` as one would write them in torch, on the same tensors, for one batch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Random views of B responses of uneven length, back to back in N slots; K tokens of the teacher's top."""

    logps_N: Tensor
    topk_logps_NK: Tensor
    old_N: Tensor
    reference_N: Tensor
    teacher_topk_NK: Tensor
    advantages_N: Tensor
    sequence_N: Tensor
    lengths_B: Tensor
    label_B: Tensor
    """1 and 0 in turn."""
    set_B: Tensor
    """Rows 2i and 2i + 1 are a pair."""

    @classmethod
    def make(cls, rows: int, longest: int, top_k: int) -> "Drawn":
        """Lengths between half of the longest and the longest."""
        torch.manual_seed(0)
        lengths_B = torch.randint(longest // 2, longest + 1, (rows,))
        tokens = int(lengths_B.sum())
        ours, theirs = ((3.0 * torch.randn(tokens, 4 * top_k)).log_softmax(-1) for _ in range(2))
        logps_N = -3.0 * torch.rand(tokens)
        sequence_N = torch.arange(rows).repeat_interleave(lengths_B)
        return cls(
            logps_N=logps_N.requires_grad_(),
            topk_logps_NK=ours[:, :top_k].clone().requires_grad_(),
            old_N=logps_N.detach() + 0.1 * torch.randn(tokens),
            reference_N=logps_N.detach() + 0.2 * torch.randn(tokens),
            teacher_topk_NK=theirs[:, :top_k].clone(),
            advantages_N=torch.randn(rows)[sequence_N],
            sequence_N=sequence_N,
            lengths_B=lengths_B,
            label_B=(torch.arange(rows) % 2 == 0).float(),
            set_B=torch.arange(rows) // 2,
        )

    def sums_B(self, values_N: Tensor) -> Tensor:
        """Over each response."""
        return values_N.new_zeros(len(self.lengths_B)).index_add(0, self.sequence_N, values_N)


def clip(one: Drawn) -> Tensor:
    """PPO's clipped surrogate, mean over tokens."""
    ratio = (one.logps_N - one.old_N).exp()
    return -torch.minimum(ratio * one.advantages_N, ratio.clamp(0.8, 1.2) * one.advantages_N).mean()


def saturate(one: Drawn) -> Tensor:
    """LUFFY's p / (p + gamma), over a constant length."""
    p = one.logps_N.exp()
    return -(p / (p + 0.1) * one.advantages_N).sum() / 512


def likelihood(one: Drawn) -> Tensor:
    """Weighted negative log-likelihood, mean over tokens."""
    return -(one.logps_N * one.advantages_N).mean()


def geometric(one: Drawn) -> Tensor:
    """GSPO: the clipped surrogate of each response's mean log-ratio, mean over responses."""
    mean_B = one.sums_B(one.logps_N - one.old_N) / one.lengths_B
    ratio = mean_B.exp()[one.sequence_N]
    taken = torch.minimum(ratio * one.advantages_N, ratio.clamp(0.8, 1.2) * one.advantages_N)
    return -(one.sums_B(taken) / one.lengths_B).mean()


def pairs(one: Drawn) -> Tensor:
    """DPO, for sets of one chosen and one rejected response."""
    score_B = one.sums_B(one.logps_N - one.reference_N)
    won, lost = ((one.label_B == label).nonzero()[:, 0] for label in (1, 0))
    won, lost = won[one.set_B[won].argsort()], lost[one.set_B[lost].argsort()]
    return -logsigmoid(0.1 * (score_B[won] - score_B[lost])).mean()


def unary(one: Drawn) -> Tensor:
    """KTO against a baseline of 0.5."""
    labelled_B = one.label_B.isfinite()
    z_U = 0.1 * (one.sums_B(one.logps_N - one.reference_N)[labelled_B] - 0.5)
    return torch.where(one.label_B[labelled_B] > 0.5, torch.sigmoid(-z_U), torch.sigmoid(z_U)).mean()


def k3(one: Drawn) -> Tensor:
    """The sampled KL, mean over tokens."""
    gap = one.reference_N - one.logps_N
    return (gap.exp() - gap - 1).mean()


def top_k(one: Drawn) -> Tensor:
    """KL(teacher, policy) over the teacher's top and everything else as one more outcome."""

    def bucketed(logps_NK: Tensor) -> Tensor:
        rest = (1 - logps_NK.exp().sum(-1, keepdim=True)).clamp(min=torch.finfo(logps_NK.dtype).eps)
        return torch.cat([logps_NK, rest.log()], dim=-1)

    theirs, ours = bucketed(one.teacher_topk_NK), bucketed(one.topk_logps_NK)
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()


def reverse(hidden_NH: Tensor, head_VH: Tensor, target_hidden_NH: Tensor, target_head_VH: Tensor) -> Tensor:
    """KL(policy, target) over the whole vocabulary, dense."""
    ours = (hidden_NH @ head_VH.T).log_softmax(-1)
    theirs = (target_hidden_NH @ target_head_VH.T).log_softmax(-1)
    return (ours.exp() * (ours - theirs)).sum(-1).mean()
