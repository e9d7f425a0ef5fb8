"""The interpreter: what a model's program prints, how it fails, and that it reaches nothing."""

import json
import time

import pytest

from verifiers.environments.config import Interpreter, ToolsEnvironment
from verifiers.environments.interpreter import BrokenSandboxError, open_interpreter, told
from verifiers.environments.opening import open_environment
from verifiers.environments.protocol import Task
from verifiers.sandbox import Ended, NoSandboxError, Ran
from verifiers.sandbox_probe import sandbox


def has_sandbox() -> bool:
    try:
        sandbox(1)
    except NoSandboxError:
        return False
    return True


needs_sandbox = pytest.mark.skipif("not has_sandbox()", reason="this machine gives no sandbox")


@needs_sandbox
def test_a_program_says_what_it_prints_and_nothing_is_kept() -> None:
    run = open_interpreter(Interpreter())
    assert run("x = 6\nprint(x * 7)\n") == "42"
    assert "NameError" in run("print(x)")
    assert run("x = 1") == "no output: print what you want to read"
    assert run("```python\nprint('fenced')\n```") == "fenced"
    assert run("print('☃ ünï')") == "☃ ünï"


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("1/0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("print('before')\nraise SystemExit(3)", "before"),
        ("import os; os._exit(7)", "error: exit status 7"),
        ("while True: print('x' * 1000)", "error: too much output"),
        ("print('\\x00\\xff' * 3)", "\x00"),
        ("input()", "EOFError"),
        ("x" * 30_000, "longer than"),
        ("print('\ud800')", "?"),
        ("x = 'a' * 10**10", "MemoryError"),
    ],
)
def test_what_goes_wrong_is_told(program: str, expected: str) -> None:
    assert expected in open_interpreter(Interpreter())(program)


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "print(open('/etc/passwd').read())",
        "import os; print(os.listdir('/proc'))",
        "import socket; socket.create_connection(('127.0.0.1', 1), 1)",
        "import os; print(os.environ['BRAID_SECRET'])",
        "open('/job/program.py', 'w')",
        "import subprocess; print(subprocess.run(['sh', '-c', 'cat /root/*'], capture_output=True, check=True))",
    ],
)
def test_a_program_reaches_nothing(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_SECRET", "seen")
    found = open_interpreter(Interpreter())(program)
    assert "Error" in found and "seen" not in found and "root:" not in found


@needs_sandbox
def test_a_program_that_never_ends_is_ended() -> None:
    own = ToolsEnvironment.model_validate({"tools": [{"kind": "interpreter", "seconds": 0.5}]})
    episode = open_environment(own)()
    episode.start(Task("q"))
    for program in ("while True: pass", "import time; time.sleep(60)"):
        began = time.monotonic()
        asked = json.dumps({"name": "interpreter", "arguments": {"code": program}})
        turn = episode.step(f"<tool_call>{asked}</tool_call>")
        assert "longer than 0.5 s" in turn.observation and time.monotonic() - began < 20


def test_a_sandbox_that_broke_is_not_the_models_fault() -> None:
    with pytest.raises(BrokenSandboxError, match="no namespace"):
        told(Ran(Ended.BROKEN, reason="no namespace"), 1.0)
    with pytest.raises(BrokenSandboxError):
        told(Ran(Ended.STARVED), 1.0)
    assert told(Ran(Ended.EXITED, 0, b"4\n"), 1.0) == "4"
    assert told(Ran(Ended.EXITED, 137, b"part", seconds=2.0), 1.0) == "part\nerror: took longer than 1 s"
    assert told(Ran(Ended.EXITED, 137, seconds=0.1), 1.0) == "error: exit status 137"
