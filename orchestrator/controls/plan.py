"""Before a step: all controls heard together."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from orchestrator.controls.choice import Pool, choose
from orchestrator.controls.config import Buffer, Control, Freeze
from orchestrator.controls.decide import Decision, decide, fire, full, wait
from orchestrator.controls.hints import Hint
from orchestrator.controls.moment import Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.shares import Around


def _nothing(step: int) -> tuple[str, ...]:
    """No prompt is drawn."""
    return ()


class Scope(NamedTuple):
    """What of the stage a plan depends on."""

    steps: int
    """Of the stage."""
    strands: tuple[str, ...]
    """Names of all the stage's strands."""
    prompts: int = 0
    """Prompts of a step."""
    draw: Callable[[int], Sequence[str]] = _nothing
    """Step -> ids of the prompts that controls may choose from, `choice.candidates` times as many: a pure function."""


class StepPlan(NamedTuple):
    """All controls' word on a step."""

    states: tuple[State, ...]
    coefficients: Mapping[str, float]
    """Strand name -> product of the factors; 1 for one that is absent, 0 for one that rests."""
    reasons: tuple[str, ...]
    rest: frozenset[str] = frozenset()
    """Strands that are neither collected nor trained."""
    hints: Mapping[str, Hint] = {}
    """Strand name -> what its contexts show: see `segments_for` and `share_for`."""
    only_prompts: Mapping[str, tuple[str, ...]] = {}
    """Strand name -> ids of the prompts whose demonstrations it trains on, in place of its usual draw."""
    freeze: Freeze | None = None
    """In force in this step: its strand trains alone."""
    places: tuple[Place, ...] | None = None
    """The step's prompts, as controls chose them; None: the stage's usual draw, each for all strands."""
    words: tuple[tuple[str, str], ...] = ()
    """Each control's kind and its own reason, in their order; the reason is empty where it has no say."""
    facts: Mapping[str, float] = {}
    """The last finished step's, which the controls saw."""


def plan_step(
    controls: Sequence[Control],
    states: Sequence[State],
    step: int,
    facts: Mapping[str, float],
    seed: int,
    scope: Scope,
) -> StepPlan:
    """Every control decides on step `step`, counted from 0 in its stage, by the last step's `facts`.

    Factors on one strand multiply. Buffers are heard last: one that is full waits on where its strand may not train.
    """
    now = Moment(step, scope.steps, facts, seed)
    decisions = {
        index: decide(control, state, now)
        for index, (control, state) in enumerate(zip(controls, states, strict=True))
        if not isinstance(control, Buffer)
    }
    decisions |= _buffers(controls, states, _resting(_product(decisions.values())))
    own = {strand for decision in decisions.values() for strand in decision.only_prompts}
    around = Around(scope.strands, _resting(_product(decisions.values())) | own)
    said, places = choose(controls, states, now, Pool(scope.draw(step), scope.prompts, around))
    decisions |= {index: Decision(word.state, {}, word.reason) for index, word in said.items()}
    ordered = [decisions[index] for index in range(len(controls))]
    coefficients = _product(ordered)
    rest = _resting(coefficients)
    freeze = _freeze(controls, rest, scope.strands)
    return StepPlan(
        tuple(decision.state for decision in ordered),
        coefficients,
        (*(decision.reason for decision in ordered if decision.reason), *_remarks(freeze, rest, scope.strands)),
        rest,
        _hints(ordered),
        {strand: prompts for decision in ordered for strand, prompts in decision.only_prompts.items()},
        freeze,
        places,
        tuple((control.kind, decision.reason) for control, decision in zip(controls, ordered, strict=True)),
        facts,
    )


def _product(decisions: Iterable[Decision]) -> dict[str, float]:
    factors: dict[str, list[float]] = {}
    for decision in decisions:
        for strand, factor in decision.coefficients.items():
            factors.setdefault(strand, []).append(factor)
    return {strand: math.prod(each) for strand, each in factors.items()}


def _resting(coefficients: Mapping[str, float]) -> frozenset[str]:
    return frozenset(strand for strand, factor in coefficients.items() if factor == 0.0)


def _hints(decisions: Iterable[Decision]) -> dict[str, Hint]:
    """Where a prefix and a scaffold speak of one strand, both hold."""
    found: dict[str, Hint] = {}
    for decision in decisions:
        for strand, hint in decision.hints.items():
            held = found.get(strand, Hint())
            found[strand] = Hint(hint.prefix or held.prefix, hint.scaffold or held.scaffold)
    return found


def _buffers(controls: Sequence[Control], states: Sequence[State], resting: frozenset[str]) -> dict[int, Decision]:
    """Each buffer's decision. No prompt leaves one in a step in which its strand rests, by whatever control's word."""
    buffers = {index: control for index, control in enumerate(controls) if isinstance(control, Buffer)}
    firing: dict[str, int] = {}
    idle = set(resting)
    for index, buffer in buffers.items():
        if (
            full(buffer, states[index])
            and not idle & {buffer.strand}
            and not firing.keys() & {buffer.strand, buffer.watch}
        ):
            firing[buffer.strand] = index
            idle.add(buffer.watch)
    return {index: _buffer(buffer, states[index], index, firing) for index, buffer in buffers.items()}


def _buffer(control: Buffer, state: State, index: int, firing: Mapping[str, int]) -> Decision:
    if firing.get(control.strand) == index:
        return fire(control, state)
    if control.strand in firing:
        return Decision(state, {}, f"{len(state['waiting'])} prompts wait on: the step is another buffer's")
    return wait(control, state, "; this step has another use" if full(control, state) else "")


def _freeze(controls: Sequence[Control], rest: Collection[str], strands: Sequence[str]) -> Freeze | None:
    """The first freeze whose strand trains alone."""
    training = [strand for strand in strands if strand not in rest]
    found = (control for control in controls if isinstance(control, Freeze) and training == [control.strand])
    return next(found, None)


def _remarks(freeze: Freeze | None, rest: Collection[str], strands: Sequence[str]) -> tuple[str, ...]:
    """What follows of all decisions together."""
    if freeze is not None:
        told = f"the {freeze.share:g} of the parameters that other steps moved most stays: {freeze.strand} trains alone"
        return (told,)
    if strands and all(strand in rest for strand in strands):
        return ("every strand rests: the step trains nothing",)
    return ()
