"""Python for a model: a program runs in the sandbox, and what it prints comes back.

Every call is a fresh program in a fresh place. Replaying earlier calls would give it a memory, at a cost that grows
with each and with effects (time, randomness) that differ; a model that wants a value again writes it down.
"""

import threading
from collections.abc import Callable

from verifiers.environments.config import Interpreter
from verifiers.sandbox import JOB, PYTHON, Ended, Limits, NoSandboxError, Ran, Sandbox, folder_of
from verifiers.unsandboxed import Unsandboxed

LONGEST = 20_000
"""Characters of a program."""

SHOWN = 20_000
"""Characters of what it printed that come back at most; the environment's token budget cuts further."""

KILLED = (137, 152)
"""Exit statuses of a program whose CPU time ran out: SIGKILL and SIGXCPU."""

LAST_LINES = 3
"""Of a traceback: the place and the error."""

PLACES = 4
"""Programs that run at the same time."""

COMMAND = (f"{PYTHON}/bin/python3", "-I", "-B", f"{JOB}/program.py")


def open_interpreter(own: Interpreter) -> Callable[[str], str]:
    """A function from a program to what the model reads of it. ValueError where programs cannot be run safely."""
    runner = _runner(own)
    limits = Limits(seconds=own.seconds, memory_bytes=512 << 20, processes=16, output_bytes=128 << 10)
    room = threading.Semaphore(PLACES)

    def answer(program: str) -> str:
        if len(program) > LONGEST:
            return f"error: the program is longer than {LONGEST} characters"
        with room, folder_of({"program.py": _dedented(program).encode("utf-8", "replace")}) as folder:
            return told(runner.run(COMMAND, folder, b"", limits), own.seconds)

    return answer


def _runner(own: Interpreter) -> Sandbox | Unsandboxed:
    if own.unsandboxed:
        return Unsandboxed()
    from verifiers.sandbox_probe import sandbox

    try:
        return sandbox(PLACES)
    except NoSandboxError as error:
        fix = "give the machine user namespaces, or set unsandboxed where you trust the model"
        raise ValueError(f"interpreter: no sandbox on this machine: {error}; {fix}") from error


class BrokenSandboxError(RuntimeError):
    """The sandbox failed, and the model has nothing to do with it."""


def told(ran: Ran, seconds: float) -> str:
    """What the model reads of a run: what it printed, and how it went wrong if it did."""
    printed = ran.stdout.decode(errors="replace")[:SHOWN].strip()
    match ran.ended:
        case Ended.EXITED if ran.code == 0:
            return printed or "no output: print what you want to read"
        case Ended.EXITED if ran.code in KILLED and ran.seconds >= seconds:
            return "\n".join(filter(None, [printed, f"error: took longer than {seconds:g} s"]))
        case Ended.EXITED:
            fault = ran.stderr.decode(errors="replace").strip().splitlines()[-LAST_LINES:]
            return "\n".join(filter(None, [printed, *fault])) or f"error: exit status {ran.code}"
        case Ended.SLOW:
            return "\n".join(filter(None, [printed, f"error: took longer than {seconds:g} s"]))
        case Ended.FLOODED:
            return "\n".join(filter(None, [printed, "error: too much output"]))
        case _:
            # the machine's fault: the episode ends without a reward instead of with a lie
            raise BrokenSandboxError(f"the program could not be run ({ran.ended}): {ran.reason}")


def _dedented(program: str) -> str:
    """The program without a fence of backquotes round it, and without the line break after the opening mark."""
    lines = program.strip("\n").splitlines()
    if len(lines) > 1 and lines[0].startswith("```") and lines[-1].strip() == "```":
        lines = lines[1:-1]
    return "\n".join(lines) + "\n"
