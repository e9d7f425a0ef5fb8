"""A user's own function: its verdicts come through whole, and its mistakes are no verdicts."""

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verifiers
from orchestrator.load import read
from policies.bad_input import BadInput
from verifiers import Status
from verifiers.function import KEYS, verdict

REWARD = """
import os, signal, sys, time
import numpy as np

def score(prompt, response, reference):
    return float(response == reference)

def passes(prompt, response, reference):
    return prompt in response

def whole(prompt, response, reference):
    parts = {"words": len(response.split()), "x": np.float32(2)}
    return {"value": 0.25, "passed": True, "reason": "short", "parts": parts}

def by_name(prompt, response, reference):
    return DOES[response]()

def hangs():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)

def prints():
    print("value: 1")
    sys.stdout.write('{"value": 1.0}\\n')
    return 0.5

DOES = {
    "array": lambda: np.array([0.75]),
    "true": lambda: np.bool_(True),
    "nan": lambda: float("nan"),
    "inf": lambda: {"value": 1.0, "parts": {"a": float("inf")}},
    "none": lambda: None,
    "text": lambda: "1.0",
    "unknown": lambda: {"value": 1.0, "pased": True},
    "no value": lambda: {"passed": True},
    "key": lambda: {}["nothing"],
    "loop": lambda: sum(1 for _ in iter(int, 1)),
    "hangs": hangs,
    "memory": lambda: bytearray(1 << 40),
    "exit": lambda: sys.exit(0),
    "dies": lambda: os._exit(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "deep": lambda: (lambda f: f(f))(lambda f: f(f)),
    "prints": prints,
    "secret": lambda: float("BRAID_TEST_SECRET" in os.environ),
    "long": lambda: {"value": 1.0, "reason": "x" * 100_000},
}
"""
KEY_LINE = REWARD[: REWARD.index('"key"')].count("\n") + 1


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "reward.py"
    path.write_text(REWARD)
    return path


@pytest.fixture(scope="module")
def by_name(file):
    built = verifiers.build(
        {"kind": "function", "path": str(file), "function": "by_name", "timeout": 1.0, "workers": 1}
    )
    yield built
    built.close()


def own(path, **more):
    return {"kind": "function", "path": str(path), "workers": 1, **more}


def test_a_number_a_bool_and_a_mapping_are_verdicts(file):
    asked = {
        "score": [("7", 7, 0.0, False, ""), ("7", "7", 1.0, True, "")],
        "passes": [("a p b", None, 1.0, True, ""), ("a", None, 0.0, False, "")],
        "whole": [("two words", None, 0.25, True, "short")],
    }
    for name, cases in asked.items():
        built = verifiers.build(own(file, function=name))
        for response, reference, *expected in cases:
            score = built.score("p", response, reference)
            assert [score.value, score.passed, score.reason] == expected, (name, response)
            assert (score.status, score.scorer) == (Status.OK, "function")
        built.close()
    assert {part: one.value for part, one in score.parts.items()} == {"words": 2.0, "x": 2.0}


@pytest.mark.parametrize(("response", "value"), [("array", 0.75), ("true", 1.0), ("prints", 0.5), ("secret", 0.0)])
def test_arrays_are_numbers_and_prints_are_nothing(by_name, monkeypatch, response, value):
    monkeypatch.setenv("BRAID_TEST_SECRET", "x")
    score = by_name.score("", response, None)
    assert (score.value, score.passed) == (value, value >= 1)


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ("nan", "nan"),
        ("inf", "inf"),
        ("none", "NoneType"),
        ("text", "str"),
        ("unknown", "pased"),
        ("no value", "needs `value`"),
        ("key", f"KeyError: 'nothing' (reward.py line {KEY_LINE})"),
        ("a name that is not there", "KeyError"),
        ("memory", "MemoryError"),
        ("exit", "SystemExit"),
        ("dies", "died"),
        ("killed", "died"),
        ("deep", "RecursionError"),
    ],
)
def test_a_function_that_breaks_has_not_said_zero(by_name, response, says):
    score = by_name.score("", response, None)
    assert (score.status, score.passed) == (Status.ERROR, None)
    assert math.isnan(score.value)
    assert says in score.reason


@pytest.mark.parametrize("response", ["loop", "hangs"])
def test_a_function_that_hangs_costs_its_own_verdict(by_name, response):
    began = time.monotonic()
    assert by_name.score("", response, None).status == Status.TIMEOUT
    assert time.monotonic() - began < 30
    assert by_name.score("", "array", None).value == 0.75


def test_a_reason_is_kept_short(by_name):
    assert len(by_name.score("", "long", None).reason) == 300


def test_any_text_travels_both_ways(file):
    built = verifiers.build(own(file))

    @given(st.text(alphabet=st.characters()), st.recursive(st.none() | st.integers() | st.text(), st.lists))
    @settings(max_examples=60, deadline=None)
    def travels(response, reference):
        expected = float(response == reference)
        first, second = (built.score("", response, reference) for _ in range(2))
        assert (first.value, first.passed) == (expected, expected == 1.0) == (second.value, second.passed)
        assert built.score("", response, response).passed

    travels()
    built.close()


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists)
       | st.dictionaries(st.sampled_from(sorted(KEYS)), st.none() | st.floats() | st.text()))  # fmt: skip
def test_a_verdict_is_finite_or_refused_by_name(found):
    try:
        said = verdict(found)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return
    assert math.isfinite(said["value"]) and isinstance(said["passed"], bool) and set(said) == KEYS
    json.dumps(said, allow_nan=False)


# ---------------------------------------------------------------- the file


def test_the_version_changes_with_the_files_content(tmp_path):
    path = tmp_path / "reward.py"
    path.write_text("def score(p, r, reference): return 1.0")
    first, again = (verifiers.build(own(path)).identity for _ in range(2))
    path.write_text("def score(p, r, reference): return 2.0")
    assert first == again
    assert verifiers.build(own(path)).identity != first
    inside = {"kind": "rubric", "parts": [own(path)]}
    before = verifiers.build(inside).identity
    path.write_text("def score(p, r, reference): return 3.0")
    assert verifiers.build(inside).identity != before


def test_a_file_that_changes_under_a_run_gives_no_more_verdicts(tmp_path):
    path = tmp_path / "reward.py"
    path.write_text("def score(p, r, reference): return 1.0")
    built = verifiers.build(own(path))
    path.write_text("def score(p, r, reference): return 2.0")
    score = built.score("", "", None)
    assert (score.status, score.passed) == (Status.ERROR, None) and "changed" in score.reason
    built.close()


def test_a_file_that_breaks_on_import_says_where(tmp_path):
    path = tmp_path / "reward.py"
    path.write_text("import nothing_of_that_name\ndef score(p, r, reference): return 1.0")
    built = verifiers.build(own(path))
    score = built.score("", "", None)
    assert score.status == Status.ERROR
    assert "No module named 'nothing_of_that_name' (reward.py line 1)" in score.reason
    built.close()


def pipeline(folder, verifier):
    path = folder / "run.yaml"
    text = "name: own\nprompts: {train: {kind: arithmetic, count: 8}}\nverifier: %s\n"
    path.write_text(text % json.dumps(verifier) + "stages: [{name: a, steps: 1, recipe: {kind: grpo}}]\n")
    return path


def test_the_path_starts_at_the_pipelines_folder(tmp_path):
    (tmp_path / "reward.py").write_text("def score(p, r, reference): return 1.0")
    loaded = read(pipeline(tmp_path, {"kind": "function", "path": "reward.py"}))
    assert loaded.verifier.path == str(tmp_path / "reward.py")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "path: no such file"),
        ("def scores(p, r, reference): return 1.0", "function: "),
        ("async def score(p, r, reference): return 1.0", "function: "),
        ("def score(:", "path: not Python: line 1"),
        ("def score(p): return 1.0\0", "path: not Python"),
    ],
)
def test_check_finds_what_is_wrong_with_the_file_and_runs_nothing(tmp_path, content, says):
    if content is not None:
        (tmp_path / "reward.py").write_text(content)
    part = {"kind": "function", "path": "reward.py"}
    with pytest.raises(BadInput) as caught:
        read(pipeline(tmp_path, {"kind": "rubric", "parts": [{"kind": "answer"}, part]}))
    assert f"verifier.parts[1].{says}" in str(caught.value)
    with pytest.raises(ValueError, match=says.split(":")[0]):
        verifiers.build({**part, "path": str(tmp_path / "reward.py")})


@pytest.mark.parametrize(
    "content",
    [
        "from math import floor as score",
        "score = lambda p, r, reference: 1.0",
        "if True:\n    def score(p, r, reference): return 1.0",
        "try:\n    from a import score\nexcept ImportError:\n    score = None",
        "from math import *",
        "class score: ...",
        "raise SystemExit('this file must not be run')\ndef score(): ...",
    ],
)
def test_whatever_defines_the_name_is_accepted(tmp_path, content):
    (tmp_path / "reward.py").write_text(content)
    read(pipeline(tmp_path, {"kind": "function", "path": "reward.py"}))
