"""Whether two runs decided, drew and learned the same: all of their ledgers and checkpoints but what a clock says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from tests.unsampleable import rows


def assert_same(one: Path, other: Path, steps: int) -> None:
    """AssertionError unless all of the first `steps` steps are the same, bit for bit; there must be so many."""
    assert len(decisions(one)) == steps
    assert decisions(one) == decisions(other)
    for step in range(1, steps + 1):
        assert columns(one, step) == columns(other, step), f"step {step}"
    ours, theirs = (load_file(out / f"checkpoints/step-{steps:06d}/model/model.safetensors") for out in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == value.tobytes() for name, value in theirs.items())
    assert state(one, steps) == state(other, steps)


def decisions(out: Path) -> list[str]:
    """Line by line, without the time of day."""
    return [json.dumps({**one, "time": 0}, sort_keys=True) for one in rows(out, "decisions")]


def columns(out: Path, step: int) -> dict[str, str]:
    """What the learner was handed: column -> its values, floats to the last digit; NaN is NaN."""
    file = out / f"ledger/trajectories/step={step:06d}.parquet"
    table: pa.Table = pq.read_table(file).drop_columns(["created_at", "seconds"])
    return {name: repr(table[name].to_pylist()) for name in table.column_names}


def state(out: Path, step: int) -> dict[str, Any]:
    """The run's state in a checkpoint, without what a clock says."""
    found: dict[str, Any] = json.loads((out / f"checkpoints/step-{step:06d}/state.json").read_text())
    found["facts"] = _untimed(found["facts"])
    return found


def _untimed(facts: Mapping[str, float]) -> dict[str, str]:
    return {name: repr(value) for name, value in facts.items() if "seconds" not in name}
