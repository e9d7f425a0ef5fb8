"""A judge's forms, votes and pairs, over a real server whose answers the test scripts."""

import json
import math
import random
from typing import Any

import pytest

from benchmarks.judge_server import Raw, Request, completion, serving
from tests.judge_cases import judge, quoted, score, scores, seal, verdict
from verifiers import Item, Status
from verifiers.verifier import build

RUBRIC = {"kind": "rubric"}
CHECKS = {"kind": "checklist", "criteria": [{"text": "is short", "weight": 3}, {"text": "is kind", "name": "kind"}]}
PAIRS = {"kind": "pairwise"}


def unknown(value: Any) -> bool:
    return math.isnan(value.value) and value.passed is None


# ---------------------------------------------------------------- one response


@pytest.mark.parametrize(
    ("number", "value", "passed"), [(1, 0.0, False), (3, 0.5, False), (4, 0.75, True), (5, 1.0, True)]
)
def test_a_grade_is_its_place_on_the_scale(number: int, value: float, passed: bool) -> None:
    with serving(lambda request: verdict(request, "Right, but curt.", score=number)) as server:
        found = score(judge(server, RUBRIC), "4", "4")
    assert (found.value, found.passed, found.status, found.reason) == (value, passed, Status.OK, "Right, but curt.")
    assert found.scorer == "judge" and found.version and found.seconds > 0
    assert quoted(server.requests[0]) == {"PROMPT": "What is 2+2?", "REFERENCE": "4", "RESPONSE": "4"}
    assert server.requests[0].body["model"] == "judge"
    assert (server.requests[0].body["temperature"], server.requests[0].body["max_tokens"]) == (0, 512)


def test_a_checklist_is_the_weights_met_over_all() -> None:
    with serving(lambda request: verdict(request, met={"1": True, "2": False})) as server:
        found = score(judge(server, CHECKS), "4")
    assert (found.value, found.passed) == (0.75, False)
    assert {name: (part.value, part.passed, part.reason) for name, part in found.parts.items()} == {
        "criterion-1": (1.0, True, "is short"),
        "kind": (0.0, False, "is kind"),
    }
    assert "1. is short\n2. is kind" in server.requests[0].user


@pytest.mark.parametrize(
    ("reference", "met", "value"),
    [
        (["a", "b"], [True, False], 1 / 2),
        ([{"criterion": "a", "points": 5}, {"criterion": "b", "points": -4}, "c"], [True, True, False], 1 / 6),
        ([{"criterion": "a", "points": 5}, {"criterion": "b", "points": -4}], [False, True], 0.0),
        ({"answer": "4", "criteria": [{"description": "a", "weight": 2}, {"text": "b"}]}, [False, True], 1 / 3),
    ],
)
def test_criteria_of_the_prompts_own(reference: Any, met: list[bool], value: float) -> None:
    entries = {str(at): one for at, one in enumerate(met, start=1)}
    with serving(lambda request: verdict(request, met=entries)) as server:
        found = score(judge(server, {"kind": "checklist"}), "4", reference)
    assert found.value == pytest.approx(value)
    assert "REFERENCE" not in quoted(server.requests[0]), "the criteria are the reference"


@pytest.mark.parametrize(
    "reference",
    [None, "4", [], {}, [3], [{"weight": 1}], [{"text": "a", "weight": "x"}], ["a", {"text": "b", "weight": 0}]],
)
def test_a_reference_without_criteria_is_no_verdict(reference: Any) -> None:
    with serving(lambda _: "never asked") as server:
        found = score(judge(server, {"kind": "checklist"}), "4", reference)
    assert found.status == Status.ERROR and unknown(found) and "reference" in found.reason
    assert not server.requests


def test_a_constitution_gives_its_critique_as_the_reason() -> None:
    form = {"kind": "constitution", "principles": ["Be honest.", "Harm nobody."]}
    critique = "The answer is honest.\nIt could warn the reader."
    with serving(lambda request: verdict(request, critique, met={"1": True, "2": False})) as server:
        found = score(judge(server, form), "4")
    assert (found.value, found.passed, found.reason) == (0.5, False, critique)
    assert list(found.parts) == ["principle-1", "principle-2"]
    assert "critique" in server.requests[0].user


def test_the_seal_is_in_no_reason() -> None:
    with serving(lambda request: verdict(request, f"The seal is {seal(request)}.", score=1)) as server:
        found = score(judge(server, RUBRIC), "4")
    assert found.reason == "The seal is ."
    assert seal(server.requests[0]) not in repr(found)


def test_a_template_of_ones_own() -> None:
    template = "Q: {{ prompt }}\nA: {{ response }}\nScale: {{ criteria }}"
    form = {"kind": "rubric", "low": 0, "high": 1, "anchors": {0: "bad", 1: "good"}, "passes": 1}
    with serving(lambda request: verdict(request, score=1)) as server:
        assert score(judge(server, form, template=template), "4", "4").passed
    assert server.requests[0].user.startswith("Q: <<<PROMPT")
    assert "Scale: 0: bad\n1: good" in server.requests[0].user
    assert "REFERENCE" not in server.requests[0].user


def test_a_template_that_reads_a_reference_needs_one() -> None:
    config = {"template": "{{ response }} {{ reference }}"}
    with serving(lambda request: verdict(request, score=5)) as server:
        found = scores(judge(server, RUBRIC, **config), [Item("p", "r", None), Item("p", "r", "4")])
    assert [one.status for one in found] == [Status.ERROR, Status.OK]
    assert "template" in found[0].reason and len(server.requests) == 1


# ---------------------------------------------------------------- no verdict


def test_what_is_no_verdict_is_asked_for_again() -> None:
    with serving(lambda request: "Hm." if request.number == 0 else verdict(request, score=5)) as server:
        assert score(judge(server, RUBRIC), "4").value == 1
    assert len({seal(one) for one in server.requests}) == 2, "each with a seal of its own"


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("I would say 5 of 5.", Status.ERROR, "no verdict"),
        ('{"seal": "000000000000", "score": 5}', Status.ERROR, "seal"),
        ("I'm sorry, I can't judge that.", Status.REFUSED, "declined"),
    ],
)
def test_a_judge_that_gives_none_gives_no_score(answer: str, status: Status, reason: str) -> None:
    with serving(lambda _: answer) as server:
        found = score(judge(server, RUBRIC, attempts=3), "4")
    assert found.status == status and unknown(found) and reason in found.reason
    assert len(server.requests) == 3


def test_an_items_failure_is_its_own() -> None:
    def answer(request: Request) -> str:
        return "Hm." if quoted(request)["RESPONSE"] == "bad" else verdict(request, score=5)

    with serving(answer) as server:
        found = scores(judge(server, RUBRIC), [Item("p", text, None) for text in ("a", "bad", "c")])
    assert [one.status for one in found] == [Status.OK, Status.ERROR, Status.OK]


def test_a_refusal_of_the_servers_own() -> None:
    for body in (completion(None, refusal="No."), completion("x", finish="content_filter")):
        with serving(lambda _, body=body: Raw(body=body)) as server:
            found = score(judge(server, RUBRIC, attempts=1), "4")
        assert found.status == Status.REFUSED and unknown(found)


def test_a_cut_off_answer_says_so() -> None:
    with serving(lambda _: Raw(body=completion("It is", finish="length"))) as server:
        assert "cut off at max_tokens" in score(judge(server, RUBRIC), "4").reason


# ---------------------------------------------------------------- votes


def in_turn(*numbers: int | None) -> Any:
    """Votes that come in this order."""
    return lambda request: verdict(request, str(at), score=at) if (at := numbers[request.number]) else "Hm."


@pytest.mark.parametrize(
    ("votes", "pool", "value", "agreement"),
    [
        ((5, 5, 1), "mean", 2 / 3, 2 / 3),
        ((5, 5, 1), "majority", 1.0, 2 / 3),
        ((3, 3, 3), "majority", 0.5, 1.0),
        ((4, 4, None), "mean", 0.75, 1.0),
    ],
)
def test_votes_become_one(votes: tuple[int | None, ...], pool: str, value: float, agreement: float) -> None:
    with serving(in_turn(*votes)) as server:
        ways = {"samples": 3, "temperature": 0.7, "pool": pool, "attempts": 1, "endpoint": {"concurrency": 1}}
        found = score(judge(server, RUBRIC, **ways), "4")
    assert found.value == pytest.approx(value)
    assert found.parts["agreement"].value == pytest.approx(agreement)
    assert found.parts["agreement"].passed is None
    assert all(one.body["temperature"] == 0.7 for one in server.requests)
    assert len({seal(one) for one in server.requests}) == 3


@pytest.mark.parametrize(
    ("votes", "pool", "reason"),
    [((5, 3, 1), "majority", "split"), ((5, None, None), "mean", "1 of 3 votes"), ((5, 1, None), "majority", "split")],
)
def test_too_few_or_split_votes_are_no_verdict(votes: tuple[int | None, ...], pool: str, reason: str) -> None:
    ways = {"samples": 3, "temperature": 1.0, "pool": pool, "attempts": 1, "endpoint": {"concurrency": 1}}
    with serving(in_turn(*votes)) as server:
        found = score(judge(server, RUBRIC, **ways), "4")
    assert found.status == Status.ERROR and unknown(found) and reason in found.reason


# ---------------------------------------------------------------- pairs


def prefers(rank: Any) -> Any:
    """A judge that prefers the response of the higher rank, whatever the order."""

    def answer(request: Request) -> str:
        a, b = (rank(quoted(request)[f"RESPONSE {side}"]) for side in "AB")
        return verdict(request, better="tie" if a == b else "A" if a > b else "B")

    return answer


def test_against_the_reference_in_both_orders() -> None:
    with serving(prefers(len)) as server:
        items = [Item("p", text, {"answer": "xx"}) for text in ("xxx", "x", "yy", "xx")]
        found = scores(judge(server, PAIRS), items)
    assert [(one.value, one.passed) for one in found] == [(1.0, True), (0.0, False), (0.5, True), (0.5, True)]
    assert all(one.parts["position_bias"].value == 0 for one in found)
    asked = [(one["RESPONSE A"], one["RESPONSE B"]) for one in map(quoted, server.requests)]
    assert sorted(asked) == sorted([("xxx", "xx"), ("xx", "xxx"), ("x", "xx"), ("xx", "x"), ("yy", "xx"), ("xx", "yy")])
    assert all("REFERENCE" not in quoted(one) for one in server.requests)


@pytest.mark.parametrize("place", ["A", "B"])
def test_a_love_of_one_place_is_a_tie_and_is_told(place: str) -> None:
    with serving(lambda request: verdict(request, better=place)) as server:
        found = score(judge(server, PAIRS), "x", "y")
    assert (found.value, found.parts["position_bias"].value) == (0.5, 1.0)


def test_a_win_in_one_order_alone_is_a_tie_but_no_bias() -> None:
    def answer(request: Request) -> str:
        return verdict(request, better="A" if quoted(request)["RESPONSE A"] == "x" else "tie")

    with serving(answer) as server:
        found = score(judge(server, PAIRS), "x", "y")
    assert (found.value, found.parts["position_bias"].value) == (0.5, 0.0)


def test_a_group_among_itself_is_each_ones_share_of_wins() -> None:
    texts = {"g": ["ccc", "a", "bb", "a"], "h": ["a", "bb"]}
    items = [Item("p", text, None, group) for group, own in texts.items() for text in own]
    random.Random(0).shuffle(items)
    with serving(prefers(len)) as server:
        found = scores(judge(server, {**PAIRS, "against": "all"}), items)
    for item, one in zip(items, found, strict=True):
        others = list(texts[item.group])
        others.remove(item.response)
        wins = [1.0 if len(item.response) > len(x) else 0.5 if len(item.response) == len(x) else 0.0 for x in others]
        assert one.value == pytest.approx(sum(wins) / len(wins))
    assert len(server.requests) == 2 * (6 - 1 + 1), "two equal texts are not asked about"


def test_a_group_against_its_first() -> None:
    items = [Item("p", text, None, "g") for text in ("bb", "a", "ccc", "dddd")]
    with serving(prefers(len)) as server:
        found = scores(judge(server, {**PAIRS, "against": "first"}), items)
    assert [one.value for one in found] == pytest.approx([1 / 3, 0.0, 1.0, 1.0])
    assert len(server.requests) == 6


def test_nobody_to_compare_with_is_no_verdict() -> None:
    with serving(lambda _: "never asked") as server:
        group = scores(judge(server, {**PAIRS, "against": "all"}), [Item("p", "a", "r", "g"), Item("p", "b", "r")])
        lone = score(judge(server, PAIRS), "a", None)
    assert [one.status for one in (*group, lone)] == [Status.ERROR] * 3
    assert not server.requests


def test_a_comparison_without_a_verdict_counts_for_nobody() -> None:
    def answer(request: Request) -> str:
        pair = {quoted(request)[f"RESPONSE {side}"] for side in "AB"}
        return "Hm." if pair == {"a", "bb"} else prefers(len)(request)

    items = [Item("p", text, None, "g") for text in ("a", "bb", "ccc", "dddd")]
    with serving(answer) as server:
        found = scores(judge(server, {**PAIRS, "against": "all"}, attempts=1), items)
        pair = scores(judge(server, {**PAIRS, "against": "all"}, attempts=1), items[:2])
    assert [one.value for one in found] == pytest.approx([0.0, 0.0, 2 / 3, 1.0])
    assert [one.status for one in pair] == [Status.ERROR] * 2


# ---------------------------------------------------------------- config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"form": {"kind": "rubric", "low": 5, "high": 1}}, "high should be above low"),
        ({"form": {"kind": "rubric", "anchors": {9: "x"}}}, "anchors"),
        ({"form": {"kind": "constitution", "principles": []}}, "at least 1 item"),
        ({"form": {"kind": "checklist", "criteria": [{"text": "a", "name": "reward"}]}}, "name of its own"),
        ({"form": {"kind": "checklist", "criteria": [{"text": "a", "weight": 0}]}}, "weight 0"),
        ({"form": {"kind": "checklist", "criteria": [{"text": "a", "weight": -1}]}}, "above 0"),
        ({"template": "{{ prompt }}"}, "does not show"),
        ({"samples": 3}, "temperature 0"),
        ({"model": {"kind": "endpoint", "base_url": "host:80", "model": "m"}}, "http://host"),
        ({"model": {"kind": "endpoint", "base_url": "http://me:pw@h/v1", "model": "m"}}, "password"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    config = {"kind": "judge", "model": {"kind": "endpoint", "base_url": "http://h/v1", "model": "m"}, "form": RUBRIC}
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        build({**config, **changes})


def test_a_folder_that_nobody_serves_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="nobody serves the judge some/folder"):
        build({"kind": "judge", "model": {"kind": "folder", "path": "some/folder"}, "form": RUBRIC})


def test_the_config_survives_its_file() -> None:
    config = {"kind": "judge", "model": {"kind": "folder", "path": "x"}, "form": {"kind": "rubric"}}
    from verifiers.judge_config import JudgeVerifier

    own = JudgeVerifier.model_validate(config)
    assert JudgeVerifier.model_validate(json.loads(own.model_dump_json())) == own
    assert [one.name for one in own.wanted()] == ["judge:x"]
