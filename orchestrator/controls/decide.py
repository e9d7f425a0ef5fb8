"""Before a step: how much each strand counts, and why."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, assert_never

from orchestrator.controls.config import Constant, Control, Mixture, ZeroVariance

State = Mapping[str, Any]
"""What a control remembers: JSON values alone."""


class Decision(NamedTuple):
    """One control's word on a step."""

    state: State
    coefficients: Mapping[str, float]
    """Strand name -> factor; a strand that is absent keeps 1."""
    reason: str
    """A sentence for the ledger; empty when the control has no say before a step."""


class StepPlan(NamedTuple):
    """All controls' word on a step."""

    states: tuple[State, ...]
    coefficients: Mapping[str, float]
    reasons: tuple[str, ...]


def initial(control: Control) -> State:
    """The state at the start of a stage."""
    match control:
        case Constant() | Mixture():
            return {}
        case ZeroVariance():
            return {"kept": 0, "dropped": 0}
        case _:
            assert_never(control)


def strands_of(control: Control) -> tuple[str, ...]:
    """Names of the strands whose coefficients the control sets."""
    match control:
        case Constant():
            return (control.strand,)
        case Mixture():
            return (control.strand, control.against)
        case ZeroVariance():
            return ()
        case _:
            assert_never(control)


def decide(control: Control, state: State, step: int, facts: Mapping[str, float]) -> Decision:
    """What `control` says of step `step`, counted from 0 in its stage; `facts` are the last step's."""
    match control:
        case Constant():
            reason = f"{control.strand} keeps coefficient {control.coefficient:g}"
            return Decision(state, {control.strand: control.coefficient}, reason)
        case Mixture():
            mu, phase = _mixture(control, step)
            reason = f"μ = {mu:.4g} on {control.strand}, {1 - mu:.4g} on {control.against}: {phase}"
            return Decision({"mu": mu}, {control.strand: mu, control.against: 1.0 - mu}, reason)
        case ZeroVariance():
            return Decision(state, {}, "")
        case _:
            assert_never(control)


def _mixture(control: Mixture, step: int) -> tuple[float, str]:
    """mu at `step` (linear warm-up, cosine, floor) and the phase in words (CHORD, arXiv 2508.11408)."""
    if step < control.warmup:
        return control.peak * step / control.warmup, f"step {step} of {control.warmup} of the rise to {control.peak:g}"
    gone = step - control.warmup
    if gone >= control.decay:
        return control.floor, f"step {step} is past the cosine; the floor is {control.floor:g}"
    left = 0.5 * (1.0 + math.cos(math.pi * gone / control.decay))
    phase = f"step {gone} of {control.decay} of the cosine from {control.peak:g} to {control.floor:g}"
    return control.floor + (control.peak - control.floor) * left, phase


def plan_step(controls: Sequence[Control], states: Sequence[State], step: int, facts: Mapping[str, float]) -> StepPlan:
    """Every control decides; where two scale one strand, their factors multiply."""
    decisions = [decide(control, state, step, facts) for control, state in zip(controls, states, strict=True)]
    coefficients: dict[str, float] = {}
    for decision in decisions:
        for strand, factor in decision.coefficients.items():
            coefficients[strand] = coefficients.get(strand, 1.0) * factor
    reasons = tuple(decision.reason for decision in decisions if decision.reason)
    return StepPlan(tuple(decision.state for decision in decisions), coefficients, reasons)
