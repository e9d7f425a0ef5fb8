"""The page's documents against what was planted, counted anew in plain loops."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.ledger import RunLedger
from orchestrator.page import documents
from orchestrator.page.documents import Reading
from orchestrator.run_directory import RunDirectory
from policies.trajectory import Origin
from tests.build_page_run import STRANDS, Planted, short_page_run
from tests.build_run import ENVIRONMENT, build_run


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return short_page_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def reading(planted: Planted) -> Reading:
    return Reading.open(planted.run.root)


def tokens_by_origin(planted: Planted, first: int, last: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for step in range(first, last + 1):
        for one in planted.examples[step]:
            for origin, trains in zip(one.trajectory.origin, one.trajectory.train_mask, strict=True):
                found[Origin(int(origin)).name.lower()] += bool(trains)
    return found


# ---------------------------------------------------------------- the run and the braid


def test_the_head_says_what_there_is(planted: Planted, reading: Reading) -> None:
    told = documents.run(reading)
    assert (told["name"], told["status"], told["fresh"]["step"]) == ("page-run", "finished", planted.steps)
    assert [(one["name"], one["first"], one["last"], one["done"]) for one in told["stages"]] == [
        ("warm-start", 1, 6, 6),
        ("braid", 7, 18, 12),
        ("distil", 19, 24, 6),
        ("sharpen", 25, 30, 6),
    ]
    assert all(told["views"].values()) and all(one["handoff"] for one in told["stages"])
    assert told["totals"]["tokens_trained"] == sum(tokens_by_origin(planted, 1, 30).values())
    assert [one["kind"] for one in told["failures"]] == ["update_skipped"]
    assert told["events"]["dropped"] == 1


@pytest.mark.parametrize(("first", "last", "points"), [(None, None, 7), (5, 21, 4), (8, 8, 600), (None, None, 600)])
def test_shares_of_the_braid_are_those_of_the_tokens(
    planted: Planted, reading: Reading, first: int | None, last: int | None, points: int
) -> None:
    told = documents.braid(reading, first, last, points)
    assert told["steps"][0] == (first or 1) and told["until"][-1] == (last or 30)
    assert len(told["steps"]) <= points and told["exact"] is (
        len(told["steps"]) == told["until"][-1] - told["steps"][0] + 1
    )
    for at, (low, high) in enumerate(zip(told["steps"], told["until"], strict=True)):
        expected = tokens_by_origin(planted, low, high)
        assert told["tokens"][at] == sum(expected.values())
        for origin in told["origins"]:
            share = expected[origin["name"]] / sum(expected.values())
            assert origin["shares"][at] == pytest.approx(share, rel=1e-5)
    assert [one["name"] for one in told["origins"]] == ["learner", "demonstration", "teacher", "hint"]


def test_strands_share_the_tokens_that_they_read(planted: Planted, reading: Reading) -> None:
    told = documents.braid(reading, 7, 18, 3)
    for at, (low, high) in enumerate(zip(told["steps"], told["until"], strict=True)):
        found: Counter[str] = Counter()
        for step in range(low, high + 1):
            for one in planted.examples[step]:
                found[STRANDS["braid"][one.strand]] += int(one.trajectory.train_mask.sum())
        for strand in told["strands"]:
            assert strand["shares"][at] == pytest.approx(found[strand["name"]] / sum(found.values()), rel=1e-5)


def test_rows_without_counts_by_origin_tell_them_by_their_shares(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", probes=False)
    rows = [json.loads(line) | {"by_origin": {}} for line in run.metrics.read_text().splitlines()]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = documents.braid(Reading.open(run.root), 5, 10, 1)
    expected = sum(row["share_demonstration"] for row in rows[4:10]) / 6
    shares = {one["name"]: one["shares"][0] for one in told["origins"]}
    assert shares == {"learner": pytest.approx(1 - expected), "demonstration": pytest.approx(expected)}


def test_curves_are_means_within_their_ranges(planted: Planted, reading: Reading) -> None:
    rows = [json.loads(line) for line in planted.run.metrics.read_text().splitlines()]
    steps = {row["step"]: row for row in rows if row["kind"] == "step"}
    told = documents.curves(reading, points=4)
    curves = {one["key"]: one for one in told["curves"]}
    for key in ("loss", "reward_mean", "gradient_norm"):
        for at, (low, high) in enumerate(zip(told["steps"], told["until"], strict=True)):
            known = [steps[step][key] for step in range(low, high + 1) if steps[step][key] is not None]
            if not known:
                assert curves[key]["values"][at] is None
                continue
            assert curves[key]["values"][at] == pytest.approx(math.fsum(known) / len(known), rel=1e-5)
            assert curves[key]["low"][at] == pytest.approx(min(known), rel=1e-5)
            assert curves[key]["high"][at] == pytest.approx(max(known), rel=1e-5)
    assert documents.curves(reading, points=600)["curves"][0]["low"] is None
    assert [one["step"] for one in told["probes"]] == list(planted.probes)
    assert all(one["sampled"]["low"] < one["sampled"]["value"] < one["sampled"]["high"] for one in told["probes"])


# ---------------------------------------------------------------- decisions


def test_pages_of_decisions_are_all_decisions_once(planted: Planted, reading: Reading) -> None:
    lines = [json.loads(line) for line in planted.run.decisions.read_text().splitlines()]
    found, before = [], None
    while True:
        page = documents.decisions(reading, before=before, limit=7)
        found += page["rows"]
        if page["next"] is None:
            break
        before = page["next"]
    assert [row["step"] for row in found] == [row["step"] for row in reversed(lines)]
    assert [row["reason"] for row in found] == [row["reason"] for row in reversed(lines)]
    assert page["total"] == len(lines)
    after = documents.decisions(reading, after=28, limit=7)
    assert ([row["step"] for row in after["rows"]], after["next"]) == ([29, 30], None)


def test_a_bucket_tells_the_decision_of_its_last_step(planted: Planted, reading: Reading) -> None:
    lines = {row["step"]: row for row in map(json.loads, planted.run.decisions.read_text().splitlines())}
    told = documents.decided(reading, 7, 18, 4)
    assert told["reasons"] == [lines[step]["reason"] for step in told["until"]]
    for strand in told["coefficients"]:
        assert strand["values"] == [lines[step]["plan"]["coefficients"][strand["name"]] for step in told["until"]]
    assert [one["step"] for one in documents.decided(reading)["fired"]] == [10]


# ---------------------------------------------------------------- empty, side by side


def test_a_run_that_has_done_nothing_has_every_document(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "name: empty\nstages: []\n", ENVIRONMENT)
    reading = Reading.open(run.root)
    for make in (documents.run, documents.braid, documents.curves, documents.decisions, documents.decided):
        json.dumps(make(reading), allow_nan=False)
    for make in (documents.support, documents.handoffs, documents.reach, documents.costs, documents.trajectories):
        json.dumps(make(reading), allow_nan=False)
    told = documents.run(reading)
    assert (told["status"], told["fresh"]["step"]) == ("not started", None) and not any(told["views"].values())
    assert documents.compare({"run": reading})["differ"] == []


def test_every_document_is_json_without_nan(reading: Reading) -> None:
    made = [
        *(make(reading) for make in (documents.run, documents.braid, documents.curves, documents.decided)),
        *(make(reading) for make in (documents.decisions, documents.support, documents.handoffs, documents.reach)),
        *(make(reading) for make in (documents.costs, documents.trajectories)),
        *(documents.trajectory(reading, step, 0) for step in (1, 7, 9, 20)),
        documents.compare({"a": reading, "b": reading}),
        documents.runs(reading.run.root),
    ]
    assert all(json.loads(json.dumps(one, allow_nan=False)) == one for one in made)


def test_runs_below_a_directory_are_listed_and_compared(tmp_path: Path) -> None:
    for name, until in (("one", None), ("two/seed-1", 8)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        build_run(tmp_path / name, probes=False, until=until)
    two = tmp_path / "two" / "seed-1"
    (two / "config.yaml").write_text((two / "config.yaml").read_text().replace("seed: 7", "seed: 8"))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "two" / "experiment.json").write_text('{"name": "study"}')
    told = documents.runs(tmp_path)
    assert {one["run"]: (one["status"], one["step"]) for one in told["runs"]} == {
        "one": ("finished", 16),
        "two/seed-1": ("running", 8),
    }
    assert told["experiments"] == [{"experiment": "two", "document": {"name": "study"}}]
    side = documents.compare({name: Reading.open(tmp_path / name) for name in ("one", "two/seed-1")})
    assert side["differ"] == ["seed"]
    assert [one["config"] for one in side["runs"]] == [{"seed": 7}, {"seed": 8}]
    assert side["runs"][1]["curves"]["loss"]["steps"] == list(range(1, 9))


def test_a_resumed_run_is_read_anew(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", probes=False, until=9)
    reading = Reading.open(run.root)
    assert documents.braid(reading)["last"] == 9
    with RunLedger(run, {}) as ledger:
        ledger.truncate_after(5)
    assert reading.refresh()
    assert (documents.braid(reading)["last"], max(reading.decisions)) == (5, 5)
    assert documents.decisions(reading, limit=1)["rows"][0]["step"] == 5
    assert documents.trajectories(reading)["steps"] == [1, 5]


@pytest.mark.slow
def test_the_comparison_is_that_of_the_command(tmp_path: Path) -> None:
    from orchestrator import comparison

    run = build_run(tmp_path / "run")
    reading = Reading.open(run.root)
    told = documents.comparison({"a": reading, "b": reading}, {"a": "4", "b": "16"})
    assert told["document"] == comparison.document([f"{run.root}@4", f"{run.root}@16"])
    alone = documents.comparison({"a": reading}, {})
    assert alone["document"] is None and alone["said"]
