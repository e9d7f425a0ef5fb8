"""The end of a stage: its handoff as one document, a function of the run's files and of what the pipeline asks."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import contracts, costs, diagnosis
from orchestrator.available import Available, available_of
from orchestrator.config import Pipeline
from orchestrator.contracts import Verdict
from orchestrator.hand_over import lineage
from orchestrator.history import read_history
from orchestrator.json_lines import plain, sync_directory
from orchestrator.load import recipe_of
from orchestrator.loop import RunState, StageRun
from orchestrator.probe_files import read_snapshot
from orchestrator.probe_plans import plan_for
from orchestrator.probes import change, completion, handoff
from orchestrator.probes.role import Facts
from orchestrator.progress import number
from orchestrator.repairs import contract_of
from orchestrator.run_directory import RunDirectory
from policies import checkpoint

VERSION = 1


def compose(
    run: RunDirectory,
    pipeline: Pipeline,
    stage: StageRun,
    state: RunState,
    *,
    repairs_left: int,
    train: int = 0,
) -> Verdict:
    """Write the handoff of the stage that has just been measured, with the pipeline that it recommends, and judge it.

    `train`: how many prompts there are to train on; 0 is unknown.
    """
    steps = lineage(state)
    snapshots = [read_snapshot(run, step) for step in steps]
    asked, name = pipeline.handoff, stage.config.name
    drawn, history = plan_for(asked, pipeline.verifier), read_history(run.root)
    how: dict[str, Any] = {"epsilon": asked.epsilon, "confidence": asked.confidence}
    handed = handoff.document(snapshots, **how, plan=drawn)
    origins = facts(stage, [row for row in history.steps if row["stage"] == name], handed)
    origins = replace(origins, temperature=pipeline.probe.temperature)
    document: dict[str, Any] = {
        "version": VERSION,
        "run": run.root.name,
        "stage": name,
        "index": len(state.passed),
        "steps": [state.step - state.stage_step + 1, state.step],
        "measured": {"before": steps[-2], "after": steps[-1]},
        **how,
        "labels": recipe_of(stage.config.recipe).labels.model_dump(mode="json"),
        "completion": completion.document(snapshots[-2], snapshots[-1], **how, plan=drawn),
        "change": change.document(snapshots[-2], snapshots[-1], **how, facts=origins, plan=drawn),
        "handoff": handed,
    }
    span = next((one for one in history.stages if one.name == name), None)
    document["cost"] = None if span is None else costs.document(history, span, plain(document))
    document["diagnosis"] = diagnosis.document(
        snapshots, **how, available=_available(run, pipeline, steps, train), file=recommended(run, name)
    )
    verdict = contracts.judge(contract_of(pipeline, stage.config), document, repairs_left=repairs_left)
    write(run.handoff_file(name), {**document, "contract": contracts.document(verdict)})
    return verdict


def recommended(run: RunDirectory, stage: str) -> Path:
    """Where the pipeline stands that is recommended after the stage."""
    return run.handoffs / f"{stage}.recommended.yaml"


def facts(stage: StageRun, rows: Sequence[Mapping[str, Any]], handed: Mapping[str, Any]) -> Facts:
    """Where the stage's data and targets came from: by the tokens that it trained on, its teachers and its contexts."""
    others = [number(row, f"share_{name}") for row in rows for name in ("demonstration", "teacher", "other")]
    known = [share for share in others if not math.isnan(share)]
    sources = [strand.source for strand in stage.strands]
    moved = any(one.teacher or (one.behavior and one.behavior != one.train) for one in sources)
    retention = handed.get("retention") or {}
    return Facts(
        supplied=any(share > 0 for share in known) if known else None,
        teacher=bool(stage.teacher or stage.teachers),
        scaffold=moved,
        retained=contracts.interval(retention.get("solved")),
    )


def _available(run: RunDirectory, pipeline: Pipeline, steps: Sequence[int], train: int) -> Available:
    """What the next stages can draw on: the policy of now, which its checkpoint will hold in a moment."""

    def model(step: int) -> Path:
        return run.checkpoints / checkpoint.name(step) / "model"

    earlier = str(model(steps[-2])) if steps[-2] > 0 else ""
    found = available_of(pipeline, model(0), prompts=train, earlier=earlier)
    return replace(found, model={**found.model, "path": str(model(steps[-1]))})


def read(path: Path) -> dict[str, Any] | None:
    """A handoff as it was written; None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(plain(document), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    sync_directory(path.parent)
