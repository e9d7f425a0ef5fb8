"""Runs whose steps are labelled by sampling: what the ledger holds of the labels, and what credit made of them."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.run import run
from policies.arrow import from_table
from policies.trajectory import ScoreEntry, Trajectory, reward
from tests.recipe_runs import OUTCOME, pipeline, teacher_folder, write, write_data

Row = tuple[Trajectory, list[float]]
"""A response of the ledger, and the advantage of each of its tokens."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    teacher_folder(folder)
    yield folder


def ran(name: str, data: Path, out: Path, **labels: Any) -> tuple[list[dict[str, Any]], dict[str, list[Row]]]:
    """The steps' figures, and the responses of each group."""
    content = pipeline(name, data, data / "teacher", sampling={"max_tokens": 24})
    content |= {"verifier": OUTCOME, "step_labels": {"completions": 4, "steps": {"separator": "4"}, **labels}}
    if labels.get("writer") == "teacher":
        content["stages"][0]["recipe"]["teacher"] = str(data / "teacher")
    assert run(write(content, out.with_suffix(".yaml")), out, in_process=True) == 0
    lines = (out / "ledger" / "metrics.jsonl").read_text().splitlines()
    groups: dict[str, list[Row]] = defaultdict(list)
    for file in sorted((out / "ledger" / "trajectories").glob("*.parquet")):
        table = pq.read_table(file)
        for one, advantages in zip(from_table(table), table.column("advantage").to_pylist(), strict=True):
            groups[one.group_id].append((one, advantages))
    return [row for line in lines if (row := json.loads(line))["kind"] == "step"], groups


def steps(one: Trajectory) -> list[ScoreEntry]:
    return [entry for entry in one.scores if entry.name == "step"]


def check_cover(one: Trajectory) -> None:
    """Steps are known, in order, and cover the response."""
    found = steps(one)
    assert found and all(entry.status == "ok" for entry in found)
    assert [entry.start for entry in found] == [0, *(entry.end for entry in found[:-1])]
    assert found[-1].end == len(one.tokens)


def check_costs(rows: list[dict[str, Any]]) -> None:
    assert all(row["tokens_trained"] and not row["funnel"]["dropped"] for row in rows)
    labelled = [row for row in rows if row.get("label_completions")]
    assert labelled, "some response has two steps"
    for row in labelled:
        assert row["label_completions"] % 4 == 0 and row["seconds_label"] > 0
        assert row["label_completions"] <= row["label_tokens"] <= 23 * row["label_completions"]


@pytest.mark.parametrize("best", [1, "all"])
def test_math_shepherd_by_completions_of_the_policy(data: Path, tmp_path: Path, best: Any) -> None:
    rows, groups = ran("math_shepherd", data, tmp_path / "run", best_of=best)
    check_costs(rows)
    several = 0
    for members in groups.values():
        for one, _ in members:
            check_cover(one)
            *sampled, last = steps(one)
            assert last.value == reward(one)
            allowed = {0.0, 0.25, 0.5, 0.75, 1.0} if best == 1 else {0.0, 1.0}
            assert {entry.value for entry in sampled} <= allowed
            several += bool(sampled)
        every = np.array([entry.value for one, _ in members for entry in steps(one)])
        spread = every.std(ddof=1) + 1e-4 if every.std() else 1.0
        for one, advantages in members:
            worth = [
                sum((e.value - every.mean()) / spread for e in steps(one) if e.end > t) for t in range(len(one.tokens))
            ]
            np.testing.assert_allclose(advantages, worth, atol=1e-4)
    assert several


@pytest.mark.parametrize("writer", ["reference", "teacher"])
def test_pav_by_a_provers_completions(data: Path, tmp_path: Path, writer: str) -> None:
    rows, groups = ran("pav", data, tmp_path / "run", kind="progress", writer=writer, best_of=2)
    check_costs(rows)
    for members in groups.values():
        rewards = np.array([reward(one) for one, _ in members])
        began = {round(reward(one) - sum(entry.value for entry in steps(one)), 9) for one, _ in members}
        assert len(began) == 1 and 0 <= began.pop() <= 1, "progress adds up to the outcome less the prompt's worth"
        for one, advantages in members:
            check_cover(one)
            own = np.array([next(e.value for e in steps(one) if e.end > t) for t in range(len(one.tokens))])
            np.testing.assert_allclose(advantages, 3.0 * own + reward(one) - rewards.mean(), atol=1e-5)


def test_a_budget_leaves_responses_out_with_the_reason(data: Path, tmp_path: Path) -> None:
    rows, groups = ran("math_shepherd", data, tmp_path / "run", tokens=200)
    assert all(row.get("label_tokens", 0) <= 200 for row in rows)
    assert any(row["funnel"]["dropped"].get("credit") for row in rows)
    assert all(row["funnel"]["unaccounted"] == 0 for row in rows)
    for one in (one for members in groups.values() for one, _ in members):
        check_cover(one)
    events = (tmp_path / "run" / "ledger" / "events.jsonl").read_text()
    assert "no step score at token 0: unscored" in events


def test_the_same_seed_gives_the_same_labels(data: Path, tmp_path: Path) -> None:
    (_, one), (_, two) = (ran("math_shepherd", data, tmp_path / name) for name in ("one", "two"))
    assert {name: [steps(row[0]) for row in rows] for name, rows in one.items()} == {
        name: [steps(row[0]) for row in rows] for name, rows in two.items()
    }
