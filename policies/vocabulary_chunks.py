"""Products with a model's head, a chunk of tokens at a time, in buffers that are used again.

Axes: n tokens of a chunk, H hidden size, V vocabulary. The chunk's logits are held once, in fp32 (fp64 if the hidden
states are): what is computed of them is computed by blocks of rows, and a product in a narrower type by blocks of the
vocabulary, so that no second copy of them ever exists.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

CHUNK_ELEMENTS: Final = 2**26
"""Logits held at a time. Each chunk reads the whole head, so that small ones are slow: at 49k tokens of vocabulary
chunks of 128 cost a third more than chunks of 1024 (CPU, fp32)."""

BLOCKS: Final = 16
"""Blocks of a chunk, of rows or of the vocabulary: what is computed beside the logits is a few blocks large."""


def chunk_size(tokens: int, numbers: int) -> int:
    """Tokens of each chunk, such that all are about as large; `numbers` are the logits of one token."""
    parts = max(1, math.ceil(tokens * numbers / CHUNK_ELEMENTS))
    return max(1, math.ceil(tokens / parts))


def wide_type(tensor: Tensor) -> torch.dtype:
    """fp32, or fp64 for what comes in fp64."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def blocks(size: int) -> Iterator[slice]:
    """[0, size) in BLOCKS parts of about the same length."""
    step = max(1, math.ceil(size / BLOCKS))
    yield from (slice(start, min(start + step, size)) for start in range(0, size, step))


def logits_into(out_nV: Tensor, hidden_nH: Tensor, head_VH: Tensor) -> Tensor:
    """hidden @ head.T, the product in the head's type, written to the first rows of `out_nV`; gives these."""
    logits_nV = out_nV[: len(hidden_nH)]
    if head_VH.dtype == out_nV.dtype:
        return torch.mm(hidden_nH, head_VH.T, out=logits_nV)
    for part in blocks(len(head_VH)):
        logits_nV[:, part] = hidden_nH @ head_VH[part].T
    return logits_nV


@dataclass(slots=True, eq=False)
class ProductGradients:
    """Gradients of hidden @ head.T, gathered chunk by chunk; None where nobody wants them."""

    hidden_NH: Tensor | None
    head_VH: Tensor | None
    """Summed in the wide type."""

    @classmethod
    def empty(cls, hidden_NH: Tensor, head_VH: Tensor, wanted: tuple[bool, bool]) -> "ProductGradients":
        """Nothing gathered yet."""
        return cls(
            torch.empty_like(hidden_NH) if wanted[0] else None,
            torch.zeros_like(head_VH, dtype=wide_type(head_VH)) if wanted[1] else None,
        )

    def add(self, part: slice, gradient_nV: Tensor, hidden_nH: Tensor, head_VH: Tensor) -> None:
        """What the gradient of one chunk's logits gives; `part` are the chunk's tokens."""
        if head_VH.dtype == gradient_nV.dtype:
            if self.hidden_NH is not None:
                torch.mm(gradient_nV, head_VH, out=self.hidden_NH[part])
            if self.head_VH is not None:
                self.head_VH.addmm_(gradient_nV.T, hidden_nH)
            return
        total_nH = torch.zeros_like(hidden_nH, dtype=gradient_nV.dtype)
        for some in blocks(len(head_VH)):
            narrow_nv = gradient_nV[:, some].to(head_VH.dtype)
            if self.hidden_NH is not None:
                total_nH += narrow_nv @ head_VH[some]
            if self.head_VH is not None:
                self.head_VH[some] += narrow_nv.T @ hidden_nH
        if self.hidden_NH is not None:
            self.hidden_NH[part] = total_nH

    def finished(self, head_VH: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """In the types of the tensors themselves."""
        return self.hidden_NH, None if self.head_VH is None else self.head_VH.to(head_VH.dtype)
