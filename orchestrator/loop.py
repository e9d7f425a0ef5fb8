"""The loop: moves trajectories from sources to the learner and weights back. No maths, no config, no I/O of its own.

    produce:  permit -> sources (sampler | demonstrations) -> scorer -> queue
    consume:  queue -> controls (route, plan) -> credit and views -> ledger -> learner.step -> publish -> permit
                                                                     -> metrics -> probe -> checkpoint

Who waits for whom. `produce` waits for a permit; `consume` hands one back when a new version is served. There are
`max_staleness` + 1 permits: with 0 the two take turns (synchronous on-policy learning), with k the samplers run
ahead by at most k versions. `consume` waits for the queue; a producer that dies ends the stage with its own error.
Every wait inside a port carries a deadline and a name.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from actors.facts import PublishFacts
from actors.sharding import StepFacts
from orchestrator.assemble import Assembled, Dropped, FrozenModel, assemble
from orchestrator.collect import Collected, Collector, Group
from orchestrator.config import Stage
from orchestrator.controls import (
    Control,
    GroupStats,
    MemberStats,
    Scope,
    State,
    StepPlan,
    initial,
    plan_step,
    route_group,
)
from orchestrator.ports import Learner, Ledger, Publisher
from orchestrator.step_facts import decision_row, metrics_row
from policies.config import GroupCredit, Strand
from policies.failpoints import failpoint
from policies.trajectory import reward


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage with its recipe expanded."""

    index: int
    config: Stage
    strands: tuple[Strand, ...]
    controls: tuple[Control, ...]
    teacher: str | None = None
    """Folder of the model that the stage distils from."""

    @property
    def samples(self) -> bool:
        """Whether the learner's own rollouts are among the sources."""
        return any(strand.source.producer == "rollout" for strand in self.strands)


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
    facts: dict[str, float] = field(default_factory=dict)
    """The last step's facts, which controls read."""


class Eyes(Protocol):
    """Whoever looks on."""

    def step(self, row: Mapping[str, Any]) -> None:
        """A step is done."""
        ...


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
    after_step: Callable[[StageRun, RunState], Awaitable[None]]
    """Probes and checkpoints at their cadence; `wants_weights` says when one needs the engines up to date."""
    wants_weights: Callable[[StageRun, RunState], bool]


async def run_stage(stage: StageRun, ports: Ports, state: RunState) -> RunState:
    """Carry the stage from `state` to its end; raises the first error of either side."""
    ahead = stage.config.max_staleness + 1
    permits, batches = asyncio.Semaphore(ahead), asyncio.Queue[Collected](maxsize=ahead)
    if not state.controls:
        state.controls = [initial(control) for control in stage.controls]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            _produce(stage, ports, state.stage_step, permits, batches), name=f"{stage.config.name} sources"
        )
        for _ in range(state.stage_step, stage.config.steps):
            began = time.perf_counter()
            collected = await batches.get()
            await _consume(stage, ports, state, collected, began, permits)
    return state


async def _produce(
    stage: StageRun, ports: Ports, first: int, permits: asyncio.Semaphore, batches: asyncio.Queue[Collected]
) -> None:
    for step in range(first, stage.config.steps):
        await permits.acquire()
        await batches.put(await ports.collector.collect(stage.config, stage.strands, step))


async def _consume(
    stage: StageRun,
    ports: Ports,
    state: RunState,
    collected: Collected,
    began: float,
    permits: asyncio.Semaphore,
) -> None:
    """One step: route, credit, train, publish, remember."""
    kept, routed = _route(stage, state, collected)
    scope = Scope(stage.config.steps, tuple(strand.name for strand in stage.strands))
    plan = plan_step(stage.controls, state.controls, state.stage_step, state.facts, 0, scope)
    state.controls = list(plan.states)
    assembled = await assemble(stage.strands, kept, reference=ports.reference, teacher=ports.teacher)
    arrived = time.perf_counter()
    ports.ledger.add(state.step + 1, assembled.examples, stage.config.name)
    ledgered = time.perf_counter()
    failpoint(f"loop.before_step.{state.step + 1}")
    facts = await _train(stage, ports, assembled, plan)
    failpoint(f"loop.after_step.{state.step + 1}")
    trained_version, state.version = state.version, state.version + 1
    state.step, state.stage_step = state.step + 1, state.stage_step + 1
    published = await _publish(stage, ports, state)
    permits.release()
    row = metrics_row(
        stage.config,
        stage.strands,
        collected,
        assembled,
        facts,
        {"step": state.step, "stage_step": state.stage_step, "version": trained_version},
    )
    row |= {
        "seconds_ledger": ledgered - arrived,
        "seconds_publish": published.seconds if published else 0.0,
        "seconds": time.perf_counter() - began,
    }
    state.facts = {key: value for key, value in row.items() if isinstance(value, float)}
    dropped = (*routed, *assembled.dropped)
    _remember(ports, state.step, stage, row, plan, dropped)
    await ports.after_step(stage, state)


def _route(stage: StageRun, state: RunState, collected: Collected) -> tuple[Collected, list[Dropped]]:
    """Each control looks at each group; one `drop` drops it."""
    kept: list[Group] = []
    dropped: list[Dropped] = []
    for group in collected.groups:
        if not any(isinstance(stage.strands[member.strand].credit, GroupCredit) for member in group.members):
            kept.append(group)  # imitation has no rewards to route by
            continue
        stats = tuple(MemberStats(stage.strands[one.strand].name, reward(one.trajectory)) for one in group.members)
        prompt = group.members[0].trajectory.prompt_id
        states, routings = route_group(stage.controls, state.controls, GroupStats(group.id, prompt, stats))
        state.controls = list(states)
        if routings.verdict == "drop":
            dropped.append(Dropped(group.id, "; ".join(routings.reasons)))
        else:
            kept.append(group)
    return replace(collected, groups=tuple(kept)), dropped


async def _train(stage: StageRun, ports: Ports, assembled: Assembled, plan: StepPlan) -> StepFacts | None:
    """The learner's step; None when nothing is left to train on."""
    if not assembled.examples:
        return None
    return await ports.learner.step(assembled.examples, stage.config.updates, plan.coefficients)


async def _publish(stage: StageRun, ports: Ports, state: RunState) -> PublishFacts | None:
    """Engines need the new version when somebody will sample with it."""
    if not (stage.samples or ports.wants_weights(stage, state)):
        return None
    return await ports.publisher.publish(state.version)


def _remember(
    ports: Ports, step: int, stage: StageRun, row: dict[str, Any], plan: StepPlan, dropped: tuple[Dropped, ...]
) -> None:
    ports.ledger.decision(decision_row(step, stage.config, stage.strands, plan, row))
    ports.ledger.metrics(row)
    for one in dropped:
        ports.ledger.event("dropped", step=step, id=one.id, reason=one.reason)
    if row["skipped"]:
        ports.ledger.event("update_skipped", step=step, count=row["skipped"], reason="loss or gradient not finite")
    if row["missing_demonstrations"]:
        ports.ledger.event("demonstrations_missing", step=step, count=row["missing_demonstrations"])
    ports.eyes.step(row)
