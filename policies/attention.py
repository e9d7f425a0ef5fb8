"""Packed attention: trajectories back to back in one row, and no padding computed outside the attention product.

Every token-wise layer sees the packed row (1, N). The attention alone parts it again: trajectories of like length are
stacked into (S, heads, T, d) and go through causal scaled-dot-product attention, where right padding needs no mask;
on CUDA the variable-length kernel reads the row as it is. Axes: N slots of the row, S trajectories of one stack, T its
longest, M all padded slots of all stacks, H heads, D size of a head.

Load a model with `attn_implementation=PACKED` and call it through `packed_hidden`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from policies.batch import TrajectoryBatch

PACKED: Final = "braid_packed"
"""Name of the attention implementation in transformers."""

LENGTH_RATIO: Final = 1.2
"""Longest over shortest trajectory of a stack."""

FREE_AREA: Final = 16_384
"""Padded query-key products that cost less than one more kernel call (measured on CPU)."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Trajectories that are attended to together: count x width padded slots, after those of the stacks before."""

    count: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Where each trajectory of a packed row lies, made once for a forward and read by every layer."""

    stacks: tuple[Stack, ...]
    pad_M: Tensor
    """For each padded slot the slot of the row that fills it (0 where none does)."""
    empty_M: Tensor
    """bool: padded slots that hold nothing."""
    unpad_N: Tensor
    """For each slot of the row its padded slot."""
    bounds: Tensor
    """int32 [trajectories + 1]: cumulative lengths."""
    longest: int


def plan_packing(lengths: Sequence[int], device: torch.device | str = "cpu") -> Packing:
    """Stack trajectories of like length, so that attention computes little padding."""
    starts = torch.tensor([0, *lengths]).cumsum(0)
    order = sorted((index for index in range(len(lengths)) if lengths[index]), key=lambda i: -lengths[i])
    stacks: list[Stack] = []
    rows: list[Tensor] = []
    for members in _stacked(order, lengths):
        width = lengths[members[0]]
        stacks.append(Stack(len(members), width))
        slot_T, size_S = torch.arange(width), torch.tensor([lengths[index] for index in members])
        row_ST = starts[torch.tensor(members)][:, None] + slot_T
        rows.append(torch.where(slot_T < size_S[:, None], row_ST, -1).flatten())
    pad_M = torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64)
    empty_M = pad_M < 0
    unpad_N = torch.empty(sum(lengths), dtype=torch.int64)
    unpad_N[pad_M[~empty_M]] = (~empty_M).nonzero()[:, 0]
    return Packing(
        stacks=tuple(stacks),
        pad_M=pad_M.clamp(min=0).to(device),
        empty_M=empty_M.to(device),
        unpad_N=unpad_N.to(device),
        bounds=torch.tensor([0, *(n for n in lengths if n)]).cumsum(0).to(device, torch.int32),
        longest=max(lengths, default=0),
    )


def _stacked(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Indices by falling length, cut where the padding would cost more than another call."""
    stacks: list[list[int]] = []
    wasted = 0
    for index in order:
        longest = lengths[stacks[-1][0]] if stacks else 0
        wasted += longest**2 - lengths[index] ** 2
        if stacks and (lengths[index] * LENGTH_RATIO >= longest or wasted <= FREE_AREA):
            stacks[-1].append(index)
        else:
            stacks.append([index])
            wasted = 0
    return stacks


def packed_hidden(backbone: Callable[..., Any], batch: TrajectoryBatch, slots_N: Tensor) -> Tensor:
    """Final hidden states (N, hidden) at these slots of the flattened batch.

    `backbone` is a decoder without its head: `model.get_decoder()`, loaded with PACKED for a packed batch.
    """
    if batch.inputs_BT is None or batch.lengths is None:
        raise ValueError("TrajectoryBatch.inputs_BT or lengths is None: a batch that a model reads comes from collate")
    extra: dict[str, Any] = {}
    if batch.sequence_BT is not None:
        extra["packing"] = plan_packing(batch.lengths, batch.inputs_BT.device)
    output = backbone(input_ids=batch.inputs_BT, position_ids=batch.positions_BT, use_cache=False, **extra)
    hidden_BTD: Tensor = output.last_hidden_state
    return hidden_BTD.flatten(0, 1)[slots_N]


# ---------------------------------------------------------------- the attention that transformers calls


def packed_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Causal attention within each trajectory of the row; query (1, H, N, D) gives (1, N, H, D)."""
    packing = kwargs.get("packing")
    if not isinstance(packing, Packing):
        raise ValueError(f"attention {PACKED!r} needs the trajectories' bounds: call the model through packed_hidden")
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise ValueError(f"attention {PACKED!r} does not know {name!r}; load this model with 'sdpa' and pad")
    rows_NHD = [one[0].transpose(0, 1) for one in (query, key, value)]
    scale, window = kwargs.get("scaling"), kwargs.get("sliding_window")
    dropout = float(kwargs.get("dropout") or 0.0)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout:
        return _attend_varlen(rows_NHD, packing, scale, window)[None], None
    sizes = [stack.count * stack.width for stack in packing.stacks]
    # split, not slices: its backward joins the parts once, where each slice's would fill all M slots with zeros
    padded_MHD = [torch.split(_move(row, packing.pad_M, packing.unpad_N, None), sizes) for row in rows_NHD]
    out_MHD = [
        _attend(parts, stack, scale, window, dropout) for stack, *parts in zip(packing.stacks, *padded_MHD, strict=True)
    ]
    joined = torch.cat(out_MHD) if out_MHD else rows_NHD[0]
    return _move(joined, packing.unpad_N, packing.pad_M, packing.empty_M)[None], None


def _attend(parts: Sequence[Tensor], stack: Stack, scale: float | None, window: int | None, dropout: float) -> Tensor:
    """One stack: (S x T, H, D) in and out."""
    count, width = stack.count, stack.width
    q, k, v = (one.reshape(count, width, *one.shape[1:]).transpose(1, 2) for one in parts)
    mask = None
    if window is not None and window < width:
        gap = torch.arange(width, device=q.device)[:, None] - torch.arange(width, device=q.device)
        mask = (gap >= 0) & (gap < window)
    out_SHTD = scaled_dot_product_attention(
        q, k, v, mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
    )
    return out_SHTD.transpose(1, 2).flatten(0, 1)


def _attend_varlen(rows_NHD: Sequence[Tensor], packing: Packing, scale: float | None, window: int | None) -> Tensor:
    """The row as it is, through torch's variable-length kernel (CUDA, half precision)."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = rows_NHD
    reach = -1 if window is None else window - 1
    out = varlen_attn(
        q,
        k,
        v,
        packing.bounds,
        packing.bounds,
        packing.longest,
        packing.longest,
        scale=scale,
        window_size=(reach, 0),
        enable_gqa=k.shape[1] != q.shape[1],
    )
    assert isinstance(out, Tensor)  # a tuple only when asked for more
    return out


def _move(rows: Tensor, take: Tensor, back: Tensor, empty: Tensor | None) -> Tensor:
    moved: Tensor = _Move.apply(rows, take, back, empty)  # type: ignore[no-untyped-call]
    return moved


class _Move(torch.autograd.Function):
    """Rows taken by an index whose inverse is known, so that the backward is a gather too, not a scatter."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, take: Tensor, back: Tensor, empty: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, empty)
        return rows.index_select(0, take)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        back, empty = ctx.saved_tensors
        moved = gradient.index_select(0, back)
        if empty is not None:
            moved = moved.masked_fill_(empty[:, None, None], 0.0)
        return moved, None, None, None


def _register() -> None:
    """Make PACKED known to transformers. It has no mask function: then no mask is ever built."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, packed_attention)


_register()
