"""How the strands' gradients stand to each other: the cosine between each two, taken before a step's first update.

The gradients are taken by `torch.autograd.grad`, which writes to no parameter: neither the update nor the optimizer
knows of it. It costs one forward and backward pass over the step's examples more, and one float32 copy of the trainable
parameters for each strand while it lasts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from actors.ranks import Ranks
from policies import step
from policies.example import Example
from policies.step import Objective, Policy


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """Of which model, and over which ranks."""

    policy: Policy
    parameters: Sequence[nn.Parameter]
    """The trainable ones, whole on every rank."""
    ranks: Ranks
    max_tokens: int
    """Of one micro-batch."""


def interference(of: Gradients, share: Sequence[Example], objective: Objective) -> dict[str, float]:
    """`first|second` -> cosine between the gradients of two strands, coefficients and normalisers included.

    `share` is this rank's of the first update; all ranks call it alike. NaN where a strand has no gradient: it rests,
    has no example in the step, or pulls nowhere.
    """
    names = [strand.name for strand in objective.strands if strand.terms]
    if len(names) < 2:
        return {}
    numbers = {strand.name: index for index, strand in enumerate(objective.strands)}
    flats = {name: _gradient(of, [one for one in share if one.strand == numbers[name]], objective) for name in names}
    return dict(_cosines(flats))


def _gradient(of: Gradients, own: Sequence[Example], objective: Objective) -> Tensor:
    """The summed gradient of these examples' loss over all ranks, flat, in float32."""
    sizes = [parameter.numel() for parameter in of.parameters]
    flat = torch.zeros(sum(sizes), device=of.parameters[0].device)
    views = torch.split(flat, sizes)
    for part in step.plan(own, of.max_tokens):
        loss = step.evaluate_part(of.policy, part, objective).loss
        if not loss.requires_grad:
            continue  # nothing of this part pulls
        for view, slope in zip(views, torch.autograd.grad(loss, of.parameters, allow_unused=True), strict=True):
            if slope is not None:
                view += slope.flatten().float()
    if of.ranks.count > 1:
        dist.all_reduce(flat)
    return flat


def _cosines(flats: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    norms = {name: float(torch.linalg.vector_norm(flat, dtype=torch.float64)) for name, flat in flats.items()}
    for first, second in combinations(flats, 2):
        scale = norms[first] * norms[second]
        known = scale > 0 and math.isfinite(scale)
        cosine = _dot(flats[first], flats[second]) / scale if known else math.nan
        yield f"{first}|{second}", max(-1.0, min(1.0, cosine)) if known else math.nan


def _dot(first: Tensor, second: Tensor, chunk: int = 1 << 22) -> float:
    """Summed in float64, chunk by chunk: no float64 copy of all parameters."""
    parts = zip(torch.split(first, chunk), torch.split(second, chunk), strict=True)
    return math.fsum(float(torch.dot(one.double(), other.double())) for one, other in parts)
