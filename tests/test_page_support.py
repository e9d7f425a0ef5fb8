"""The support map, prompts, handoffs and costs against what was planted, counted anew."""

import json
import math
from collections import Counter

import pytest

from orchestrator.page import documents
from orchestrator.page.documents import Asked, Reading
from policies.bad_input import BadInput
from tests.build_page_run import PROMPTS, SAMPLES, SHORT, Planted, counts, fate, short_page_run
from tests.build_run import HOSTILE


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return short_page_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def reading(planted: Planted) -> Reading:
    return Reading.open(planted.run.root)


def binomial_tail(n: int, least: int, p: float) -> float:
    return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(least, n + 1))


def test_the_map_has_the_planted_counts_and_exact_states(planted: Planted, reading: Reading) -> None:
    told = documents.support(reading, Asked(limit=1000, sort="given"))
    assert [one["step"] for one in told["checkpoints"]] == list(planted.probes)
    assert [one["id"] for one in told["prompts"]] == [f"q{index:03d}" for index in range(PROMPTS)]
    for index, row in enumerate(told["prompts"]):
        expected = [counts(index, step / planted.steps) for step in planted.probes]
        assert (row["n"], row["c"]) == ([SAMPLES] * len(expected), expected)
        for passed, state in zip(expected, row["state"], strict=True):
            solved = binomial_tail(SAMPLES, passed, 0.05) <= 0.05
            unsolved = 1 - binomial_tail(SAMPLES, passed + 1, 0.05) <= 0.05
            assert state == ("solved" if solved else "unsolved" if unsolved else "undecided")
    for at, one in enumerate(told["checkpoints"]):
        mean = math.fsum(row["c"][at] / SAMPLES for row in told["prompts"]) / PROMPTS
        assert one["rate"] == pytest.approx(mean, rel=1e-5) and one["pass_at_1"]["value"] == pytest.approx(mean)
        assert one["pass_at_1"]["low"] < mean < one["pass_at_1"]["high"]
    last = [row["state"][-1] for row in told["prompts"]]
    assert told["checkpoints"][-1]["solved"] == last.count("solved")


def test_prompts_are_sorted_by_what_became_of_them(planted: Planted, reading: Reading) -> None:
    gained = documents.support(reading, Asked(sort="gained", limit=1000))
    expanded = [row["id"] for row in gained["prompts"] if row["change"] == "expanded"]
    assert set(expanded) == set(planted.gained) == {row["id"] for row in gained["prompts"][: len(expanded)]}
    lost = documents.support(reading, Asked(sort="lost", limit=1000))
    attrited = [row["id"] for row in lost["prompts"] if row["change"] == "attrited"]
    assert set(attrited) == set(planted.lost) == {row["id"] for row in lost["prompts"][: len(attrited)]}
    rates = [row["rate"][-1] for row in documents.support(reading, Asked(sort="-rate", limit=1000))["prompts"]]
    assert rates == sorted(rates, reverse=True)


def test_between_the_checkpoints_of_a_handoff_the_map_says_what_the_handoff_says(
    planted: Planted, reading: Reading
) -> None:
    whole = json.loads(planted.run.handoff_file("braid").read_text())
    told = documents.support(reading, Asked(before=6, after=18, limit=1000))
    found = {row["id"] for row in told["prompts"] if row["change"] == "expanded"}
    assert found == set(whole["completion"]["support"]["expanded"])
    assert (told["before"], told["after"]) == (6, 18)
    assert {row["id"] for row in told["prompts"][: len(found)]} == found, "before those whose rate rose more"
    rises = [row["rate"][3] - row["rate"][1] for row in told["prompts"]]
    assert max(rises[len(found) :]) > min(rises[: len(found)])


def test_pages_of_the_map_are_all_prompts_once(reading: Reading) -> None:
    found, offset = [], 0
    while offset is not None:
        page = documents.support(reading, Asked(sort="lost", limit=10, offset=offset, find="algebra"))
        found += [row["id"] for row in page["prompts"]]
        offset = page["next"]
    assert sorted(found) == [f"q{index:03d}" for index in range(0, PROMPTS, 3)]
    assert page["total"] == len(found)
    assert documents.support(reading, Asked(name="guard"))["total"] == PROMPTS // 4
    assert documents.support(reading, Asked(name="shifted"))["prompts"] == []


def test_a_prompt_has_its_text_and_its_responses(planted: Planted, reading: Reading) -> None:
    told = documents.prompt(reading, "q005")
    assert (told["step"], told["family"], told["text"]) == (30, "counting", "What is 5 + 35? <b>bold</b>")
    assert len(told["responses"]) == SAMPLES + 1 and told["responses"][0]["greedy"]
    assert told["responses"][1]["text"] == HOSTILE
    assert sum(row["passed"] for row in told["responses"][1:]) == counts(5, 1.0)
    assert documents.prompt(reading, "nobody")["responses"] == []
    assert documents.prompt(reading, "q005", step=6)["step"] == 6


def test_every_fate_is_planted() -> None:
    assert Counter(map(fate, range(PROMPTS))).keys() == {"gained", "kept", "never", "rising", "lost", "falling"}


def test_the_table_of_handoffs_is_of_the_files(planted: Planted, reading: Reading) -> None:
    told = documents.handoffs(reading)["stages"]
    assert [one["stage"] for one in told] == [name for name, _ in SHORT]
    for one in told:
        whole = json.loads(planted.run.handoff_file(one["stage"]).read_text())
        assert documents.handoff(reading, one["stage"]) == whole
        assert one["role"] == whole["change"]["role"] and one["terms"] == whole["contract"]["terms"]
        assert one["support"]["expanded"] == len(whole["completion"]["support"]["expanded"])
        assert one["support"]["absent"] == 12
        assert not {"prompts", "crucial"} & one["diagnosis"].keys() and one["diagnosis"]["classes"]
    curves = documents.reach(reading)["stages"]
    assert curves[1]["reach"]["trajectories"] == 24 and curves[1]["pass_at_k"][0]["k"] == 1
    with pytest.raises(BadInput, match="nobody"):
        documents.handoff(reading, "nobody")
    with pytest.raises(BadInput):
        documents.handoff(reading, "../summary")


def test_costs_are_sums_of_the_rows(planted: Planted, reading: Reading) -> None:
    rows = [json.loads(line) for line in planted.run.metrics.read_text().splitlines()]
    for one in documents.costs(reading)["stages"]:
        own = [row for row in rows if row["kind"] == "step" and row["stage"] == one["stage"]]
        assert one["steps"] == len(own)
        assert one["seconds"]["train"] == pytest.approx(sum(row["seconds_train"] for row in own))
        assert one["tokens_trained"] == sum(row["tokens_trained"] for row in own)
        assert one["cost"] == documents.handoff(reading, one["stage"])["cost"] is not None
