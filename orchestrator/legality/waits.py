"""Strands that wait for something: what they wait for, and the step before which it cannot have come.

A buffer waits for failed prompts, `start_when` for a fact, replay for a past where no earlier stage left one.
When it comes depends on the run; the earliest step does not. All are found together: one may wait for another.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from orchestrator.config import Stage
from orchestrator.controls.config import Buffer, StartWhen, ZeroVariance
from orchestrator.legality.facts import OF_ROLLOUTS, OF_VERDICTS
from orchestrator.legality.sources import remembered
from orchestrator.legality.timeline import Rest, Timeline
from orchestrator.legality.verdict import Case
from orchestrator.recipes import Recipe
from policies.config import Strand

Fits = Callable[[Rest, bool], bool]
"""(who rests, whether it is the stage's first step) -> whether that is what is looked for."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A strand that rests until something comes."""

    strand: str
    control: StartWhen | Buffer | None
    """None: replay."""
    givers: tuple[str, ...]
    """Strands of which one must train before."""
    delay: int
    """Steps of theirs that it takes at least."""
    words: str
    """What it waits for."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stage's schedule with those that wait, each with its earliest step: the step itself is possible."""

    case: Case
    timeline: Timeline
    earliest: tuple[tuple[Wait, float], ...]
    """Infinite: never within the stage."""

    def first(self, fits: Fits, *, patient: bool = False, doubt: bool = False) -> int | None:
        """The first step at which `fits` holds if all that may have come has come; `patient`: if nothing ever comes.

        `doubt` as for `Timeline.first`.
        """
        steps = self.timeline.steps
        cuts = sorted({0, *({1} if steps > 1 else ()), *(int(at) for _, at in self.earliest if at < steps)})
        for begin, end in zip(cuts, [*cuts[1:], steps], strict=True):
            waiting = frozenset(wait.strand for wait in self.at(begin, patient=patient))
            fitting = partial(_fitting, fits, waiting, begin == 0)
            if (found := self.timeline.first(fitting, begin, end, doubt=doubt)) is not None:
                return found
        return None

    def at(self, step: int, *, patient: bool = False) -> list[Wait]:
        """Who certainly waits at `step`; `patient`: who may. What was trained comes back, whatever its verdicts."""
        return [wait for wait, at in self.earliest if at > step or (patient and wait.control is not None)]


def _fitting(fits: Fits, waiting: Rest, opening: bool, rest: Rest) -> bool:
    return fits(rest | waiting, opening)


def waiting(case: Case, timeline: Timeline) -> Waiting:
    """The stage's waits, each with the earliest step that the others leave it."""
    waits = list(_waits(case))
    found = Waiting(case, timeline, tuple((wait, math.inf) for wait in waits))
    for _ in waits:  # one that waits for the last of a chain is found after as many rounds as the chain is long
        found = Waiting(case, timeline, _either(tuple((wait, _earliest(found, wait)) for wait in waits)))
    return found


def _either(earliest: tuple[tuple[Wait, float], ...]) -> tuple[tuple[Wait, float], ...]:
    """Of several buffers, any one gives its strand a step; of other waits all must end."""
    soonest: dict[str, float] = {}
    for wait, at in earliest:
        if isinstance(wait.control, Buffer):
            soonest[wait.strand] = min(at, soonest.get(wait.strand, math.inf))
    return tuple((wait, soonest[wait.strand] if isinstance(wait.control, Buffer) else at) for wait, at in earliest)


def _earliest(now: Waiting, wait: Wait) -> float:
    givers = [found for name in wait.givers if (found := now.case.strand(name)) is not None]
    first = now.first(lambda rest, _: any(is_asked(now.case, one, rest) for one in givers), doubt=True)
    return math.inf if first is None else float(first + wait.delay)


def is_asked(case: Case, strand: Strand, rest: Rest) -> bool:
    """Whether neither the strand rests nor anybody whose responses it follows."""
    seen: set[str] = set()
    at: Strand | None = strand
    while at is not None and at.name not in seen:
        if at.name in rest:
            return False
        seen.add(at.name)
        at = case.strand(at.source.parent) if at.source.parent else None
    return True


# ---------------------------------------------------------------- who waits


def _waits(case: Case) -> Iterator[Wait]:
    for control in case.recipe.controls:
        if isinstance(control, Buffer):
            words = f"{control.size} prompts that failed"
            steps = -(-control.size // most_tried(case.recipe, case.stage))
            yield Wait(control.strand, control, (control.watch,), steps, words)
        elif isinstance(control, StartWhen):
            words = f"{control.fact} of the last step, at {control.at_least:g} or more"
            yield Wait(control.strand, control, givers(case, control), 1, words)
    for strand in case.recipe.strands:
        if strand.source.producer == "replay" and not from_before(case, strand):
            kinds = " or ".join(strand.source.past.producers)
            names = tuple(one.name for one in writers(case, strand))
            yield Wait(strand.name, None, names, 1, f"a trained {kinds} that could come back")


def from_before(case: Case, strand: Strand) -> bool:
    """Whether an earlier stage may have left what a strand of replay asks for."""
    past = case.around.past
    return past is None or bool(past & frozenset(strand.source.past.producers))


def writers(case: Case, strand: Strand) -> tuple[Strand, ...]:
    """Strands of the stage that train on what a strand of replay asks for."""
    wanted = frozenset(strand.source.past.producers)
    return tuple(one for one in case.recipe.strands if wanted & remembered(one))


def most_tried(recipe: Recipe, stage: Stage) -> int:
    """Prompts of which a step can tell at most whether they failed."""
    rounds = [one.rounds for one in recipe.controls if isinstance(one, ZeroVariance) and one.action == "redraw"]
    return stage.prompts_per_step * (1 + max(rounds, default=0))


def givers(case: Case, control: StartWhen) -> tuple[str, ...]:
    """Strands without which the fact is not known."""
    others = [one for one in case.recipe.strands if one.name != control.strand]
    if control.fact in OF_ROLLOUTS:
        rollouts = [one for one in others if one.source.producer == "rollout" and one.source.prepare is None]
        return tuple(one.name for one in rollouts if control.fact not in OF_VERDICTS or is_judged(case, one, others))
    return tuple(one.name for one in others)


def is_judged(case: Case, strand: Strand, others: Sequence[Strand]) -> bool:
    """Whether its responses get a verdict where these strands are asked: its own, or as one of a group."""
    from orchestrator.judging import judged_strands  # templates need jinja2

    read = {others[index].name: others[index] for index in judged_strands(others, case.recipe.controls)}
    grouped = strand.source.per_prompt and any(one.source.per_prompt for one in read.values())
    return strand.name in read or bool(grouped)
