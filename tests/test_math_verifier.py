r"""Mathematical equivalence: a table of what is and is not the same, and bombs that must not go off here."""

import itertools
import os
import signal
import threading
import time

import pytest

import verifiers
from verifiers import Item, Status
from verifiers.workers import Workers

SAME = [
    ("1/2", r"\boxed{0.5}"),
    (r"\frac{1}{2}", r"\boxed{\frac12}"),
    ("0.5", r"\boxed{50\%}"),
    ("1000", r"\boxed{1,000}"),
    ("5000", r"\boxed{5\times 10^{3}}"),
    ("3", r"\boxed{3.0}"),
    ("3", r"\boxed{x = 3}"),
    ("x=3", r"\boxed{3}"),
    ("3", r"\boxed{3\text{ cm}}"),
    ("-3", r"\boxed{- 3}"),
    (r"2\sqrt{3}", r"\boxed{\sqrt{12}}"),
    ("x^2+2x+1", r"\boxed{(x+1)^2}"),
    ("(1,2)", r"\boxed{(1, 2)}"),
    ("1,2", r"\boxed{2, 1}"),
    ("[1,2)", r"\boxed{[1,2)}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}"),
    (r"\text{yes}", r"\boxed{yes}"),
    ("423", "work\n#### 423"),
    ("423", "work\n#### $423.0$"),
    ("3/4", "The answer is 0.75."),
    (3, r"\boxed{\frac{6}{2}}"),
    ("1/3", r"\boxed{\frac{2}{6}}"),
    ("1.5", r"\boxed{1\frac{1}{2}}"),
]

OTHER = [
    ("3", r"\boxed{4=3}"),
    ("3", r"\boxed{3=3}"),
    ("3", r"\boxed{x = 4 = 3}"),
    ("3", "maybe 1, then 2, or 3"),
    ("3", r"\boxed{1,2,3}"),
    ("3", r"\boxed{1}, \boxed{2}, \boxed{3}"),
    ("3", r"\boxed{1 \text{ or } 3}"),
    ("3", r"\boxed{\{1,3\}}"),
    ("3", r"\boxed{[0,10]}"),
    ("3", r"\boxed{\pm 3}"),
    ("3", r"\boxed{3 \approx 3.1}"),
    ("3", r"\boxed{1 2}"),
    ("3", r"\boxed{}"),
    ("3", ""),
    ("3", r"\boxed{3"),
    ("3", r"\boxed{\infty}"),
    ("3", r"\boxed{nan}"),
    ("0", r"\boxed{0/0}"),
    ("1/3", r"\boxed{0.333333}"),
    (r"\pi", r"\boxed{3.14159}"),
    ("423", r"\boxed{346+77}"),
    ("(1,2)", r"\boxed{(2,1)}"),
    ("[1,2)", r"\boxed{[1,2]}"),
    ("-3", r"\boxed{3}"),
    ("x^2", r"\boxed{y^2}"),
    ("A", r"\boxed{B}"),
    ("7", "7 apples and 8 pears"),
    ("7", "9" * 100_000),
    ("7", r"\boxed{" + "1+" * 5000 + "7}"),
]

BOMBS = [r"\boxed{9^{9^9}}", r"\boxed{2^{10^{10}}}", r"\boxed{7^{30000000}}", r"\boxed{(10^8)!}"]


@pytest.fixture(scope="module")
def math_verifier():
    verifier = verifiers.build({"kind": "math", "timeout": 5.0, "workers": 2})
    yield verifier
    verifier.close()


@pytest.mark.parametrize(("reference", "response"), SAME)
def test_the_same_mathematics(math_verifier, reference, response):
    score = math_verifier.score("", response, reference)
    assert (score.value, score.passed, score.status, score.reason) == (1.0, True, Status.OK, "")


@pytest.mark.parametrize(("reference", "response"), OTHER)
def test_other_mathematics(math_verifier, reference, response):
    score = math_verifier.score("", response, reference)
    assert (score.value, score.passed, score.status) == (0.0, False, Status.OK)
    assert score.reason


@pytest.mark.parametrize(("reference", "response"), SAME)
def test_the_reference_itself_always_passes(math_verifier, reference, response):
    assert math_verifier.score("", f"\\boxed{{{reference}}}", reference).passed


def test_bombs_end_in_time_and_the_next_answers_are_judged():
    verifier = verifiers.build({"kind": "math", "timeout": 0.5, "workers": 2})
    verifier.score("", r"\boxed{0.5}", "1/2")  # started: libraries are loaded
    good = [Item("", rf"\boxed{{\frac{{{2 * i}}}{{2}}}}", str(i)) for i in range(1, 9)]
    started = time.monotonic()
    scores = verifier.score_many([Item("", bomb, "3") for bomb in BOMBS] + good)
    seconds = time.monotonic() - started
    verifier.close()
    for score in scores[: len(BOMBS)]:
        assert score.status in (Status.TIMEOUT, Status.ERROR)
        assert score.passed is None and score.value != score.value
    assert [s.status for s in scores].count(Status.TIMEOUT) >= 2
    assert all(score.passed for score in scores[len(BOMBS) :])
    assert seconds < len(BOMBS) * 0.5 + 15


def test_the_caller_goes_on_while_a_bomb_is_judged(math_verifier):
    """math-verify in this process would hold the interpreter lock and stop every thread."""
    ticks: list[float] = []
    done = threading.Event()

    def heart() -> None:
        while not done.wait(0.02):
            ticks.append(time.monotonic())

    beat = threading.Thread(target=heart)
    beat.start()
    verifier = verifiers.build({"kind": "math", "timeout": 1.0, "workers": 1})
    verifier.score("", BOMBS[0], "3")
    done.set()
    beat.join(timeout=5)
    verifier.close()
    assert max(after - before for before, after in itertools.pairwise(ticks)) < 3.0


def test_a_batch_that_runs_out_of_time_says_so():
    verifier = verifiers.build({"kind": "math", "timeout": 0.5, "workers": 1})
    scores = verifier.score_many([Item("", BOMBS[0], "3")] * 50, seconds=0.5)
    verifier.close()
    assert {score.status for score in scores} == {Status.TIMEOUT}
    assert "ran out" in scores[-1].reason


def test_a_judge_killed_from_outside_is_replaced():
    workers = Workers(["math"], workers=1)
    request = {"task": "math", "answer": "0.5", "reference": "1/2"}
    assert workers.ask(request, 5.0) == 1.0
    process = workers._free.get_nowait()
    assert process is not None
    os.killpg(process._popen.pid, signal.SIGKILL)
    workers._free.put(process)
    assert workers.ask(request, 5.0) == 1.0
    workers.close()


def test_the_judge_sees_no_secret(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    workers = Workers(["math"], workers=1)
    assert workers.ask({"task": "math", "answer": "1", "reference": "1"}, 5.0) == 1.0
    process = workers._free.get_nowait()
    assert process is not None
    with open(f"/proc/{process._popen.pid}/environ", "rb") as environment:
        assert b"hush" not in environment.read()
    process.kill()
    assert process._popen.returncode is not None


def test_an_unreadable_reference_gives_no_verdict(math_verifier):
    score = math_verifier.score("", r"\boxed{3}", r"\frac{")
    assert score.status == Status.ERROR and score.reason == "UnreadableReferenceError"
