"""`run` and `resume`: a run directory, its actors, its stages one after the other, and an exit code that is true."""

import asyncio
import json
import signal
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from actors import cluster, in_process
from orchestrator import build
from orchestrator.budget import BudgetSpent, Spending
from orchestrator.collect import Collector, Recipe
from orchestrator.config import Pipeline
from orchestrator.frozen_models import share
from orchestrator.health import UnhealthyVerifierError, Watch, watch_of
from orchestrator.history import read_history
from orchestrator.ledger import RunLedger
from orchestrator.load import dump, read
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.preparing import forget, furnish
from orchestrator.probe_files import write_probe
from orchestrator.probing import accuracy
from orchestrator.progress import Progress
from orchestrator.records import Dropped
from orchestrator.report.write import write as write_report
from orchestrator.run_directory import RunDirectory, environment
from orchestrator.scalars import Scalars
from orchestrator.stage_models import StageModels
from orchestrator.summary import print_summary
from orchestrator.written import written_by_model
from policies import checkpoint
from policies.bad_input import refuse
from policies.failpoints import failpoint
from policies.model_folder import materialise
from teachers.config import ModelDemonstrations

DONE, FAILED, INTERRUPTED = 0, 1, 4
HERE = (
    "resources.rollout.engine=torch",
    "resources.rollout.replicas=1",
    "resources.frozen.engine=torch",
    "resources.frozen.replicas=1",
    "resources.learner.engine=torch",
    "resources.learner.zero_stage=0",
    "resources.learner.replicas=1",
    "resources.scorer.replicas=1",
    "resources.judge.engine=torch",
    "resources.judge.replicas=1",
)
"""What a run in one process changes in its pipeline."""


def run(path: Path, out: Path, sets: Sequence[str] = (), *, in_process: bool = False) -> int:
    """Run a pipeline file into a new directory; returns the exit code. Bad input is found before anything is made.

    `in_process`: without Ray, every actor in this process, with the engines that can be (`HERE`).
    """
    pipeline = read(path, [*sets, *(HERE if in_process else ())])
    with tempfile.TemporaryDirectory(prefix="braid-check-") as scratch:
        inputs = build.read_inputs(pipeline, Path(scratch), path.resolve().parent)
    text = dump(pipeline, base=path.resolve().parent)
    directory = RunDirectory.create(out, text, environment())
    return _drive(read(directory.config), directory, inputs, None, in_process=in_process)


def resume(out: Path, *, in_process: bool = False) -> int:
    """Go on from the newest good checkpoint of a run directory; a damaged one is named and passed over."""
    directory = RunDirectory.open(out)
    pipeline = read(directory.config)
    inputs = build.read_inputs(pipeline, directory.root, directory.root)
    found = checkpoint.newest(directory.checkpoints)
    if found.path is None and found.rejected:
        # Starting afresh would throw away what was trained, and nobody asked for that.
        refuse([f"{one.path}: {one.reason}; no good checkpoint is left, so start a new run" for one in found.rejected])
    return _drive(pipeline, directory, inputs, found, in_process=in_process)


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
    _sources: Collector | None = None

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
    def sources(self) -> Collector:
        """The stage's sources; only after `begin` has furnished them."""
        assert self._sources is not None, "the sources are furnished by begin()"
        return self._sources

    async def go(self, restored: Path | None) -> None:
        """Start the cluster and the actors, run the stages, and end what was started, whatever happens."""
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
                self.directory.checkpoints,
            )
            self._models = StageModels(self._parts, self.pipeline, self.directory.checkpoints)
            await self.demonstrate(hold)
            await self.stages(restored)
        except BaseException:
            hold.keep_logs(self.directory.root / "logs")
            raise
        finally:
            hold.stop()

    async def demonstrate(self, hold: cluster.Hold) -> None:
        """Let the teacher model write its demonstrations, where the pipeline has one."""
        config = self.pipeline.demonstrations
        if isinstance(config, ModelDemonstrations):
            self.progress.phase("the teacher writes its demonstrations")
            found = await written_by_model(
                config,
                self.pipeline,
                hold=hold,
                scorer=self.parts.scorer.aside(),
                inputs=self.inputs,
                directory=self.directory.root,
            )
            self.inputs = replace(self.inputs, demonstrations=found)

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
        every = self.pipeline.checkpoints.every
        if self.stopping or self.ends(stage, state) or state.stage_step % every == 0:
            await self.save()
        if self.spending.over:
            raise BudgetSpent
        if self.stopping and state.step < sum(one.steps for one in self.pipeline.stages):
            raise InterruptedError(f"stopped after step {state.step}")

    async def probe(self, stage: StageRun) -> None:
        """Measure the served policy on the held-out prompts."""
        rows = await self.parts.prober(self.inputs, self.pipeline).probe(stage.config.sampling)
        write_probe(self.directory, self.state.step, stage.config.name, rows)
        greedy, n = accuracy(rows, greedy=True)
        sampled, n_sampled = accuracy(rows, greedy=False)
        row = {
            "kind": "probe",
            "step": self.state.step,
            "stage": stage.config.name,
            "greedy_accuracy": greedy,
            "sampled_accuracy": sampled,
            "n": n,
            "n_sampled": n_sampled,
            "unknown": len(rows) - n - n_sampled,
        }
        self.state.accuracy = greedy if n else self.state.accuracy
        self.ledger.metrics(row)
        self.progress.probe(row)
        self.scalars.probe(row)

    async def save(self) -> None:
        """Commit the run's state: ledger first, so that no checkpoint knows of a step that the ledger lost."""
        self.ledger.flush()
        failpoint(f"run.before_checkpoint.{self.state.step}")
        with checkpoint.commit(self.directory.checkpoints, self.state.step) as folder:
            await self.models.save(self.state.stage, folder)
            (folder / "state.json").write_text(json.dumps(asdict(self.state), indent=1))
        ends = accumulate(stage.steps for stage in self.pipeline.stages)
        checkpoint.prune(self.directory.checkpoints, self.pipeline.checkpoints.keep, protected={0, *ends})
        failpoint(f"run.after_checkpoint.{self.state.step}")

    async def stages(self, restored: Path | None) -> None:
        """Every stage from where the state stands."""
        first = self.state.stage
        for stage in self.inputs.stages[first:]:
            if self.spending.over:
                break
            await self.begin(stage, restored if stage.index == first else None)
            try:
                await run_stage(stage, self.ports(stage), self.state)
            except* BudgetSpent:
                self.ledger.event("budget_spent", step=self.state.step, message=self.spending.told)
                self.progress.event(f"the budget is spent: {self.spending.told}")
            self.state.stage, self.state.stage_step, self.state.controls = stage.index + 1, 0, []

    async def begin(self, stage: StageRun, restored: Path | None) -> None:
        """Fresh optimizer and schedule, or those of the checkpoint; engines and frozen models get the weights."""
        self.progress.phase(f"stage {stage.config.name}")
        await self.models.begin(stage, restored, self.state.version)
        await self.publish()
        await self.furnish(stage)
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

    async def furnish(self, stage: StageRun) -> None:
        """The stage's sources, with what the policy prepares for it and what is replayed."""

        def lost(one: Dropped) -> None:
            facts = {"cause": one.cause, "responses": len(one.lost), "reason": one.reason}
            self.ledger.event("dropped", step=self.state.step, id=one.id, **facts)

        self._sources = await furnish(
            self.parts.collector(self.inputs, self.pipeline, stage, lambda: self.state.version),
            Recipe(stage.config, stage.strands),
            self.directory.root,
            step=self.state.step,
            ranker=self.parts.frozen.reference(stage.index),
            on_drop=lost,
        )


def _drive(
    pipeline: Pipeline,
    directory: RunDirectory,
    inputs: build.Inputs,
    found: checkpoint.Newest | None,
    *,
    in_process: bool,
) -> int:
    """Hold the lock, start the parts, run the stages; whatever ends the run is told and gives its exit code."""
    names = {stage.config.name: [strand.name for strand in stage.strands] for stage in inputs.stages}
    with (
        directory.lock(),
        Progress(pipeline) as progress,
        RunLedger(directory, names) as ledger,
        Scalars(directory.tensorboard) as scalars,
    ):
        inputs = replace(inputs, folder=materialise(pipeline.model, directory.root / "model", directory.root))
        watch, spending = watch_of(pipeline), Spending(pipeline.budget)
        attempt = Attempt(pipeline, directory, inputs, ledger, progress, scalars, watch, spending, in_process)
        restored = _restore(attempt, found)
        ledger.event("started", step=attempt.state.step, resumed=restored is not None)
        for report in inputs.reports:
            if report.lost:
                ledger.event("bad_rows", file=report.path, count=report.lost, examples=report.bad)
        code = _finish(attempt, restored)
    write_report(directory.root)
    print_summary(directory.root)
    return code


def _restore(attempt: Attempt, found: checkpoint.Newest | None) -> Path | None:
    """Put the attempt where the checkpoint stands and make the ledger forget what comes after it."""
    if found is None:
        return None
    for rejected in found.rejected:
        attempt.ledger.event("checkpoint_rejected", path=str(rejected.path), reason=rejected.reason)
        attempt.progress.event(f"checkpoint {rejected.path.name} is damaged and passed over: {rejected.reason}")
    if found.path is not None:
        attempt.state = RunState(**json.loads((found.path / "state.json").read_text()))
    attempt.ledger.truncate_after(attempt.state.step)
    done = read_history(attempt.directory.root).steps
    attempt.watch.remember(done)
    attempt.spending.remember(done)
    later = attempt.pipeline.stages[attempt.state.stage + 1 :]
    forget(attempt.directory.root, [stage.name for stage in later])
    return found.path


def _finish(attempt: Attempt, restored: Path | None) -> int:
    """Run to the end; the exit code says how it went."""
    code = DONE
    try:
        asyncio.run(attempt.go(restored))
        attempt.ledger.flush()
        attempt.ledger.event("finished", step=attempt.state.step)
    except* (InterruptedError, KeyboardInterrupt):
        code, where = INTERRUPTED, f"after step {attempt.state.step}"
        attempt.ledger.event("interrupted", step=attempt.state.step)
        attempt.progress.event(f"interrupted {where}; `braid resume {attempt.directory.root}` goes on")
    except* Exception as group:  # noqa: BLE001 - the one place where a failed run becomes an exit code
        code, where = FAILED, f"after step {attempt.state.step}"
        for error in _leaves(group):
            _tell(attempt, error, where)
    return code


def _tell(attempt: Attempt, error: BaseException, where: str) -> None:
    """Write a failure down and show it."""
    told = "".join(traceback.format_exception(error))
    step, kind = attempt.state.step, type(error).__name__
    attempt.ledger.event("failed", step=step, error=kind, message=str(error), traceback=told)
    attempt.progress.event(f"failed {where}: {kind}: {error}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors themselves, without the task groups round them."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
