"""What a stage's controls will do, in words: which steps, which coefficients, whose prompts. Steps count from 0."""

from collections.abc import Iterator
from typing import assert_never

from orchestrator.config import Stage
from orchestrator.controls.config import (
    Alternate,
    Anneal,
    Bernoulli,
    Buffer,
    Constant,
    Control,
    Freeze,
    Gate,
    Ladder,
    Mixture,
    Prefix,
    Scaffold,
    StartWhen,
    ZeroVariance,
)
from orchestrator.controls.hints import level_share, whole_parts
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares


def say_schedule(control: Control, stage: Stage, tried: int) -> str:
    """What the control does in the stage; a step can tell of `tried` prompts at most whether they failed."""
    match control:
        case Constant() | Mixture() | Bernoulli() | Alternate() | Anneal():
            return _coefficients(control, stage.steps)
        case Shares() | Curriculum() | Bottleneck():
            return _prompts(control, stage.prompts_per_step)
        case Ladder() | Prefix() | Scaffold():
            return _hints(control, stage.steps)
        case Gate() | Buffer() | ZeroVariance():
            return _groups(control, tried)
        case StartWhen():
            words = f"{control.fact} of the last step is {control.at_least:g} or more"
            return f"{control.strand} rests until {words}, so in step 0 at least"
        case Freeze():
            moved = f"the {control.share:g} of the parameters that the other steps moved most stay as they are"
            return f"in steps of {control.strand} alone {moved}"
        case _:
            assert_never(control)


# ---------------------------------------------------------------- coefficients


def _coefficients(control: Constant | Mixture | Bernoulli | Alternate | Anneal, steps: int) -> str:
    match control:
        case Constant():
            return f"{control.strand} at {control.coefficient:g} in every step" + _rests(control.coefficient)
        case Mixture():
            return f"{control.strand} at μ, {control.against} at 1 - μ: {'; '.join(_mixture(control, steps))}"
        case Bernoulli():
            chance = f"with probability {control.probability:g}"
            return f"each step is for {control.strand} {chance}, else for {control.against}"
        case Alternate():
            return _turns(control, steps)
        case Anneal():
            moved = _phase("", control.start, control.end, (0, control.over), steps, control.curve)
            after = (
                f"; from step {control.over} on {control.end:g}{_rests(control.end)}" if steps > control.over else ""
            )
            return f"{control.strand}: {moved}{after}"
        case _:
            assert_never(control)


def _rests(coefficient: float) -> str:
    return "" if coefficient else ": it rests"


def _mixture(control: Mixture, steps: int) -> Iterator[str]:
    top, end = control.warmup, control.warmup + control.decay
    if control.warmup:
        yield _phase("μ ", 0.0, control.peak, (0, top), steps, "linear")
    if control.decay and steps > top:
        yield _phase("μ ", control.peak, control.floor, (top, end), steps, "cosine")
    if steps > end:
        yield f"from step {end} on μ {control.floor:g}"


def _phase(what: str, first: float, last: float, span: tuple[int, int], steps: int, curve: str) -> str:
    """`steps 0-199: μ 0.9 -> 0.05 (cosine)`, and how much of it the stage holds where it is cut short."""
    begin, end = span
    cut = "" if steps >= end else f", cut short by the stage's end at step {steps}"
    return f"steps {begin}-{end - 1}: {what}{first:g} -> {last:g} ({curve}{cut})"


def _turns(control: Alternate, steps: int) -> str:
    period = control.steps + control.against_steps
    rounds, left = divmod(steps, period)
    ours = rounds * control.steps + min(left, control.steps)
    turns = f"{control.steps} {control.strand} : {control.against_steps} {control.against}, over and over"
    return f"{turns}; of {steps} steps {ours} and {steps - ours}"


# ---------------------------------------------------------------- prompts


def _prompts(control: Shares | Curriculum | Bottleneck, prompts: int) -> str:
    match control:
        case Shares():
            dealt = ", ".join(f"{share * prompts:g} to {name}" for name, share in control.shares.items())
            return f"of a step's {prompts} prompts {dealt}, on average"
        case Curriculum():
            seen = min(round(control.explore * prompts), prompts)
            chosen = f"{prompts} of {control.candidates * prompts} candidates in each step: {seen} least looked at"
            return f"{chosen}, then those that {control.watch} solves at {control.low:g} to {control.high:g}"
        case Bottleneck():
            return "\n".join(_bottleneck(control, prompts))
        case _:
            assert_never(control)


def _bottleneck(control: Bottleneck, prompts: int) -> Iterator[str]:
    """Class by class."""
    ours, theirs = control.reinforce, control.imports
    yield f"the first {prompts} that do not rest of {control.candidates * prompts} candidates in each step, by prompt:"
    yield f"unknown: {ours}"
    reach = f" and reach below {control.reach:g}" if control.reach else ""
    looks = f"{ours} as well after {control.look} imports"
    yield f"unreached (solve rate below {control.unreached:g}{reach}): {theirs}, {looks}"
    yield f"unreliable: {ours}"
    spare = f"; {control.distil} where the step has room" if control.distil else ""
    yield f"mastered (above {control.mastered:g}): rests, {ours} after {control.recheck} steps{spare}"
    yield f"lost (mastered once, below {control.lost:g}): {control.replay or theirs} and {ours}"
    yield f"each once the evidence says so with probability {control.confidence:g}"


# ---------------------------------------------------------------- hints


def _hints(control: Ladder | Prefix | Scaffold, steps: int) -> str:
    match control:
        case Ladder():
            shown = ", ".join(f"{level_share(control, level):.3g}" for level in range(1, control.levels + 1))
            again = f"a group of {control.strand} that all failed is drawn again with {shown} of the demonstration"
            return f"{again}, until one passes"
        case Prefix():
            return f"{control.strand} starts from {_prefix(control, steps)}"
        case Scaffold():
            fewer = f"{control.strand} is shown fewer of the rubric's criteria from step to step"
            return f"{fewer}: half of them at step {round(control.midpoint * steps)}"
        case _:
            assert_never(control)


def _prefix(control: Prefix, steps: int) -> str:
    parts = whole_parts(control.high, control.segments)
    match control.schedule:
        case "cosine":
            moved = _phase("", control.high, control.low, (0, control.over), steps, "cosine")
            after = f"; from step {control.over} on nothing" if steps > control.over else ""
            return f"a share of the demonstration: {moved}{after}"
        case "fixed":
            return f"{parts} of {control.segments} parts of the demonstration"
        case "bisect":
            bottom = whole_parts(control.low, control.segments)
            return f"{bottom} to {max(parts, bottom)} of {control.segments} parts of the demonstration, by prompt"
        case _:
            assert_never(control.schedule)


# ---------------------------------------------------------------- groups


def _groups(control: Gate | Buffer | ZeroVariance, tried: int) -> str:
    match control:
        case Gate():
            few = f"where at most {control.at_most} responses of {control.strand} passed"
            return f"by prompt: {control.otherwise} {few}, else {control.strand}"
        case Buffer():
            few = f"a prompt waits if at most {control.at_most} responses of {control.watch} passed"
            soonest = -(-control.size // tried)
            return f"{few}; {control.size} make a step of {control.strand} alone, step {soonest} at the earliest"
        case ZeroVariance():
            return f"groups whose rewards are all equal: {_equal(control)}"
        case _:
            assert_never(control)


def _equal(control: ZeroVariance) -> str:
    match control.action:
        case "keep":
            return "kept"
        case "drop":
            return "dropped"
        case "redraw":
            return f"another prompt in their place, up to {control.rounds} times"
        case _:
            assert_never(control.action)
