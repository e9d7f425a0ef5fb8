"""What holds of every verifier kind: no text makes it raise or hang, and what is killed under it costs one answer."""

import json
import math
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import get_args

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import verifiers
from tests.hostile_programs import fenced
from tests.judge_cases import SEAL
from verifiers import Item, Status, config
from verifiers.kinds import OPENERS
from verifiers.score import Score
from verifiers.served import Reading, Reply

DEADLINE = 20.0
"""Seconds, generous: a hang must not pass. Time limits below are a second or less."""


class Scalar:
    """A model with a scalar head whose outputs come from the text, unusable ones too."""

    OUTPUTS = (0.5, -3.0, 0.0, 1e308, -1e308, math.nan, math.inf)

    def read(self, exchanges, seconds):
        def output(one, at):
            return self.OUTPUTS[(len(one.response) + at) % len(self.OUTPUTS)]

        return [Reading(tuple(output(one, at) for at in range(max(len(one.ends), 1)))) for one in exchanges]

    def identity(self):
        return "by length"


class Chat:
    """A judge that answers well, badly, late or not at all, by the length of what it is asked."""

    def complete(self, conversations, *, max_tokens, temperature, seconds):
        return [self._reply(messages[-1].content) for messages in conversations]

    def _reply(self, asked):
        seal = SEAL.findall(asked)[-1]
        replies = (
            Reply(f'So.\n{{"seal": "{seal}", "score": 4}}'),
            Reply(asked),
            Reply(""),
            Reply("\ud800{" * 1000),
            Reply(None, "no answer", timed_out=True),
            Reply(None, "\ud800 declined", refused=True),
        )
        return replies[len(asked) % len(replies)]

    def identity(self):
        return "by length"


MODELS = {"reward:/m": Scalar(), "preference:/m": Scalar(), "process:/m": Scalar(), "judge:/m": Chat()}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(x+x+)+y$"}}, "required": ["a"]}
RULE = "import json\ndef score(prompt, response, reference):\n    return json.loads(response)\n"

CONFIGS = {
    "answer": {"kind": "answer"},
    "math": {"kind": "math", "timeout": 0.5},
    "format": {"kind": "format", "timeout": 0.5},
    "reasoning_gym": {"kind": "reasoning_gym", "dataset": "chain_sum", "timeout": 0.5},
    "function": {"kind": "function", "path": "RULE", "timeout": 0.5},
    "length": {"kind": "length", "against": "group"},
    "language": {"kind": "language", "language": "prompt"},
    "repetition": {"kind": "repetition", "ngram": 3},
    "tags": {"kind": "tags"},
    "json_schema": {"kind": "json_schema", "against": SCHEMA, "timeout": 0.5},
    "program": {"kind": "program", "timeout": 0.3, "memory_mb": 128},
    "environment": {"kind": "environment"},
    "reward_model": {"kind": "reward_model", "path": "/m", "threshold": 0.5},
    "preference_model": {"kind": "preference_model", "path": "/m"},
    "prm": {"kind": "prm", "path": "/m", "whole": "product"},
    "judge": {"kind": "judge", "model": {"kind": "folder", "path": "/m"}, "form": {"kind": "rubric"}},
    "steps": {"kind": "steps", "step": {"kind": "format", "timeout": 0.5}, "outcome": {"kind": "answer"}},
    "rubric": {"kind": "rubric", "parts": [{"kind": "answer", "weight": 2.0}, {"kind": "tags", "required": False}]},
}
SLOWER = {"program": 25, "math": 60, "reasoning_gym": 60, "json_schema": 60, "function": 60}
"""Examples of those that ask a process; of the others, 100."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Kind -> its verifier; all of them are built, and closed at the end."""
    rule = tmp_path_factory.mktemp("rule") / "rule.py"
    rule.write_text(RULE)
    made = {
        name: verifiers.build({**own, "path": str(rule)} if name == "function" else own, models=MODELS)
        for name, own in CONFIGS.items()
    }
    yield made
    for verifier in made.values():
        verifier.close()


def test_every_kind_is_here():
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in OPENERS}
    assert kinds == set(CONFIGS)
    assert set(OPENERS) == set(get_args(config.AnyVerifier))


# ---------------------------------------------------------------- any text


def texts():
    """What a model might write: prose, pieces that parsers look for, and much of one thing."""
    pieces = st.sampled_from(
        [
            *(
                "\\boxed{",
                "}",
                "{",
                "####",
                "#",
                "423",
                "=",
                "^",
                "9^{9^9}",
                "\n",
                " ",
                "\\frac",
                ",",
                "answer is",
                "-",
            ),
            *("```python\n", "```\n", "print(1)", "def f(x):\n    return x", "import os", "'", '"', "~~~", "\x00"),
            *('{"a": ', "[", "]", '"xxx"', "NaN", "1e999", "null", ":", "<think>", "</think>", "<answer>", "</answer>"),
            *("the", "und", "\u4f60\u597d", "\u0661", "\ud800", "\u202e", "\U000e0041", "so so so", "\r", "\u2028"),
        ]
    )
    much = st.builds(lambda unit, times: unit * times, pieces, st.integers(1, 20_000))
    anything = st.text(alphabet=st.characters(codec=None), max_size=200)
    return st.one_of(st.lists(pieces, max_size=30).map("".join), anything, much)


def references():
    """What data might hold: the kinds' own references, and any JSON."""
    plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
    some = st.recursive(
        plain, lambda own: st.lists(own, max_size=3) | st.dictionaries(st.text(max_size=5), own), max_leaves=6
    )
    case = st.fixed_dictionaries({"input": st.text(max_size=9), "output": st.sampled_from(["1", "", "423\n"])})
    tests = st.fixed_dictionaries({"kind": st.just("stdin"), "cases": st.lists(case, min_size=1, max_size=1)})
    call = st.fixed_dictionaries({"args": st.lists(some, max_size=2), "returns": some})
    calls = st.fixed_dictionaries(
        {"kind": st.just("function"), "name": st.just("f"), "cases": st.lists(call, min_size=1, max_size=1)}
    )
    entry = st.fixed_dictionaries({"answer": plain, "metadata": st.dictionaries(st.text(max_size=3), plain)})
    return st.one_of(st.just("423"), st.just(423), plain, some, tests, calls, entry, some.map(json.dumps))


def valid(score, length):
    """A Score is whole: finite with a verdict, NaN without, signed, and a ledger can hold its words."""
    assert isinstance(score, Score) and isinstance(score.status, Status)
    if score.status == Status.OK:
        assert math.isfinite(score.value) and score.passed in (True, False, None)
    else:
        assert math.isnan(score.value) and score.passed is None and score.reason
    assert isinstance(score.reason, str)
    score.reason.encode()
    assert score.scorer and score.version and math.isfinite(score.seconds) and score.seconds >= 0
    for span in score.spans:
        assert 0 <= span.start <= span.end <= length and not math.isinf(span.value)
        span.reason.encode()
    for name, part in score.parts.items():
        name.encode()
        part.reason.encode()
        assert not math.isinf(part.value)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_text_makes_a_verifier_raise_or_hang(built, kind):
    @settings(
        max_examples=SLOWER.get(kind, 100),
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(prompt=texts(), response=texts(), reference=references())
    def holds(prompt, response, reference):
        began = time.monotonic()
        score = built[kind].score(prompt, response, reference)
        assert time.monotonic() - began < DEADLINE
        valid(score, len(response))

    holds()


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in SLOWER])
def test_a_batch_has_a_score_for_each_in_order(built, kind):
    """Grouped or not; and where nothing is compared, each item's own score."""

    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(texts(), st.sampled_from(["", "one", "two"])), max_size=6))
    def holds(rows):
        items = [Item("What?", response, "423", group) for response, group in rows]
        scores = built[kind].score_many(items, seconds=DEADLINE)
        assert len(scores) == len(items)
        for item, score in zip(items, scores, strict=True):
            valid(score, len(item.response))
            if kind not in ("length", "preference_model"):
                alone = built[kind].score("What?", item.response, "423")
                assert (score.status, score.passed, repr(score.value)) == (
                    alone.status,
                    alone.passed,
                    repr(alone.value),
                )

    holds()


@pytest.mark.parametrize("kind", CONFIGS)
def test_without_time_nothing_is_judged_and_nothing_is_wrong(built, kind):
    scores = built[kind].score_many([Item("What?", "#423", "423", "g")] * 3, seconds=-1.0)
    assert [(score.status, score.passed) for score in scores] == [(Status.TIMEOUT, None)] * 3


# ---------------------------------------------------------------- killed from outside


AT_WORK = 0.15
"""Seconds from its start after which a process is struck: one that has not said yet that it is ready is waited for."""


@contextmanager
def struck(of, number, pause):
    """Sends the signal to one of our processes that `of` picks, three times at most, and yields which."""
    done, hits = threading.Event(), []

    def strike():
        while len(hits) < 3 and not done.wait(pause):
            for one in psutil.Process().children(recursive=True):
                try:
                    if of(one) and time.time() - one.create_time() > AT_WORK:
                        os.kill(one.pid, number)
                        hits.append(one.pid)
                        break
                except (psutil.Error, ProcessLookupError):
                    continue

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        yield hits
    finally:
        done.set()
        striker.join(timeout=30)


def judges_text(one):
    """A worker process, or the child of one, which judges."""
    return "verifiers.worker_process" in " ".join(one.cmdline())


def is_a_child(one):
    """The child of a worker process."""
    return judges_text(one) and judges_text(one.parent())


def jails(one):
    """What holds a program's sandbox up."""
    return "jail" in one.name()


ADDS = fenced("import time\ntime.sleep(0.2)\nprint(sum(map(int, input().split())))")
RIGHT = {
    "math": (lambda at: rf"\boxed{{x(x+{at})}}", lambda at: f"x^2+{at}x"),
    "json_schema": (lambda at: json.dumps({"a": "xx" + "y" * (at > 0)}), lambda at: None),
    "program": (lambda at: ADDS, lambda at: {"kind": "stdin", "cases": [{"input": f"{at} 1", "output": str(at + 1)}]}),
}
"""Kind -> the right response to number n, and its reference."""


def batch(kind, count):
    response, reference = RIGHT[kind]
    return [Item("", response(at), reference(at)) for at in range(1, count + 1)]


@pytest.mark.parametrize(
    ("kind", "of", "number"),
    [
        ("math", is_a_child, signal.SIGKILL),
        ("json_schema", judges_text, signal.SIGKILL),
        ("json_schema", is_a_child, signal.SIGKILL),
        ("json_schema", is_a_child, signal.SIGSTOP),
        ("program", jails, signal.SIGKILL),
        ("program", jails, signal.SIGSTOP),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "name", value)),
)
def test_what_is_killed_or_stopped_costs_only_its_own_answer(kind, of, number):
    """A right answer whose judge dies is unknown, or judged again; it is never wrong, and the others are right."""
    own = {**CONFIGS[kind], "timeout": 1.0, "workers": 2}
    verifier = verifiers.build(own)
    assert verifier.score_many(batch(kind, 1))[0].passed  # started
    began = time.monotonic()
    scores = []
    with struck(of, number, 0.3) as hits:
        while len(hits) < 3 and time.monotonic() - began < 100:
            scores += verifier.score_many(batch(kind, 8 if kind == "program" else 100))
    assert time.monotonic() - began < 160
    scores += verifier.score_many(batch(kind, 4))  # one that was stopped at rest costs the next it is asked
    after = verifier.score_many(batch(kind, 4))
    verifier.close()
    assert {score.passed for score in scores} <= {True, None}
    assert hits
    lost = [score for score in scores if score.passed is None]
    assert all(score.status in (Status.ERROR, Status.TIMEOUT) for score in lost)
    assert len(lost) <= len(hits)
    assert all(score.passed for score in after)
