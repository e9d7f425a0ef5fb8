"""From one stage to the next: what came before, which weights lead on, and what a broken contract does. Pure.

A run remembers its stages that are done as `Passed`, in its checkpoints' state. All else follows from these: where a
stage's weights come from, what it is compared with, which checkpoints must stay.

    held, warn    the run goes on with the stage's weights
    repair        a repair stage trains on from the stage's weights; it is compared with what the stage had found
    roll_back     the run goes on with the weights that the stage found
    stop          the run ends with exit code 3
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.contracts import Judged, Verdict
from orchestrator.handoff_config import Action
from orchestrator.loop import RunState, StageRun


class ContractBrokenError(RuntimeError):
    """A contract asks that the run stops."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A stage that is done."""

    stage: str
    """Its name; of a repair its own."""
    of: str
    """The pipeline's stage: of a repair the repaired one."""
    steps: int
    found: int
    """Run step whose weights it is compared with: what it found, or what the repaired stage had found."""
    last: int
    """Run step after its last one."""
    kept: int
    """Run step whose weights the run goes on with."""
    accuracy: float
    """Of the last probe of these weights; below 0 for none."""
    action: str = ""
    """What its contract asked for."""

    @property
    def leads_on(self) -> bool:
        """Whether its weights stand as those of its stage: neither rolled back nor about to be repaired."""
        return self.kept == self.last and self.action != "repair"


def passed(state: RunState) -> list[Passed]:
    """The stages that are done, in the order in which they ran."""
    return [Passed(**row) for row in state.passed]


def trains_from(state: RunState) -> int:
    """Run step whose weights the stage in hand began with."""
    done = passed(state)
    return done[-1].kept if done else 0


def baseline(state: RunState) -> int:
    """Run step whose policy the stage in hand is compared with."""
    done = passed(state)
    return done[-1].found if state.repair and done else trains_from(state)


def lineage(state: RunState) -> list[int]:
    """Run steps of the policies that lead to the one of now, which is the last; the first is the run's start and the
    last but one the baseline."""
    before = [0, *(one.kept for one in passed(state) if one.leads_on)]
    return [*before, state.step] if state.step > before[-1] else before


def left_by(state: RunState, name: str) -> int:
    """Run step whose weights `stage:NAME` (as the run went on after it) or `found:NAME` (as it found them) is."""
    what, _, stage = name.partition(":")
    own = [one for one in passed(state) if one.of == stage]
    if not own:
        raise ValueError(f"'{name}' is the policy of a stage that has not run")
    return own[-1].kept if what == "stage" else own[0].found


def kept_checkpoints(state: RunState) -> set[int]:
    """Run steps whose checkpoints must stay: ends of stages, and what later ones may go back to."""
    return {0, *(step for one in passed(state) for step in (one.found, one.last, one.kept))}


def hand_over(stage: StageRun, state: RunState) -> None:
    """The stage is done: the state stands before the next one, which may be its repair, or it again."""
    broken, end = state.action, state.step
    found = baseline(state)
    kept = found if broken == "roll_back" else end
    of = (stage.repaired or stage).config.name
    if broken == "roll_back":
        earlier = [one.accuracy for one in passed(state) if one.kept == found]
        state.accuracy = earlier[-1] if earlier else -1.0
    done = Passed(stage.config.name, of, state.stage_step, found, end, kept, state.accuracy, broken)
    state.passed.append(asdict(done))
    if broken == "repair":
        state.repair += 1
    else:
        state.stage, state.repair = state.stage + 1, 0
    state.stage_step, state.controls, state.action = 0, [], ""


def standing(stages: Sequence[StageRun], state: RunState) -> StageRun | None:
    """The stage in hand, repairs included; None once all are done."""
    own = [one for one in stages if one.of == state.stage and one.attempt == state.repair]
    return own[0] if own else None


def more_after(stages: Sequence[StageRun], stage: StageRun, state: RunState) -> bool:
    """Whether anything is left to do after the step that is done, of this stage or of later ones."""
    within = state.stage_step < stage.config.steps or state.action == "repair"
    return within or any(not one.attempt and one.of > stage.of for one in stages)


def course(stages: Sequence[StageRun], state: RunState) -> list[tuple[str, int]]:
    """(name, steps) of the stages that ran and of those that will, as far as that is known: no repair before it is
    asked for."""
    now = standing(stages, state)
    ahead = [one for one in stages if not one.attempt and one.of > state.stage]
    rest = [*([now] if now else []), *ahead]
    return [*((one.stage, one.steps) for one in passed(state)), *((one.config.name, one.config.steps) for one in rest)]


def repairs_left(stages: Sequence[StageRun], stage: StageRun) -> int:
    """How many repairs may still follow this stage."""
    return sum(one.of == stage.of and one.attempt > stage.attempt for one in stages)


# ---------------------------------------------------------------- what is told

DONE: dict[Action, tuple[str, str]] = {
    "warn": ("contract_warning", "the run goes on"),
    "repair": ("repair", "a repair follows"),
    "roll_back": ("rolled_back", "the weights that it found, those after step {found}, stand in its place"),
    "stop": ("contract_stop", "the run stops"),
}
"""Action -> the kind of its event, and what is done."""

Event = tuple[str, str, dict[str, Any]]


def events(stage: StageRun, state: RunState, verdict: Verdict) -> Iterator[Event]:
    """(kind, message, facts) of what is to be told of a verdict: what is broken, and what nobody can say."""
    name, open_ = stage.config.name, verdict.of("undecided", "unmeasured")
    if verdict.action is not None:
        yield _broken(name, state, verdict, verdict.action)
    if open_:
        terms = "; ".join(term.said() for term in open_)
        yield (
            "contract_open",
            f"stage {name} leaves open whether it kept its contract: {terms}",
            {"terms": _rows(open_)},
        )


def _broken(name: str, state: RunState, verdict: Verdict, action: Action) -> Event:
    kind, does = DONE[action]
    terms = verdict.of("broken")
    facts = {
        "action": action,
        "terms": _rows(terms),
        "steps": [state.step - state.stage_step + 1, state.step],
        "found": baseline(state),
    }
    why = "no repair is left, so " if verdict.exhausted else ""
    said = "; ".join(term.said() for term in terms)
    return kind, f"stage {name} broke its contract: {said}; {why}{does.format(**facts)}", facts


def _rows(terms: Sequence[Judged]) -> list[dict[str, Any]]:
    return [asdict(term) for term in terms]
