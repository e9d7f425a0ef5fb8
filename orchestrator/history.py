"""`History`: what the ledger's lines say of a run, for summary and report; works on a run that is going on."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.json_lines import Row, read
from orchestrator.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class StageSpan:
    """A stage's place in the run: steps first..last are done, of `planned`."""

    name: str
    first: int
    last: int
    planned: int


@dataclass(frozen=True, slots=True)
class History:
    """Rows in order of step; of rows that a resume wrote twice, the last."""

    run: RunDirectory
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    steps: tuple[Row, ...]
    probes: tuple[Row, ...]
    decisions: tuple[Row, ...]
    events: tuple[Row, ...]
    stages: tuple[StageSpan, ...]
    """Stages that have begun."""

    @property
    def status(self) -> str:
        """How the last attempt stands: running, finished, failed, interrupted, stopped by a contract, not started."""
        return status(self.events)

    def probe_at(self, step: int) -> Row | None:
        """The newest probe at or before `step`."""
        before = [probe for probe in self.probes if probe["step"] <= step]
        return before[-1] if before else None


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: ten times as fast."""
STATUS = {
    "started": "running",
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
    "contract_broken": "stopped",
}


def status(events: Iterable[Row]) -> str:
    """As `History.status`, of the events alone."""
    kinds = [event["kind"] for event in events if event["kind"] in STATUS]
    return STATUS[kinds[-1]] if kinds else "not started"


def read_history(directory: Path) -> History:
    """Everything but the trajectories. BadInput if the directory is no run."""
    run = RunDirectory.open(directory)
    config = yaml.load(run.config.read_text(encoding="utf-8"), Loader=LOADER) or {}
    rows = read(run.metrics)
    steps = {row["step"]: row for row in rows if row.get("kind", "step") == "step"}
    probes = {(row["step"], row["stage"]): row for row in rows if row.get("kind") == "probe"}
    ordered = tuple(steps[step] for step in sorted(steps))
    return History(
        run=run,
        config=config,
        environment=_read_environment(run),
        steps=ordered,
        probes=tuple(sorted(probes.values(), key=lambda row: int(row["step"]))),
        decisions=tuple(read(run.decisions)),
        events=tuple(read(run.events)),
        stages=_stages(ordered),
    )


def _read_environment(run: RunDirectory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.environment.read_text()) if run.environment.is_file() else {}
    return found


def _stages(steps: tuple[Row, ...]) -> tuple[StageSpan, ...]:
    spans: dict[str, StageSpan] = {}
    for row in steps:
        name, step = str(row["stage"]), int(row["step"])
        first = spans[name].first if name in spans else step
        spans[name] = StageSpan(name, first, step, int(row["stage_steps"]))
    return tuple(spans.values())
