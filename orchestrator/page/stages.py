"""What a run is and how far it is: stages with their spans, totals, and which views have something to show."""

import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.page.reading import Reading, stamp
from orchestrator.page.series import all_steps, column, names
from orchestrator.report.origins import COLOURS

Document = dict[str, Any]

TOLD = ("message", "action", "detail", "reason", "error")
"""Keys of an event that say what happened, the best first."""


def bands(reading: Reading) -> list[Document]:
    """Stages that have begun: [{"name", "first", "last", "planned"}]; steps first..last are done, of `planned`."""
    found: list[Document] = reading.remembered("bands", reading.changes, lambda: _bands(reading))
    return found


def _bands(reading: Reading) -> list[Document]:
    spans: dict[str, Document] = {}
    for step in map(int, all_steps(reading)):
        row = reading.steps[step]
        one = spans.setdefault(row["stage"], {"name": row["stage"], "first": step})
        one |= {"last": step, "planned": row.get("stage_steps")}
    return list(spans.values())


def run(reading: Reading) -> Document:
    """The head of the page.

    {"name", "directory": the folder's name, "status": running | finished | failed | interrupted | not started,
     "stages": [{"name", "recipe", "first", "last": null before it begins, "done": steps, "planned": steps,
                 "handoff": whether handoffs/STAGE.json is there}],
     "totals": {"steps", "planned", "trajectory_steps": steps whose trajectories are in the ledger, "tokens_trained",
                "tokens_generated", "seconds": in steps, "probes"},
     "fresh": {"step": newest, "changed": seconds since 1970 of the newest line},
     "views": {"braid", "curves", "decisions", "support", "reach", "handoffs", "costs", "trajectories": whether there
               is anything to show},
     "origins": {name: colour}, "strands": [names], "model": text, "seed",
     "events": {kind: count}, "failures": [{"kind", "step", "time", "told"}: the newest 20 that are no start or end]}
    """
    return {
        "name": str(reading.config.get("name") or reading.run.root.name),
        "directory": reading.run.root.name,
        "status": reading.status,
        "stages": _stages(reading),
        "totals": _totals(reading),
        "fresh": _fresh(reading),
        "views": views(reading),
        "origins": {origin.name.lower(): colour for origin, colour in COLOURS.items()},
        "strands": names(reading, "by_strand"),
        "model": _model(reading),
        "seed": reading.config.get("seed"),
        "events": reading.event_counts,
        "failures": _failures(reading),
    }


def views(reading: Reading) -> dict[str, bool]:
    """Which views have anything to show."""
    handoffs = any(reading.run.handoffs.glob("*.json"))
    return {
        "braid": bool(reading.steps),
        "curves": bool(reading.steps or reading.probes),
        "decisions": bool(reading.decisions),
        "support": bool(probe_steps(reading)),
        "reach": handoffs,
        "handoffs": handoffs,
        "costs": handoffs or bool(reading.steps),
        "trajectories": bool(trajectory_steps(reading)),
    }


def trajectory_steps(reading: Reading) -> list[int]:
    """Steps whose trajectories are in the ledger, rising; the folder is listed anew when it has changed."""
    return _steps_in(reading, reading.run.trajectories)


def trajectory_files(reading: Reading) -> dict[int, tuple[int, int, int]]:
    """Step -> what changes when its trajectories' file does."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(reading.run.trajectories) as entries:
        for entry in entries:
            if named := _FILE.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    now = entry.stat()
                    found[int(named[1])] = (now.st_ino, now.st_size, now.st_mtime_ns)
    return found


def probe_steps(reading: Reading) -> list[int]:
    """Steps that have a probe, rising."""
    return _steps_in(reading, reading.run.probes)


def _steps_in(reading: Reading, folder: Path) -> list[int]:
    def listed() -> list[int]:
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(found[1]) for name in names if (found := _FILE.fullmatch(name)))

    found: list[int] = reading.remembered(f"steps in {folder.name}", stamp(folder), listed)
    return found


_FILE = re.compile(r"step=(\d+)\.parquet")
"""A step's file: not one that is being written aside."""


def _stages(reading: Reading) -> list[Document]:
    begun = {one["name"]: one for one in bands(reading)}
    planned = [one for one in reading.config.get("stages") or () if isinstance(one, dict)]
    rows = {str(one.get("name")): {"recipe": _recipe(one), "planned": one.get("steps")} for one in planned}
    rows |= {name: {"recipe": None, "planned": one["planned"]} for name, one in begun.items() if name not in rows}
    told = [
        {
            "name": name,
            **row,
            "first": begun.get(name, {}).get("first"),
            "last": begun.get(name, {}).get("last"),
            "done": begun[name]["last"] - begun[name]["first"] + 1 if name in begun else 0,
            "handoff": reading.run.handoff_file(name).is_file(),
        }
        for name, row in rows.items()
    ]
    return sorted(told, key=lambda one: math.inf if one["first"] is None else float(one["first"]))


def _recipe(stage: Document) -> str | None:
    recipe = stage.get("recipe")
    return str(recipe.get("kind")) if isinstance(recipe, dict) else None


def _totals(reading: Reading) -> Document:
    steps = all_steps(reading)

    def total(key: str) -> float:
        values = column(reading, steps, key)
        return float(values[values == values].sum())

    return {
        "steps": len(steps),
        "planned": sum(int(one["planned"] or 0) for one in _stages(reading)),
        "trajectory_steps": len(trajectory_steps(reading)),
        "tokens_trained": int(total("tokens_trained")),
        "tokens_generated": int(total("tokens_generated")),
        "seconds": round(total("seconds"), 3),
        "probes": len(probe_steps(reading)),
    }


def _fresh(reading: Reading) -> Document:
    newest = max(reading.steps, default=None)
    times = [stamp(path)[2] / 1e9 for path in (reading.run.metrics, reading.run.events, reading.run.config)]
    changed = max(times)
    return {"step": newest, "changed": round(changed, 3)}


def _model(reading: Reading) -> str:
    model = reading.config.get("model")
    return " ".join(str(value) for value in model.values() if value is not None) if isinstance(model, dict) else ""


def _failures(reading: Reading) -> list[Document]:
    calm = {"started", "finished", "resumed"}
    rows = [event for event in reading.events if event.get("kind") not in calm][-20:]
    return [
        {
            "kind": str(row.get("kind")),
            "step": row.get("step"),
            "time": row.get("time"),
            "told": str(next((row[key] for key in TOLD if row.get(key)), "")),
        }
        for row in rows
    ]
