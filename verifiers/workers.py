"""A pool of killable processes for verdicts that may hang.

Own processes instead of multiprocessing's: those import the caller's main module again in every child, which runs an
unguarded script twice and, under Ray, loads Ray for each verdict process.
"""

import contextlib
import json
import math
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verifiers.score import Score, Status

START_SECONDS = 120.0
"""Longest wait for a process to load its libraries."""

GRACE_SECONDS = 1.0
"""How long after a verdict's own time limit the process is killed from outside."""

LEASE_SECONDS = 3600.0
"""Longest wait of a thread for a free process; every verdict before it is bounded, so this never runs out."""

ATTEMPTS = 2
"""A process that dies for another reason than time, or answers what is no answer, is asked so many times."""

LONGEST_ANSWER = 1 << 20
"""Bytes; what says more than this in one line is not answering."""

PROGRAM = (sys.executable, "-P", "-m", "verifiers.worker_process")


class Workers:
    """Processes that are started when first needed and replaced when they die. Safe to call from threads."""

    def __init__(self, tasks: Sequence[str], workers: int, program: Sequence[str] = PROGRAM) -> None:
        """`program` speaks as verifiers/worker_process.py does."""
        self._command = (*program, *tasks)
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(None)  # a place whose process is not started yet
        self.workers = workers

    def ask(self, request: dict[str, Any], timeout: float) -> float | Score:
        """The task's number, or its whole score if it gives one; else the unknown score that says why there is none."""
        process = self._free.get(timeout=LEASE_SECONDS)
        try:
            for _ in range(ATTEMPTS):
                if process is None or not process.alive:
                    process = _Process(self._command)
                verdict = _read_answer(process.ask(request, timeout), timeout)
                if verdict is not None:
                    return verdict
            return Score.unknown(Status.ERROR, "the worker process died, or gave no answer")
        except TimeoutError as error:
            if process is not None:
                process.kill()
            return Score.unknown(Status.TIMEOUT, str(error))
        finally:
            self._free.put(process)

    def close(self) -> None:
        """End every process that is not judging."""
        for _ in range(self.workers):
            with contextlib.suppress(queue.Empty):
                process = self._free.get_nowait()
                if process is not None:
                    process.kill()
        for _ in range(self.workers):
            self._free.put(None)


def _read_answer(answer: dict[str, Any], timeout: float) -> float | Score | None:
    """The verdict in a process's answer; None if the process died of something else than time."""
    match answer:
        case {"error": str(reason)}:
            return Score.unknown(Status.ERROR, _readable(reason))
        case {"value": float(value), "passed": bool(passed), "reason": str(reason), "parts": dict(parts)}:
            figures = {name: Score(part, None) for name, part in parts.items()}
            return Score(value, passed, reason=_readable(reason), parts=figures)
        case {"value": float(value)}:
            return value if math.isfinite(value) else Score.unknown(Status.ERROR, f"the value is {value}")
        case {"died": signal.SIGALRM}:
            return Score.unknown(Status.TIMEOUT, f"no verdict within {timeout:g} s")
        case _:
            return None


def _readable(reason: str) -> str:
    """The reason as text that a table can hold: half a surrogate pair, which a model may write, is none."""
    return reason.encode("utf-8", "replace").decode()


class _Process:
    """One worker process and its pipes."""

    def __init__(self, command: Sequence[str]) -> None:
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._requests, self._answers = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self._requests, False)  # a process that is stopped does not read: we would wait for ever
        self._buffer = b""
        self._asked = 0
        self.alive = True
        try:
            self._read(time.monotonic() + START_SECONDS, "starting a worker process")
        except TimeoutError:
            self.kill()
            raise
        except (OSError, ValueError):
            self.kill()

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer to this request; `{"died": signal}` when the child ended instead; {} when there is none to have.

        What the process says of another request, or unasked, is passed over: an answer never reaches the next response.
        """
        if not self.alive:
            return {}
        self._asked += 1
        line = json.dumps({**request, "timeout": timeout, "id": self._asked}).encode() + b"\n"
        deadline, waiting_for = time.monotonic() + timeout + GRACE_SECONDS, f"no verdict within {timeout:g} s"
        try:
            self._forget()
            self._write(line, deadline, waiting_for)
            while time.monotonic() < deadline:
                answer = self._read(deadline, waiting_for)
                if not answer or "died" in answer or answer.get("id") == self._asked:
                    return answer
            raise TimeoutError(waiting_for)
        except TimeoutError:
            raise
        except (OSError, ValueError):  # the pipe is broken, or what came through is no answer
            self.kill()
            return {}

    def _forget(self) -> None:
        """What was said unasked, as when a child was killed at rest, is not for the next request."""
        self._buffer, read = b"", 0
        while select.select([self._answers], [], [], 0)[0]:
            read += len(chunk := os.read(self._answers, 1 << 16))
            if not chunk or read > LONGEST_ANSWER:
                raise BrokenPipeError

    def _write(self, line: bytes, deadline: float, waiting_for: str) -> None:
        """TimeoutError when the process does not take the whole line in time."""
        while line:
            _, ready, _ = select.select([], [self._requests], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(waiting_for)
            line = line[os.write(self._requests, line[: select.PIPE_BUF]) :]

    def _read(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        """One line of JSON; {} at the end of the stream. TimeoutError carries `waiting_for`."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._answers], [], [], max(left, 0))
            if not ready or left < 0:
                raise TimeoutError(waiting_for)
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                self.kill()
                return {}
            self._buffer += chunk
            if len(self._buffer) > LONGEST_ANSWER:
                raise ValueError(f"an answer of more than {LONGEST_ANSWER} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("an answer that is no object")
        return answer

    def kill(self) -> None:
        """End the process, its child too, and reap it."""
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._popen.wait(timeout=10)


def _environment() -> dict[str, str]:
    """Nothing but what Python needs: no secret of the run reaches code that reads a model's words."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, **threads, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
