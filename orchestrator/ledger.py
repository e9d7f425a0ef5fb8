"""`RunLedger`: remembers trajectories, decisions, metrics and events of a run, without holding up the step.

Trajectories go through a bounded queue to a writer thread, one immutable Parquet file per step. Everything else is
a JSON line that reaches the operating system before the call returns. Timestamps aside, content is deterministic.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.bills import added
from orchestrator.json_lines import JsonLines, Row, plain, read, rewrite, sync_directory
from orchestrator.run_directory import RunDirectory
from policies.arrow import to_table
from policies.example import Example
from policies.trajectory import Float32

QUEUE_STEPS = 4
"""Steps that may wait for the disk; a fifth waits."""
WRITE_SECONDS = 300.0
"""Longest wait for the writer thread."""

PLACE = pa.schema(
    [
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("strand", pa.string()),
        ("advantage", pa.list_(pa.float32())),
    ]
)
"""Columns beside those of `Trajectory`: where the learner consumed it, and with what credit."""


COEFFICIENT_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("stage", pa.string()),
        ("strand", pa.string()),
        ("id", pa.string()),
        ("g", pa.list_(pa.float32())),
    ]
)
"""How hard a step pulled on each token (policies.coefficients): row i is of row i of the step's trajectories. A step
that trained nothing has no file."""


class LedgerError(RuntimeError):
    """The ledger could not write; the cause is chained."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    path: Path
    table: Callable[[], pa.Table]
    """Made by the writer thread."""


class RunLedger:
    """The ledger of one run directory; `orchestrator.ports.Ledger`.

    `strands` maps a stage to the names of its strands, so that trajectories carry the name and not an index.
    Used from one thread; `close` (or leaving `with`) waits for the writer.
    """

    def __init__(self, run: RunDirectory, strands: Mapping[str, Sequence[str]] | None = None) -> None:
        self.run = run
        self._strands = dict(strands or {})
        for folder in (run.trajectories, run.coefficients):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob("*.tmp"):
                leftover.unlink()
        self._decisions, self._metrics, self._events = map(JsonLines, (run.decisions, run.metrics, run.events))
        self._steps = _steps(run.trajectories)
        self._queue: queue.Queue[_Job | None] = queue.Queue(QUEUE_STEPS)
        self._failure: BaseException | None = None
        self._writer = threading.Thread(target=self._write_all, name="ledger-writer", daemon=True)
        self._writer.start()

    def __enter__(self) -> "RunLedger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, step: int, examples: Sequence[Example], stage: str) -> None:
        """Queues all that the learner consumes in `step`, once a step; written in the background."""
        self._raise_failure()
        if step in self._steps:
            raise LedgerError(
                f"step {step} was added before; its trajectories are written once (resume truncates first)"
            )
        self._steps.add(step)
        columns = {"stage": stage, "step": step, "strand": self._labels(examples, stage)}
        self._put(_Job(self.run.trajectory_file(step), partial(_table, tuple(examples), columns)))

    def coefficients(self, step: int, examples: Sequence[Example], stage: str, g: Float32) -> None:
        """Queues g of what `add` was given for the step: flat, example after example. ValueError if sizes differ."""
        self._raise_failure()
        sizes = [len(one.trajectory.tokens) for one in examples]
        if sum(sizes) != len(g):
            raise ValueError(f"step {step}: {len(g)} coefficients for trajectories of {sum(sizes)} tokens")
        place = {"step": step, "stage": stage, "strand": self._labels(examples, stage)}
        ids = [one.trajectory.id for one in examples]
        self._put(_Job(self.run.coefficient_file(step), partial(_coefficients, place, ids, sizes, g)))

    def _labels(self, examples: Sequence[Example], stage: str) -> list[str]:
        names = self._strands.get(stage, ())
        return [names[e.strand] if e.strand < len(names) else f"strand-{e.strand}" for e in examples]

    def decision(self, row: Mapping[str, Any]) -> None:
        """A line of what the controls decided and why."""
        self._raise_failure()
        self._decisions.append(_stamped(row))

    def metrics(self, row: Mapping[str, Any]) -> None:
        """A line of a step's, or a probe's, figures."""
        self._raise_failure()
        self._metrics.append(_stamped(row))

    def event(self, kind: str, **facts: Any) -> None:
        """A line of something that happened: a failure, a restart, a drop. Works when the writer has failed, too."""
        self._events.append(_stamped({"kind": kind, **facts}))

    def flush(self) -> None:
        """Returns when everything so far would survive a power cut; LedgerError if it cannot."""
        self._drain()
        self._raise_failure()
        for lines in (self._decisions, self._metrics, self._events):
            lines.sync()

    def truncate_after(self, step: int) -> dict[str, int]:
        """Forgets what a resume from `step` will do again; returns what was dropped, which is also an event.

        Trajectories, their coefficients, decisions, metrics and probes after `step` go. Events stay, marked `undone`:
        what failed did fail; and the event says what the forgotten rows had cost. Each file is replaced atomically;
        doing it twice drops nothing more.
        """
        self.flush()
        undone = [row for row in read(self.run.metrics) if _up_to(row, step) is None]
        dropped = {
            "decisions": rewrite(self.run.decisions, lambda row: _up_to(row, step)),
            "metrics": rewrite(self.run.metrics, lambda row: _up_to(row, step)),
            "trajectories": _remove_after(self.run.trajectories, step),
            "probes": _remove_after(self.run.probes, step),
        }
        _remove_after(self.run.scored, step)
        for folder in (self.run.coefficients, self.run.scored):
            _remove_after(folder, step)
        rewrite(self.run.events, lambda row: row if _up_to(row, step) else row | {"undone": True})
        self._steps = _steps(self.run.trajectories)
        self._reopen()
        self.event("resumed", step=step, dropped=dropped, lost=_lost(undone))
        return dropped

    def close(self) -> None:
        """Writes what is queued, makes it durable and ends the writer thread; LedgerError if something was lost."""
        try:
            self.flush()
        finally:
            if self._writer.is_alive():
                self._put(None)
                self._writer.join(WRITE_SECONDS)
            for lines in (self._decisions, self._metrics, self._events):
                lines.close()

    def _put(self, job: _Job | None) -> None:
        try:
            self._queue.put(job, timeout=WRITE_SECONDS)
        except queue.Full:
            raise LedgerError(
                f"the ledger's writer took no step for {WRITE_SECONDS:.0f} s; is the disk stuck?"
            ) from None

    def _write_all(self) -> None:
        """The writer thread: after a failure it goes on taking jobs, so that nobody waits for it, and writes none."""
        while (job := self._queue.get()) is not None:
            try:
                if self._failure is None:
                    write_parquet(job.path, job.table())
            except Exception as error:  # noqa: BLE001 - crosses threads: raised again by the next call
                self._failure = error
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _drain(self) -> None:
        deadline = time.monotonic() + WRITE_SECONDS
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks:
                if not self._queue.all_tasks_done.wait(deadline - time.monotonic()):
                    raise LedgerError(
                        f"the ledger's writer did not finish in {WRITE_SECONDS:.0f} s; is the disk stuck?"
                    )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise LedgerError(f"trajectories were not written: {self._failure}") from self._failure

    def _reopen(self) -> None:
        for lines in (self._decisions, self._metrics, self._events):
            lines.close()
        run = self.run
        self._decisions, self._metrics, self._events = map(JsonLines, (run.decisions, run.metrics, run.events))


def write_parquet(path: Path, table: pa.Table) -> Path:
    """Whole or absent: written aside, synced, renamed. Every page carries a checksum."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
    return path


def _table(examples: Sequence[Example], columns: Mapping[str, Any]) -> pa.Table:
    """Trajectories with the columns stage, step, strand and advantage."""
    count = len(examples)
    table = to_table([example.trajectory for example in examples])
    place = {
        "stage": [columns["stage"]] * count,
        "step": [columns["step"]] * count,
        "strand": columns["strand"],
        "advantage": [example.advantages for example in examples],
    }
    for field in PLACE:
        table = table.append_column(field, pa.array(place[field.name], field.type))
    return table


def _coefficients(place: Mapping[str, Any], ids: Sequence[str], sizes: Sequence[int], g: Float32) -> pa.Table:
    """g by trajectory."""
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)])
    count = len(ids)
    columns = {"step": [place["step"]] * count, "stage": [place["stage"]] * count, "strand": place["strand"]}
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(g, pa.float32(), from_pandas=False))
    return pa.table({**columns, "id": list(ids), "g": lists}, schema=COEFFICIENT_SCHEMA)


def _stamped(row: Mapping[str, Any]) -> Row:
    stamped: Row = plain(row)
    return stamped | {"time": round(time.time(), 3)}


def _lost(undone: Sequence[Row]) -> list[Row]:
    """What rows that are forgotten had cost, by stage: it was spent all the same."""
    stages = dict.fromkeys(str(row.get("stage", "")) for row in undone)
    rows = {name: [row for row in undone if str(row.get("stage", "")) == name] for name in stages}
    return [{"stage": name, "seconds": sum(_seconds(row) for row in own), **added(own)} for name, own in rows.items()]


def _seconds(row: Row) -> float:
    """Wall time of a step, or of a probe."""
    return float(row.get("seconds") or row.get("seconds_probe") or 0.0)


def _up_to(row: Row, step: int) -> Row | None:
    """The row, unless it says that it belongs to a later step."""
    at = row.get("step")
    return None if isinstance(at, int) and at > step else row


def _remove_after(folder: Path, step: int) -> int:
    later = [at for at in _steps(folder) if at > step]
    for at in later:
        (folder / f"step={at:06d}.parquet").unlink()
    if later:
        sync_directory(folder)
    return len(later)


def _steps(folder: Path) -> set[int]:
    """Steps that have a Parquet file in the folder."""
    return {int(path.stem.partition("=")[2]) for path in folder.glob("step=*.parquet")}
