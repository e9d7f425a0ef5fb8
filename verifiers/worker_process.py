"""The process that runs code which may hang: `python -m verifiers.worker_process TASK...`.

It loads what the tasks need, then forks. The child reads one JSON request a line from standard input and answers on
standard output. A kernel timer ends the child when a verdict takes too long, whatever holds the interpreter lock;
the parent of the two then forks another, warm, in milliseconds.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, BinaryIO

MODULES = {
    "math": "verifiers.equivalence",
    "reasoning_gym": "verifiers.tasks",
    "function": "verifiers.function",
    "json_schema": "verifiers.json_schema",
}
"""Task -> the module with its `preload(about)` and its `work(about, request)`.

`work` gives a number; or a mapping with `value`, `passed`, `reason` and `parts` (name -> number); or one with `error`.
"""

MEMORY_BYTES = 3 << 30
"""Address space of one child."""


def main(tasks: list[str]) -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # what a library prints is no answer
    os.dup2(quiet, 2)
    for task in tasks:
        _preload(task)
    died = 0
    while True:
        child = os.fork()
        if child == 0:
            _serve(answers, died)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            return
        died = os.WTERMSIG(status)


def _preload(task: str) -> None:
    """Import a task's libraries and run it once, so that no verdict waits for an import."""
    kind, _, about = task.partition(":")
    import_module(MODULES[kind]).preload(about)


def _serve(answers: BinaryIO, died: int) -> None:
    """Answer requests; `died` is the signal that ended the child before this one."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # a caller's mask would come along
    _say(answers, {"ready": os.getpid(), "died": died})
    with open(0, "rb", closefd=False) as requests:
        for line in requests:
            request = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, request["timeout"])
            answer: Mapping[str, Any]
            try:
                answer = _work(request)
            except (Exception, RecursionError, MemoryError) as error:  # noqa: BLE001  (boundary: becomes a status)
                answer = {"error": type(error).__name__}
            signal.setitimer(signal.ITIMER_REAL, 0)
            _say(answers, {**answer, "id": request["id"]})


def _work(request: dict[str, Any]) -> Mapping[str, Any]:
    kind, _, about = request["task"].partition(":")
    found = import_module(MODULES[kind]).work(about, request)
    return found if isinstance(found, Mapping) else {"value": float(found)}


def _say(answers: BinaryIO, value: Mapping[str, Any]) -> None:
    answers.write(json.dumps(dict(value)).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
