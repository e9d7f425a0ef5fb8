"""What reasoning-gym's scorers must not be handed, and what they let through.

reasoning-gym 0.1.25 runs the answer of nine data sets as Python: by `eval`, or by sympy's `parse_expr`, which is
`eval` with every builtin in reach. `__import__('os').system(...)` is obeyed, and `oracle_answer` is the right answer.
So here such an answer is read first, by its tokens or its syntax tree, and one that is more than a list of constants
or a plain expression is wrong without being run. Called in a judging process: Python's own parser reads the answer.
"""

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
NAME = r"[A-Za-z_]\w*"
EXPRESSION = re.compile(rf"(?:{NUMBER}|{NAME}|[\s+\-*/^(),!])*+", re.ASCII)
NAMES = re.compile(rf"{NUMBER}|({NAME})", re.ASCII)
FUNCTIONS = {
    *("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh"),
    *("atanh", "exp", "log", "ln", "sqrt", "Abs", "pi"),
}
"""Names of more than one letter that an expression may have; sympy makes a symbol of any single letter."""

CONSTANTS = (ast.Expression, ast.List, ast.Tuple, ast.Constant, ast.UnaryOp, ast.USub, ast.UAdd, ast.Load)

Screen = Callable[[str, Mapping[str, Any]], str]


def plain_expression(answer: str, _: Mapping[str, Any]) -> str:
    """Why the answer is no arithmetic in numbers, single letters and common functions; empty where it is."""
    if not EXPRESSION.fullmatch(answer):
        return "the answer is no plain expression"
    strange = next((name for name in NAMES.findall(answer) if len(name) > 1 and name not in FUNCTIONS), "")
    return f"the answer has the name {strange[:40]!r}" if strange else ""


def only_constants(answer: str, _: Mapping[str, Any]) -> str:
    """Why Python would run more than a list of constants of the answer; empty where it would not, or refuses it."""
    try:
        tree = ast.parse(answer.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return ""  # eval refuses it for the same reason
    except (MemoryError, RecursionError):
        return "the answer is nested too deep"
    strange = any(not isinstance(node, CONSTANTS) for node in ast.walk(tree))
    return "another answer, and no list of constants" if strange else ""


def puzzle24(answer: str, entry: Mapping[str, Any]) -> str:
    """As an expression; and with the puzzle's own numbers and exactly 24, which the scorer does not look at."""
    if fault := plain_expression(answer, entry):
        return fault
    used = sorted(int(number) for number in re.findall(r"\b\d+\b", answer))
    if used != sorted(entry["metadata"]["numbers"]):
        return "the answer does not use the puzzle's numbers, each once"
    from sympy.parsing.sympy_parser import parse_expr  # type: ignore[import-untyped]

    try:
        return "" if parse_expr(answer.strip()) == 24 else "the answer is not 24"
    except Exception as error:  # noqa: BLE001  (boundary: what sympy cannot read is no answer)
        return f"the answer cannot be read: {type(error).__name__}"


SCREENS: Mapping[str, Screen] = {
    "binary_matrix": only_constants,
    "n_queens": only_constants,
    "spiral_matrix": only_constants,
    "string_insertion": only_constants,
    "countdown": plain_expression,
    "intermediate_integration": plain_expression,
    "polynomial_multiplication": plain_expression,
    "simple_integration": plain_expression,
    "puzzle24": puzzle24,
}
"""Data set -> the fault of an answer that its scorer must not see."""

TUPLED = ("arc_agi", "rearc")
"""Data sets whose scorers compare with tuples, which JSON has made lists of."""


def screen(dataset: str, answer: str, entry: Mapping[str, Any]) -> str:
    """Why the answer is wrong whatever the scorer says; empty where it may judge."""
    found = SCREENS.get(dataset)
    return "" if found is None or answer == entry["answer"] else found(answer, entry)


def restored(dataset: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as its data set made it, as far as its scorer minds."""
    if dataset not in TUPLED:
        return dict(entry)
    return {**entry, "metadata": {name: _tupled(value) for name, value in entry["metadata"].items()}}


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
