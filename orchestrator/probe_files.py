"""The files of a run's probes: one Parquet file of responses a probe, one of teacher-forced scores where there are any.

probes/step=NNNNNN.parquet           a row for each response (PROBE_SCHEMA)
probes/scored/step=NNNNNN.parquet    a row for each response and model that was asked of it (SCORED_SCHEMA)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.ledger import write_parquet
from orchestrator.probes.snapshot import Sampled, Scored, Snapshot
from orchestrator.run_directory import RunDirectory

PROBE_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("stage", pa.string()),
        ("set", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("family", pa.string()),
        ("greedy", pa.bool_()),
        ("draw", pa.int64()),
        ("passed", pa.bool_()),
        ("sound", pa.bool_()),
        ("value", pa.float64()),
        ("status", pa.string()),
        ("answer", pa.string()),
        ("context", pa.int64()),
        ("tokens", pa.int64()),
        ("text", pa.string()),
    ]
)
"""`draw` is -1 for the greedy response; `sound`: whether a process verifier approved the steps, null where none did;
`answer`: what the response answers, null where that cannot be read; `context`: tokens that the writer read; `prompt`:
its text, before the chat template."""

SCORED_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("stage", pa.string()),
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("family", pa.string()),
        ("writer", pa.string()),
        ("model", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("logps", pa.list_(pa.float32())),
        ("best_ids", pa.list_(pa.int32())),
        ("best_logps", pa.list_(pa.float32())),
        ("steps", pa.list_(pa.int32())),
    ]
)
"""As `probes.snapshot.Scored`."""


def write_probe(run: RunDirectory, step: int, stage: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes a probe, a row for each response. A probe of the same step, drawn again after a resume, replaces it."""
    run.probes.mkdir(exist_ok=True)
    full = [{"step": step, "stage": stage, **row} for row in rows]
    return write_parquet(run.probe_file(step), pa.Table.from_pylist(full, schema=PROBE_SCHEMA))


def write_scored(run: RunDirectory, step: int, stage: str, scored: Sequence[Scored]) -> Path:
    """Writes what models said of given responses; replaces an earlier file of the same step."""
    run.scored.mkdir(exist_ok=True)
    rows = [
        {
            "step": step,
            "stage": stage,
            "id": one.id,
            "prompt_id": one.prompt,
            "family": one.family,
            "writer": one.writer,
            "model": one.model,
            "tokens": one.tokens,
            "logps": one.logps,
            "best_ids": one.best_ids,
            "best_logps": one.best_logps,
            "steps": list(one.steps),
        }
        for one in scored
    ]
    return write_parquet(run.scored_file(step), pa.Table.from_pylist(rows, schema=SCORED_SCHEMA))


def probed_steps(run: RunDirectory) -> list[int]:
    """Steps that have a probe, rising."""
    return sorted(int(path.stem.partition("=")[2]) for path in run.probes.glob("step=*.parquet"))


def read_snapshot(run: RunDirectory, step: int) -> Snapshot:
    """The probe after `step` steps. FileNotFoundError where there was none."""
    rows = pq.read_table(run.probe_file(step)).to_pylist()
    stage = str(rows[0]["stage"]) if rows else ""
    sets = dict.fromkeys(str(row.get("set") or "probe") for row in rows)
    found = {name: sampled([row for row in rows if (row.get("set") or "probe") == name]) for name in sets}
    return Snapshot(step, stage, found, read_scored(run, step))


def read_scored(run: RunDirectory, step: int) -> tuple[Scored, ...]:
    """What models said of given responses after `step` steps; empty where none was asked."""
    path = run.scored_file(step)
    return tuple(map(_scored, pq.read_table(path).to_pylist())) if path.is_file() else ()


def sampled(rows: Sequence[Mapping[str, Any]]) -> Sampled:
    """The rows of one set as counts by prompt; prompts stand in the order in which they first occur."""
    prompts = tuple(dict.fromkeys(str(row["prompt_id"]) for row in rows))
    place = {name: at for at, name in enumerate(prompts)}
    families = [""] * len(prompts)
    n, c, unknown = (np.zeros(len(prompts), np.int64) for _ in range(3))
    sound, judged = np.zeros(len(prompts), np.int64), False
    greedy = np.full(len(prompts), np.nan)
    answers: list[Counter[str]] = [Counter() for _ in prompts]
    passed: list[list[tuple[int, bool]]] = [[] for _ in prompts]
    for row in rows:
        at, verdict = place[str(row["prompt_id"])], row["passed"]
        families[at] = str(row["family"] or "")
        if row["greedy"]:
            greedy[at] = np.nan if verdict is None else float(verdict)
            continue
        if row.get("answer") is not None:
            answers[at][str(row["answer"])] += 1
        if verdict is None:
            unknown[at] += 1
            continue
        n[at] += 1
        c[at] += bool(verdict)
        passed[at].append((int(row.get("draw") or 0), bool(verdict)))
        judged = judged or row.get("sound") is not None
        sound[at] += bool(verdict) and bool(row.get("sound"))
    return Sampled(
        prompts,
        tuple(families),
        n,
        c,
        unknown,
        greedy,
        tuple(answers),
        tuple(tuple(verdict for _, verdict in sorted(one)) for one in passed),
        sound if judged else None,
        sum(int(row["tokens"] or 0) for row in rows),
    )


def _scored(row: Mapping[str, Any]) -> Scored:
    return Scored(
        row["id"],
        row["prompt_id"],
        row["family"],
        row["writer"],
        row["model"],
        np.asarray(row["tokens"], np.int32),
        np.asarray(row["logps"], np.float32),
        np.asarray(row["best_ids"], np.int32),
        np.asarray(row["best_logps"], np.float32),
        tuple(row["steps"] or ()),
    )
