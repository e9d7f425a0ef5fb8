"""(context, tokens) pairs for a model that is only asked: planned into parts, and packed into one row each.

Axes: T tokens of a row, N slots that are asked for.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from policies.batch import TrajectoryBatch, plan_micro_batches
from policies.trajectory import Int32

Pair = tuple[Int32, Int32]
"""Context and response."""


def plan_sequences(sequences: Sequence[Pair], max_tokens: int) -> list[list[int]]:
    """Indices of (context, tokens) pairs, in parts of at most `max_tokens` positions; empty responses left out."""
    lengths = [len(context) + len(tokens) - 1 if len(tokens) else 0 for context, tokens in sequences]
    parts = plan_micro_batches(lengths, max_tokens)
    return [kept for part in parts if (kept := [index for index in part if lengths[index]])]


def packed_row(sequences: Sequence[Pair], device: torch.device) -> tuple[TrajectoryBatch, Tensor]:
    """(context, tokens) pairs as one packed row, and the slots that predict their tokens.

    ValueError for a pair without context or without tokens.
    """
    for context, tokens in sequences:
        if not len(context) or not len(tokens):
            raise ValueError(
                f"a sequence of {len(context)} context and {len(tokens)} response tokens has no log-probability"
            )
    whole = [np.concatenate(pair) for pair in sequences]
    lengths = [len(one) - 1 for one in whole]
    starts = np.cumsum([0, *lengths])[:-1]
    answers = [
        start + np.arange(len(context) - 1, length)
        for (context, _), start, length in zip(sequences, starts, lengths, strict=True)
    ]

    def row(parts: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

    tokens_T = row([one[1:] for one in whole])
    batch = TrajectoryBatch(
        tokens_BT=tokens_T[None],
        mask_BT=torch.ones_like(tokens_T, dtype=torch.bool)[None],
        sequence_BT=row([np.full(length, index) for index, length in enumerate(lengths)])[None],
        inputs_BT=row([one[:-1] for one in whole])[None],
        positions_BT=row([np.arange(length) for length in lengths])[None],
        lengths=tuple(lengths),
    )
    return batch, row(answers)
