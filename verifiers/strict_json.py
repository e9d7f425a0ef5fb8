"""JSON as its standard has it and no more, of text that a model wrote. Sizes are checked before anything is parsed."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

LONGEST = 100_000
"""Characters of JSON that are read."""

DEEPEST = 64
"""Levels of arrays and objects."""

MOST_DIGITS = 300
"""Digits of an integer."""

FENCE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)$", re.MULTILINE)
BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class NotJsonError(ValueError):
    """The text is not JSON; the message says why, for a reader."""


def last_block(response: str) -> str:
    """What stands in the last fenced block that is closed; the whole response without one."""
    found, opened = None, None
    for fence in FENCE.finditer(response):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            found, opened = response[opened.end() : fence.start()], None
    return response if found is None else found


def parse(text: str) -> Any:
    """The value. NotJsonError where the text is too much, or is not one JSON value and nothing else."""
    text = text.strip()
    if not text:
        raise NotJsonError("there is no JSON")
    if len(text) > LONGEST:
        raise NotJsonError(f"longer than {LONGEST} characters")
    if _depth(text) > DEEPEST:
        raise NotJsonError(f"nested deeper than {DEEPEST} levels")
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError as error:
        what = "text after the value" if error.msg == "Extra data" else error.msg.lower()
        raise NotJsonError(f"not JSON: {what} at line {error.lineno} column {error.colno}") from error


def _depth(text: str) -> int:
    """Levels of brackets outside strings."""
    deepest = depth = 0
    for found in BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found.group(), 0)
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise NotJsonError(f"the name {twice[:40]!r} stands twice in one object")
    return found


def _constant(name: str) -> Any:
    raise NotJsonError(f"{name} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise NotJsonError(f"a number of more than {MOST_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    found = float(digits)
    if not math.isfinite(found):
        raise NotJsonError(f"the number {digits[:40]} is past what a float holds")
    return found


# ---------------------------------------------------------------- comparing


def fields(value: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """The path of each value that has none below it, and the value; empty lists and objects are values."""
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from fields(below, f"{path}[{json.dumps(name)}]")
    elif isinstance(value, list) and value:
        for at, below in enumerate(value):
            yield from fields(below, f"{path}[{at}]")
    else:
        yield path, value


def agreement(found: Any, expected: Any) -> tuple[float, str]:
    """Share of fields that are the same, of all that either has, and the first path that differs; symmetric."""
    ours, theirs = dict(fields(found)), dict(fields(expected))
    paths = list(dict.fromkeys([*theirs, *ours]))
    wrong = [path for path in paths if path not in ours or path not in theirs or not same(ours[path], theirs[path])]
    return 1 - len(wrong) / len(paths), wrong[0] if wrong else ""


def same(one: Any, other: Any) -> bool:
    """Whether two values without anything below them are equal as JSON: 1 is 1.0 and is not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
