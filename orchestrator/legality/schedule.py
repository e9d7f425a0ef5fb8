"""A schedule that can starve: steps at which no strand trains, and strands that never do.

Error: at that step, or in the whole stage, nothing can train whatever the verdicts are. Warning: it may be so, because
what a strand waits for need not have come. Steps are the stage's, counted from 0.
"""

import math
from collections.abc import Iterator
from functools import partial

from orchestrator.controls.config import Alternate, Anneal, Bernoulli, Buffer, Constant, Mixture, StartWhen
from orchestrator.controls.decide import decide, initial, strands_of
from orchestrator.controls.moment import Moment
from orchestrator.controls.prompt_config import Bottleneck, Shares
from orchestrator.explain import nearest
from orchestrator.legality.facts import AT_MOST_ONE, FACTS
from orchestrator.legality.parameters import key_of
from orchestrator.legality.timeline import Rest, Scheduled, timeline
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.legality.waits import Wait, Waiting, is_asked, waiting
from policies.config import Strand

RULE = "schedule"


def schedule(case: Case) -> Iterator[Verdict]:
    """Every step at which the schedule starves, the first of each kind, and every strand that never trains."""
    named = [name for control in case.recipe.controls for name in strands_of(control)]
    if any(case.strand(name) is None for name in named):
        return  # told by the rule of controls
    now = waiting(case, timeline(case.recipe.controls, case.stage.steps, _seed(case)))
    unmet = list(_unmet(case))
    yield from unmet
    starved = now.first(lambda rest, opening: not _training(case, rest, opening))
    if starved is not None:
        yield _starved(case, now, starved)
    yield from _never(case, now, {verdict.where for verdict in unmet})
    yield from _perhaps(case, now, starved)


def _seed(case: Case) -> int:
    """The stage's, as the loop gives it to its controls."""
    if not any(isinstance(control, Bernoulli) for control in case.recipe.controls):
        return 0  # nobody tosses a coin, and the collector's module need not be loaded
    from orchestrator.asking import seed_for

    return seed_for(case.around.seed, case.stage.name)


# ---------------------------------------------------------------- who trains at a step


def _training(case: Case, rest: Rest, opening: bool) -> list[Strand]:
    """Strands that train where these rest; `opening`: at the stage's first step, when nothing is known of prompts."""
    asked = [one for one in case.recipe.strands if one.terms and is_asked(case, one, rest)]
    for control in case.recipe.controls:
        if isinstance(control, Bottleneck):
            named = {control.reinforce} if opening else set(strands_of(control))
            asked = [one for one in asked if one.name in named or not one.source.per_prompt]
        if isinstance(control, Shares):
            dealt = {name for name, share in control.shares.items() if share > 0 and name not in rest}
            if dealt:  # where all of them rest, nobody is named and all are asked
                asked = [one for one in asked if one.name in dealt or one.name not in control.shares]
    return asked


def _trains(case: Case, strand: Strand, rest: Rest, opening: bool) -> bool:
    return strand in _training(case, rest, opening)


# ---------------------------------------------------------------- a step that trains nothing


def _starved(case: Case, now: Waiting, step: int) -> Verdict:
    said, key = _why(case, now, step, now.at(step))
    kept = f"end the stage after {step} steps, or " if step else ""
    return Verdict("error", RULE, "", f"step {step} trains nothing: {said}", f"{kept}let a strand train there", key)


def _perhaps(case: Case, now: Waiting, starved: int | None) -> Iterator[Verdict]:
    """The first step that trains nothing if what strands wait for does not come."""
    if not now.earliest:
        return
    step = now.first(lambda rest, opening: not _training(case, rest, opening), patient=True)
    if step is None or (starved is not None and starved <= step):
        return
    said, key = _why(case, now, step, now.at(step, patient=True))
    fix = "let another strand train in that step, or know that it may be empty"
    yield Verdict("warning", RULE, "", f"step {step} may train nothing: {said}", fix, key)


def _why(case: Case, now: Waiting, step: int, waits: list[Wait]) -> tuple[str, tuple[str, ...]]:
    """The reasons of those that rest, and the key of the first."""
    moment = Moment(step, case.stage.steps, {}, now.timeline.seed)
    said: list[str] = []
    keys: list[tuple[str, ...]] = []
    for control in now.timeline.controls:
        decision = decide(control, initial(control), moment)
        if 0.0 in decision.coefficients.values():
            said.append(decision.reason)
            keys.append(key_of(case.recipe, control, _field(control, step)))
    for wait in waits:
        said.append(f"{wait.strand} waits for {wait.words}")
        if wait.control is not None:
            keys.append(key_of(case.recipe, wait.control, "size" if isinstance(wait.control, Buffer) else "at_least"))
    idle = [one.name for one in case.recipe.strands if not one.terms]
    said += [f"{', '.join(idle)} has no terms"] if idle else []
    if step == 0 and any(isinstance(one, Bottleneck) for one in case.recipe.controls):
        said.append("bottleneck knows nothing of any prompt yet, and asks its reinforce alone")
    return "; ".join(said), next((key for key in keys if len(key) > 1), ())


def _field(control: Scheduled, step: int) -> str:
    """What of the control makes a coefficient 0 at the step."""
    match control:
        case Constant():
            return "coefficient"
        case Anneal(over=over):
            return "end" if step >= over else "start"
        case Bernoulli():
            return "probability"
        case Alternate(steps=steps, against_steps=against):
            return "steps" if step % (steps + against) < steps else "against_steps"
        case Mixture(warmup=warmup, decay=decay):
            return "warmup" if step < warmup else "floor" if step >= warmup + decay else "peak"


# ---------------------------------------------------------------- strands that never train


def _unmet(case: Case) -> Iterator[Verdict]:
    """Facts that nobody tells, or that are never so large."""
    own = {f"learners/{one.name}/{what}" for one in case.recipe.learners for what in _OF_LEARNERS}
    for control in case.recipe.controls:
        if not isinstance(control, StartWhen):
            continue
        if control.fact not in FACTS | own:
            close = nearest(control.fact, sorted(FACTS | own))
            text = f"never starts: no step tells the fact that start_when.fact names (got '{control.fact}')"
            fix = f"{close + ' ' if close else ''}the facts are {', '.join(sorted(FACTS | own))}"
            yield Verdict("error", RULE, control.strand, text, fix, key_of(case.recipe, control, "fact"))
        elif control.fact in AT_MOST_ONE and control.at_least > 1:
            text = f"never starts: {control.fact} is 1 at most, and start_when.at_least is {control.at_least:g}"
            fix = "set it to 1 or less"
            yield Verdict("error", RULE, control.strand, text, fix, key_of(case.recipe, control, "at_least"))


_OF_LEARNERS = ("loss", "gradient_norm", "learning_rate", "skipped", "tokens", "seconds")


def _never(case: Case, now: Waiting, told: set[str]) -> Iterator[Verdict]:
    """Strands whose wait cannot end, and those that rest from the stage's first step to its last."""
    for wait, at in now.earliest:
        if at >= case.stage.steps and wait.strand not in told:
            told.add(wait.strand)
            yield _endless(case, wait) if math.isinf(at) else _too_late(case, wait, int(at))
    for strand in case.recipe.strands:
        if strand.name in told or not strand.terms:
            continue
        if now.first(partial(_trains, case, strand), doubt=True) is None:
            text = f"never trains in the stage's {case.stage.steps} steps"
            fix = "change the control that rests it, or leave the strand out"
            yield Verdict("warning", RULE, strand.name, text, fix)
    for learner in case.recipe.learners:
        if learner.warmup >= case.stage.steps:
            text = (
                f"trains alone in its first {learner.warmup} steps, and the stage has {case.stage.steps}: the policy "
            )
            fix = "give the stage more steps, or the co-learner a shorter warmup"
            yield Verdict("warning", RULE, learner.name, f"{text}never trains", fix)


def _endless(case: Case, wait: Wait) -> Verdict:
    who = f"{', '.join(wait.givers)} never trains" if wait.givers else "no other strand gives it"
    text = f"never trains: it waits for {wait.words}, and {who}"
    if wait.control is None:
        return Verdict("error", RULE, wait.strand, text, "add a strand that trains on them before")
    fix = "let a strand that gives it train before, or remove the control"
    field = "watch" if isinstance(wait.control, Buffer) else "fact"
    return Verdict("error", RULE, wait.strand, text, fix, key_of(case.recipe, wait.control, field))


def _too_late(case: Case, wait: Wait, at: int) -> Verdict:
    text = f"never trains: it waits for {wait.words}, until step {at} at least, and the stage has {case.stage.steps}"
    fields = {"buffer": "size", "start_when": "at_least"}
    key = () if wait.control is None else key_of(case.recipe, wait.control, fields[wait.control.kind])
    return Verdict("warning", RULE, wait.strand, text, "give the stage more steps", key)
