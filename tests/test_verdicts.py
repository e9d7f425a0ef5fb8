"""What a judge must end with, read strictly: everything else is no verdict, and never a number."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.verdicts import LONGEST, Checks, Choice, Fault, Scale, Shape, Verdict, example, objects, read

SEAL = "0123456789ab"
FIVE = Scale(1, 5)


def sealed(**own: object) -> str:
    return json.dumps({"seal": SEAL, **own})


@pytest.mark.parametrize(
    ("reply", "shape", "values", "critique"),
    [
        (sealed(score=1), FIVE, (0.0,), ""),
        (sealed(score=5), FIVE, (1.0,), ""),
        (f"Good, but dry.\n\n{sealed(score=4)}\n", FIVE, (0.75,), "Good, but dry."),
        (f"Good.\n```json\n{sealed(score=3)}\n```\n", FIVE, (0.5,), "Good."),
        (f"<think>Say {sealed(score=1)}? No.</think>Good.\n{sealed(score=5)}", FIVE, (1.0,), "Good."),
        (
            f"It wrote {{x: 1}} and {{}} and {{'a'.\n{sealed(score=2)}",
            FIVE,
            (0.25,),
            "It wrote {x: 1} and {} and {'a'.",
        ),
        (sealed(score=-2), Scale(-2, 2), (0.0,), ""),
        (sealed(met={"2": False, "1": True}), Checks(2), (1.0, 0.0), ""),
        (sealed(better="B"), Choice(), (0.0,), ""),
        (sealed(better="tie"), Choice(), (0.5,), ""),
    ],
)
def test_a_valid_verdict(reply: str, shape: Shape, values: tuple[float, ...], critique: str) -> None:
    assert read(reply, SEAL, shape) == Verdict(values, critique)


@pytest.mark.parametrize(
    ("reply", "shape", "reason"),
    [
        ("", FIVE, "no verdict"),
        ("The score is 4.", FIVE, "no verdict"),
        ("4", FIVE, "no verdict"),
        (sealed(score=4)[:-1], FIVE, "no verdict"),
        ('{"score": 4', FIVE, "no verdict"),
        ('{"seal": "0123456789ab", "seal": "0123456789ab", "score": 4}', FIVE, "no verdict"),
        ('{"seal": "0123456789ab", "score": NaN}', FIVE, "no verdict"),
        (f"[{sealed(score=4)}]", FIVE, "went on"),
        (sealed(score=4) + " That is all.", FIVE, "went on"),
        (sealed(score=4) + sealed(score=4), FIVE, "2 verdicts"),
        (f'It says {{"score": 5}}, but no.\n{sealed(score=1)}', FIVE, "2 verdicts"),
        ('It says {"seal": "ffffffffffff", "score": 5}', FIVE, "seal"),
        ('{"score": 4}', FIVE, "seal"),
        (json.dumps({"seal": SEAL.upper(), "score": 4}), FIVE, "seal"),
        (json.dumps({"seal": int("1" * 12), "score": 4}), FIVE, "seal"),
        (sealed(score=6), FIVE, "off the scale"),
        (sealed(score=0), FIVE, "off the scale"),
        (sealed(score=10**400), FIVE, "off the scale"),
        (sealed(score=4.0), FIVE, "other keys or values"),
        (sealed(score="4"), FIVE, "other keys or values"),
        (sealed(score=True), FIVE, "other keys or values"),
        (sealed(score=None), FIVE, "other keys or values"),
        (sealed(score=4, why="good"), FIVE, "other keys or values"),
        (sealed(better="A"), FIVE, "other keys or values"),
        (sealed(better="a"), Choice(), "other keys or values"),
        (sealed(better="A", score=4), Choice(), "other keys or values"),
        (sealed(met={"1": True}), Checks(2), "true or false of each"),
        (sealed(met={"1": True, "2": True, "3": True}), Checks(2), "true or false of each"),
        (sealed(met={"1": 1, "2": 0}), Checks(2), "true or false of each"),
        (sealed(met={"1": "yes", "2": "no"}), Checks(2), "true or false of each"),
        (sealed(met=[True, True]), Checks(2), "other keys or values"),
        (json.dumps({"verdict": {"seal": SEAL, "score": 5}}), FIVE, "no verdict"),
        (f"<think>Perhaps {sealed(score=5)}", FIVE, "never ended its thought"),
        ("x" * (LONGEST + 1), FIVE, "more than"),
        ("{" * LONGEST, FIVE, "more than"),
        ('{"a":' * 9_000, FIVE, "more than"),
        ('{"a":' * 1_000, FIVE, "no verdict"),
    ],
)
def test_all_else_is_no_verdict(reply: str, shape: Shape, reason: str) -> None:
    found = read(reply, SEAL, shape)
    assert isinstance(found, Fault)
    assert reason in found.reason
    assert not found.refused


@pytest.mark.parametrize(
    "reply",
    [
        sealed(refuse="It asks for harm."),
        f"No.\n{sealed(refuse='no')}",
        "I'm sorry, but I can't help with that.",
        "I cannot judge this.",
        "Sorry, no.",
        "<think>Hm.</think>\nI can't.",
    ],
)
def test_declining_is_told_from_failing(reply: str) -> None:
    found = read(reply, SEAL, FIVE)
    assert isinstance(found, Fault) and found.refused


def test_an_unsealed_refusal_is_no_refusal() -> None:
    found = read('{"refuse": "no"}', SEAL, FIVE)
    assert isinstance(found, Fault) and not found.refused


@settings(max_examples=300, deadline=None)
@given(
    st.text(),
    st.sampled_from([FIVE, Checks(2), Choice()]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["seal", "score", "met", "better", "1", "2"]), inner, max_size=3)
        ),
    ),
)
def test_nothing_that_a_judge_writes_raises_or_gives_a_number_unsealed(text: str, shape: Shape, junk: object) -> None:
    for reply in (text, text + json.dumps(junk), json.dumps(junk) + text):
        assert isinstance(read(reply, SEAL, shape), Fault) or SEAL in reply


@settings(max_examples=200, deadline=None)
@given(st.text(), st.integers(1, 5))
def test_prose_before_a_verdict_changes_no_score(prose: str, score: int) -> None:
    found = read(f"{prose}\n{sealed(score=score)}", SEAL, FIVE)
    if isinstance(found, Verdict):
        assert found.values == ((score - 1) / 4,)
    else:  # only prose that itself holds an object with a verdict's key, or ends the thought, may spoil it
        assert "{" in prose or "</think>" in prose


@given(st.text())
def test_objects_do_not_overlap_and_are_json(text: str) -> None:
    ends = 0
    for one in objects(text):
        assert one.start >= ends
        assert json.loads(text[one.start : one.end]) == one.content
        ends = one.end


def test_the_example_names_every_entry() -> None:
    for shape in (FIVE, Checks(3), Choice()):
        own, where = example(shape)
        assert own and where
    assert example(Checks(3))[0].count("B") == 3
