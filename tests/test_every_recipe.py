"""Every recipe of the catalogue trains through the same loop, actors and learner, as a whole run.

All in one process (`actors.in_process`); tests/test_run.py and the slow tests drive the same run over Ray.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from orchestrator import recipes
from orchestrator.run import run
from policies.arrow import from_table
from policies.trajectory import Origin
from tests.recipe_runs import pipeline, teacher_folder, write, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    teacher_folder(folder)
    yield folder


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger" / f"{name}.jsonl").read_text().splitlines()]


def moved(out: Path) -> bool:
    """Whether the last checkpoint's weights are not the first's."""
    found = sorted((out / "checkpoints").iterdir())
    first, last = (load_file(one / "model" / "model.safetensors") for one in (found[0], found[-1]))
    return any((first[name] != last[name]).any() for name in last)


@pytest.mark.parametrize("name", recipes.names())
def test_it_trains(name: str, data: Path, tmp_path: Path) -> None:
    file = write(pipeline(name, data, data / "teacher"), tmp_path / "pipeline.yaml")
    out = tmp_path / "run"
    assert run(file, out, in_process=True) == 0, [one for one in rows(out, "events") if one["kind"] == "failed"]
    steps = [one for one in rows(out, "metrics") if one["kind"] == "step"]
    assert [one["step"] for one in steps] == [1, 2, 3]
    trained = [one for one in steps if one["tokens_trained"]]
    assert trained, "no step trained on anything"
    assert all(
        math.isfinite(float(str(one["loss"]))) and math.isfinite(float(str(one["gradient_norm"]))) for one in trained
    )
    assert not any(one["skipped"] for one in steps)
    assert moved(out)
    check_provenance(out)
    check_accounts(out, steps)


def check_provenance(out: Path) -> None:
    """What the ledger says of every token that trained; raises AssertionError where it contradicts itself."""
    consumed = 0
    for file in sorted((out / "ledger" / "trajectories").glob("*.parquet")):
        step = int(file.stem.partition("=")[2])
        for one in from_table(pq.read_table(file)):
            own = one.origin == Origin.LEARNER
            assert (one.token_version[own] <= step).all(), "a token of a version that the step could not know"
            assert not one.train_mask[one.origin == Origin.ENVIRONMENT].any()
            assert np.isfinite(one.behavior_logps[own]).all()
            assert np.isnan(one.behavior_logps[~own & (one.origin != Origin.TEACHER)]).all()
            consumed += 1
    assert consumed


def check_accounts(out: Path, steps: list[dict[str, Any]]) -> None:
    """What was written and given is what trained, was dropped or stood aside, and files tell the same of each."""
    lost: Counter[tuple[int, str]] = Counter()
    for one in rows(out, "events"):
        if one["kind"] == "dropped" and one["step"]:
            lost[one["step"], one["cause"]] += one["responses"]
    for row in steps:
        step, whole = row["step"], row["funnel"]
        parts = whole["by_strand"].values()
        for one in (whole, *parts):
            went = one["trained"] + one["aside"] + sum(one["dropped"].values())
            assert one["written"] + one["given"] == went == sum(one["scored"].values()), (step, whole)
            assert one["unaccounted"] == 0
        assert all(whole[key] == sum(one[key] for one in parts) for key in ("written", "given", "trained", "aside"))
        assert whole["dropped"] == {cause: count for (at, cause), count in lost.items() if at == step and count}
        file = out / "ledger" / "trajectories" / f"step={step:06d}.parquet"
        consumed = [one.id for one in from_table(pq.read_table(file))]
        assert len(set(consumed)) == len(consumed)
        responses = [one for one in consumed if not one.endswith("~mismatched")]
        assert len(responses) == (whole["trained"] if row["tokens_trained"] else len(responses))
