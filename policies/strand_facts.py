"""What is measured of each strand while its loss is computed: counts, means and maxima that merge exactly.

Sums stay sums; a mean stands beside the count it is over; a value that nobody knows is NaN over a count of 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from policies import kernels, shapes
from policies.config import Point, Strand
from policies.gradient_mass import mass
from policies.ratios import log_ratio
from policies.slots import Slots

Facts = dict[str, dict[str, float]]
"""Strand name -> fact -> value."""

SUMS: Final = ("loss", "tokens", "sequences", "gradient_mass", "ratio_tokens", "entropy_tokens", "behavior_tokens")
MEANS: Final = {
    "ratio_mean": "ratio_tokens",
    "clip_share": "ratio_tokens",
    "entropy": "entropy_tokens",
    "kl_behavior": "behavior_tokens",
    "weight_mean": "behavior_tokens",
    "weight_square_mean": "behavior_tokens",
    "logp": "tokens",
    "advantage": "tokens",
}
"""Mean -> the count it is over. ratio_*: the first point term, against old or behavior; weight_*: exp(c - behavior)."""
MAXIMA: Final = ("ratio_max",)


@torch.no_grad()
def measure(strand: Strand, slots: Slots, loss: Tensor, coefficient_N: Tensor) -> dict[str, float]:
    """The facts of one strand in one batch; one transfer from the device."""
    tokens = float(len(slots.logps_N))
    facts = {
        "loss": loss.detach(),
        "gradient_mass": mass(coefficient_N),
        "sequences": (slots.counts_B() > 0).sum(),
        "logp": slots.logps_N.mean(),
        **_ratio_facts(strand, slots),
        **_behavior_facts(slots),
    }
    if slots.entropy_N is not None:
        facts |= {"entropy": slots.entropy_N.mean(), "entropy_tokens": torch.tensor(tokens)}
    if slots.advantages_N is not None:
        facts["advantage"] = slots.advantages_N.mean()
    values = torch.stack([value.to(loss.device, torch.float64) for value in facts.values()]).tolist()
    found = {**dict(zip(facts, values, strict=True)), "tokens": tokens}
    return _complete(found)


def merge(parts: Sequence[Mapping[str, Mapping[str, float]]]) -> Facts:
    """The facts of several batches or ranks as if they had been one."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {name: _merge_one([part[name] for part in parts if name in part]) for name in names}


def _merge_one(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    merged = {name: math.fsum(part[name] for part in parts) for name in SUMS}
    for name, count in MEANS.items():
        known = [part for part in parts if part[count] and not math.isnan(part[name])]
        if known:
            merged[name] = math.fsum(part[name] * part[count] for part in known) / sum(part[count] for part in known)
    for name in MAXIMA:
        merged[name] = max((part[name] for part in parts if not math.isnan(part[name])), default=math.nan)
    return _complete(merged)


def _complete(found: dict[str, float]) -> dict[str, float]:
    """Every fact, the unknown ones as NaN, and the effective sample size as a share of the tokens."""
    facts = {name: found.get(name, 0.0) for name in SUMS}
    facts |= {name: found.get(name, math.nan) if facts[count] else math.nan for name, count in MEANS.items()}
    facts |= {name: found.get(name, math.nan) for name in MAXIMA}
    square = facts["weight_square_mean"]
    facts["ess"] = facts["weight_mean"] ** 2 / square if square > 0 else math.nan
    return facts


def _ratio_facts(strand: Strand, slots: Slots) -> dict[str, Tensor]:
    for term in strand.terms:
        kernel = term.kernel
        if not isinstance(kernel, Point) or kernel.denominator not in ("old", "behavior"):
            continue
        read = slots.read_by(term.only)
        if len(read.logps_N):
            log_ratio_N = log_ratio(kernel, read)
            advantages_N = kernels.advantages(kernel, read)
            return {
                "ratio_mean": log_ratio_N.exp().mean(),
                "ratio_max": log_ratio_N.max().exp(),
                "clip_share": shapes.cut(kernel.shape, log_ratio_N, advantages_N).double().mean(),
                "ratio_tokens": torch.tensor(float(len(log_ratio_N))),
            }
    return {}


def _behavior_facts(slots: Slots) -> dict[str, Tensor]:
    if slots.behavior_logps_N is None or slots.scalar:
        return {}
    gap_N = (slots.logps_N - slots.behavior_logps_N).double()
    if bool(gap_N.sum().isnan()):  # a look at all of them is quicker than taking out none
        gap_N = gap_N[~gap_N.isnan()]
    weight_N = gap_N.exp()
    return {
        "kl_behavior": -gap_N.mean(),
        "weight_mean": weight_N.mean(),
        "weight_square_mean": (weight_N**2).mean(),
        "behavior_tokens": torch.tensor(float(len(gap_N))),
    }
