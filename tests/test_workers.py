"""Worker processes that die, stop, babble or do not read: each costs its own answer, and no answer reaches another."""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from verifiers.function import digest_of
from verifiers.score import Score, Status
from verifiers.workers import GRACE_SECONDS, Workers

FAKE = """
import json, os, sys, time
def say(value): sys.stdout.write(value + "\\n"); sys.stdout.flush()
say('{"ready": 1}')
for line in sys.stdin:
    asked = json.loads(line)
    own, said = asked["id"], asked["say"]
    if said == "lines": [say('{"value": 0.5, "id": 0}') for _ in range(10**9)]
    elif said == "flood": [sys.stdout.write("x" * 65536) for _ in range(10**6)]
    elif said == "half": sys.stdout.write('{"val'); sys.stdout.flush(); time.sleep(60)
    elif said == "twice": say(json.dumps({"value": 0.25, "id": own})); say(json.dumps({"value": 0.75, "id": own}))
    elif said == "gone": os._exit(3)
    else: say(said.replace("ID", str(own)))
"""
RIGHT = {"say": '{"value": 1.0, "id": ID}'}


@pytest.fixture
def babbler(tmp_path: Path):
    program = tmp_path / "babbler.py"
    program.write_text(FAKE)
    workers = Workers([], 1, (sys.executable, str(program)))
    yield workers
    workers.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("no json", Status.ERROR),
        ("[1, 2]", Status.ERROR),
        ("7", Status.ERROR),
        ('{"value": NaN, "id": ID}', Status.ERROR),
        ('{"value": Infinity, "id": ID}', Status.ERROR),
        ('{"value": "1", "id": ID}', Status.ERROR),
        ('{"value": 1.0, "id": 999}', Status.TIMEOUT),  # an answer to something else is none
        ('{"value": 1.0}', Status.TIMEOUT),
        ("gone", Status.ERROR),
        ("flood", Status.ERROR),
        ("half", Status.TIMEOUT),
        ("lines", Status.TIMEOUT),
    ],
)
def test_a_process_that_babbles_costs_its_own_answer(babbler, said, status):
    assert babbler.ask(RIGHT, 5.0) == 1.0
    began = time.monotonic()
    found = babbler.ask({"say": said}, 0.3)
    assert time.monotonic() - began < 2 * (0.3 + GRACE_SECONDS) + 10
    assert isinstance(found, Score) and found.status == status and found.passed is None
    assert babbler.ask(RIGHT, 5.0) == 1.0


def test_what_is_said_twice_is_not_the_next_ones_answer(babbler):
    assert babbler.ask({"say": "twice"}, 5.0) == 0.25
    time.sleep(0.2)
    assert babbler.ask(RIGHT, 5.0) == 1.0


# ---------------------------------------------------------------- the real ones

RULE = """
import re, time
def judge(prompt, response, reference):
    if response == "backtrack":
        re.match("(a|aa)+b", "a" * 200)
    if response == "sleep":
        time.sleep(60)
    return float(response)
"""


@dataclass
class Judges:
    """One worker process round the rule above."""

    workers: Workers
    digest: str
    task: str

    def ask(self, response: str, timeout: float = 10.0) -> Any:
        said = {"prompt": "", "response": response, "reference": None}
        found = self.workers.ask({"task": self.task, "digest": self.digest, **said}, timeout)
        assert isinstance(found, Score)
        return found.value if found.status == Status.OK else (found.status, found.reason)

    @property
    def pid(self) -> int:
        """Of the worker: a process and the child that judges, in a process group of their own."""
        process = self.workers._free.get_nowait()
        assert process is not None
        self.workers._free.put(process)
        return process._popen.pid

    @property
    def child(self) -> int:
        """Of the one that judges."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(found[0]) if found else 0


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("rule") / "rule.py"
    path.write_text(RULE)
    task = f"function:judge@{path}"
    made = Judges(Workers([task], workers=1), digest_of(str(path)), task)
    assert made.ask("0.5", 30.0) == 0.5
    yield made
    made.workers.close()


def runs(pid: int) -> bool:
    """Whether there is such a process, and not only what is left to reap of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


FOUR = ["0.1", "0.2", "0.3", "0.4"]


def test_a_child_killed_at_rest_shifts_no_answer_to_the_next(judges):
    """Its successor announces itself; read as an answer, that would push every verdict on by one."""
    for _ in range(3):
        child = judges.child
        os.kill(child, signal.SIGKILL)
        assert [judges.ask(one) for one in FOUR] == [0.1, 0.2, 0.3, 0.4]
        assert judges.child != child


def test_children_killed_at_rest_again_and_again_cost_nothing(judges):
    """Each successor announces itself: more lines than there are attempts."""
    assert judges.ask("0.5") == 0.5
    for _ in range(4):
        child = judges.child
        os.kill(child, signal.SIGKILL)
        until(lambda gone=child: not runs(gone) and judges.child not in (gone, 0))
    assert [judges.ask(one) for one in FOUR] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_worker_killed_at_rest_costs_nothing(judges, number):
    os.killpg(judges.pid, number)
    assert [judges.ask(one) for one in FOUR] == [0.1, 0.2, 0.3, 0.4]


def test_a_stopped_worker_costs_its_own_answer(judges):
    group, child = judges.pid, judges.child
    os.killpg(group, signal.SIGSTOP)
    assert judges.ask("0.1", 0.5) == (Status.TIMEOUT, "no verdict within 0.5 s")
    until(lambda: not runs(group) and not runs(child))  # killed though they were stopped
    assert [judges.ask(one) for one in FOUR] == [0.1, 0.2, 0.3, 0.4]


def test_a_stopped_parent_costs_nothing_for_its_child_judges(judges):
    os.kill(judges.pid, signal.SIGSTOP)
    assert [judges.ask(one) for one in FOUR] == [0.1, 0.2, 0.3, 0.4]
    os.kill(judges.pid, signal.SIGCONT)


def test_a_request_that_a_stopped_process_does_not_read_ends_in_time(judges):
    assert judges.ask("0.5") == 0.5
    os.killpg(judges.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert judges.ask("9" * (4 << 20), 0.5) == (Status.TIMEOUT, "no verdict within 0.5 s")
    assert time.monotonic() - began < 20
    assert judges.ask("0.25") == 0.25


@pytest.mark.parametrize("hang", ["sleep", "backtrack"])
def test_one_that_hangs_ends_by_its_own_clock(judges, hang):
    group = judges.pid
    assert judges.ask(hang, 0.5) == (Status.TIMEOUT, "no verdict within 0.5 s")
    assert judges.pid == group  # a child ended, not the process that keeps the libraries warm
    assert [judges.ask(one) for one in FOUR] == [0.1, 0.2, 0.3, 0.4]


def test_one_killed_while_it_judges_is_asked_again(judges):
    """The kill comes before the hang's time limit; the second process is let run into it."""
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.append(judges.ask("sleep", 2.0)))
    group = judges.pid
    asking.start()
    time.sleep(0.5)
    os.killpg(group, signal.SIGKILL)
    asking.join(timeout=60)
    assert found == [(Status.TIMEOUT, "no verdict within 2 s")]
    assert [judges.ask(one) for one in FOUR] == [0.1, 0.2, 0.3, 0.4]


def test_a_killed_worker_is_only_its_own_answer_in_a_batch(judges):
    """Two processes, forty answers, and one process killed again and again under them."""
    workers = Workers([judges.task], workers=2)
    pair = Judges(workers, judges.digest, judges.task)
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.15):
            with contextlib.suppress(queue.Empty, AttributeError, ProcessLookupError):
                os.killpg(pair.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(pair.ask, [f"0.{at:02}1" for at in range(40)]))
    done.set()
    killer.join(timeout=10)
    workers.close()
    assert len(found) == 40
    assert all(one == float(f"0.{at:02}1") or one[0] == Status.ERROR for at, one in enumerate(found))
