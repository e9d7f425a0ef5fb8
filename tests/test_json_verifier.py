"""JSON by a schema: strict where parsers are lax, bounded where a model is not, and equal to an independent check."""

import json
import math
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import verifiers
from verifiers import Status
from verifiers.strict_json import DEEPEST, LONGEST, NotJsonError, agreement, fields, last_block, parse

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
    max_leaves=8,
)  # fmt: skip


def opened(**more):
    return verifiers.build({"kind": "json_schema", "workers": 1, **more})


@pytest.fixture(scope="module")
def person():
    built = opened(against=PERSON)
    yield built
    built.close()


# ---------------------------------------------------------------- parsing

WRONG = {
    "": "there is no JSON",
    " \n": "there is no JSON",
    "{": "line 1",
    "{'a': 1}": "line 1",
    '{"a": 1,}': "line 1",
    '{"a": 1} and that is it': "text after the value",
    'Here you are: {"a": 1}': "line 1",
    '{"a": 1, "a": 2}': "'a' stands twice",
    '[{"b": {"a": 1, "a": 1}}]': "'a' stands twice",
    "NaN": "NaN",
    "[Infinity]": "Infinity",
    '{"a": -Infinity}': "-Infinity",
    "1e999": "past what a float holds",
    "9" * 301: "digits",
    "-" + "9" * 5000: "digits",
    "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1): "deeper",
    "[" * 50_000: "deeper",
    '{"a":' * 15_000: "deeper",
    '"' + "a" * LONGEST + '"': "longer",
    '"\x01"': "line 1",
    "0x1F": "text after",
    "01": "text after",
    "+1": "line 1",
    ".5": "line 1",
    "TRUE": "line 1",
    "// no\n1": "line 1",
}


@pytest.mark.parametrize(("text", "says"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_no_json_is_wrong_with_its_reason(text, says):
    with pytest.raises(NotJsonError, match=says):
        parse(text)
    score = opened().score("", text, None)
    assert (score.value, score.passed, score.status) == (0.0, False, Status.OK) and says in score.reason


@given(VALUES)
def test_what_is_json_comes_back_whole(value):
    assert parse(json.dumps(value)) == value
    assert parse(f"\n {json.dumps(value, indent=2, ensure_ascii=False)}\t") == value


def test_brackets_in_strings_are_no_levels():
    assert parse(json.dumps({"a": "[" * 500, 'b"[': ["\\", '"' + "{" * 100]}))
    assert parse("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize("unit", ['"\\', '\\"', '"', "[", "{}", '"a', "```\n", "`", "~~~"])
def test_no_text_takes_long_to_refuse(unit):
    began = time.monotonic()
    assert opened().score("", unit * (LONGEST // len(unit)), None).passed is False
    assert opened().score("", unit * (1_000_000 // len(unit)), None).passed is False
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("1", "1"),
        ("so:\n```json\n1\n```\nthat is it", "1"),
        ("```\n1\n```\n```JSON\n2\n```", "2"),
        ("```\n1\n```\nand ```2``` too", "1"),
        ("```\n1\n```\n```\n2", "1"),
        ("~~~\n1\n~~~", "1"),
        ("````md\n```\n1\n```\n````", "```\n1\n```"),
        ("```json\n1\n~~~\n```", "1\n~~~"),
        ("```json\n1", "```json\n1"),
        ("  ```json\r\n1\r\n  ```", "1"),
    ],
)
def test_the_last_closed_block_is_read(response, found):
    assert last_block(response).strip() == found


def test_a_whole_response_has_no_block():
    assert opened(place="whole").score("", "[1]", None).passed
    assert not opened(place="whole").score("", "```json\n[1]\n```", None).passed
    assert opened().score("", "```json\n[1]\n```", None).passed


# ---------------------------------------------------------------- schemas


def is_person(value):
    """PERSON's rules, said again."""
    if not isinstance(value, dict) or not {"name", "age"} <= set(value) <= {"name", "age", "tags"}:
        return False
    age, tags = value["age"], value.get("tags", [])
    whole = not isinstance(age, bool) and isinstance(age, int | float) and age == int(age) and age >= 0
    named = isinstance(value["name"], str) and len(value["name"]) >= 1
    return whole and named and isinstance(tags, list) and len(tags) <= 2 and all(tag in ("a", "b") for tag in tags)


def test_a_schema_is_met_as_its_words_say(person):
    near = st.fixed_dictionaries(
        {"name": st.sampled_from(["", "Ada", 1]), "age": st.sampled_from([0, 36, 36.0, 36.5, -1, True, "36", None])},
        optional={"tags": st.lists(st.sampled_from(["a", "b", "c", 1]), max_size=3), "x": st.none()},
    )

    @given(near | VALUES)
    @settings(max_examples=150, deadline=None)
    def agrees(value):
        score = person.score("", json.dumps(value), None)
        assert (score.status, score.passed, score.value) == (Status.OK, is_person(value), float(is_person(value)))
        assert bool(score.reason) != score.passed
        score.reason.encode()

    agrees()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"name": "Ada", "age": "36"}, "$.age: '36' is not of type 'integer'"),
        ({"name": "Ada"}, "'age' is a required property"),
        ({"name": "Ada", "age": 1, "tags": ["c"]}, "$.tags[0]"),
        ({"name": "Ada", "age": 1, "\ud800": 1}, "additional properties"),
    ],
)
def test_the_reason_says_where_and_what(person, value, says):
    reason = person.score("", json.dumps(value), None).reason
    assert says.lower() in reason.lower()
    reason.encode()


def test_a_schemas_pattern_cannot_stop_the_pool():
    bomb = opened(against={"type": "string", "pattern": "^(a+)+$"}, timeout=0.5)
    began = time.monotonic()
    score = bomb.score("", json.dumps("a" * 40 + "!"), None)
    assert (score.status, score.passed) == (Status.TIMEOUT, None) and math.isnan(score.value)
    assert bomb.score("", '"aaa"', None).passed
    assert time.monotonic() - began < 60
    bomb.close()


def test_a_schema_without_an_end_is_an_error_and_not_a_pass():
    endless = opened(against={"$ref": "#"})
    assert endless.score("", "1", None).status == Status.ERROR
    endless.close()


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objct"}, "type"),
        ({"properties": {"a": {"$ref": "https://example.org/schema.json"}}}, "leads out"),
        ({"allOf": [{"$ref": "file:///etc/passwd"}]}, "leads out"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
        ({"type": "string", "pattern": "("}, "pattern"),
    ],
)
def test_a_schema_that_cannot_judge_is_refused_in_the_config_and_unknown_as_a_reference(schema, says):
    with pytest.raises(ValidationError, match=says):
        opened(against=schema)
    built = opened(against="reference")
    score = built.score("", "{}", schema)
    assert (score.status, score.passed) == (Status.ERROR, None) and says in score.reason
    assert built.score("", "{}", {"type": "object"}).passed
    assert built.score("", "{}", '{"type": "array"}').passed is False
    built.close()


def test_a_ref_inside_the_schema_is_followed():
    tree = {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    built = opened(against=tree)
    assert built.score("", "[[], [[]]]", None).passed
    assert built.score("", "[[], [1]]", None).passed is False
    missing = opened(against={"$ref": "#/$defs/none"})
    assert missing.score("", "1", None).status == Status.ERROR
    built.close()
    missing.close()


@pytest.mark.parametrize("reference", [None, 3, "no json", "[1]", [1], math.nan, {"a": {1, 2}}])
def test_a_reference_that_is_no_schema_gives_no_verdict(reference):
    score = opened(against="reference").score("", "1", reference)
    assert (score.status, score.passed) == (Status.ERROR, None)


# ---------------------------------------------------------------- the reference's value


@given(VALUES, VALUES)
def test_agreement_is_symmetric_and_whole_only_for_equals(one, other):
    assert agreement(one, one) == (1.0, "")
    share, first = agreement(one, other)
    assert 0 <= share <= 1 and share == agreement(other, one)[0]
    assert (share == 1) == (not first)
    ours, theirs = dict(fields(one)), dict(fields(other))
    assert first == "" or first in {**ours, **theirs}


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=1, max_size=6), st.data())
def test_each_wrong_field_costs_its_share(expected, data):
    spoilt = data.draw(st.sets(st.sampled_from(sorted(expected))))
    found = {name: value + (name in spoilt) for name, value in expected.items()}
    assert agreement(found, expected)[0] == pytest.approx(1 - len(spoilt) / len(expected))
    dropped = {name: value for name, value in expected.items() if name not in spoilt}
    assume(dropped)
    assert agreement(dropped, expected)[0] == pytest.approx(len(dropped) / len(expected))
    assert agreement(expected, dropped)[0] == pytest.approx(len(dropped) / len(expected))


@pytest.mark.parametrize(
    ("found", "expected", "share"),
    [
        ("1.0", 1, 1.0),
        ("true", 1, 0.0),
        ("0", False, 0.0),
        ("[]", {}, 0.0),
        ("[1, 2]", [2, 1], 0.0),
        ('{"a": 1, "b": {"c": 2, "d": 3}}', {"a": 1, "b": {"c": 2, "d": 4}}, 2 / 3),
        ('{"b": 1, "a": 2}', '{"a": 2, "b": 1}', 1.0),
        ('{"a.b": 1}', {"a": {"b": 1}}, 0.0),
    ],
)
def test_fields_and_the_whole_are_compared_by_value(found, expected, share):
    score = opened(equals="fields").score("", found, expected)
    assert score.value == pytest.approx(share) and score.passed == (share == 1)
    assert opened(equals="yes").score("", found, expected).value == float(share == 1)


def test_the_schema_comes_before_the_value():
    built = opened(against=PERSON, equals="fields")
    person = {"name": "Ada", "age": 36}
    assert built.score("", '{"name": "Ada", "age": 36}', person).passed
    assert built.score("", '{"name": "Ada", "age": 35}', person).value == 0.5
    assert built.score("", '{"name": "Ada", "age": 35, "x": 1}', person).value == 0.0
    assert built.score("", "{}", "no json").status == Status.ERROR
    built.close()


def test_one_reference_cannot_be_schema_and_value():
    with pytest.raises(ValidationError, match="cannot be"):
        opened(against="reference", equals="yes")
