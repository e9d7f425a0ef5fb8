"""The scorer actor's core: entries in order, statuses carried, nothing made up."""

import json
import math
import time

import pytest
from pydantic import TypeAdapter

from actors.scorer import ScorerReplica
from verifiers.config import AnswerVerifier, FormatVerifier, RubricVerifier, Verifier


def items(*pairs):
    return [(f"t{i}", "1+1=", response, json.dumps(reference)) for i, (response, reference) in enumerate(pairs)]


def test_one_reward_for_each_response_in_order():
    replica = ScorerReplica(AnswerVerifier())
    found = replica.score(items(("#2", "2"), ("#3", "2"), ("2", "2")))
    assert [[entry.name for entry in entries] for entries in found] == [["reward"]] * 3
    assert [(e.value, e.passed) for (e,) in found] == [(1.0, True), (0.0, False), (0.0, False)]
    assert {e.status for (e,) in found} == {"ok"}
    assert found[2][0].reason == "no marker '#'"
    name, version = replica.identity()
    assert {(e.scorer, e.scorer_version) for (e,) in found} == {(name, version)} == {("answer", version)}


def test_a_rubric_reports_its_parts_and_theirs():
    rubric = TypeAdapter(Verifier).validate_python(
        {
            "kind": "rubric",
            "parts": [
                {"kind": "answer", "weight": 3},
                {
                    "kind": "rubric",
                    "name": "form",
                    "required": False,
                    "parts": [{"kind": "format"}, {"kind": "format", "name": "short", "pattern": ".{1,3}"}],
                },
            ],
        }
    )
    (entries,) = ScorerReplica(rubric).score(items(("abc #2", "2")))
    assert {e.name: e.value for e in entries} == {
        "reward": pytest.approx((3 * 1 + 0.5) / 4),
        "answer": 1.0,
        "form": 0.5,
        "form/format": 1.0,
        "form/short": 0.0,
    }
    assert entries[0].name == "reward" and entries[0].passed


def test_a_verdict_that_hangs_is_a_timeout_and_the_next_is_judged():
    replica = ScorerReplica(FormatVerifier(pattern="(a|aa)+b", timeout=0.3))
    started = time.monotonic()
    (hung,), (good,) = replica.score(items(("a" * 5000, ""), ("aab", "")))
    assert time.monotonic() - started < 5
    assert (hung.status, hung.passed) == ("timeout", None) and math.isnan(hung.value)
    assert (good.status, good.value) == ("ok", 1.0)


def test_a_batch_ends_in_time_however_many_hang():
    replica = ScorerReplica(FormatVerifier(pattern="(a|aa)+b", timeout=0.2), timeout=0.5)
    started = time.monotonic()
    found = replica.score(items(*[("a" * 5000, "")] * 200))
    assert time.monotonic() - started < 5
    assert [e.status for (e,) in found] == ["timeout"] * 200
    assert found[-1][0].reason == "the time for the batch ran out before this response"


def test_a_part_without_a_verdict_leaves_the_whole_without_one():
    rubric = RubricVerifier(parts=(AnswerVerifier(), FormatVerifier()))
    reward, answer, form = ScorerReplica(rubric).score(items(("#2", {"not": "text"})))[0]
    assert (reward.status, reward.passed) == ("error", None) and math.isnan(reward.value)
    assert reward.reason == "answer: reference is dict, not the answer's text"
    assert answer.status == "error" and math.isnan(answer.value)
    assert (form.status, form.value) == ("ok", 1.0)
