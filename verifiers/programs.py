"""Programs, judged by hidden tests: every test in a fresh sandbox, its expected result outside.

    response -> last fenced block -> (build) -> test 1, test 2, ...: run, compare -> value

Wrong: another output, a crash, too slow by its own CPU time, too much memory or output. Unknown: the sandbox failed, or
the machine did not let the program run. A reason says which test and how, never what was expected: it may be shown
to the model.
"""

import json
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from verifiers import answers
from verifiers.comparison import same_text, same_value
from verifiers.fenced import blocks
from verifiers.grader import LATE, Grader, Item
from verifiers.kinds import Tools
from verifiers.part_config import Strict
from verifiers.program_config import ProgramVerifier
from verifiers.sandbox import JOB, PYTHON, Ended, Limits, NoSandboxError, Ran, folder_of
from verifiers.score import Score, Status

LONGEST = 100_000
"""Characters of a program; a longer one is wrong."""

LARGEST_PROGRAM = 64 << 20
"""Bytes of what a build gives."""

PLACES = "/usr/bin:/bin"
"""Where commands are found in the sandbox."""

HARNESS = Path(__file__).with_name("harness.py")


class StdinCase(Strict):
    """What the program reads, and what it must print."""

    input: str
    output: str


class StdinTests(Strict):
    """Tests of a whole program."""

    kind: Literal["stdin"]
    cases: Annotated[tuple[StdinCase, ...], Field(min_length=1)]


class CallCase(Strict):
    """What the function is called with, and what it must return."""

    args: tuple[Any, ...] = ()
    returns: Any


class CallTests(Strict):
    """Tests of one function."""

    kind: Literal["function"]
    name: str
    cases: Annotated[tuple[CallCase, ...], Field(min_length=1)]


Tests = Annotated[StdinTests | CallTests, Field(discriminator="kind")]
TESTS: TypeAdapter[StdinTests | CallTests] = TypeAdapter(Tests)

Fault = str
"""Why a test failed; empty when it passed."""


class Runner(Protocol):
    """Runs a command on a folder's files: the sandbox's place, or this process's rights."""

    def run(self, command: Sequence[str], folder: Path, stdin: bytes, limits: Limits) -> Ran:
        """What became of it."""
        ...


@dataclass(frozen=True, slots=True)
class Programs:
    """A grader that runs programs."""

    config: ProgramVerifier
    runner: Runner
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        own = self.config
        limits = Limits(own.timeout, own.memory_mb << 20, own.processes, own.output_kb << 10)
        object.__setattr__(self, "limits", limits)

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each program, `workers` of them at a time."""
        with ThreadPoolExecutor(min(self.config.workers, max(len(items), 1))) as pool:
            return list(pool.map(lambda item: self._timed(item, until), items))

    def close(self) -> None:
        """There is nothing to end: every run has ended."""

    def _timed(self, item: Item, until: float) -> Score:
        began = time.monotonic()
        if began > until:
            return Score.unknown(Status.TIMEOUT, LATE)
        try:
            score = self._judge(item, min(until, began + self.config.budget))
        except Exception as error:  # noqa: BLE001  (boundary: a verifier that breaks has not said 0)
            score = Score.unknown(Status.ERROR, type(error).__name__)
        return replace(score, seconds=time.monotonic() - began)

    def _judge(self, item: Item, until: float) -> Score:
        try:
            tests = TESTS.validate_python(_reference(item.reference))
        except (ValidationError, ValueError) as error:
            return Score.unknown(Status.ERROR, f"reference: {_first(error)}")
        found = blocks(item.response)
        if not found:
            return answers.wrong("no closed fenced code block")
        source = found[-1].text
        if len(source) > LONGEST:
            return answers.wrong(f"the program is longer than {LONGEST} characters")
        try:
            code = source.encode()
        except UnicodeEncodeError:
            return answers.wrong("the program is no text: it holds half a surrogate pair")
        files = {self.config.file: code, "harness.py": HARNESS.read_bytes()}
        if self.config.build:
            built = self._built(files)
            if isinstance(built, Score):
                return built
            files["program"] = built
        with folder_of(files) as folder:
            return self._tested(partial(self.runner.run, folder=folder, limits=self.limits), tests, until)

    def _built(self, files: Mapping[str, bytes]) -> bytes | Score:
        """What the build made. It comes out over standard output, for nothing else leaves the sandbox."""
        command = ["/bin/sh", "-c", f'cp {JOB}/* . && "$@" 1>&2 && cat program', "sh", *self.config.build]
        limits = replace(self.limits, seconds=max(self.limits.seconds, 30.0), output_bytes=LARGEST_PROGRAM)
        with folder_of(files) as folder:
            ran = self.runner.run(command, folder, b"", limits)
        if unknown := _unknown(ran):
            return unknown
        if ran.ended != Ended.EXITED or ran.code != 0 or not ran.stdout:
            return answers.wrong(f"the program does not build: {_last(ran.stderr) or _how(ran)}")
        return ran.stdout

    def _tested(self, run: "Run", tests: StdinTests | CallTests, until: float) -> Score:
        """Every case, or up to the first that fails where nothing is given for a part."""
        passed, fault = 0, ""
        for number, outcome in enumerate(self._outcomes(run, tests)):
            if isinstance(outcome, Score):
                return outcome
            passed += not outcome
            if outcome and not fault:
                fault = f"test {number + 1} of {len(tests.cases)}: {outcome}"
            if fault and not self.config.partial:
                break
            if time.monotonic() > until and number + 1 < len(tests.cases):
                return Score.unknown(Status.TIMEOUT, f"only {number + 1} of {len(tests.cases)} tests ran in time")
        if not fault:
            return answers.right()
        return Score(passed / len(tests.cases) if self.config.partial else 0.0, False, reason=fault)

    def _outcomes(self, run: "Run", tests: StdinTests | CallTests) -> Iterator[Fault | Score]:
        own = self.config
        if isinstance(tests, StdinTests):
            command = _in_job(own.run, own.file) if own.run else _python(own.file)
            for case in tests.cases:
                yield _printed(run(command, stdin=case.input.encode()), case, own.tolerance)
            return
        for call in tests.cases:
            nonce = secrets.token_hex(16)
            asked = json.dumps({"nonce": nonce, "name": tests.name, "args": call.args})
            yield _returned(run(_python("harness.py", own.file), stdin=asked.encode()), nonce, call, own.tolerance)


class Run(Protocol):
    """One run of a program whose files and limits are set."""

    def __call__(self, command: Sequence[str], *, stdin: bytes) -> Ran:
        """What became of it."""
        ...


def open_grader(own: ProgramVerifier, _: Tools) -> Grader:
    """A grader over a sandbox that was tried out.

    NoSandboxError where the machine has none, unless it is told to do without; ValueError where the machine has no such
    command, for then every program would be wrong.
    """
    _known(own.run)
    if own.unsandboxed:
        from verifiers.unsandboxed import Unsandboxed

        return Programs(own, Unsandboxed())
    from verifiers.sandbox_probe import sandbox

    try:
        return Programs(own, sandbox(own.workers))
    except NoSandboxError as error:
        fix = (
            "let scorers make namespaces (docs/verifiers.md), or set unsandboxed: true where the machine is itself one"
        )
        raise NoSandboxError(f"verifier program: no sandbox on this machine: {error}; {fix}") from error


def _known(command: Sequence[str]) -> None:
    if command and "/" not in command[0] and shutil.which(command[0], path=PLACES) is None:
        raise ValueError(f"verifier.run: there is no {command[0]!r} in {PLACES}; install it, or give its path there")


# ---------------------------------------------------------------- one test


def _printed(ran: Ran, case: StdinCase, tolerance: float) -> Fault | Score:
    if unknown := _unknown(ran):
        return unknown
    if ran.ended != Ended.EXITED or ran.code != 0:
        return f"{_how(ran)}{_because(ran.stderr)}"
    try:
        got = ran.stdout.decode()
    except UnicodeDecodeError:
        return "printed bytes that are no text"
    return "" if same_text(got, case.output, tolerance) else "another output"


def _returned(ran: Ran, nonce: str, case: CallCase, tolerance: float) -> Fault | Score:
    if unknown := _unknown(ran):
        return unknown
    if ran.ended != Ended.EXITED:
        return _how(ran)
    lines = [line for line in ran.stdout.split(b"\n") if line.startswith(nonce.encode())]
    if len(lines) != 1:
        return f"{len(lines)} results" if lines else f"ended without a result: {_how(ran)}"
    try:
        told = json.loads(lines[0][len(nonce) :])
        if not isinstance(told, dict) or "value" not in told:
            return str(told["fault"])[:200] if isinstance(told, dict) and "fault" in told else "no readable result"
        return "" if same_value(told["value"], case.returns, tolerance) else "another result"
    except (ValueError, RecursionError):
        return "no readable result"


def _unknown(ran: Ran) -> Score | None:
    match ran.ended:
        case Ended.BROKEN:
            return Score.unknown(Status.ERROR, f"the sandbox failed: {ran.reason}")
        case Ended.STARVED:
            return Score.unknown(Status.TIMEOUT, "the machine did not let the program run in time")
        case _:
            return None


def _how(ran: Ran) -> str:
    match ran.ended:
        case Ended.SLOW:
            return "took too long"
        case Ended.FLOODED:
            return "printed too much"
        case _ if ran.code == 137:
            return "was killed: out of time or memory"
        case _ if 128 < ran.code <= 128 + 64:
            return f"ended by signal {ran.code - 128}"
        case _:
            return f"ended with status {ran.code}"


def _because(stderr: bytes) -> str:
    last = _last(stderr)
    return f" ({last})" if last else ""


def _last(stderr: bytes) -> str:
    """The last line with something in it, which is where errors are named."""
    lines = [line for line in stderr.decode(errors="replace").split("\n") if line.strip()]
    return lines[-1].strip()[:200] if lines else ""


def _python(*files: str) -> list[str]:
    return [f"{PYTHON}/bin/python3", "-I", "-S", *(f"{JOB}/{name}" for name in files)]


def _in_job(command: Sequence[str], file: str) -> list[str]:
    """The user's command, its own file and what was built named where they stand."""
    places = {file: f"{JOB}/{file}", "program": f"{JOB}/program", "./program": f"{JOB}/program"}
    found = [places.get(part, part) for part in command]
    return found if found[0].startswith("/") else ["/usr/bin/env", *found]


def _reference(reference: Any) -> Any:
    return json.loads(reference) if isinstance(reference, str) else reference


def _first(error: Exception) -> str:
    """The first thing that is wrong with a reference."""
    if isinstance(error, ValidationError):
        one = error.errors()[0]
        return f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
    return "no JSON"
