"""Log-probabilities of given tokens from hidden states, without ever holding tokens x vocabulary for the backward.

Axes: N tokens, H hidden size, V vocabulary, K top-k; n tokens of a chunk, b of a block of it. Memory beyond inputs,
results and gradients: one chunk of fp32 logits, at most CHUNK_ELEMENTS numbers (256 MiB), and blocks that together are
less than half of it; never a second copy. The backward computes each chunk again. When everything fits in one chunk
its logits are kept for the first backward, and nothing is computed twice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policies.vocabulary_chunks import ProductGradients, blocks, chunk_size, logits_into


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
    size = chunk if chunk is not None else chunk_size(len(targets_N), len(head_weight_VH))
    ids_NK = targets_N[:, None] if topk_ids_NK is None else torch.cat([targets_N[:, None], topk_ids_NK], dim=1)
    logps_NK, entropy_N, collision_N = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head_weight_VH, ids_NK, temperature, size
    )
    return TokenLogprobs(logps_NK[:, 0], entropy_N, None if topk_ids_NK is None else logps_NK[:, 1:], collision_N)


def entropy(logps_NV: Tensor) -> Tensor:
    """Entropy in nats; a token of probability 0 adds 0, though its log-probability is -inf."""
    return -(logps_NV.exp() * logps_NV.clamp(min=torch.finfo(logps_NV.dtype).min)).sum(-1)


def _logits(out_nV: Tensor, hidden_nH: Tensor, head_weight_VH: Tensor, temperature: float) -> Tensor:
    logits_nV = logits_into(out_nV, hidden_nH, head_weight_VH)
    return logits_nV if temperature == 1.0 else logits_nV.div_(temperature)


class _ChunkedLogprobs(torch.autograd.Function):
    """Gathered log-probabilities (N, K) and entropies (N,), with the backward by chunks of tokens."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, head_weight_VH: Tensor, ids_NK: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens = len(ids_NK)
        logps_NK = hidden_NH.new_empty(ids_NK.shape, dtype=torch.float32)
        entropy_N, collision_N, total_N = (hidden_NH.new_empty(tokens, dtype=torch.float32) for _ in range(3))
        buffer_nV = hidden_NH.new_empty((min(chunk, tokens), len(head_weight_VH)), dtype=torch.float32)
        for start in range(0, tokens, chunk):
            logits_nV = _logits(buffer_nV, hidden_NH[start : start + chunk], head_weight_VH, temperature)
            for block in blocks(len(logits_nV)):
                at = slice(start + block.start, start + block.stop)
                logits_bV = logits_nV[block]
                total_b1 = logits_bV.logsumexp(-1, keepdim=True)
                logps_NK[at] = logits_bV.gather(1, ids_NK[at]) - total_b1
                p_bV = (logits_bV - total_b1).exp_()
                entropy_N[at] = total_b1[:, 0] - torch.linalg.vecdot(p_bV, logits_bV)
                collision_N[at] = torch.linalg.vecdot(p_bV, p_bV).log()
                total_N[at] = total_b1[:, 0]
        ctx.save_for_backward(hidden_NH, head_weight_VH, ids_NK, total_N, entropy_N)
        ctx.kept = buffer_nV if tokens <= chunk and any(ctx.needs_input_grad) else None
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(collision_N)
        return logps_NK, entropy_N, collision_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_NH, head_weight_VH, ids_NK, total_N, entropy_N = ctx.saved_tensors
        scaled_NK, scaled_N = (None if one is None else one / ctx.temperature for one in gradients[:2])
        found = ProductGradients.empty(hidden_NH, head_weight_VH, ctx.needs_input_grad[:2])
        kept_NV, ctx.kept = ctx.kept, None  # written over below; another backward computes it again
        buffer_nV = kept_NV
        if buffer_nV is None:
            buffer_nV = hidden_NH.new_empty((min(ctx.chunk, len(ids_NK)), len(head_weight_VH)), dtype=torch.float32)
        for start in range(0, len(ids_NK), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_nV = kept_NV
            if logits_nV is None:
                logits_nV = _logits(buffer_nV, hidden_NH[part], head_weight_VH, ctx.temperature)
            for block in blocks(len(logits_nV)):
                at = slice(start + block.start, start + block.stop)
                _to_gradient(
                    logits_nV[block].sub_(total_N[at, None]),
                    ids_NK[at],
                    entropy_N[at],
                    None if scaled_NK is None else scaled_NK[at],
                    None if scaled_N is None else scaled_N[at],
                )
            found.add(part, logits_nV, hidden_NH[part], head_weight_VH)
        return *found.finished(head_weight_VH), None, None, None


def _to_gradient(
    logps_NV: Tensor, ids_NK: Tensor, entropy_N: Tensor, gradient_NK: Tensor | None, gradient_N: Tensor | None
) -> None:
    """Writes the logits' gradient over `logps_NV`.

    d log p_k / d logits = onehot_k - p; d entropy / d logits = -p (log p + entropy).
    """
    pull_N1 = torch.zeros_like(entropy_N)[:, None] if gradient_NK is None else gradient_NK.sum(1, keepdim=True)
    if gradient_N is None:
        logps_NV.exp_().mul_(-pull_N1)
    else:
        p_NV = logps_NV.exp()
        logps_NV.add_(entropy_N[:, None]).mul_(gradient_N[:, None]).add_(pull_N1).mul_(p_NV.neg_())
    if gradient_NK is not None:
        logps_NV.scatter_add_(1, ids_NK, gradient_NK)
