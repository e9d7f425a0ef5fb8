"""The list of trajectories and the reader against the examples that the ledger was given."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.ledger import RunLedger
from orchestrator.page import documents
from orchestrator.page.documents import Asked, Page, Reading, Wanted
from orchestrator.page.trajectories import Sort
from policies.bad_input import BadInput
from policies.example import Example
from policies.trajectory import Origin, reward
from tests.build_page_run import STRANDS, Planted, short_page_run
from tests.build_run import build_run

LAST = (("warm-start", 6), ("braid", 18), ("distil", 24), ("sharpen", 30))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return short_page_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def reading(planted: Planted) -> Reading:
    return Reading.open(planted.run.root)


def stage_of(step: int) -> str:
    return next(name for name, last in LAST if step <= last)


def every(planted: Planted) -> Iterator[tuple[int, int, Example]]:
    for step in sorted(planted.examples, reverse=True):
        for row, one in enumerate(planted.examples[step]):
            yield step, row, one


def is_wanted(wanted: Wanted, step: int, one: Example) -> bool:
    t, value = one.trajectory, reward(one.trajectory)
    outcome = next((score for score in t.scores if score.name == "reward"), None)
    passed = None if outcome is None else outcome.passed
    strand = STRANDS[stage_of(step)][one.strand]
    verdicts = {"any": True, "passed": passed is True, "failed": passed is False, "unknown": passed is None}
    return (
        wanted.strand in ("", strand)
        and wanted.producer in ("", t.producer)
        and (not wanted.stage or t.id.startswith(wanted.stage))
        and wanted.prompt in ("", t.prompt_id)
        and wanted.text.lower() in t.text.lower()
        and verdicts[wanted.verdict]
        and (wanted.least is None or value >= wanted.least)
        and (wanted.most is None or value <= wanted.most)
        and (wanted.shortest is None or len(t.tokens) >= wanted.shortest)
        and (wanted.longest is None or len(t.tokens) <= wanted.longest)
    )


def pages(reading: Reading, wanted: Wanted, limit: int) -> Iterator[tuple[int, int]]:
    page = Page(limit=limit)
    while True:
        told = documents.trajectories(reading, wanted, page)
        assert told["unread"] == [] and len(told["rows"]) <= limit
        yield from ((row["step"], row["row"]) for row in told["rows"])
        if told["next"] is None:
            return
        page = Page(**told["next"], limit=limit)


@pytest.mark.parametrize("limit", [5, 23, 500])
@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(strand="hinted", verdict="passed"),
        Wanted(stage="braid", verdict="failed", shortest=50),
        Wanted(verdict="unknown"),
        Wanted(text="größe", producer="rollout"),
        Wanted(prompt="t012", least=0.5),
        Wanted(longest=50, most=0.5),
    ],
)
def test_pages_of_the_list_are_what_is_wanted_once(
    planted: Planted, reading: Reading, wanted: Wanted, limit: int
) -> None:
    expected = [(step, row) for step, row, one in every(planted) if is_wanted(wanted, step, one)]
    assert expected
    assert list(pages(reading, wanted, limit)) == expected


def test_a_step_is_sorted_whole(planted: Planted, reading: Reading) -> None:
    ones = planted.examples[9]
    first = documents.trajectories(reading, page=Page(step=9, sort="-reward", limit=6))
    second = documents.trajectories(reading, page=Page(**first["next"], sort="-reward", limit=6))
    rows = first["rows"] + second["rows"]
    values = [reward(one.trajectory) for one in ones]
    order = sorted(
        range(len(ones)), key=lambda at: (math.isnan(values[at]), -values[at] if values[at] == values[at] else 0)
    )
    assert [row["row"] for row in rows] == order[:12]
    assert first["total"] == len(ones)
    lengths = documents.trajectories(reading, page=Page(step=9, sort="length"))["rows"]
    assert [row["length"] for row in lengths] == sorted(len(one.trajectory.tokens) for one in ones)
    unknown = documents.trajectories(reading, Wanted(verdict="unknown"), Page(step=9))["rows"]
    assert [(row["reward"], row["passed"], row["status"]) for row in unknown] == [(None, None, "timeout")] * 3


@pytest.mark.parametrize("sort", ["written", "-reward", "length", "-advantage"])
@pytest.mark.parametrize("wanted", [Wanted(), Wanted(strand="hinted", least=0.5), Wanted(verdict="unknown")])
def test_all_trajectories_are_sorted_as_one(planted: Planted, reading: Reading, wanted: Wanted, sort: Sort) -> None:
    ones = [(step, row, one) for step, row, one in every(planted) if is_wanted(wanted, step, one)]
    key = {
        "written": lambda one: 0.0,
        "-reward": lambda one: -reward(one.trajectory),
        "length": lambda one: len(one.trajectory.tokens),
        "-advantage": lambda one: -float(np.mean(one.advantages)),
    }[sort]
    ones.sort(key=lambda place: math.inf if math.isnan(key(place[2])) else key(place[2]))
    found, page = [], Page(over="all", sort=sort, limit=17)
    while True:
        told = documents.trajectories(reading, wanted, page)
        assert told["total"] == len(ones) and told["indexed"] == [30, 30]
        found += [(row["step"], row["row"]) for row in told["rows"]]
        if told["next"] is None:
            break
        page = Page(**told["next"], sort=sort, limit=17)
    assert found == [(step, row) for step, row, _ in ones]


def test_the_index_forgets_what_a_resume_takes_back(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", probes=False)
    reading = Reading.open(run.root)
    everything = Page(over="all", limit=500)
    before = documents.trajectories(reading, page=everything)
    with RunLedger(run, {}) as ledger:
        ledger.truncate_after(10)
    run.trajectory_file(3).write_bytes(b"damaged")
    after = documents.trajectories(reading, page=everything)
    kept = [row for row in before["rows"] if row["step"] <= 10 and row["step"] != 3]
    assert after["rows"] == kept and after["total"] == len(kept)
    assert (after["indexed"], after["unread"]) == ([10, 10], [3])


def test_one_trajectory_has_every_token_with_its_facts(planted: Planted, reading: Reading) -> None:
    for step, row in ((8, 1), (9, 13), (20, 2), (3, 0), (30, 5)):
        one, g = planted.examples[step][row], planted.coefficients[step][row]
        t = one.trajectory
        told = documents.trajectory(reading, step, row)
        tokens = told["tokens"]
        assert tokens["ids"] == t.tokens.tolist()
        assert "".join(tokens["pieces"]) == t.text + "<end>"
        assert told["special"] == [len(t.tokens) - 1] and told["text"] == t.text
        assert [told["origin_names"][at] for at in tokens["origins"]] == [Origin(int(o)).name.lower() for o in t.origin]
        assert tokens["versions"] == t.token_version.tolist() and tokens["trained"] == t.train_mask.tolist()
        assert tokens["g"] == pytest.approx(g, rel=1e-4)
        assert tokens["advantages"] == pytest.approx(one.advantages.tolist(), rel=1e-4)
        for shown, logp in zip(tokens["logps"], t.behavior_logps.tolist(), strict=True):
            assert shown is None if math.isnan(logp) else shown == pytest.approx(logp, rel=1e-4)
        assert (told["step"], told["row"], told["length"], told["cut"]) == (step, row, len(t.tokens), 0)
        assert [(s["name"], s["start"], s["end"]) for s in told["scores"]] == [
            (s.name, s.start, s.end) for s in t.scores
        ]
        assert [m["row"] for m in told["group"]] == [
            at for at, other in enumerate(planted.examples[step]) if other.trajectory.group_id == t.group_id
        ]


def test_a_character_of_several_tokens_stands_at_its_last(reading: Reading, planted: Planted) -> None:
    row = next(at for at, one in enumerate(planted.examples[30]) if "🧮" in one.trajectory.text)
    pieces = documents.trajectory(reading, 30, row)["tokens"]["pieces"]
    at = pieces.index("🧮")
    assert pieces[at - 3 : at] == ["", "", ""]


def test_a_hinted_response_shows_what_its_writer_saw(reading: Reading, planted: Planted) -> None:
    row = next(at for at, one in enumerate(planted.examples[8]) if STRANDS["braid"][one.strand] == "hinted")
    told = documents.trajectory(reading, 8, row)
    assert (told["prompt"], told["behavior_prompt"], told["teacher_prompt"]) == (
        "What is 8 + 0?",
        "Hint: think. What is 8?",
        None,
    )


def test_long_responses_are_cut_and_neighbours_lead_on(reading: Reading) -> None:
    told = documents.trajectory(reading, 8, 0, most=10)
    assert len(told["tokens"]["ids"]) == len(told["tokens"]["g"]) == 10 and told["cut"] == told["length"] - 10
    assert told["previous"] == {"step": 7, "row": 15} and told["following"] == {"step": 8, "row": 1}
    assert documents.trajectory(reading, 1, 0)["previous"] is None
    assert documents.trajectory(reading, 30, 7)["following"] is None


@pytest.mark.parametrize(("step", "row"), [(31, 0), (0, 0), (8, 16), (8, -1), (-1, 0)])
def test_a_trajectory_that_is_not_there_is_refused(reading: Reading, step: int, row: int) -> None:
    with pytest.raises(BadInput, match=r"step|row"):
        documents.trajectory(reading, step, row)


def test_words_that_sort_does_not_have_are_refused(reading: Reading) -> None:
    with pytest.raises(BadInput, match="sort"):
        documents.trajectories(reading, page=Page(sort="id; drop table"))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="sort"):
        documents.support(reading, Asked(sort="x"))  # type: ignore[arg-type]
    assert documents.trajectories(reading, Wanted(strand="' or true --"))["rows"] == []
