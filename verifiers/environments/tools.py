"""The tools that a model may call: a name, the name of the one thing it is asked, and a function of texts.

What the model asks wrongly is an answer that says so; a tool raises only where it is itself broken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from verifiers.environments import calculator
from verifiers.environments.calls import Call, Malformed, Syntax
from verifiers.environments.config import (
    Calculator,
    Interpreter,
    Search,
    Tool,
    ToolsEnvironment,
)
from verifiers.environments.protocol import Task, Turn

ARGUMENTS: Mapping[str, str] = {"calculator": "expression", "interpreter": "code", "search": "query"}
"""Tool -> the name of what it is asked."""

ERROR = "error: "
"""What an answer to a call that could not be carried out begins with."""


@dataclass(frozen=True, slots=True)
class Kit:
    """The tools of an environment, opened once for all of its episodes."""

    syntax: Syntax
    ask: Mapping[str, Callable[[str], str]]

    def answer(self, call: Call) -> str:
        """What the tool says."""
        return self.ask[call.name](call.argument)


@dataclass(slots=True)
class ToolsEpisode:
    """One episode with tools: it goes on for as long as the model calls one."""

    kit: Kit

    def start(self, task: Task) -> None:
        """Tools know nothing of the task."""

    def step(self, text: str) -> Turn:
        """The tool's answer, or what is wrong with the call; done when there is none."""
        match self.kit.syntax.find(text):
            case None:
                return Turn(done=True, reason="answered")
            case Malformed(reason=reason):
                return Turn(ERROR + reason)
            case Call() as call:
                return Turn(self.kit.answer(call))


def open_kit(own: ToolsEnvironment) -> Kit:
    """Open the tools: build a corpus' index, probe the sandbox. ValueError says what cannot be."""
    return Kit(syntax_of(own), {one.kind: _opened(one) for one in own.tools})


def syntax_of(own: ToolsEnvironment) -> Syntax:
    """How the environment's tools are called."""
    return Syntax(own.calls, {one.kind: ARGUMENTS[one.kind] for one in own.tools})


def _opened(tool: Tool) -> Callable[[str], str]:
    match tool:
        case Calculator():
            return lambda expression: _calculated(tool, expression)
        case Interpreter():
            from verifiers.environments.interpreter import open_interpreter

            return open_interpreter(tool)
        case Search():
            from verifiers.environments import search

            search.corpus(tool.path)  # now, and not in the first episode's time
            return lambda query: search.answer(tool, query)
        case _:
            assert_never(tool)


def _calculated(own: Calculator, expression: str) -> str:
    try:
        return calculator.work(expression, own.digits)
    except calculator.RefusedError as error:
        return f"{ERROR}{error}"
