"""Before a step: how much each strand counts, what its contexts show, and why. One control at a time."""

import math
from collections.abc import Mapping
from typing import NamedTuple, assert_never

from orchestrator.controls import curves, shares
from orchestrator.controls.chance import uniform
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
from orchestrator.controls.hints import Hint, PrefixHint, ScaffoldHint, bounds, whole_parts
from orchestrator.controls.moment import Moment, State
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares

NAMING = ("watch", "strand", "against", "otherwise", "reinforce", "imports", "replay", "distil")
"""Keys of a control that name a strand."""


class Decision(NamedTuple):
    """One control's word on a step."""

    state: State
    coefficients: Mapping[str, float]
    """Strand name -> factor; a strand that is absent keeps 1. With 0 it rests: neither collected nor trained."""
    reason: str
    """A sentence for the ledger; empty when the control has no say before a step."""
    hints: Mapping[str, Hint] = {}
    """Strand name -> what its contexts show."""
    only_prompts: Mapping[str, tuple[str, ...]] = {}
    """Strand name -> ids of the prompts that it trains on, and no others."""


def initial(control: Control) -> State:
    """The state at the start of a stage."""
    match control:
        case ZeroVariance():
            return {"kept": 0, "dropped": 0, "redrawn": 0}
        case Buffer():
            return {"waiting": []}
        case Prefix() | Curriculum() | Bottleneck():
            return {"prompts": {}}
        case StartWhen():
            return {"since": None, "value": None}
        case Shares():
            return shares.initial(control)
        case Constant() | Mixture() | Bernoulli() | Alternate() | Gate() | Ladder() | Scaffold() | Freeze() | Anneal():
            return {}
        case _:
            assert_never(control)


def strands_of(control: Control) -> tuple[str, ...]:
    """Names of the strands that the control speaks of."""
    if isinstance(control, Shares):
        return tuple(control.shares)
    return tuple(name for key in NAMING if (name := getattr(control, key, "")))


def watched(control: Control) -> tuple[str, ...]:
    """Strands whose verdicts the control reads: the scorer must judge them, and `braid check` asks who does."""
    match control:
        case Gate() | Ladder() | Prefix(schedule="bisect"):
            return (control.strand,)
        case Buffer() | Curriculum():
            return (control.watch,)
        case Bottleneck():
            return (control.reinforce, control.imports)  # a demonstration that fails is none
        case _:
            return ()


def decide(control: Control, state: State, now: Moment) -> Decision:
    """What `control` says of the step, by itself; `plan_step` hears all of them."""
    match control:
        case Constant() | Mixture() | Bernoulli() | Alternate() | Anneal():
            return _share(control, state, now)
        case StartWhen():
            return _start(control, state, now)
        case Prefix() | Scaffold():
            return _context(control, state, now)
        case Buffer():
            return fire(control, state) if full(control, state) else wait(control, state)
        case ZeroVariance() | Gate() | Ladder() | Freeze() | Shares() | Curriculum() | Bottleneck():
            return Decision(state, {}, "")  # the last three choose prompts: controls/choice.py hears them
        case _:
            assert_never(control)


def _share(control: Constant | Mixture | Bernoulli | Alternate | Anneal, state: State, now: Moment) -> Decision:
    match control:
        case Constant():
            factor = control.coefficient
            return _told(state, {control.strand: factor}, f"{control.strand} keeps coefficient {factor:g}")
        case Mixture():
            mu, phase = curves.mixture(control, now.step)
            reason = f"μ = {mu:.4g} on {control.strand}, {1 - mu:.4g} on {control.against}: {phase}"
            return _told({"mu": mu}, {control.strand: mu, control.against: 1.0 - mu}, reason)
        case Bernoulli():
            coin = uniform(now.seed, "bernoulli", control.strand, control.against, now.step)
            ours = coin < control.probability
            winner, loser = (control.strand, control.against) if ours else (control.against, control.strand)
            sign = "below" if ours else "not below"
            reason = f"the step is {winner}'s: the coin {coin:.4g} is {sign} {control.probability:g}"
            return _told(state, {loser: 0.0}, reason)
        case Alternate():
            return _turn(control, state, now.step)
        case Anneal():
            factor, phase = curves.anneal(control, now.step)
            return _told(state, {control.strand: factor}, f"{control.strand} has coefficient {factor:.4g}: {phase}")
        case _:
            assert_never(control)


def _turn(control: Alternate, state: State, step: int) -> Decision:
    """Whose turn the step is: `steps` of one, `against_steps` of the other, from the stage's first step on."""
    place = step % (control.steps + control.against_steps)
    first = place < control.steps
    winner, loser = (control.strand, control.against) if first else (control.against, control.strand)
    number, of = (place, control.steps) if first else (place - control.steps, control.against_steps)
    return _told(state, {loser: 0.0}, f"the step is {winner}'s: number {number + 1} of {of} in its turn")


def _told(state: State, coefficients: Mapping[str, float], reason: str) -> Decision:
    """A decision whose reason names the strands that rest by it."""
    rests = [f"{strand} rests, as its coefficient is 0" for strand, factor in coefficients.items() if factor == 0.0]
    return Decision(state, coefficients, "; ".join([reason, *rests]))


def _start(control: StartWhen, state: State, now: Moment) -> Decision:
    strand, fact = control.strand, control.fact
    value = now.facts.get(fact)
    if state["since"] is None and value is not None and value >= control.at_least:
        state = {"since": now.step, "value": value}
    if state["since"] is not None:
        return Decision(state, {}, f"{strand} trains since step {state['since']}, when {fact} was {state['value']:.4g}")
    if value is None or math.isnan(value):
        return Decision(state, {strand: 0.0}, f"{strand} rests: {fact} of the last step is not known")
    return Decision(state, {strand: 0.0}, f"{strand} rests: {fact} {value:.4g} is below {control.at_least:g}")


def _context(control: Prefix | Scaffold, state: State, now: Moment) -> Decision:
    if isinstance(control, Scaffold):
        progress = now.step / now.steps
        share = curves.scaffold(control, progress)
        reason = (
            f"{control.strand}'s contexts show at most {share:.4g} of the rubric: step {now.step} of {now.steps} is "
            f"{progress:.4g} of the stage, the midpoint {control.midpoint:g}"
        )
        return Decision(state, {}, reason, {control.strand: Hint(scaffold=ScaffoldHint(share))})
    share, reason = _prefix(control, state, now.step)
    parts = bounds(control)[0] if control.schedule == "bisect" else whole_parts(control.high, control.segments)
    facts = PrefixHint(control.schedule, now.step, control.segments, share, parts, state["prompts"])
    return Decision(state, {}, reason, {control.strand: Hint(prefix=facts)})


def _prefix(control: Prefix, state: State, step: int) -> tuple[float, str]:
    """The expected share of the demonstration (cosine alone; else 0), and the reason."""
    strand, segments = control.strand, control.segments
    match control.schedule:
        case "cosine":
            share, phase = curves.prefix(control, step)
            return share, f"{strand} starts from {share:.4g} of the demonstration in expectation: {phase}"
        case "fixed":
            parts = whole_parts(control.high, segments)
            return 0.0, f"{strand} starts from {parts} of {segments} parts of the demonstration"
        case "bisect":
            bottom, own = bounds(control)[0], len(state["prompts"])
            return 0.0, f"{strand} starts from {bottom} of {segments} parts, {own} prompts from a number of their own"
        case _:
            assert_never(control.schedule)


# ---------------------------------------------------------------- the buffer


def full(control: Buffer, state: State) -> bool:
    """Whether enough prompts wait for a step of their own."""
    return len(state["waiting"]) >= control.size


def fire(control: Buffer, state: State) -> Decision:
    """The strand's step: the `size` prompts that waited longest leave the buffer and train, `watch` rests."""
    waiting, size = state["waiting"], control.size
    reason = f"{control.strand} trains on the {size} prompts that waited, {control.watch} rests: {len(waiting)} waited"
    chosen = {control.strand: tuple(waiting[:size])}
    return Decision({"waiting": list(waiting[size:])}, {control.watch: 0.0}, reason, only_prompts=chosen)


def wait(control: Buffer, state: State, held: str = "") -> Decision:
    """Any other step: the strand rests; `held` says why a full buffer waits on."""
    counted = f"{len(state['waiting'])} prompts wait, {control.size} make a step"
    return Decision(state, {control.strand: 0.0}, f"{control.strand} rests: {counted}{held}")
