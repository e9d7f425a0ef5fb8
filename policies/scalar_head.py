"""A scalar head on the backbone: one number for each token of a response (a critic's value, a reward model's score).

A critic says of a token what the response will be worth, before it is written: it reads up to the token before. Every
other use judges what was written: it reads up to and with the token, as transformers' sequence classifiers do. The
token links of the kernels say which is meant. Axes: N slots, T response tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.attention import packed_hidden
from policies.config import Set, Strand
from policies.example import Example
from policies.sequences import Pair, packed_row
from policies.trajectory import Float32

ONE_MORE = np.zeros(1, np.int32)
"""Stands behind a response, so that its last token is among those the model reads; what it is plays no part."""


def foresees(strand: Strand) -> bool:
    """Whether the head speaks of a token before that is read: the strand fits values to returns."""
    return any(isinstance(term.kernel, Set) and term.kernel.link == "value" for term in strand.terms)


def outputs(
    backbone: Callable[..., Any], head_1H: Tensor, pairs: Sequence[Pair], before: Sequence[bool]
) -> list[Tensor]:
    """[T] of each (context, tokens) pair, in fp32 and with gradient; `before` says of each pair which reading it is."""
    longer = [(context, np.concatenate([tokens, ONE_MORE])) for context, tokens in pairs]
    batch, slots_N = packed_row(longer, head_1H.device)
    values_N = (packed_hidden(backbone, batch, slots_N) @ head_1H.T)[:, 0].float()
    parts = torch.split(values_N, [len(tokens) for _, tokens in longer])
    return [part[:-1] if early else part[1:] for part, early in zip(parts, before, strict=True)]


def trained_outputs(
    backbone: Callable[..., Any], head_1H: Tensor, examples: Sequence[Example], strands: Sequence[Strand]
) -> Tensor:
    """[N] at the trained tokens of the examples, in the order of `TrajectoryBatch.trained`."""
    pairs = [(example.trajectory.train_context, example.trajectory.tokens) for example in examples]
    found = outputs(backbone, head_1H, pairs, [foresees(strands[example.strand]) for example in examples])
    masks = [torch.from_numpy(example.trajectory.train_mask.copy()).to(head_1H.device) for example in examples]
    return torch.cat([values[mask] for values, mask in zip(found, masks, strict=True)])


@torch.no_grad()
def outputs_only(
    backbone: Callable[..., Any], head_1H: Tensor, pairs: Sequence[Pair], before: Sequence[bool]
) -> list[Float32]:
    """`outputs` on the host, without gradient."""
    return [values.cpu().numpy() for values in outputs(backbone, head_1H, pairs, before)]
