"""The end of a stage: its handoff as one document, a function of the run's files and of what the pipeline asks."""

import json
from pathlib import Path
from typing import Any

from orchestrator import contracts
from orchestrator.config import Pipeline
from orchestrator.contracts import Verdict
from orchestrator.hand_over import lineage
from orchestrator.json_lines import plain, sync_directory
from orchestrator.loop import RunState, StageRun
from orchestrator.probe_files import read_snapshot
from orchestrator.probe_plans import plan_for
from orchestrator.probes import change, completion, handoff
from orchestrator.repairs import contract_of
from orchestrator.run_directory import RunDirectory

VERSION = 1


def compose(run: RunDirectory, pipeline: Pipeline, stage: StageRun, state: RunState, *, repairs_left: int) -> Verdict:
    """Write the handoff of the stage that has just been measured, and judge it."""
    steps = lineage(state)
    snapshots = [read_snapshot(run, step) for step in steps]
    asked = pipeline.handoff
    drawn = plan_for(asked, pipeline.verifier)
    how: dict[str, Any] = {"epsilon": asked.epsilon, "confidence": asked.confidence}
    document: dict[str, Any] = {
        "version": VERSION,
        "run": run.root.name,
        "stage": stage.config.name,
        "index": len(state.passed),
        "steps": [state.step - state.stage_step + 1, state.step],
        "measured": {"before": steps[-2], "after": steps[-1]},
        **how,
        "completion": completion.document(snapshots[-2], snapshots[-1], **how, plan=drawn),
        "change": change.document(snapshots[-2], snapshots[-1], **how),
        "handoff": handoff.document(snapshots, **how, plan=drawn),
    }
    verdict = contracts.judge(contract_of(pipeline, stage.config), document, repairs_left=repairs_left)
    write(run.handoff_file(stage.config.name), {**document, "contract": contracts.document(verdict)})
    return verdict


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
