"""What is compared: a run as it stands, or after a step, or as a stage left it. Gives what its files have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orchestrator.explain import nearest
from orchestrator.history import History, read_history
from orchestrator.probe_files import probed_steps, read_snapshot
from orchestrator.probe_plans import plan_at
from orchestrator.probes.sequential import Counts, counts
from orchestrator.probes.snapshot import SetName, Snapshot
from policies.bad_input import BadInput, refuse


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the things compared."""

    label: str
    history: History
    step: int | None
    """Of its probe; None where there is none."""
    snapshot: Snapshot | None
    texts: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    """(set, prompt id) -> the prompt's text, None in a probe that does not tell it."""
    missing: tuple[str, ...] = ()
    """What it cannot give, and why."""

    def counts(self, name: SetName) -> Counts:
        """The verdicts on a set, with the plan that ended the draws."""
        assert self.snapshot is not None and self.step is not None, "only of a side that was probed"
        return counts(self.snapshot.sets[name], plan_at(self.history, self.step))

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """Rows of the steps up to its probe; all where there is none."""
        return tuple(row for row in self.history.steps if self.step is None or row["step"] <= self.step)


def sides(references: list[str]) -> list[Side]:
    """`DIR`, `DIR@STEP` or `DIR@STAGE`, each; BadInput with every fault of all."""
    found: list[Side] = []
    faults: list[str] = []
    for text in references:
        try:
            found.append(side(text))
        except BadInput as error:
            faults += error.lines
    if len(references) < 2:
        faults.append("compare: needs two runs or more; name a run twice to compare its checkpoints: runs/a@0 runs/a")
    refuse(faults)
    return found


def side(text: str) -> Side:
    """A run, after its last probe or where the reference says."""
    directory, _, where = text.rpartition("@")
    if not directory or Path(text).is_dir():
        directory, where = text, ""
    history = read_history(Path(directory))
    steps = probed_steps(history.run)
    step = _step(text, where, history, steps) if where else (steps[-1] if steps else None)
    missing = [] if history.steps else ["no steps yet"]
    if step is None:
        missing.append("no probe: the pipeline has no prompts.probe, or none was reached")
        return Side(text, history, None, None, {}, tuple(missing))
    if plan_at(history, step) is None:
        missing.append("its configuration is of another version: draws count as if none had stopped early")
    try:
        snapshot, texts = read_snapshot(history.run, step), _texts(history, step)
    except (OSError, ValueError) as error:
        missing.append(f"the probe after step {step} cannot be read: {error}")
        return Side(text, history, None, None, {}, tuple(missing))
    return Side(text, history, step, snapshot, texts, tuple(missing))


def _step(text: str, where: str, history: History, steps: list[int]) -> int:
    stages = {span.name: span.last for span in history.stages}
    step = int(where) if where.isdigit() else stages.get(where)
    if step is None:
        planned = [str(one.get("name")) for one in history.config.get("stages") or ()]
        late = f"it has not begun; those that have are {', '.join(stages) or 'none'}" if where in planned else ""
        close = late or nearest(where, stages) or f"the stages are {', '.join(planned)}"
        raise BadInput([f"{text}: no step and no stage '{where}'; {close}"])
    if step not in steps:
        told = ", ".join(map(str, steps)) or "none"
        what = f"stage {where} stands at step {step}, where" if not where.isdigit() else "after that step"
        raise BadInput([f"{text}: {what} nothing was probed; the steps that were are {told}"])
    return step


def _texts(history: History, step: int) -> dict[tuple[str, str], str | None]:
    with pq.ParquetFile(history.run.probe_file(step)) as file:
        known = file.schema_arrow.names
        table = file.read([name for name in ("set", "prompt_id", "prompt") if name in known])
    return {(str(row.get("set") or "probe"), str(row["prompt_id"])): row.get("prompt") for row in table.to_pylist()}
