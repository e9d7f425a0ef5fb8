"""Log-probabilities of given tokens from hidden states, without ever holding tokens x vocabulary for the backward.

Axes: N tokens, H hidden size, V vocabulary, K top-k. Memory beyond inputs and results: one chunk of fp32 logits, at
most CHUNK_ELEMENTS numbers (256 MiB) and two copies of it; the backward computes each chunk again. When everything
fits in one chunk its log-probabilities are kept instead, and nothing is computed twice.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

CHUNK_ELEMENTS: Final = 2**26
"""Logits held at a time. Each chunk reads the whole head, so that small ones are slow: at 49k tokens of vocabulary
chunks of 128 cost a third more than chunks of 1024 (CPU, fp32)."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs:
    """What the objective reads of the policy's next-token distributions; every tensor carries gradient, all fp32."""

    logps_N: Tensor
    entropy_N: Tensor
    topk_logps_NK: Tensor | None
    """The policy's log-probabilities of the ids asked for."""
    collision_N: Tensor
    """log sum over the vocabulary of p^2; without gradient."""


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
    size = chunk if chunk is not None else _chunk_size(len(targets_N), head_weight_VH.shape[0])
    ids_NK = targets_N[:, None] if topk_ids_NK is None else torch.cat([targets_N[:, None], topk_ids_NK], dim=1)
    logps_NK, entropy_N, collision_N = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head_weight_VH, ids_NK, temperature, size
    )
    return TokenLogprobs(logps_NK[:, 0], entropy_N, None if topk_ids_NK is None else logps_NK[:, 1:], collision_N)


def _chunk_size(tokens: int, vocabulary: int) -> int:
    """Tokens of each chunk, such that all are about as large."""
    parts = max(1, math.ceil(tokens * vocabulary / CHUNK_ELEMENTS))
    return max(1, math.ceil(tokens / parts))


def entropy(logps_NV: Tensor) -> Tensor:
    """Entropy in nats; a token of probability 0 adds 0, though its log-probability is -inf."""
    return -(logps_NV.exp() * logps_NV.clamp(min=torch.finfo(logps_NV.dtype).min)).sum(-1)


def _logits(hidden_NH: Tensor, head_weight_VH: Tensor, temperature: float) -> Tensor:
    logits_NV = (hidden_NH @ head_weight_VH.T).float()
    return logits_NV if temperature == 1.0 else logits_NV.div_(temperature)


class _ChunkedLogprobs(torch.autograd.Function):
    """Gathered log-probabilities (N, K) and entropies (N,), with the backward by chunks of tokens."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, head_weight_VH: Tensor, ids_NK: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        logps_NK = hidden_NH.new_empty(ids_NK.shape, dtype=torch.float32)
        entropy_N = hidden_NH.new_empty(len(ids_NK), dtype=torch.float32)
        collision_N = hidden_NH.new_empty(len(ids_NK), dtype=torch.float32)
        total_N1 = hidden_NH.new_empty((len(ids_NK), 1), dtype=torch.float32)
        kept = None
        for start in range(0, len(ids_NK), chunk):
            part = slice(start, start + chunk)
            logits_nV = _logits(hidden_NH[part], head_weight_VH, temperature)
            total_N1[part] = logits_nV.logsumexp(-1, keepdim=True)
            logps_NK[part] = logits_nV.gather(1, ids_NK[part]) - total_N1[part]
            p_nV = (logits_nV - total_N1[part]).exp_()
            entropy_N[part] = total_N1[part, 0] - torch.linalg.vecdot(p_nV, logits_nV)
            collision_N[part] = torch.linalg.vecdot(p_nV, p_nV).log()
            kept = logits_nV if len(ids_NK) <= chunk else None
        ctx.save_for_backward(hidden_NH, head_weight_VH, ids_NK, total_N1, entropy_N, kept)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(collision_N)
        return logps_NK, entropy_N, collision_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_NH, head_weight_VH, ids_NK, total_N1, entropy_N, kept = ctx.saved_tensors
        scaled_NK, scaled_N = (None if one is None else one / ctx.temperature for one in gradients[:2])
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(hidden_NH) if wants_hidden else None
        head_grad = torch.zeros_like(head_weight_VH, dtype=torch.float32) if wants_head else None
        for start in range(0, len(ids_NK), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_nV = kept if kept is not None else _logits(hidden_NH[part], head_weight_VH, ctx.temperature)
            gradient_nV = _logits_gradient(
                logits_nV - total_N1[part],
                ids_NK[part],
                entropy_N[part],
                None if scaled_NK is None else scaled_NK[part],
                None if scaled_N is None else scaled_N[part],
            ).to(head_weight_VH.dtype)
            if hidden_grad is not None:
                hidden_grad[part] = gradient_nV @ head_weight_VH
            if head_grad is not None:
                head_grad += gradient_nV.T @ hidden_NH[part]
        return hidden_grad, None if head_grad is None else head_grad.to(head_weight_VH.dtype), None, None, None


def _logits_gradient(
    logps_NV: Tensor, ids_NK: Tensor, entropy_N: Tensor, gradient_NK: Tensor | None, gradient_N: Tensor | None
) -> Tensor:
    """d log p_k / d logits = onehot_k - p; d entropy / d logits = -p (log p + entropy). Overwrites `logps_NV`."""
    pull_N1 = torch.zeros_like(entropy_N)[:, None] if gradient_NK is None else gradient_NK.sum(1, keepdim=True)
    if gradient_N is None:
        gradient_NV = logps_NV.exp_().mul_(-pull_N1)
    else:
        gradient_NV = logps_NV.exp().mul_(-(pull_N1 + gradient_N[:, None] * (logps_NV + entropy_N[:, None])))
    return gradient_NV if gradient_NK is None else gradient_NV.scatter_add_(1, ids_NK, gradient_NK)
