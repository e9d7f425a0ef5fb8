"""`Reading`: one run directory, read as far as somebody asked; a second look reads only what is new.

The documents are functions of it. Nothing is written, and nothing is loaded whole but a few figures of each step.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.history import STATUS
from orchestrator.page.tail import Row, Tail, row_of, step_of
from orchestrator.run_directory import RunDirectory

STRAND_FACTS = ("tokens", "loss", "gradient_mass", "entropy", "clip_share")
"""What is kept of a strand's part of a metrics row."""
MOST_EVENTS = 10_000
"""Events that are kept: the newest."""
DROPPED = b'{"kind": "dropped"'
"""How an event of a dropped response begins: counted, and not read further."""


@dataclass(slots=True)
class Reading:
    """A run and what was read of it so far. `lock` is held by whoever makes a document; `refresh` reads on."""

    run: RunDirectory
    steps: dict[int, Row] = field(default_factory=dict)
    """Step -> the numbers of its metrics row, `stage`, and of `by_origin` and `by_strand` the parts that are shown."""
    probes: dict[tuple[int, str], Row] = field(default_factory=dict)
    """(step, stage) -> the probe's row."""
    decisions: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Step -> place and size of its line in decisions.jsonl."""
    events: list[Row] = field(default_factory=list)
    """The newest, without those of single dropped responses, of which there may be millions."""
    event_counts: dict[str, int] = field(default_factory=dict)
    changes: int = 0
    """Grows with every change that was seen."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    memo: dict[str, tuple[object, Any]] = field(default_factory=dict)
    """Name -> (what it depends on, value): see `remembered`."""
    _tails: tuple[Tail, ...] = ()

    @classmethod
    def open(cls, directory: Path, *, now: bool = True) -> "Reading":
        """The run in a directory, read up to now, or at the first `refresh`. BadInput if it is none."""
        reading = cls(RunDirectory.open(directory))
        run = reading.run
        reading._tails = (
            Tail(run.metrics, reading._metrics_line, reading._forget_metrics),
            Tail(run.decisions, reading._decisions_line, reading.decisions.clear),
            Tail(run.events, reading._events_line, reading._forget_events),
        )
        if now:
            reading.refresh()
        return reading

    def refresh(self) -> bool:
        """Reads what was written since; whether there was anything."""
        with self.lock:
            changed = [tail.refresh() for tail in self._tails]
            self.changes += any(changed)
            return any(changed)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved pipeline; {} where it cannot be read."""
        found: dict[str, Any] = self.remembered("config", stamp(self.run.config), lambda: read_yaml(self.run.config))
        return found

    @property
    def status(self) -> str:
        """As `History.status`."""
        kinds = [str(event.get("kind")) for event in self.events]
        return next((STATUS[kind] for kind in reversed(kinds) if kind in STATUS), "not started")

    def remembered(self, name: str, depends: object, make: Callable[[], Any]) -> Any:
        """The value of an earlier call, unless what it depends on has changed since."""
        with self.lock:
            held = self.memo.get(name)
            if held is None or held[0] != depends:
                held = self.memo[name] = (depends, make())
            return held[1]

    def remembered_apart(self, name: str, depends: object, make: Callable[[], Any]) -> Any:
        """As `remembered`, for what takes long: others go on meanwhile, and two may make it at once."""
        with self.lock:
            if self.holds(name, depends):
                return self.memo[name][1]
        made = make()
        with self.lock:
            self.memo[name] = (depends, made)
        return made

    def holds(self, name: str, depends: object) -> bool:
        """Whether `remembered` would not have to make the value."""
        with self.lock:
            return name in self.memo and self.memo[name][0] == depends

    def decision(self, step: int) -> Row | None:
        """The step's decision, read from its line; None where there is none, or it was just rewritten."""
        place = self.decisions.get(step)
        found = self.decisions_at([place]) if place else []
        return found[0] if found and found[0] and found[0].get("step") == step else None

    def decisions_at(self, places: Iterable[tuple[int, int]]) -> list[Row | None]:
        """The lines at these places, in their order."""
        try:
            descriptor = os.open(self.run.decisions, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            return [row_of(os.pread(descriptor, size, offset)) for offset, size in places]
        finally:
            os.close(descriptor)

    def _metrics_line(self, _: int, line: bytes) -> None:
        row = row_of(line)
        if row is None or not isinstance(row.get("step"), int):
            return
        if row.get("kind", "step") == "step":
            self.steps[row["step"]] = compact(row)
        elif row["kind"] == "probe":
            self.probes[row["step"], str(row.get("stage"))] = row

    def _decisions_line(self, offset: int, line: bytes) -> None:
        if (step := step_of(line)) is not None:
            self.decisions[step] = (offset, len(line))

    def _events_line(self, _: int, line: bytes) -> None:
        kind = "dropped" if line.startswith(DROPPED) else ""
        row = None if kind else row_of(line)
        if row is not None:
            kind = str(row.get("kind"))
            self.events.append(row)
            if len(self.events) > MOST_EVENTS:
                old = self.events[: -MOST_EVENTS // 2]
                self.events[: -MOST_EVENTS // 2] = [event for event in old if event.get("kind") in STATUS][-10:]
        if kind:
            self.event_counts[kind] = self.event_counts.get(kind, 0) + 1

    def _forget_metrics(self) -> None:
        self.steps.clear()
        self.probes.clear()

    def _forget_events(self) -> None:
        self.events.clear()
        self.event_counts.clear()


def compact(row: Mapping[str, Any]) -> Row:
    """A metrics row's numbers, its stage, and what is shown of origins and strands."""
    kept: Row = {key: value for key, value in row.items() if type(value) in (int, float)}
    kept["stage"] = str(row.get("stage"))
    kept["by_origin"] = {name: {"tokens": facts.get("tokens") or 0} for name, facts in _maps(row.get("by_origin"))}
    kept["by_strand"] = {
        name: {key: facts[key] for key in STRAND_FACTS if facts.get(key) is not None}
        for name, facts in _maps(row.get("by_strand"))
    }
    return kept


def _maps(value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """The pairs of a map of maps; none of anything else."""
    if not isinstance(value, Mapping):
        return []
    return [(str(name), facts) for name, facts in value.items() if isinstance(facts, Mapping)]


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file does: inode, size, time of change; zeros where there is none."""
    try:
        now = path.stat()
    except OSError:
        return (0, 0, 0)
    return (now.st_ino, now.st_size, now.st_mtime_ns)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where it is absent, or not whole yet."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader in C, where there is one: a directory may hold hundreds of runs."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML map; {} where it is absent, or not whole yet."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
