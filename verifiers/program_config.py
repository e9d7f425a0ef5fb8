"""Config of the verifier that runs programs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verifiers.part_config import Part


class ProgramVerifier(Part):
    """Runs the last fenced code block of the response against hidden tests, each in a fresh sandbox.

    The reference is {"kind": "stdin", "cases": [{"input": "1 2", "output": "3"}, ...]}, or {"kind": "function",
    "name": "add", "cases": [{"args": [1, 2], "returns": 3}, ...]} (Python; `Solution.add` calls a method of a fresh
    Solution()). Expected outputs never enter the sandbox: what comes out is compared outside.
    """

    kind: Literal["program"] = "program"
    run: tuple[str, ...] = ()
    """Command that runs `file` in the sandbox, such as [node, main.js]; by default this Python, isolated. The machine's
    /usr, /lib and /bin are there, read-only, and nothing else."""
    build: tuple[str, ...] = ()
    """Command that compiles `file` into `program`, such as [g++, -O2, -o, program, main.cpp]; `run` is then
    [./program]."""
    file: str = "program.py"
    """Name of the file that holds the response's program."""
    timeout: Annotated[float, Field(gt=0, le=600)] = 5.0
    """CPU seconds of one test. A program that takes longer is wrong; one that the machine kept from running is
    unknown."""
    budget: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for all tests of a program; past them it is unknown (`timeout`)."""
    memory_mb: Annotated[int, Field(ge=16)] = 512
    """Memory of one test, all its processes together where control groups can be written, else of each process."""
    processes: Annotated[int, Field(ge=1)] = 32
    """Processes and threads of one test."""
    output_kb: Annotated[int, Field(ge=1)] = 256
    """What a test may print; more is wrong."""
    partial: bool = False
    """The value is the share of tests passed, and all of them run; else 1 for all and 0 otherwise, ended at the first
    that fails. A constant answer earns its share."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-9
    """Relative (and, below 1, absolute) difference of two numbers that counts as none."""
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    """Programs that run at the same time."""
    unsandboxed: bool = False
    """Run the model's programs with this process's rights where the machine has no sandbox. Only for a machine that is
    itself one."""

    @model_validator(mode="after")
    def _file_has_a_name(self) -> Self:
        if not self.file or "/" in self.file or self.file.startswith("."):
            raise ValueError(f"file: a plain name is wanted, such as main.cpp (got {self.file!r})")
        if self.file != "program.py" and not self.run and not self.build:
            raise ValueError(f"run: how is {self.file!r} run? give its command, such as [node, {self.file}]")
        return self
