"""Divergences over the whole vocabulary from hidden states, without ever holding tokens x vocabulary.

Axes: N tokens, H and G hidden sizes of policy and target, V vocabulary; n tokens of a chunk, b of a block of it. A
divergence compares two distributions, so a chunk's logits are the policy's and the target's: together at most
CHUNK_ELEMENTS fp32 numbers (256 MiB). Memory beyond inputs, results and their gradients (the head's is summed in fp32)
stays under 1.5 times that: the logits stand there once, and all else is computed by blocks of a sixteenth. The backward
computes each chunk again; when everything fits in one chunk its logits are kept for the first backward.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from policies.slots import WholeVocabulary
from policies.vocabulary_chunks import ProductGradients, blocks, chunk_size, logits_into, wide_type


def whole_divergence(
    hidden_NH: Tensor,
    head_VH: Tensor,
    target_hidden_NG: Tensor,
    target_head_VG: Tensor,
    keys: Sequence[WholeVocabulary],
    chunk: int | None = None,
) -> Mapping[WholeVocabulary, Tensor]:
    """[N] divergences in nats, one for each key: forward, reverse and jsd as `kernels.bucket_divergence` has them.

    A temperature divides both models' logits; nothing scales the result back. Gradient flows to `hidden_NH` and
    `head_VH`; the target is constant. `chunk` is in tokens; None chooses it from the vocabulary. Products are in the
    heads' types, the rest in fp32 (fp64 if the policy's hidden states are). Raises ValueError when the vocabularies
    differ.
    """
    if len(head_VH) != len(target_head_VG):
        raise ValueError(
            f"the policy's head has {len(head_VH)} tokens and the target's {len(target_head_VG)}: a divergence over "
            "the whole vocabulary needs one vocabulary; use a sampled form (k2, k3)"
        )
    size = chunk if chunk is not None else chunk_size(len(hidden_NH), 2 * len(head_VH))
    distinct = tuple(dict.fromkeys(keys))
    found_KN = _ChunkedDivergences.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head_VH, target_hidden_NG.detach(), target_head_VG.detach(), distinct, size
    )
    return dict(zip(distinct, found_KN, strict=True))


class _ChunkedDivergences(torch.autograd.Function):
    """Divergences (keys, N), with the backward by chunks of tokens."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        hidden_NH: Tensor,
        head_VH: Tensor,
        target_hidden_NG: Tensor,
        target_head_VG: Tensor,
        keys: tuple[WholeVocabulary, ...],
        chunk: int,
    ) -> Tensor:
        found_KN = hidden_NH.new_empty((len(keys), len(hidden_NH)), dtype=wide_type(hidden_NH))
        inputs = (hidden_NH, head_VH, target_hidden_NG, target_head_VG)
        pair_2nV = _buffer(inputs, chunk)
        for start in range(0, len(hidden_NH), chunk):
            ours_nV, theirs_nV = _chunk_logits(pair_2nV, inputs, slice(start, start + chunk))
            for block in blocks(len(ours_nV)):
                for row, key in enumerate(keys):
                    logps_bV, target_bV = (_log_softmax(one[block], key) for one in (ours_nV, theirs_nV))
                    found_KN[row, start + block.start : start + block.stop] = _divergence(key, logps_bV, target_bV)
        ctx.save_for_backward(*inputs)
        ctx.kept = pair_2nV if len(hidden_NH) <= chunk and any(ctx.needs_input_grad) else None
        ctx.keys, ctx.chunk = keys, chunk
        return found_KN

    @staticmethod
    def backward(ctx: Any, gradient_KN: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        hidden_NH, head_VH = inputs[:2]
        found = ProductGradients.empty(hidden_NH, head_VH, ctx.needs_input_grad[:2])
        kept, ctx.kept = ctx.kept, None  # written over below; another backward computes it again
        pair_2nV = _buffer(inputs, ctx.chunk) if kept is None else kept
        for start in range(0, len(hidden_NH), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            ours_nV, theirs_nV = _chunk_logits(pair_2nV, inputs, part) if kept is None else (kept[0], kept[1])
            for block in blocks(len(ours_nV)):
                pull_Kb1 = gradient_KN[:, start + block.start : start + block.stop, None]
                ours_nV[block] = _logits_gradient(ctx.keys, pull_Kb1, ours_nV[block], theirs_nV[block])
            found.add(part, ours_nV, hidden_NH[part], head_VH)
        return *found.finished(head_VH), None, None, None, None


def _buffer(inputs: Sequence[Tensor], chunk: int) -> Tensor:
    """Room for the logits of a chunk, the policy's and the target's."""
    hidden_NH, head_VH = inputs[:2]
    return hidden_NH.new_empty((2, min(chunk, len(hidden_NH)), len(head_VH)), dtype=wide_type(hidden_NH))


def _chunk_logits(pair_2nV: Tensor, inputs: Sequence[Tensor], part: slice) -> tuple[Tensor, Tensor]:
    hidden_NH, head_VH, target_hidden_NG, target_head_VG = inputs
    ours_nV = logits_into(pair_2nV[0], hidden_NH[part], head_VH)
    return ours_nV, logits_into(pair_2nV[1], target_hidden_NG[part], target_head_VG)


def _log_softmax(logits_bV: Tensor, key: WholeVocabulary) -> Tensor:
    return (logits_bV if key.temperature == 1.0 else logits_bV / key.temperature).log_softmax(-1)


def _form(key: WholeVocabulary) -> str:
    """As in GKD, beta 0 and 1 are the forward and the reverse KL, not the limits of the JSD, which are 0."""
    return {0.0: "forward", 1.0: "reverse"}.get(key.beta, "jsd") if key.form == "jsd" else key.form


def _divergence(key: WholeVocabulary, logps_bV: Tensor, target_bV: Tensor) -> Tensor:
    """forward KL(target, policy), reverse KL(policy, target), or GKD's generalised JSD (arXiv 2306.13649, eq. 1)."""
    form = _form(key)
    if form == "forward":
        return _kl(target_bV, logps_bV)
    if form == "reverse":
        return _kl(logps_bV, target_bV)
    mixture_bV = _mixture(key, logps_bV, target_bV)
    return key.beta * _kl(target_bV, mixture_bV) + (1.0 - key.beta) * _kl(logps_bV, mixture_bV)


def _kl(left_bV: Tensor, right_bV: Tensor) -> Tensor:
    found_b: Tensor = torch.linalg.vecdot(left_bV.exp(), left_bV - right_bV)
    return found_b


def _mixture(key: WholeVocabulary, logps_bV: Tensor, target_bV: Tensor) -> Tensor:
    return torch.logaddexp(logps_bV + math.log1p(-key.beta), target_bV + math.log(key.beta))


def _logits_gradient(
    keys: Sequence[WholeVocabulary], pull_Kb1: Tensor, logits_bV: Tensor, target_logits_bV: Tensor
) -> Tensor:
    """Gradient of the policy's logits; p and q are policy and target, m the mixture, D the divergence.

    forward: p - q. reverse: p (log(p / q) - D). jsd: (1 - beta) p (log(p / m) - KL(p, m)). Over the temperature.
    """
    total_bV = torch.zeros_like(logits_bV)
    for key, pull_b1 in zip(keys, pull_Kb1, strict=True):
        logps_bV, target_bV = _log_softmax(logits_bV, key), _log_softmax(target_logits_bV, key)
        form = _form(key)
        if form == "forward":
            slope_bV = logps_bV.exp_().sub_(target_bV.exp_())
        else:
            other_bV = target_bV if form == "reverse" else _mixture(key, logps_bV, target_bV)
            p_bV = logps_bV.exp()
            gap_bV = logps_bV.sub_(other_bV)
            slope_bV = gap_bV.sub_(torch.linalg.vecdot(p_bV, gap_bV)[:, None]).mul_(p_bV)
        share = 1.0 - key.beta if form == "jsd" else 1.0
        total_bV.addcmul_(slope_bV, pull_b1 * (share / key.temperature))
    return total_bV
