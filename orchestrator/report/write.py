"""`write`: report.html, one file that needs neither network nor server, of a run that may still be going on.

It is the page of `braid ui` with its data in it, cut to what a file bears: see the MOST_... below.
"""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.history import read_history
from orchestrator.page import assets
from orchestrator.page import documents as page
from orchestrator.page.stages import trajectory_steps
from orchestrator.page.support import Asked
from orchestrator.page.trajectories import MOST_PAGE, Page
from orchestrator.report.whole import document

Document = dict[str, Any]

MOST_PROMPTS = 2000
"""Rows of the support map."""
MOST_OPENED = 24
"""Prompts whose responses are in the file: those that changed most. At two probes, the first and the last."""
MOST_RESPONSES, RESPONSE_CHARACTERS = 12, 2000
MOST_TOKENS = 20_000
MOST_TRAJECTORIES, TRAJECTORY_BYTES = 48, 2_000_000
"""Trajectories that are in the file with their tokens, and the size of all of them together."""


def write(directory: Path) -> Path:
    """Writes report.html into the run directory, whole or not at all; returns its path."""
    history = read_history(directory)
    told = documents(page.Reading.open(directory)) | {"report": document(history)}
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    path = history.run.report
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(assets.whole(told["run"]["name"], told, written), encoding="utf-8")
    os.replace(temporary, path)
    return path


def documents(reading: page.Reading) -> dict[str, Document]:
    """Every document that the file holds, but the report's own, by the names that the page asks for."""
    maps = support_maps(reading)
    return {
        "run": page.run(reading),
        "braid": page.braid(reading),
        "decided": page.decided(reading),
        "curves": page.curves(reading, points=1),
        "support": maps,
        "prompt": {name: opened(reading, name, one) for name, one in maps.items()},
        "handoffs": page.handoffs(reading),
        "reach": page.reach(reading),
        "costs": page.costs(reading),
        "trajectories": chosen(reading),
    }


def support_maps(reading: page.Reading) -> dict[str, Document]:
    """The map of each set of prompts that a probe has."""
    first = page.support(reading, Asked(sort="given", limit=MOST_PROMPTS))
    names = first["sets"] or ["probe"]
    return {
        name: first if name == first["set"] else page.support(reading, Asked(name, sort="given", limit=MOST_PROMPTS))
        for name in names
    }


def opened(reading: page.Reading, name: str, table: Document) -> dict[str, dict[int, Document]]:
    """Id -> step -> what `documents.prompt` tells of it, of the prompts that changed most."""
    asked = (Asked(name, sort=sort, limit=MOST_OPENED // 2) for sort in ("gained", "lost"))
    ids = dict.fromkeys(row["id"] for one in asked for row in page.support(reading, one)["prompts"])
    steps = dict.fromkeys(step for step in (table["before"], table["after"]) if step is not None)
    return {
        prompt_id: {step: _short(page.prompt(reading, prompt_id, name=name, step=step)) for step in steps}
        for prompt_id in ids
    }


def chosen(reading: page.Reading) -> dict[str, Document]:
    """`STEP:ROW` -> a trajectory with its tokens: of each stage's first and last step, for each strand the best, the
    worst and one without a verdict (of the first 500); then, from the newest on, as many as the file bears."""
    kept = set(trajectory_steps(reading))
    edges = dict.fromkeys(
        step for one in page.run(reading)["stages"] for step in (one["first"], one["last"]) if step in kept
    )
    told: dict[str, Document] = {}
    size = 0
    for step, row in (*_telling(reading, edges), *_newest(reading)):
        key = f"{step}:{row}"
        if key in told or len(told) >= MOST_TRAJECTORIES:
            continue
        one = page.trajectory(reading, step, row, most=MOST_TOKENS)
        size += len(json.dumps(one))
        if size > TRAJECTORY_BYTES and told:
            break
        told[key] = one
    return told


def _telling(reading: page.Reading, steps: Iterable[int]) -> Iterable[tuple[int, int]]:
    for step in steps:
        rows = page.trajectories(reading, page=Page(step=step, limit=MOST_PAGE))["rows"]
        for strand in dict.fromkeys(row["strand"] for row in rows):
            known = [row for row in rows if row["strand"] == strand and row["reward"] is not None]
            unknown = [row for row in rows if row["strand"] == strand and row["reward"] is None]
            ends = (
                [min(known, key=lambda row: row["reward"]), max(known, key=lambda row: row["reward"])] if known else []
            )
            yield from ((row["step"], row["row"]) for row in (*reversed(ends), *unknown[:1]))


def _newest(reading: page.Reading) -> Iterable[tuple[int, int]]:
    yield from ((row["step"], row["row"]) for row in page.trajectories(reading)["rows"])


def _short(one: Document) -> Document:
    responses = [
        row | {"text": str(row["text"] or "")[:RESPONSE_CHARACTERS]} for row in one["responses"][:MOST_RESPONSES]
    ]
    return one | {"responses": responses}
