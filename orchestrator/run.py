"""`run` and `resume`: a run directory, its actors, its stages one after the other, and an exit code that is true."""

import asyncio
import json
import re
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator import build
from orchestrator.attempt import Attempt
from orchestrator.budget import Spending
from orchestrator.config import Pipeline
from orchestrator.hand_over import ContractBrokenError, standing
from orchestrator.health import watch_of
from orchestrator.here import HERE
from orchestrator.history import read_history
from orchestrator.ledger import RunLedger
from orchestrator.load import dump, read
from orchestrator.loop import RunState
from orchestrator.preparing import forget
from orchestrator.progress import Progress
from orchestrator.report.write import write as write_report
from orchestrator.run_directory import RunDirectory, environment
from orchestrator.scalars import Scalars
from orchestrator.summary import print_summary
from policies import checkpoint
from policies.bad_input import refuse
from policies.model_folder import materialise

DONE, FAILED, BROKEN, INTERRUPTED = 0, 1, 3, 4
JUDGED = re.compile(r"(handoff\.(contract|repair)|stages[.\[][^.]+\.contract)[.=]")
"""What a resume may change: how stages are judged and repaired, not what is trained or measured."""


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


def resume(out: Path, sets: Sequence[str] = (), *, in_process: bool = False) -> int:
    """Go on from the newest good checkpoint of a run directory; a damaged one is named and passed over.

    `sets` may change contracts and repairs, and nothing else. A stage whose contract was broken is judged again.
    """
    directory = RunDirectory.open(out)
    may = "only handoff.contract, handoff.repair and stages.NAME.contract may change; start a new run for another"
    refuse([f"--set: {one}: a run goes on as it began; {may}" for one in sets if not JUDGED.match(one)])
    pipeline = read(directory.config, sets)
    found = checkpoint.newest(directory.checkpoints)
    state = _state(found)
    inputs = build.read_inputs(pipeline, directory.root, directory.root, (state.stage, state.repair))
    if found.path is None and found.rejected:
        # Starting afresh would throw away what was trained, and nobody asked for that.
        refuse([f"{one.path}: {one.reason}; no good checkpoint is left, so start a new run" for one in found.rejected])
    if sets:
        with directory.lock():
            directory.change(dump(pipeline))
    return _drive(pipeline, directory, inputs, found, in_process=in_process)


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
    attempt.state = _state(found)
    attempt.ledger.truncate_after(attempt.state.step)
    done = read_history(attempt.directory.root).steps
    attempt.watch.remember(done)
    attempt.spending.remember(done)
    now, begun = standing(attempt.inputs.stages, attempt.state), {one["stage"] for one in attempt.state.passed}
    begun |= {now.config.name} if now else set()
    names = [stage.config.name for stage in attempt.inputs.stages]
    forget(attempt.directory.root, [name for name in names if name not in begun])
    attempt.handing.forget(attempt.state)
    attempt.handing.judge_again(attempt.state, spent=attempt.spending.over)
    return found.path


def _state(found: checkpoint.Newest) -> RunState:
    """Where the checkpoint stands; the run's beginning without one."""
    return RunState() if found.path is None else RunState(**json.loads((found.path / "state.json").read_text()))


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
    except* ContractBrokenError as group:
        code = BROKEN
        for error in _leaves(group):
            attempt.ledger.event("contract_broken", step=attempt.state.step, message=str(error))
            attempt.progress.event(str(error))
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
