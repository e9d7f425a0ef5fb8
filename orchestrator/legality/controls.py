"""Controls: the strands that they name, the verdicts that they read, and where their hints come from."""

from collections.abc import Iterator
from typing import assert_never

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
from orchestrator.controls.decide import strands_of
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from orchestrator.legality.sources import group, writer
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.needs import needs, variables


def controls(case: Case) -> Iterator[Verdict]:
    """Every control's strands, and what it needs of them."""
    for control in case.recipe.controls:
        unknown = [name for name in strands_of(control) if case.strand(name) is None]
        for name in unknown:
            text = f"{control.kind} names no strand (got '{name}')"
            known = ", ".join(strand.name for strand in case.recipe.strands)
            yield Verdict("error", "controls", name, text, f"the strands are {known}")
        if not unknown:
            yield from _control(case, control)


def _control(case: Case, control: Control) -> Iterator[Verdict]:
    match control:
        case Constant() | Anneal():
            return
        case Mixture() | Bernoulli() | Alternate():
            yield from _two(control.kind, control.strand, control.against)
        case ZeroVariance():
            yield from _equal(case, control)
        case Gate() | Buffer():
            yield from _routes(case, control)
        case Ladder() | Prefix() | Scaffold():
            yield from _helps(case, control)
        case StartWhen() | Freeze():
            yield from _others(case, control)
        case Shares() | Curriculum() | Bottleneck():
            yield from _choosers(case, control)
        case _:
            assert_never(control)


def _choosers(case: Case, control: Shares | Curriculum | Bottleneck) -> Iterator[Verdict]:
    match control:
        case Shares():
            for name in control.shares:
                yield from _grouped(case, "shares", name)
        case Curriculum():
            yield from _watched(case, "curriculum", control.watch)
        case Bottleneck():
            yield from _watched(case, "bottleneck", control.reinforce)
        case _:
            assert_never(control)


def _routes(case: Case, control: Gate | Buffer) -> Iterator[Verdict]:
    if isinstance(control, Gate):
        watch, other = control.strand, control.otherwise
    else:
        watch, other = control.watch, control.strand
    yield from _two(control.kind, watch, other)
    yield from _watched(case, control.kind, watch)
    yield from _grouped(case, control.kind, other)


def _helps(case: Case, control: Ladder | Prefix | Scaffold) -> Iterator[Verdict]:
    match control:
        case Ladder():
            yield from _watched(case, "ladder", control.strand)
            yield from _ladder(case, control.strand)
        case Prefix():
            yield from _prefix(case, control)
        case Scaffold():
            yield from _scaffold(case, control.strand)
        case _:
            assert_never(control)


def _two(kind: str, first: str, second: str) -> Iterator[Verdict]:
    if first == second:
        text = f"{kind} chooses between two strands and names one twice"
        yield Verdict("error", "controls", first, text, "name two strands")


def _watched(case: Case, kind: str, name: str) -> Iterator[Verdict]:
    """The strand whose verdicts a control counts: a model writes it now, for the step's prompts."""
    yield from _grouped(case, kind, name)
    source = case.source(name)
    if source is not None and (source.prepare is not None or writer(source) not in ("learner", "model")):
        text = f"{kind} counts how many of these responses passed, and producer {source.producer} is no attempt"
        yield Verdict("error", "controls", name, text, "watch a strand with producer rollout")


def _grouped(case: Case, kind: str, name: str) -> Iterator[Verdict]:
    source = case.source(name)
    if source is not None and not source.per_prompt:
        text = f"{kind} decides for each of the step's prompts, and per_step draws on prompts of its own"
        yield Verdict("error", "controls", name, text, "set per_prompt in place of per_step")


def _equal(case: Case, control: ZeroVariance) -> Iterator[Verdict]:
    if control.action == "keep" or any("rewards" in needs(strand) for strand in group(case.recipe)):
        return
    text = f"zero_variance {control.action} looks at a group's rewards, and no strand of a group has any"
    yield Verdict("error", "controls", "", text, "give a per_prompt strand a credit that reads rewards, or remove it")


def _hints(case: Case, kind: str, name: str) -> Iterator[Verdict]:
    if not case.around.demonstrations:
        text = f"{kind} cuts hints from the prompts' demonstrations, and the pipeline has none"
        yield Verdict("error", "controls", name, text, "add demonstrations, or remove the control")


def _ladder(case: Case, name: str) -> Iterator[Verdict]:
    yield from _hints(case, "ladder", name)
    source = case.source(name)
    if source is not None and "hint" not in variables(source.behavior) and not source.prefix:
        text = "ladder draws a failed group again with a hint, and source.behavior does not show it"
        yield Verdict("error", "controls", name, text, "read `hint` in source.behavior")


def _prefix(case: Case, control: Prefix) -> Iterator[Verdict]:
    source = case.source(control.strand)
    if source is not None and not source.prefix:
        text = "prefix sets how much of the demonstration a response starts with, and this source starts from nothing"
        yield Verdict("error", "controls", control.strand, text, "set source.prefix: true, or remove the control")
        return
    yield from _hints(case, "prefix", control.strand)
    if control.schedule == "bisect":
        yield from _watched(case, "prefix bisect", control.strand)


def _scaffold(case: Case, name: str) -> Iterator[Verdict]:
    source = case.source(name)
    if source is not None and "criteria" not in variables(source.behavior):
        text = "scaffold shows a share of the rubric's criteria, and source.behavior does not read them"
        yield Verdict("error", "controls", name, text, "read `criteria` in source.behavior")


def _others(case: Case, control: StartWhen | Freeze) -> Iterator[Verdict]:
    if any(strand.name != control.strand and strand.terms for strand in case.recipe.strands):
        return
    why = {
        "start_when": "rests this strand until the others' facts say so",
        "freeze": "keeps still in this strand's steps what the others' steps moved",
    }
    text = f"{control.kind} {why[control.kind]}, and no other strand trains"
    yield Verdict("error", "controls", control.strand, text, "add the other strand, or remove the control")
