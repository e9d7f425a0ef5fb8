"""What is measured by who wrote the tokens, over all strands: tokens, loss, pull, and how far the policy has moved.

Everything is a sum, so that micro-batches, updates and ranks merge exactly; `ess` is worked out of the sums last.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from policies.batch import TrajectoryBatch
from policies.config import Strand
from policies.trajectory import Origin

OriginFacts = dict[str, dict[str, float]]
"""Origin's name in small letters -> fact -> value; origins without trained tokens are absent."""

SUMS: Final = ("tokens", "loss", "gradient_mass", "behavior_tokens", "weight_sum", "weight_square_sum")
"""weight_*: of exp(log p - log p at sampling), over the tokens whose probability at sampling was recorded."""
ORIGINS: Final = tuple(origin.name.lower() for origin in Origin)


@torch.no_grad()
def by_origin(
    strands: Sequence[Strand],
    batch: TrajectoryBatch,
    logps_BT: Tensor | None,
    coefficient_BT: Tensor,
    losses: Sequence[float],
) -> OriginFacts:
    """The facts of one batch; one transfer from the device. `logps_BT` is None for a scalar head, which has none.

    A strand's loss is shared among its tokens by |g|: a token that nothing pulls on has none of it, and where nothing
    pulls at all each has the same. So the origins' losses sum to the loss, whatever the kernels are.
    """
    if batch.origin_BT is None:
        return {}
    trained_N = batch.mask_BT.flatten().nonzero()[:, 0]
    origin_N = batch.origin_BT.flatten()[trained_N].long()
    strand_N = torch.zeros_like(origin_N)
    if batch.strand_B is not None and batch.size:
        strand_N = batch.strand_B.long()[batch.trajectory_BT.flatten()[trained_N].clamp(min=0)]
    cell_N = strand_N * len(ORIGINS) + origin_N
    columns = [torch.ones_like(cell_N, dtype=torch.float64), coefficient_BT.flatten()[trained_N].abs().double()]
    columns += _weights(batch, logps_BT, trained_N)
    size = len(strands) * len(ORIGINS)
    sums = torch.stack([torch.bincount(cell_N, column, minlength=size) for column in columns])
    return _named(sums.reshape(len(columns), len(strands), len(ORIGINS)).tolist(), losses)


def _weights(batch: TrajectoryBatch, logps_BT: Tensor | None, trained_N: Tensor) -> list[Tensor]:
    """Known, weight and its square at each trained token; zeros where nobody recorded the probability at sampling."""
    if batch.behavior_logps_BT is None or logps_BT is None:
        return [torch.zeros(len(trained_N), dtype=torch.float64, device=trained_N.device)] * 3
    gap_N = (logps_BT.flatten()[trained_N] - batch.behavior_logps_BT.flatten()[trained_N]).double()
    known_N = ~gap_N.isnan()
    weight_N = torch.where(known_N, gap_N, -math.inf).exp()
    return [known_N.double(), weight_N, weight_N**2]


def _named(sums: Sequence[Sequence[Sequence[float]]], losses: Sequence[float]) -> OriginFacts:
    tokens, masses, known, weights, squares = sums
    found: OriginFacts = {}
    for number, name in enumerate(ORIGINS):
        count = math.fsum(row[number] for row in tokens)
        if count:
            shares = (_share(tokens[s], masses[s], number) * loss for s, loss in enumerate(losses))
            columns = (sum(row[number] for row in column) for column in (masses, known, weights, squares))
            found[name] = _complete(dict(zip(SUMS, (count, math.fsum(shares), *columns), strict=True)))
    return found


def _share(tokens: Sequence[float], masses: Sequence[float], number: int) -> float:
    """Of one strand's loss, what an origin's tokens have."""
    pull, count = math.fsum(masses), math.fsum(tokens)
    if pull > 0:
        return masses[number] / pull
    return tokens[number] / count if count else 0.0


def merge(parts: Sequence[Mapping[str, Mapping[str, float]]]) -> OriginFacts:
    """The facts of several batches or ranks as if they had been one."""
    found: OriginFacts = {}
    for name in ORIGINS:
        own = [part[name] for part in parts if name in part]
        if own:
            found[name] = _complete({fact: math.fsum(one[fact] for one in own) for fact in SUMS})
    return found


def _complete(sums: dict[str, float]) -> dict[str, float]:
    """With the effective sample size as a share of the tokens that it is over; NaN where none is known."""
    scale = sums["behavior_tokens"] * sums["weight_square_sum"]
    return {**sums, "ess": sums["weight_sum"] ** 2 / scale if scale > 0 else math.nan}
