"""Log-probabilities of given tokens from hidden states, without ever holding tokens x vocabulary for the backward.

Axes: N tokens, H hidden size, V vocabulary, K top-k. Memory beyond inputs and results: one chunk of fp32 logits, at
most CHUNK_ELEMENTS numbers (64 MiB) and a few copies of it; the backward computes each chunk again. When everything
fits in one chunk its log-probabilities are kept instead, and nothing is computed twice.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from policies.slots import PolicyView

CHUNK_ELEMENTS: Final = 2**24
"""Logits held at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs:
    """What the objective reads of the policy's next-token distributions; every tensor carries gradient, all fp32."""

    logps_N: Tensor
    entropy_N: Tensor
    topk_logps_NK: Tensor | None
    """The policy's log-probabilities of the ids asked for."""

    def as_row(self) -> PolicyView:
        """As the objective reads it, for a batch of one row."""
        topk = self.topk_logps_NK
        return PolicyView(self.logps_N[None], self.entropy_N[None], None if topk is None else topk[None])


def token_logprobs(
    hidden_NH: Tensor,
    head_weight_VH: Tensor,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    topk_ids_NK: Tensor | None = None,
    chunk: int | None = None,
) -> TokenLogprobs:
    """log softmax(hidden @ head / temperature) at the targets, its entropy, and the same at `topk_ids_NK` if given.

    `chunk` is in tokens; None chooses it from the vocabulary. The product is in the head's type, the rest in fp32.
    """
    size = chunk if chunk is not None else max(1, CHUNK_ELEMENTS // head_weight_VH.shape[0])
    ids_NK = targets_N[:, None] if topk_ids_NK is None else torch.cat([targets_N[:, None], topk_ids_NK], dim=1)
    logps_NK, entropy_N = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head_weight_VH, ids_NK, temperature, size
    )
    return TokenLogprobs(logps_NK[:, 0], entropy_N, None if topk_ids_NK is None else logps_NK[:, 1:])


def _log_softmax(hidden_NH: Tensor, head_weight_VH: Tensor, temperature: float) -> Tensor:
    return (hidden_NH @ head_weight_VH.T).float().div_(temperature).log_softmax(-1)


def entropy(logps_NV: Tensor) -> Tensor:
    """Entropy in nats; a token of probability 0 adds 0, though its log-probability is -inf."""
    return -(logps_NV.exp() * logps_NV.clamp(min=torch.finfo(logps_NV.dtype).min)).sum(-1)


class _ChunkedLogprobs(torch.autograd.Function):
    """Gathered log-probabilities (N, K) and entropies (N,), with the backward by chunks of tokens."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, head_weight_VH: Tensor, ids_NK: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        logps_NK = hidden_NH.new_empty(ids_NK.shape, dtype=torch.float32)
        entropy_N = hidden_NH.new_empty(len(ids_NK), dtype=torch.float32)
        kept = None
        for start in range(0, len(ids_NK), chunk):
            part = slice(start, start + chunk)
            logps_nV = _log_softmax(hidden_NH[part], head_weight_VH, temperature)
            logps_NK[part] = logps_nV.gather(1, ids_NK[part])
            entropy_N[part] = entropy(logps_nV)
            kept = logps_nV if len(ids_NK) <= chunk else None
        ctx.save_for_backward(hidden_NH, head_weight_VH, ids_NK, entropy_N, kept)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        return logps_NK, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        gradient_NK, gradient_entropy_N = gradients
        hidden_NH, head_weight_VH, ids_NK, entropy_N, kept = ctx.saved_tensors
        if gradient_NK is None:
            gradient_NK = torch.zeros_like(ids_NK, dtype=torch.float32)
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(hidden_NH) if wants_hidden else None
        head_grad = torch.zeros_like(head_weight_VH, dtype=torch.float32) if wants_head else None
        for start in range(0, len(ids_NK), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logps_nV = kept if kept is not None else _log_softmax(hidden_NH[part], head_weight_VH, ctx.temperature)
            logits_grad = _logits_gradient(logps_nV, ids_NK[part], gradient_NK[part])
            if gradient_entropy_N is not None:
                logits_grad -= gradient_entropy_N[part, None] * _entropy_slope(logps_nV, entropy_N[part])
            logits_grad = (logits_grad / ctx.temperature).to(head_weight_VH.dtype)
            if hidden_grad is not None:
                hidden_grad[part] = logits_grad @ head_weight_VH
            if head_grad is not None:
                head_grad += logits_grad.T @ hidden_NH[part]
        return hidden_grad, None if head_grad is None else head_grad.to(head_weight_VH.dtype), None, None, None


def _logits_gradient(logps_NV: Tensor, ids_NK: Tensor, gradient_NK: Tensor) -> Tensor:
    """d log p_k / d logits = onehot_k - p."""
    gradient_NV = logps_NV.exp().mul_(-gradient_NK.sum(1, keepdim=True))
    return gradient_NV.scatter_add_(1, ids_NK, gradient_NK)


def _entropy_slope(logps_NV: Tensor, entropy_N: Tensor) -> Tensor:
    """-d entropy / d logits = p (log p + entropy)."""
    finite_NV = logps_NV.clamp(min=torch.finfo(logps_NV.dtype).min)
    return logps_NV.exp() * (finite_NV + entropy_N[:, None])
