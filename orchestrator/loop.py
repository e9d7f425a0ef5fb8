"""The loop: moves trajectories from sources to the learner and weights back. No maths, no config, no I/O of its own.

    produce:  permit -> controls (plan) -> sources, in rounds -> scorer -> controls (route) -> queue
    consume:  queue -> views and credit -> ledger -> learner.step -> publish -> permit
                                                  -> metrics -> probe -> checkpoint

Who waits for whom. `produce` waits for a permit; `consume` hands one back when a new version is served. There are
`max_staleness` + 1 permits: with 0 the two take turns (synchronous on-policy learning), with k the samplers run
ahead by at most k versions. `consume` waits for the queue; a producer that dies ends the stage with its own error.
Every wait inside a port carries a deadline and a name.

A step is planned when its collection starts, by the facts that are known then. The controls' states travel with what
was collected, so that a checkpoint holds those of its own step, whatever the producer has planned since.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from actors.facts import PublishFacts
from actors.meter import metered
from actors.sharding import StepFacts
from orchestrator import bills, companions
from orchestrator.asking import seed_for
from orchestrator.assemble import Assembled, assemble
from orchestrator.collect import Collector, Recipe
from orchestrator.companions import Companion, policy_rests
from orchestrator.config import Stage
from orchestrator.controls import Control, Scope, State, StepPlan, candidates, initial, plan_step
from orchestrator.decided import decision_row
from orchestrator.label_config import StepLabels
from orchestrator.ports import FrozenModel, Learner, Ledger, Publisher
from orchestrator.recipes.schema import CoLearner, Refresh
from orchestrator.records import Collected
from orchestrator.step_facts import Counters, metrics_row
from orchestrator.views import EVERYBODY, Models
from policies.config import Strand
from policies.failpoints import failpoint


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage with its recipe expanded."""

    index: int
    config: Stage
    strands: tuple[Strand, ...]
    controls: tuple[Control, ...]
    teacher: str | None = None
    """Folder of the model that the stage distils from."""
    learners: tuple[CoLearner, ...] = ()
    """Those that train beside the policy, on its records."""
    teachers: Mapping[str, str] = field(default_factory=dict)
    """Prompt family -> folder of its teacher."""
    refresh: Refresh = field(default_factory=Refresh)
    restart: bool = False
    """Whether it trains from the run's first weights."""
    head: Literal["language", "scalar"] = "language"
    step_labels: StepLabels | None = None
    """How steps are labelled, where a strand's credit reads such labels."""
    repaired: "StageRun | None" = None
    """The stage that it repairs; None for one of the pipeline's own."""
    attempt: int = 0
    """Which repair of that stage it is; 0 is the stage itself."""

    @property
    def of(self) -> int:
        """Index of the pipeline's stage: of a repair the repaired one's."""
        return self.index if self.repaired is None else self.repaired.index

    @property
    def samples(self) -> bool:
        """Whether the learner is asked to write: rollouts, or completions of others' steps."""
        if self.step_labels is not None and self.step_labels.writer == "learner":
            return True
        return any(strand.source.producer == "rollout" and strand.source.prepare is None for strand in self.strands)


@dataclass(slots=True)
class RunState:
    """Where the run stands; JSON, so that a checkpoint holds it."""

    stage: int = 0
    stage_step: int = 0
    """Steps of the stage that are done."""
    step: int = 0
    """Steps of the run that are done."""
    version: int = 0
    controls: list[State] = field(default_factory=list)
    """Of the stage's controls, once the last step was collected."""
    facts: dict[str, float] = field(default_factory=dict)
    """The last step's facts, which controls read."""
    accuracy: float = -1.0
    """Of the last probe; below 0 for none."""
    best: float = -1.0
    """The stage's best probe, the one before its first step included."""
    trained: int = 0
    """Steps of the stage that had anything to train on."""
    repair: int = 0
    """Which repair of the stage is in hand; 0 is the stage itself."""
    action: str = ""
    """What the contract of the stage that has just ended asks for; empty while it is in hand, or where all holds."""
    passed: list[dict[str, Any]] = field(default_factory=list)
    """The stages that are done: `hand_over.Passed` as JSON."""


class Eyes(Protocol):
    """Whoever looks on."""

    def step(self, row: Mapping[str, Any]) -> None:
        """A step is done."""
        ...


def _unknown(work: Sequence[Mapping[str, Any]]) -> float:
    """Nobody knows the models."""
    return math.nan


async def _nothing(stage: StageRun, state: RunState) -> None:
    """Nobody follows the learner."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the loop talks to."""

    collector: Collector
    learner: Learner
    publisher: Publisher
    ledger: Ledger
    eyes: Eyes
    reference: FrozenModel | None
    teacher: FrozenModel | None
    """Of every prompt whose family has no teacher of its own."""
    after_step: Callable[[StageRun, RunState], Awaitable[None]]
    """Probes and checkpoints at their cadence; `wants_weights` says when one needs the engines up to date."""
    wants_weights: Callable[[StageRun, RunState], bool]
    teachers: Mapping[str, FrozenModel] = field(default_factory=dict)
    """Prompt family -> its teacher."""
    companions: Sequence[Companion] = ()
    """The stage's co-learners."""
    refresh: Callable[[StageRun, RunState], Awaitable[None]] = _nothing
    """Frozen models that follow the learner get its weights, before the next step may ask them."""
    fared: Callable[[], Mapping[str, Any]] = dict
    """What the step's row says of the scorers."""
    flops: Callable[[Sequence[Mapping[str, Any]]], float] = _unknown
    """FLOPs of what a row says was computed (`bills`); NaN where they are not known."""

    def models(self) -> Models:
        """The models that are read for views."""
        everybody = {} if self.teacher is None else {EVERYBODY: self.teacher}
        return Models(self.reference, {**everybody, **self.teachers}, self.companions)


async def run_stage(stage: StageRun, ports: Ports, state: RunState) -> RunState:
    """Carry the stage from `state` to its end; raises the first error of either side."""
    ahead = stage.config.max_staleness + 1
    permits, batches = asyncio.Semaphore(ahead), asyncio.Queue[Collected](maxsize=ahead)
    if not state.controls:
        state.controls = [initial(control) for control in stage.controls]
    if not state.stage_step:
        state.facts, state.trained = {}, 0  # an earlier stage's are not this one's
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_produce(stage, ports, state, permits, batches), name=f"{stage.config.name} sources")
        for _ in range(state.stage_step, stage.config.steps):
            began = time.perf_counter()
            collected = await batches.get()
            await _consume(stage, ports, state, collected, began, permits)
    if not state.trained:
        raise ValueError(
            f"stage {stage.config.name}: none of its {stage.config.steps} steps had anything to train on; the ledger's "
            "events say what was dropped and why"
        )
    return state


async def _produce(
    stage: StageRun, ports: Ports, state: RunState, permits: asyncio.Semaphore, batches: asyncio.Queue[Collected]
) -> None:
    """Plan and collect, step by step. The controls' states are this side's until a step is consumed."""
    recipe = Recipe(stage.config, stage.strands, stage.controls)
    scope = scope_of(recipe, ports.collector)
    seed = seed_for(ports.collector.seed, stage.config.name)
    states: tuple[State, ...] = tuple(state.controls)
    for step in range(state.stage_step, stage.config.steps):
        await permits.acquire()
        plan = plan_step(stage.controls, states, step, state.facts, seed, scope)
        collected = await ports.collector.collect(recipe, step, plan)
        states = collected.states
        await batches.put(collected)


def scope_of(recipe: Recipe, collector: Collector) -> Scope:
    """What the stage's plans depend on: its length, its strands, and the prompts that controls may choose from."""
    stage, factor = recipe.stage, candidates(recipe.controls)

    def drawn(step: int) -> Sequence[str]:
        return collector.drawing.candidates(stage, step, factor) if factor else ()

    return Scope(stage.steps, tuple(strand.name for strand in recipe.strands), stage.prompts_per_step, drawn)


async def _consume(
    stage: StageRun,
    ports: Ports,
    state: RunState,
    collected: Collected,
    began: float,
    permits: asyncio.Semaphore,
) -> None:
    """One step: credit, train, publish, remember."""
    with metered() as bill:
        row, assembled = await _stepped(stage, ports, state, collected)
    done = bills.facts(collected.bill, bill)
    row |= {"seconds": time.perf_counter() - began, **done, "flops": ports.flops(done["work"])}
    state.trained += bool(assembled.examples or assembled.aside)
    state.facts = {key: value for key, value in row.items() if isinstance(value, float)}
    state.controls = list(collected.states)
    permits.release()  # the next step is planned by this one's facts
    _remember(ports, stage, row, collected, assembled)
    await ports.after_step(stage, state)


async def _stepped(
    stage: StageRun, ports: Ports, state: RunState, collected: Collected
) -> tuple[dict[str, Any], Assembled]:
    """The row of a step, trained and published, and what it trained on."""
    assembled = await assemble(stage.strands, collected.groups, ports.models(), _families(ports, collected))
    assembled = replace(assembled, dropped=(*collected.dropped, *assembled.dropped))
    arrived = time.perf_counter()
    ports.ledger.add(state.step + 1, assembled.examples, stage.config.name)
    ports.collector.remember(assembled.examples)
    ledgered = time.perf_counter()
    failpoint(f"loop.before_step.{state.step + 1}")
    beside = await companions.train(
        ports.companions, stage.strands, (*assembled.examples, *assembled.aside), stage.config.updates
    )
    facts = await _train(stage, ports, state, assembled, collected.plan)
    if facts is not None and facts.coefficients is not None:
        ports.ledger.coefficients(state.step + 1, assembled.examples, stage.config.name, facts.coefficients)
    failpoint(f"loop.after_step.{state.step + 1}")
    trained_version, state.version = state.version, state.version + 1
    state.step, state.stage_step = state.step + 1, state.stage_step + 1
    published = await _publish(stage, ports, state)
    await ports.refresh(stage, state)
    counters = Counters(state.step, state.stage_step, trained_version)
    row = metrics_row(stage.config, stage.strands, collected, assembled, facts, counters) | {
        "seconds_ledger": ledgered - arrived,
        "seconds_publish": published.seconds if published else 0.0,
        **companions.facts(beside),
        **ports.fared(),
    }
    return row, assembled


def _families(ports: Ports, collected: Collected) -> dict[str, str]:
    """Prompt id -> family, of the step's prompts alone, where families have teachers."""
    if not ports.teachers:
        return {}
    by_id = ports.collector.by_id
    asked = {one.trajectory.prompt_id for group in collected.groups for one in group.members}
    return {name: found.family for name in asked if (found := by_id.get(name)) is not None}


async def _train(
    stage: StageRun, ports: Ports, state: RunState, assembled: Assembled, plan: StepPlan
) -> StepFacts | None:
    """The learner's step; None when nothing is left to train on, or a co-learner still trains alone."""
    if not assembled.examples or policy_rests(ports.companions, state.stage_step):
        return None
    freeze = None if plan.freeze is None else plan.freeze.share
    every = stage.config.interference
    measured = every > 0 and state.stage_step % every == 0
    return await ports.learner.step(
        assembled.examples, stage.config.updates, plan.coefficients, freeze, interference=measured
    )


async def _publish(stage: StageRun, ports: Ports, state: RunState) -> PublishFacts | None:
    """Engines need the new version when somebody will sample with it."""
    if not (stage.samples or ports.wants_weights(stage, state)):
        return None
    return await ports.publisher.publish(state.version)


def _remember(ports: Ports, stage: StageRun, row: dict[str, Any], collected: Collected, assembled: Assembled) -> None:
    step = row["step"]
    ports.ledger.decision(decision_row(stage.config, stage.strands, collected, row))
    ports.ledger.metrics(row)
    for one in assembled.dropped:
        ports.ledger.event("dropped", step=step, id=one.id, cause=one.cause, responses=len(one.lost), reason=one.reason)
    if row["skipped"]:
        ports.ledger.event("update_skipped", step=step, count=row["skipped"], reason="loss or gradient not finite")
    if row["missing_demonstrations"]:
        ports.ledger.event("demonstrations_missing", step=step, count=row["missing_demonstrations"])
    ports.eyes.step(row)
