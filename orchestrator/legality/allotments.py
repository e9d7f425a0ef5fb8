"""Who gets which prompts: shares, curricula, the bottleneck control, their numbers and the strands that they name."""

import math
from collections.abc import Iterator

from orchestrator.controls.config import Control
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from orchestrator.legality.parameters import key_of
from orchestrator.legality.sources import writer
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.needs import needs
from policies.config import Strand

RULE = "controls"

EXACT = 1e-6
"""How far from 1 shares may sum."""


def allotments(case: Case) -> Iterator[Verdict]:
    """Every chooser of prompts, and those that leave each other nothing to choose."""
    for control in case.recipe.controls:
        match control:
            case Shares():
                yield from _sum(case, control)
            case Curriculum():
                yield from _band(case, control)
            case Bottleneck():
                yield from _thresholds(case, control)
                yield from _roles(case, control)
            case _:
                pass
    yield from _together(case)


def _together(case: Case) -> Iterator[Verdict]:
    """One control chooses a step's prompts, and one says whose they are."""
    choosing = [one for one in case.recipe.controls if isinstance(one, Curriculum | Bottleneck)]
    naming = [one for one in case.recipe.controls if isinstance(one, Shares | Bottleneck)]
    for found, what in ((choosing, "chooses the step's prompts"), (naming, "says which strand each prompt is for")):
        if len(found) > 1:
            first, second = found[0], found[1]
            text = f"{second.kind} {what}, and {first.kind} does so already: one would undo what the other did"
            yield Verdict("error", RULE, "", text, f"keep one of {' and '.join(one.kind for one in found)}")


# ---------------------------------------------------------------- shares


def _sum(case: Case, control: Shares) -> Iterator[Verdict]:
    total = math.fsum(control.shares.values())
    if abs(total - 1.0) <= EXACT:
        return
    got = ", ".join(f"{name} {share:g}" for name, share in control.shares.items())
    text = f"shares.shares sum to {total:g}, not 1 (got {got})"
    if total > 0:
        right = ", ".join(f"{name}: {share / total:.6g}" for name, share in control.shares.items())
        fix = f"in the same proportion they are {{{right}}}"
    else:
        fix = "give some strand a share above 0"
    keys = (key_of(case.recipe, control, "shares", name) for name in control.shares)
    yield Verdict("error", RULE, "", text, fix, next((key for key in keys if len(key) > 1), ("recipe",)))


# ---------------------------------------------------------------- thresholds


def _band(case: Case, control: Curriculum) -> Iterator[Verdict]:
    if control.low >= control.high:
        yield _order(case, control, "low", "high", "no solve rate lies between them")


def _thresholds(case: Case, control: Bottleneck) -> Iterator[Verdict]:
    if control.unreached >= control.mastered:
        yield _order(case, control, "unreached", "mastered", "a prompt would be both, and none would be reinforced")
    if control.lost > control.mastered:
        yield _order(case, control, "lost", "mastered", "a prompt would be lost while it is mastered")
    if control.reach > 0 and not (case.around.demonstrations and any(map(_shown, case.recipe.strands))):
        what = f"bottleneck.reach is {control.reach:g}, the probability of the prompt's demonstration"
        text = f"{what}, and no strand reads any: reach stays unknown and verdicts alone decide"
        key = key_of(case.recipe, control, "reach")
        yield Verdict("warning", RULE, control.imports, text, "add demonstrations, or set it to 0", key)


def _shown(strand: Strand) -> bool:
    """Whether the pipeline's demonstrations are read for it."""
    return strand.source.producer == "demonstration" or strand.source.prefix or "demonstration_text" in needs(strand)


def _order(case: Case, control: Control, low: str, high: str, why: str) -> Verdict:
    text = (
        f"{control.kind}.{low} {getattr(control, low):g} is not below {control.kind}.{high} {getattr(control, high):g}"
    )
    key = key_of(case.recipe, control, low)
    return Verdict("error", RULE, "", f"{text}: {why}", f"set {low} below {high}", key)


# ---------------------------------------------------------------- the bottleneck's strands


def _roles(case: Case, control: Bottleneck) -> Iterator[Verdict]:
    for role in ("imports", "replay", "distil"):
        name = getattr(control, role)
        if name and name == control.reinforce:
            text = f"bottleneck.{role} is the strand that reinforces: it would bring in nothing else (got '{name}')"
            yield Verdict("error", RULE, name, text, "name another strand", key_of(case.recipe, control, role))
        elif name:
            yield from _role(case, control, role, name)


def _role(case: Case, control: Bottleneck, role: str, name: str) -> Iterator[Verdict]:
    source = case.source(name)
    if source is None:
        return  # told by the rule of controls
    key = key_of(case.recipe, control, role)
    if not source.per_prompt:
        text = f"bottleneck.{role} is asked for single prompts, and per_step draws on prompts of its own"
        yield Verdict("error", RULE, name, text, "set per_prompt in place of per_step", key)
    if role == "imports" and source.prepare is None and writer(source) not in ("data", "model"):
        text = f"bottleneck.imports brings in what the policy does not reach, and producer {source.producer} is its own"
        yield Verdict("error", RULE, name, text, "name a strand with producer demonstration or teacher", key)
    if role == "replay" and source.producer != "replay":
        text = f"bottleneck.replay brings past successes back, and producer {source.producer} holds none"
        yield Verdict("error", RULE, name, text, "name a strand with producer replay, or leave it empty", key)
