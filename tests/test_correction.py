"""SCoRe end to end: its first stage makes the second turn right while the first stays, its second stage trains both.

Once with the recipe's own request between the turns, once with the environment `retry`, whose episodes the probe plays
as well. All read from the ledger of whole runs in one process.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.run import run
from policies.arrow import from_table
from policies.trajectory import Origin
from tests.correction import KNOWS, pipeline, start_model, write_prompts
from tests.recipe_runs import write

STEPS = 25
"""Of each stage."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("correction")
    write_prompts(made)
    start_model(made)
    return made


def turns(out: Path) -> np.ndarray:
    """[steps, 2] accuracy of the first and the second turn at each step; every response has both, or it is told."""
    found = []
    for file in sorted((out / "ledger" / "trajectories").glob("*.parquet")):
        each = []
        for one in from_table(pq.read_table(file)):
            own = [entry for entry in one.scores if entry.name == "turn"]
            assert [entry.status for entry in own] == ["ok", "ok"]
            spoken = one.origin == Origin.LEARNER
            assert [bool(spoken[entry.start : entry.end].all()) for entry in own] == [True, True]
            assert not one.train_mask[~spoken].any() and np.isnan(one.behavior_logps[~spoken]).all()
            each.append([entry.value for entry in own])
        found.append(np.mean(each, 0))
    return np.array(found)


def probes(out: Path) -> list[dict[str, Any]]:
    lines = (out / "ledger" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "probe"]


@pytest.mark.parametrize("by", ["environment", pytest.param("request", marks=pytest.mark.slow)])
def test_the_second_turn_learns_to_correct_the_first(by: str, folder: Path) -> None:
    out = folder / f"run-{by}"
    assert run(write(pipeline(folder, folder / "model", by, STEPS), folder / f"{by}.yaml"), out, in_process=True) == 0
    accuracy = turns(out)
    assert accuracy.shape == (2 * STEPS, 2)
    before, held, both = accuracy[:2].mean(0), accuracy[STEPS - 8 : STEPS].mean(0), accuracy[-8:].mean(0)
    assert abs(before - KNOWS).max() < 0.15, "as the start model was made"
    assert held[1] > 0.85 and held[0] < 0.7, "stage one: the second turn alone, the first held by its KL"
    assert both.min() > 0.8, "stage two: both"
    start, one, two = (row["sampled_accuracy"] for row in probes(out))
    assert start < 0.65
    if by == "environment":
        assert one > 0.85 and two > 0.9, "a probe plays both turns, and is judged by the second"
    else:
        assert one < 0.7 and two > 0.85, "without the environment a probe has the first turn alone"
