"""Whether what a program gave is what was expected, compared outside the sandbox by plain types and with no code of
the program's."""

import math
import re
from typing import Any

SPACES = re.compile(r"(\s+)")


def same_text(got: str, expected: str, tolerance: float) -> bool:
    """Line by line without the white space at their ends, blank lines at the end left out; numbers within tolerance."""
    if (mine := _lines(got)) == (theirs := _lines(expected)):
        return True
    return len(mine) == len(theirs) and all(
        one == other or _same_words(SPACES.split(one), SPACES.split(other), tolerance)
        for one, other in zip(mine, theirs, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_words(mine: list[str], theirs: list[str], tolerance: float) -> bool:
    """Words, and the spaces between them, that are equal, or decimals that are near; whole numbers must be the same."""
    if len(mine) != len(theirs):
        return False
    return all(
        one == other or ("." in other and _near(_number(one), _number(other), tolerance))
        for one, other in zip(mine, theirs, strict=True)
    )


def _number(word: str) -> float:
    try:
        return float(word) if len(word) < 400 else math.nan
    except ValueError:
        return math.nan


def _near(one: float, other: float, tolerance: float) -> bool:
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)


def same_value(got: Any, expected: Any, tolerance: float) -> bool:
    """Two JSON values: true is not 1, 2 is 2.0, lists keep their order, decimals are near."""
    match expected:
        case bool() | None | str():
            return type(got) is type(expected) and bool(got == expected)
        case int():
            return type(got) in (int, float) and bool(got == expected)
        case float():
            return type(got) in (int, float) and _near(_float(got), expected, tolerance)
        case list():
            pairs = zip(got, expected, strict=True) if isinstance(got, list) and len(got) == len(expected) else None
            return pairs is not None and all(same_value(one, other, tolerance) for one, other in pairs)
        case dict():
            return (
                isinstance(got, dict)
                and got.keys() == expected.keys()
                and all(same_value(got[key], other, tolerance) for key, other in expected.items())
            )
        case _:
            return False


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
