"""Rubrics: truth tables of gates, vetoes and unknown parts, against an oracle; who is asked and who is not."""

import itertools
import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import verifiers
from verifiers.config import AnswerVerifier, FormatVerifier, MathVerifier, RubricVerifier
from verifiers.grader import Item
from verifiers.rubric import Rubric, weigh
from verifiers.score import Score, Status

PASS, FAIL = Score(1.0, True, reason="yes"), Score(0.0, False, reason="no")
LOST = Score.unknown(Status.TIMEOUT, "slow")
PARTS = {"pass": PASS, "fail": FAIL, "lost": LOST}


def rubric(*parts):
    return RubricVerifier(parts=tuple(AnswerVerifier(**part) for part in parts))


def told(whole):
    return "lost" if whole.status != Status.OK else (round(whole.value, 9), whole.passed)


# ---------------------------------------------------------------- truth tables

GATED = rubric({"name": "right", "role": "gate", "weight": 0}, {"name": "style", "required": False})


@pytest.mark.parametrize(
    ("right", "style", "whole"),
    [
        ("pass", "pass", (1, True)),
        ("pass", "fail", (0, True)),
        ("pass", "lost", "lost"),
        ("fail", "pass", (0, False)),
        ("fail", "fail", (0, False)),
        ("fail", "lost", (0, False)),  # the gate decides, whatever the other would have said
        ("lost", "pass", "lost"),
        ("lost", "fail", "lost"),  # 0 both ways, but whether it passed hangs on the gate
        ("lost", "lost", "lost"),
    ],
)
def test_correctness_gates_style(right, style, whole):
    found = weigh(GATED, {"right": PARTS[right], "style": PARTS[style]})
    assert told(found) == whole
    assert set(found.parts) == {"right", "style"}  # kept when the gate is shut, too
    if right == "fail":
        assert found.reason == "gate right: no"


VETOED = rubric({"name": "right"}, {"name": "copied", "role": "veto"})


@pytest.mark.parametrize(
    ("right", "copied", "whole"),
    [
        ("pass", "pass", (0, False)),  # the veto fired
        ("pass", "fail", (1, True)),
        ("pass", "lost", "lost"),
        ("fail", "pass", (0, False)),
        ("fail", "fail", (0, False)),
        ("fail", "lost", (0, False)),  # fired or not, it stays 0
        ("lost", "pass", (0, False)),
        ("lost", "fail", "lost"),
        ("lost", "lost", "lost"),
    ],
)
def test_a_veto_forbids_when_it_passes(right, copied, whole):
    found = weigh(VETOED, {"right": PARTS[right], "copied": PARTS[copied]})
    assert told(found) == whole
    if copied == "pass":
        assert found.reason == "veto copied: yes"


def test_what_is_only_reported_changes_nothing():
    one = rubric({"name": "right"}, {"name": "length", "weight": 0})
    for right, length in itertools.product(PARTS, PARTS):
        found = weigh(one, {"right": PARTS[right], "length": PARTS[length]})
        assert told(found) == told(weigh(rubric({"name": "right"}), {"right": PARTS[right]}))
        assert found.parts["length"] == PARTS[length]


def test_a_gate_with_a_weight_counts_when_it_is_open():
    one = rubric({"name": "right", "role": "gate", "weight": 3}, {"name": "style", "required": False})
    half = Score(0.5, True)
    assert told(weigh(one, {"right": half, "style": FAIL})) == (3 * 0.5 / 4, True)


def test_a_value_without_a_pass_demands_nothing_unless_it_is_told_to():
    bare = Score(0.4, None)
    by_default = rubric({"name": "right"}, {"name": "model"})
    assert told(weigh(by_default, {"right": PASS, "model": bare})) == (0.7, True)
    for demanding in ({"required": True}, {"role": "gate"}):
        whole = weigh(rubric({"name": "right"}, {"name": "model", **demanding}), {"right": PASS, "model": bare})
        assert (whole.status, whole.reason) == (Status.ERROR, "model: it says no pass or fail")


# ---------------------------------------------------------------- an oracle: every completion of what is unknown

ROLES = [
    {"role": "part", "required": True},
    {"role": "part", "required": False},
    {"role": "part"},
    {"role": "gate"},
    {"role": "veto"},
]
SCORES = [PASS, FAIL, Score(0.5, True), Score(0.25, False), LOST, Score.unknown(Status.ERROR, "broken")]


def known(parts, row):
    """(value, passed) of parts that all have a verdict, from the definition."""
    for part, (_, passed) in zip(parts, row, strict=True):
        if (part["role"] == "gate" and not passed) or (part["role"] == "veto" and passed):
            return 0.0, False
    weighed = [(part["weight"], value) for part, (value, _) in zip(parts, row, strict=True) if part["role"] != "veto"]
    value = sum(w * v for w, v in weighed) / sum(w for w, _ in weighed)
    need = [part.get("required", part["weight"] > 0) and part["role"] == "part" for part in parts]
    return round(value, 9), all(passed for (_, passed), wanted in zip(row, need, strict=True) if wanted)


def completed(parts, row):
    """The set of what the whole may be once the unknown parts have spoken."""
    choices = [
        [(one.value, one.passed)]
        if one.status == Status.OK
        else list(itertools.product((0.0, 0.375, 1.0), (True, False)))
        for one in row
    ]
    return {known(parts, full) for full in itertools.product(*choices)}


@st.composite
def cases(draw):
    count = draw(st.integers(1, 4))
    parts = []
    for index in range(count):
        own = dict(draw(st.sampled_from(ROLES)), name=f"p{index}")
        weight = draw(st.sampled_from([0, 1, 2, 5]))
        parts.append({**own, "weight": 0 if own["role"] == "veto" else weight})
    if not any(part["weight"] for part in parts):
        parts.append({"role": "part", "name": "last", "weight": 1})
    return parts, [draw(st.sampled_from(SCORES)) for _ in parts]


def build(parts):
    return rubric(*[{k: v for k, v in one.items() if one["role"] != "veto" or k != "weight"} for one in parts])


@settings(max_examples=600, deadline=None)
@given(cases())
def test_the_whole_is_known_exactly_where_every_completion_agrees(case):
    parts, row = case
    verdicts = {part["name"]: score for part, score in zip(parts, row, strict=True)}
    whole = weigh(build(parts), verdicts)
    possible = completed(parts, row)
    assert told(whole) == (possible.pop() if len(possible) == 1 else "lost")
    assert whole.parts == verdicts
    assert (whole.passed is None) == math.isnan(whole.value) == (whole.status != Status.OK)


@settings(max_examples=300, deadline=None)
@given(cases(), st.randoms(use_true_random=False), st.sampled_from([0.25, 2.0, 1024.0]))
def test_neither_the_order_of_parts_nor_the_unit_of_weights_matters(case, random, unit):
    parts, row = case
    verdicts = {part["name"]: score for part, score in zip(parts, row, strict=True)}
    whole = weigh(build(parts), verdicts)
    shuffled = random.sample(parts, len(parts))
    scaled = [{**one, "weight": one["weight"] * unit} for one in shuffled]
    again = weigh(build(scaled), verdicts)
    assert told(again) == told(whole)
    assert sorted(again.reason.split("; ")) == sorted(whole.reason.split("; ")) or told(whole) == "lost"


# ---------------------------------------------------------------- who is asked


@dataclass
class Told:
    """A grader at the port: the verdict that each response names, and what it was asked."""

    name: str
    asked: list = field(default_factory=list)
    closed: bool = False

    def grade(self, items, until):
        self.asked += [item.response for item in items]
        return [PARTS[dict(pair.split("=") for pair in item.response.split())[self.name]] for item in items]

    def close(self):
        self.closed = True


def asking(own):
    graders = {part.name: Told(part.name) for part in own.parts}
    return Rubric(own, graders), graders


def test_what_costs_is_not_asked_once_a_cheaper_gate_has_decided():
    own = RubricVerifier(
        parts=(
            MathVerifier(name="judge", required=False),
            MathVerifier(name="right", role="gate"),
            FormatVerifier(name="form", role="gate", weight=0),
            FormatVerifier(name="brief", weight=0),
        )
    )
    whole, graders = asking(own)
    responses = [
        "form=fail brief=pass right=pass judge=pass",
        "form=pass brief=fail right=fail judge=pass",
        "form=pass brief=lost right=pass judge=pass",
        "form=lost brief=lost right=fail judge=pass",
        "form=lost brief=lost right=pass judge=pass",
    ]
    scores = whole.grade([Item("", one, "") for one in responses], math.inf)
    assert graders["form"].asked == graders["brief"].asked == responses  # what computes is always measured
    assert graders["right"].asked == responses[1:]
    assert graders["judge"].asked == [responses[2], responses[4]]
    assert [told(one) for one in scores] == [(0, False), (0, False), (1, True), (0, False), "lost"]
    first = scores[0].parts
    assert list(first) == ["judge", "right", "form", "brief"]
    assert (first["judge"].status, first["judge"].reason) == (Status.SKIPPED, "not asked: gate form: no")
    assert math.isnan(first["judge"].value) and first["judge"].passed is None
    assert scores[1].reason == "gate right: no"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(sorted(PARTS))] * 3), min_size=1, max_size=6), st.permutations(range(3)))
def test_to_spare_a_part_changes_no_score(rows, order):
    parts = [
        MathVerifier(name="a", role="gate"),
        FormatVerifier(name="b", role="veto"),
        MathVerifier(name="c", required=False),
    ]
    own = RubricVerifier(parts=tuple(parts[at] for at in order))
    responses = [f"a={a} b={b} c={c}" for a, b, c in rows]
    found = asking(own)[0].grade([Item("", one, "") for one in responses], math.inf)
    for score, row in zip(found, rows, strict=True):
        everybody = weigh(own, dict(zip("abc", (PARTS[one] for one in row), strict=True)))
        assert told(score) == told(everybody)


def test_a_rubric_in_a_rubric_gates_like_any_part():
    own = verifiers.build(
        {
            "kind": "rubric",
            "parts": [
                {
                    "kind": "rubric",
                    "name": "sound",
                    "role": "gate",
                    "weight": 0,
                    "parts": [
                        {"kind": "answer"},
                        {"kind": "format", "role": "veto", "name": "sorry", "pattern": "sorry.*"},
                    ],
                },
                {"kind": "format", "name": "short", "pattern": ".{1,5}"},
            ],
        }
    )
    good, wrong, sorry = (own.score("", text, "2") for text in ("#2", "#3", "sorry #2"))
    assert (good.value, good.passed) == (1.0, True)
    assert wrong.value == 0.0 and wrong.reason.startswith("gate sound: answer:")
    assert sorry.reason.startswith("gate sound: veto sorry:")
    assert wrong.parts["sound"].parts["answer"].passed is False and wrong.parts["short"].passed


def test_a_rubric_read_back_from_its_own_dump_is_the_same():
    again = RubricVerifier.model_validate(VETOED.model_dump(mode="json"))
    assert again == VETOED


def test_a_group_is_asked_only_for_whom_is_still_in_it():
    own = RubricVerifier(parts=(FormatVerifier(name="form", role="gate", weight=0), MathVerifier(name="best")))
    whole, graders = asking(own)
    items = [Item("", f"form={form} best=pass", "", group="g") for form in ("pass", "fail", "pass")]
    whole.grade(items, math.inf)
    assert len(graders["best"].asked) == 2
    whole.close()
    assert all(one.closed for one in graders.values())


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"role": "gate", "required": False}, "a gate is required"),
        ({"role": "veto", "weight": 2}, "a veto forbids when it passes"),
        ({"role": "veto"}, "no part counts"),
        ({"weight": 0}, "no part counts"),
        ({"role": "gate", "weight": 0}, "no part counts"),
        ({"weight": -1}, "greater than or equal to 0"),
        ({"name": "held_out"}, "may not be named 'held_out'"),
    ],
)
def test_a_part_that_cannot_be_is_refused(part, words):
    with pytest.raises(ValidationError, match=words):
        RubricVerifier(parts=(AnswerVerifier(**part),))


def test_a_planted_mutant_is_seen():
    """The oracle tells an `unknown wins` rule, which rubrics had once, from the one that they have."""
    parts = [{"role": "gate", "name": "g", "weight": 1}, {"role": "part", "name": "p", "weight": 1}]
    assert completed(parts, [FAIL, LOST]) == {(0.0, False)}
    assert len(completed(parts, [PASS, LOST])) > 1
    assert told(weigh(build(parts), {"g": FAIL, "p": replace(LOST)})) == (0.0, False)
