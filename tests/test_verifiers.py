"""Verifiers: right, wrong and unknown are three things, and nothing a model writes makes one raise."""

import json
import math
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import verifiers
from verifiers import Item, Score, Status
from verifiers.answers import boxes, exact, final
from verifiers.config import AnswerVerifier, FormatVerifier, MathVerifier, RubricVerifier
from verifiers.equivalence import Question, decide
from verifiers.rubric import weigh

QUICKSTART = {"kind": "rubric", "parts": [{"kind": "answer", "weight": 1.0}, {"kind": "format", "weight": 0.1}]}

ANYTHING = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)),
    st.text(alphabet="\\boxed{}#=+-0123456789 \n$^,"),
    st.builds(lambda unit, times: unit * times, st.sampled_from(["\\boxed{", "{", "#", "9", "\n", "{}", "\\", " "]),
              st.integers(1, 200_000)),
)  # fmt: skip


# ---------------------------------------------------------------- exact answer


@pytest.mark.parametrize(
    ("response", "reference", "value"),
    [
        ("6+7=3c1;#423", "423", 1.0),
        ("#1#423", "423", 1.0),
        ("#423#1", "423", 0.0),
        ("# 423 \nand more", "423", 1.0),
        ("#423", 423, 1.0),
        ("423", "423", 0.0),
        ("#", "423", 0.0),
        ("", "423", 0.0),
        ("#0423", "423", 0.0),
        ("#4 23", "423", 0.0),
    ],
)
def test_exact_answer(response, reference, value):
    score = verifiers.build({"kind": "answer"}).score("346+77=", response, reference)
    assert (score.value, score.passed, score.status) == (value, value == 1.0, Status.OK)
    assert bool(score.reason) == (value == 0.0)


def test_an_empty_marker_takes_the_whole_response():
    assert exact(" yes\n", "yes", "").passed
    assert not exact("yes #yes", "yes", "").passed


@pytest.mark.parametrize("reference", [None, True, ["423"], {"answer": "423"}])
def test_a_reference_that_is_no_answer_gives_no_verdict(reference):
    for kind in ("answer", "math"):
        score = verifiers.build({"kind": kind}).score("", "#423", reference)
        assert (score.status, score.passed) == (Status.ERROR, None)
        assert math.isnan(score.value)


# ---------------------------------------------------------------- format


def test_format_matches_the_whole_response():
    form = verifiers.build({"kind": "format"})
    assert form.score("", "a\nb#-12 ", "").passed
    assert not form.score("", "a#12 apples", "").passed


def test_a_catastrophic_pattern_is_a_timeout():
    form = verifiers.build({"kind": "format", "pattern": r"(x+x+)+y", "timeout": 0.3})
    started = time.monotonic()
    assert form.score("", "x" * 10_000, "").status == Status.TIMEOUT
    assert time.monotonic() - started < 3
    assert form.score("", "xxy", "").passed


# ---------------------------------------------------------------- rubric


def test_the_pipeline_files_rubric():
    rubric = verifiers.build(QUICKSTART)
    right, form_only, nothing = (rubric.score("", text, "423") for text in ("#423", "#7", "no"))
    assert (right.value, right.passed) == (pytest.approx(1.0), True)
    assert (form_only.value, form_only.passed) == (pytest.approx(0.1 / 1.1), False)
    assert (nothing.value, nothing.passed) == (0.0, False)
    assert {name: part.value for name, part in form_only.parts.items()} == {"answer": 0.0, "format": 1.0}
    assert nothing.reason == "answer: no marker '#'; format: the pattern does not match"


@given(st.lists(st.tuples(st.floats(0.01, 100), st.booleans(), st.floats(0, 1), st.booleans()), min_size=1, max_size=6))
def test_a_rubric_is_the_weighted_mean(rows):
    parts = tuple(AnswerVerifier(name=f"p{i}", weight=w, required=need) for i, (w, need, _, _) in enumerate(rows))
    verdicts = {f"p{i}": Score(value=value, passed=passed) for i, (_, _, value, passed) in enumerate(rows)}
    whole = weigh(RubricVerifier(parts=parts), verdicts)
    assert whole.value == pytest.approx(sum(r[0] * r[2] for r in rows) / sum(r[0] for r in rows))
    assert whole.passed == all(passed for _, need, _, passed in rows if need)
    assert whole.parts == verdicts


def test_an_unknown_part_makes_the_whole_unknown():
    rubric = RubricVerifier(parts=(AnswerVerifier(), FormatVerifier(required=False, weight=0.001)))
    whole = weigh(rubric, {"answer": Score(1.0, True), "format": Score.unknown(Status.TIMEOUT, "slow")})
    assert (whole.status, whole.passed, whole.reason) == (Status.TIMEOUT, None, "format: slow")
    assert math.isnan(whole.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "rubric", "parts": [{"kind": "answer"}, {"kind": "answer"}]}, "parts share the name 'answer'"),
        ({"kind": "rubric", "parts": [{"kind": "answer", "name": "reward"}]}, "may not be named 'reward'"),
        ({"kind": "rubric", "parts": []}, "at least 1 item"),
        ({"kind": "rubric", "parts": [{"kind": "answer", "weight": float("inf")}]}, "finite"),
        ({"kind": "format", "pattern": "("}, "not a regular expression"),
        ({"kind": "anwser"}, "anwser"),
        ({"kind": "answer", "markr": "#"}, "markr"),
    ],
)
def test_a_config_that_cannot_be_is_refused(config, words):
    with pytest.raises(ValidationError, match=words):
        verifiers.build(config)


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("response", "found"),
    [
        (r"so \boxed{\frac{1}{2}}.", [r"\frac{1}{2}"]),
        (r"\boxed{1} then \boxed{2}", ["1", "2"]),
        (r"\boxed{a\}b}", [r"a\}b"]),
        (r"\fbox{1} \fboxed{2}", ["2"]),
        (r"\boxed{1", []),
        (r"\boxed{\boxed{3}}", [r"\boxed{3}"]),
        ("boxed{3}", []),
    ],
)
def test_boxes(response, found):
    assert boxes(response) == found


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{2}, yes \boxed{2}", "2"),
        (r"\boxed{1} or \boxed{2}", None),
        (r"\boxed{ }", None),
        ("1+1\n#### 2", "2"),
        ("x\nThe answer is 2.", "2"),
        ("Answer: 2", "2"),
        ("2", "2"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("maybe 1, then 2, or 3", None),
        ("1\n2", None),
        ("", None),
    ],
)
def test_the_final_answer(response, answer):
    assert final(response, "####")[0] == answer


@settings(max_examples=300, deadline=2000)
@given(ANYTHING, ANYTHING)
def test_nothing_a_model_writes_makes_a_verifier_raise(response, reference):
    for config in (QUICKSTART, {"kind": "answer", "marker": ""}, {"kind": "format", "timeout": 0.2}):
        score = verifiers.build(config).score("", response, reference)
        assert score.status != Status.ERROR
        assert 0.0 <= score.value <= 1.0 or score.status == Status.TIMEOUT
    screened = decide(response, reference or "0", MathVerifier())
    assert isinstance(screened, Question) or screened.value in (0.0, 1.0) or screened.status == Status.ERROR


# ---------------------------------------------------------------- identity and start


def test_the_version_changes_with_the_config_and_not_otherwise():
    one, same, other = (verifiers.build({"kind": "answer", "marker": m}).identity for m in ("#", "#", "##"))
    assert one == same != other
    assert one[0] == "answer" and len(one[1]) == 12


def test_a_cheap_verifier_loads_no_mathematics():
    code = (
        "import sys, verifiers; verifiers.build({'kind': 'math'});"
        "print([m for m in ('sympy', 'math_verify', 'torch', 'ray', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


# ---------------------------------------------------------------- reasoning-gym


@pytest.fixture(scope="module")
def chain_sum():
    verifier = verifiers.build({"kind": "reasoning_gym", "dataset": "chain_sum", "marker": "####", "workers": 1})
    yield verifier
    verifier.close()


def entries(count):
    import reasoning_gym

    return list(reasoning_gym.create_dataset("chain_sum", size=count, seed=random.Random(4).randrange(1000)))


def test_reasoning_gym_gold_answers_score_one(chain_sum):
    tasks = entries(20)
    right = chain_sum.score_many([Item(t["question"], f"so\n#### {t['answer']}", json.dumps(t)) for t in tasks])
    assert {(s.value, s.passed, s.status) for s in right} == {(1.0, True, Status.OK)}
    off = chain_sum.score_many([Item(t["question"], f"#### {int(t['answer']) + 1}", t) for t in tasks])
    assert all(s.value < 1.0 and s.passed is False and s.status == Status.OK for s in off)


def test_reasoning_gym_without_an_answer_or_an_entry(chain_sum):
    (task,) = entries(1)
    assert chain_sum.score("", task["answer"], task).reason == "no marker '####'"
    assert chain_sum.score("", "#### 1", "5").status == Status.ERROR
    broken = chain_sum.score("", "not json ####1", "{")
    assert (broken.status, broken.reason) == (Status.ERROR, "JSONDecodeError")
    surrogate = chain_sum.score("", "#### \ud800", task)
    assert surrogate.status == Status.OK and surrogate.passed is False


def test_a_scorer_that_raises_is_an_error_with_its_type(chain_sum):
    score = chain_sum.score("", "#### 1", {"answer": 5, "metadata": {}})
    assert (score.status, score.passed) == (Status.ERROR, None)
    assert score.reason == "TypeError" or score.reason == "AttributeError", score.reason


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'chain_sum'"):
        verifiers.build({"kind": "reasoning_gym", "dataset": "chainsum"})
