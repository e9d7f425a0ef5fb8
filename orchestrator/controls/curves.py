"""Curves over a stage's steps, each with its phase in words."""

import math

from orchestrator.controls.config import Anneal, Mixture, Prefix, Scaffold


def cosine(high: float, low: float, gone: int, over: int) -> float:
    """From `high` at 0 to `low` at `over` along half a cosine."""
    return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * gone / over))


def mixture(control: Mixture, step: int) -> tuple[float, str]:
    """mu at `step`: linear warm-up, cosine, floor (CHORD, arXiv 2508.11408)."""
    if step < control.warmup:
        return control.peak * step / control.warmup, f"step {step} of {control.warmup} of the rise to {control.peak:g}"
    gone = step - control.warmup
    if gone >= control.decay:
        return control.floor, f"step {step} is past the cosine; the floor is {control.floor:g}"
    phase = f"step {gone} of {control.decay} of the cosine from {control.peak:g} to {control.floor:g}"
    return cosine(control.peak, control.floor, gone, control.decay), phase


def anneal(control: Anneal, step: int) -> tuple[float, str]:
    """The coefficient at `step`, on a line or on half a cosine."""
    shape = "line" if control.curve == "linear" else "cosine"
    if step >= control.over:
        return control.end, f"step {step} is past the {shape}; it ends at {control.end:g}"
    phase = f"step {step} of {control.over} of the {shape} from {control.start:g} to {control.end:g}"
    if control.curve == "cosine":
        return cosine(control.start, control.end, step, control.over), phase
    return control.start + (control.end - control.start) * step / control.over, phase


def prefix(control: Prefix, step: int) -> tuple[float, str]:
    """The expected share of the demonstration at `step` under the cosine schedule (UFT, arXiv 2505.16984)."""
    if step >= control.over:
        return 0.0, f"step {step} is past the {control.over} steps of the cosine"
    phase = f"step {step} of {control.over} of the cosine from {control.high:g} to {control.low:g}"
    return cosine(control.high, control.low, step, control.over), phase


def scaffold(control: Scaffold, progress: float) -> float:
    """What is left of the scaffold at this progress, 0 to 1, of the stage (RuscaRL, arXiv 2508.16949)."""
    exponent = control.steepness * (progress - control.midpoint)
    return (
        0.0 if exponent > 700 else 1.0 / (1.0 + math.exp(exponent))
    )  # a larger one overflows; its share is below 1e-300
