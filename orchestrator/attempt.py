"""`Attempt`: one attempt at a run, its actors and its stages one after the other; `run` and `resume` drive it."""

import asyncio
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from actors import cluster, in_process
from actors.meter import Bill, metered
from orchestrator import bills, build
from orchestrator.budget import BudgetSpent, Spending
from orchestrator.collect import Collector, Recipe
from orchestrator.config import Pipeline
from orchestrator.frozen_models import share
from orchestrator.hand_over import (
    baseline,
    course,
    hand_over,
    kept_checkpoints,
    left_by,
    more_after,
    standing,
)
from orchestrator.handing import Handing
from orchestrator.health import UnhealthyVerifierError, Watch
from orchestrator.ledger import RunLedger
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.measuring_run import Measuring
from orchestrator.preparing import furnish
from orchestrator.probe_facts import accuracies
from orchestrator.probe_plans import plan_for
from orchestrator.probes.sequential import Plan
from orchestrator.progress import Progress
from orchestrator.records import Dropped
from orchestrator.run_directory import RunDirectory
from orchestrator.scalars import Scalars
from orchestrator.shapes import NOBODY, Sizes, sizes_of
from orchestrator.stage_models import StageModels
from orchestrator.written import written_by_model
from policies import checkpoint
from policies.failpoints import failpoint
from teachers.config import ModelDemonstrations


@dataclass(slots=True)
class Attempt:
    """One attempt at a run: started once, or resumed."""

    pipeline: Pipeline
    directory: RunDirectory
    inputs: build.Inputs
    ledger: RunLedger
    progress: Progress
    scalars: Scalars
    watch: Watch
    spending: Spending
    in_process: bool = False
    """Without Ray, every actor in this process."""
    state: RunState = field(default_factory=RunState)
    stopping: bool = False
    """Somebody asked for an end: the step in hand is finished and committed first."""
    _models: StageModels | None = None
    _parts: build.Parts | None = None
    _measuring: Measuring | None = None
    _sources: Collector | None = None
    _sizes: Sizes = NOBODY

    @property
    def parts(self) -> build.Parts:
        """The actors; only after `go` has started them."""
        assert self._parts is not None, "the parts are started by go()"
        return self._parts

    @property
    def models(self) -> StageModels:
        """What has weights; only after `go` has started the actors."""
        assert self._models is not None, "the models are started by go()"
        return self._models

    @property
    def measuring(self) -> Measuring:
        """The probes; only after `go` has started the actors."""
        assert self._measuring is not None, "the probes are started by go()"
        return self._measuring

    @property
    def sources(self) -> Collector:
        """The stage's sources; only after `begin` has furnished them."""
        assert self._sources is not None, "the sources are furnished by begin()"
        return self._sources

    async def go(self, restored: Path | None) -> None:
        """Start the cluster and the actors, run the stages, and end what was started, whatever happens."""
        self.handing.refuse_broken(self.state)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        self.progress.phase("starting in this process" if self.in_process else "starting Ray")
        start = in_process.start if self.in_process else cluster.start
        hold: cluster.Hold = start(self.directory.root.name)
        try:
            self._parts = await build.start_parts(
                self.pipeline,
                self.inputs,
                hold,
                self.ledger.event,
                self.progress.phase,
                self.folder_of,
            )
            probed = bool(self.inputs.probe)
            self._models = StageModels(self._parts, self.pipeline, self.directory.checkpoints, probed)
            await _demonstrate(self, hold)
            self._sizes = sizes_of(self.pipeline, self.inputs.folder, self.inputs.stages, self.directory.root)
            self.ledger.event("models", **self._sizes.row())
            self._measuring = Measuring(self.directory, self.pipeline, self.inputs, self._parts, self.progress.phase)
            await self.stages(restored)
        except BaseException:
            hold.keep_logs(self.directory.root / "logs")
            raise
        finally:
            hold.stop()

    def folder_of(self, name: str) -> Path:
        """The model folder of a policy of this run, `stage:NAME` or `found:NAME`."""
        return self.directory.checkpoints / checkpoint.name(left_by(self.state, name)) / "model"

    @property
    def handing(self) -> Handing:
        """The ends of stages."""
        return Handing(
            self.directory, self.pipeline, self.inputs.stages, self.ledger, self.progress, len(self.inputs.train)
        )

    def stop(self) -> None:
        """Finish the step in hand, commit, and end; asked twice, end at once."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.progress.event("stopping after this step; once more to stop at once")

    def ports(self, stage: StageRun) -> Ports:
        """The loop's view of the parts."""
        return Ports(
            collector=self.sources,
            learner=self.parts.learner,
            publisher=self.parts.publisher,
            ledger=self.ledger,
            eyes=self,
            reference=self.parts.frozen.reference(stage.index),
            teacher=None,
            after_step=self.after_step,
            wants_weights=self.probes_now,
            teachers=self.parts.frozen.teachers(stage.index),
            companions=self.parts.companions(stage),
            refresh=self.refresh,
            fared=self.parts.fared,
            flops=self._sizes.flops,
        )

    def step(self, row: Mapping[str, Any]) -> None:
        """Show a step."""
        self.progress.step(row)
        self.scalars.step(row)
        self.spending.step(row)
        alarms = self.watch.step(row)
        for alarm in alarms:
            self.ledger.event(alarm.kind, step=row["step"], message=alarm.text, **alarm.facts)
            if not alarm.ends:
                self.progress.event(f"warning: {alarm.text}")
        if ending := [alarm.text for alarm in alarms if alarm.ends]:
            raise UnhealthyVerifierError("\n".join(ending))

    def probes_now(self, stage: StageRun, state: RunState) -> bool:
        """Whether a probe follows this step."""
        if not self.inputs.probe:
            return False
        every = self.pipeline.probe.every
        return self.ends(stage, state) or bool(every and state.stage_step % every == 0)

    def ends(self, stage: StageRun, state: RunState) -> bool:
        """Whether that was the stage's last step: by its length, or because the run's budget is spent."""
        return state.stage_step == stage.config.steps or self.spending.over

    async def after_step(self, stage: StageRun, state: RunState) -> None:
        """Probe, then checkpoint: a checkpoint never lies before the measurement of its own step."""
        if self.probes_now(stage, state):
            if self.spending.over:
                await self.publish()  # when the loop asked who wants weights, this step was not counted yet
            await self.probe(stage)
            if stage.refresh.kind == "best" and state.accuracy > state.best:
                await self.models.follow(stage, state.version, 1.0)
            state.best = max(state.best, state.accuracy)
        if self.ends(stage, state) and self.inputs.probe:
            self.handing.judge(stage, state, spent=self.spending.over)
            failpoint(f"run.judged.{state.step}")
        every = self.pipeline.checkpoints.every
        if self.stopping or self.ends(stage, state) or state.stage_step % every == 0:
            await self.save()
        if self.spending.over:
            raise BudgetSpent
        if self.stopping and state.action != "stop" and more_after(self.inputs.stages, stage, state):
            raise InterruptedError(f"stopped after step {state.step}")

    async def pass_on(self, stage: StageRun) -> None:
        """The stage is done: do what its contract asks for."""
        failpoint(f"run.passing_on.{self.state.step}")
        self.handing.refuse_broken(self.state)
        rolled_back = self.state.action == "roll_back"
        if rolled_back:
            await self.models.roll_back(baseline(self.state))
            self.state.version += 1
        hand_over(stage, self.state)
        if rolled_back and standing(self.inputs.stages, self.state) is None:
            await self.save()  # the run's newest checkpoint is the policy that it came to
        failpoint(f"run.passed_on.{self.state.step}")

    async def probe(self, stage: StageRun) -> None:
        """Measure the served policy on the held-out prompts."""
        whole = self.state.step == 0 or self.ends(stage, self.state)
        step, before = self.state.step, baseline(self.state)
        began = time.perf_counter()
        with metered() as bill:
            measured = self.measuring
            rows = await (measured.at_end(stage, step, before) if whole else measured.at_cadence(stage, step))
        own, samples = self.pipeline, self.pipeline.probe.samples
        row: dict[str, Any] = {
            "kind": "probe",
            "step": self.state.step,
            "stage": stage.config.name,
            **accuracies(rows, plan_for(own.handoff, own.verifier) if whole else Plan.fixed(samples)),
            "seconds_probe": time.perf_counter() - began,
            **bills.facts(bill),
        }
        self.state.accuracy = row["greedy_accuracy"] if row["n"] else self.state.accuracy
        self.ledger.metrics(row)
        self.progress.probe(row)
        self.scalars.probe(row)

    async def save(self) -> None:
        """Commit the run's state: ledger first, so that no checkpoint knows of a step that the ledger lost."""
        self.ledger.flush()
        failpoint(f"run.before_checkpoint.{self.state.step}")
        with checkpoint.commit(self.directory.checkpoints, self.state.step) as folder:
            stage = standing(self.inputs.stages, self.state)
            await self.models.save(stage.index if stage else None, folder)
            (folder / "state.json").write_text(json.dumps(asdict(self.state), indent=1))
        kept = kept_checkpoints(self.state)
        checkpoint.prune(self.directory.checkpoints, self.pipeline.checkpoints.keep, protected=kept)
        failpoint(f"run.after_checkpoint.{self.state.step}")

    async def stages(self, restored: Path | None) -> None:
        """Every stage from where the state stands, and the repairs that contracts ask for."""
        while not self.spending.over and (stage := standing(self.inputs.stages, self.state)) is not None:
            self.progress.course(course(self.inputs.stages, self.state))
            await self.begin(stage, restored)
            restored = None
            try:
                await run_stage(stage, self.ports(stage), self.state)
            except* BudgetSpent:
                self.ledger.event("budget_spent", step=self.state.step, message=self.spending.told)
                self.progress.event(f"the budget is spent: {self.spending.told}")
            await self.pass_on(stage)

    async def begin(self, stage: StageRun, restored: Path | None) -> None:
        """Fresh optimizer and schedule, or those of the checkpoint; engines and frozen models get the weights."""
        self.progress.phase(f"stage {stage.config.name}")
        await self.models.begin(stage, restored, self.state)
        await self.publish()
        served = self.parts.rollouts
        if restored is not None or stage.repaired is None:  # a repair is compared with what the repaired stage found
            self.measuring.found = self.models.found or (served.weights, served.version)
        await _furnish(self, stage)
        if restored is None and stage.restart:
            self.state.version += 1
            await self.models.restart(stage, self.state.version)
            await self.publish()
        if self.state.step == 0 and self.inputs.probe:
            await self.probe(stage)
        if restored is None:
            self.state.best = self.state.accuracy
        if self.state.step == 0:
            await self.save()

    async def publish(self) -> None:
        """The engines serve the policy's version; a scalar head is nothing to serve."""
        if self.inputs.writes:
            await self.parts.publisher.publish(self.state.version)

    async def refresh(self, stage: StageRun, state: RunState) -> None:
        """A frozen model that follows the learner takes its share of the step's weights."""
        await self.models.follow(stage, state.version, share(stage, state.stage_step))


async def _demonstrate(attempt: Attempt, hold: cluster.Hold) -> None:
    """Let the teacher model write its demonstrations, where the pipeline has one."""
    config = attempt.pipeline.demonstrations
    if isinstance(config, ModelDemonstrations):
        attempt.progress.phase("the teacher writes its demonstrations")
        with metered() as bill:
            found = await written_by_model(
                config,
                attempt.pipeline,
                hold=hold,
                scorer=attempt.parts.scorer.aside(),
                inputs=attempt.inputs,
                directory=attempt.directory.root,
            )
        _spent(attempt, "demonstrations", attempt.inputs.stages[0], bill)
        attempt.inputs = replace(attempt.inputs, demonstrations=found)


async def _furnish(attempt: Attempt, stage: StageRun) -> None:
    """The stage's sources, with what the policy prepares for it and what is replayed."""

    def lost(one: Dropped) -> None:
        facts = {"cause": one.cause, "responses": len(one.lost), "reason": one.reason}
        attempt.ledger.event("dropped", step=attempt.state.step, id=one.id, **facts)

    with metered() as bill:
        attempt._sources = await furnish(
            attempt.parts.collector(attempt.inputs, attempt.pipeline, stage, lambda: attempt.state.version),
            Recipe(stage.config, stage.strands),
            attempt.directory.root,
            step=attempt.state.step,
            ranker=attempt.parts.frozen.reference(stage.index),
            on_drop=lost,
        )
    _spent(attempt, "prepare", stage, bill)


def _spent(attempt: Attempt, what: str, stage: StageRun, bill: Bill) -> None:
    """Tell the ledger of work outside of steps."""
    if bill.work:
        where = {"step": attempt.state.step, "stage": stage.config.name, "what": what}
        attempt.ledger.event("work", **where, seconds=bill.wall, **bills.facts(bill))
