"""`Scalars`: the run's figures as TensorBoard scalars, written with tensorboard alone, without torch or TensorFlow."""

import math
import time
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

UNSHOWN = {"step", "stage_step", "stage_steps", "kind", "stage"}


class Scalars:
    """Writes a row's figures under tags such as `step/loss`, `strand/imitate/gradient_mass`, `probe/greedy_accuracy`.

    Unknown figures (null, NaN) leave a gap. After a resume, TensorBoard forgets what the run forgot.
    """

    def __init__(self, directory: Path) -> None:
        self._writer = EventFileWriter(str(directory))
        self._started = False

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, row: Mapping[str, Any]) -> None:
        """Figures of a metrics row, those of its strands, origins and drops among them."""
        figures = {f"step/{key}": value for key, value in _numbers(row)}
        for strand, facts in row.get("by_strand", {}).items():
            figures |= {f"strand/{strand}/{key}": value for key, value in _numbers(facts)}
        for origin, facts in row.get("by_origin", {}).items():
            figures |= {f"origin/{origin}/{key}": value for key, value in _numbers(facts)}
        figures |= {f"interference/{pair}": value for pair, value in _numbers(row.get("interference", {}))}
        figures |= {f"funnel/{key}": value for key, value in _numbers(row.get("funnel", {}))}
        dropped = row.get("funnel", {}).get("dropped", {})
        figures |= {f"dropped/{cause}": value for cause, value in _numbers(dropped)}
        self._write(int(row["step"]), figures)

    def probe(self, row: Mapping[str, Any]) -> None:
        """Figures of a probe row."""
        self._write(int(row["step"]), {f"probe/{key}": value for key, value in _numbers(row)})

    def close(self) -> None:
        """Writes everything out."""
        self._writer.close()

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        if not self._started:
            # TensorBoard drops earlier events at or after the step of a START, if the file's version is 2.
            started = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=step, session_log=started))
            self._started = True
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if key in UNSHOWN or isinstance(value, bool) or not isinstance(value, Real):
            continue
        if math.isfinite(value):
            yield key, float(value)
