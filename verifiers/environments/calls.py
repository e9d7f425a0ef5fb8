"""Calls of tools in what a model wrote, read strictly: a turn has one call that is whole and stands last, or none."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from verifiers.environments.config import Calls

LONGEST = 20_000
"""Characters of a call that are read."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool and what it is asked."""

    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A call that cannot be read; the model is told why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Syntax:
    """How calls are written: the config, and each tool's name with the name of its one argument."""

    config: Calls
    arguments: Mapping[str, str]

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the model's turn."""
        return tuple(close for _, close, _ in self._marks())

    def find(self, text: str) -> Call | Malformed | None:
        """The call in a turn; None where there is none."""
        opened = [(at, mark) for mark in self._marks() if (at := text.find(mark[0])) >= 0]
        if not opened:
            return None
        at, (opening, closing, name) = min(opened, key=lambda one: one[0])
        inside, closed, after = text[at + len(opening) :].partition(closing)
        if not closed:
            return Malformed(f"the call is not closed with {closing}")
        if after.strip():
            return Malformed("nothing may follow a call in its turn")
        if opening != closing and opening in inside:
            return Malformed("a call inside a call")
        if len(inside) > LONGEST:
            return Malformed(f"the call is longer than {LONGEST} characters")
        return self._read(name, inside)

    def written(self, name: str, argument: str) -> str:
        """The text of a call: what `find` reads back."""
        opening, closing = next((mark[0], mark[1]) for mark in self._marks() if mark[2] in ("", name))
        match self.config.form:
            case "json":
                whole = {"name": name, "arguments": {self.arguments[name]: argument}}
                return f"{opening}{json.dumps(whole, ensure_ascii=False)}{closing}"
            case "named" | "plain":
                return f"{opening}{argument}{closing}"
            case _:
                assert_never(self.config.form)

    def _marks(self) -> Sequence[tuple[str, str, str]]:
        """(opening, closing, tool) of every form that a call may have; the tool is empty where the call names it."""
        if self.config.form == "named":
            return [(f"<{name}>", f"</{name}>", name) for name in self.arguments]
        return [(self.config.open, self.config.close, "")]

    def _read(self, name: str, inside: str) -> Call | Malformed:
        match self.config.form:
            case "json":
                return self._of_json(inside)
            case "named":
                return _asked(name, inside)
            case "plain":
                return _asked(next(iter(self.arguments)), inside)
            case _:
                assert_never(self.config.form)

    def _of_json(self, inside: str) -> Call | Malformed:
        try:
            said = json.loads(inside)
        except (ValueError, RecursionError) as error:
            return Malformed(f"the call is no json: {getattr(error, 'msg', type(error).__name__)}")
        if not isinstance(said, dict) or set(said) != {"name", "arguments"}:
            return Malformed('a call is {"name": ..., "arguments": {...}}')
        name = said["name"]
        if not isinstance(name, str) or name not in self.arguments:
            return Malformed(f"no such tool; there is {', '.join(self.arguments)}")
        own = self.arguments[name]
        given = said["arguments"]
        if isinstance(given, dict) and set(given) == {own} and isinstance(given[own], str):
            return _asked(name, given[own])
        return Malformed(f'the arguments of {name} are {{"{own}": a text}}')


def _asked(name: str, argument: str) -> Call | Malformed:
    return Call(name, argument) if argument.strip() else Malformed(f"the call of {name} is empty")
