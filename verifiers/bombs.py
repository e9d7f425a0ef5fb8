r"""Answers that cost more than they can be worth: found in the text, before any algebra.

A power in a power of numbers, a factorial of a factorial, a huge exponent, thousands of operators: no answer needs them
unless its reference has them too. What passes may still hang; so the algebra runs where it can be killed.
"""

import re
from collections.abc import Callable

LONGEST = 1000
"""Characters of an answer that are read; up to twice its reference's where that is longer."""

LONGEST_REFERENCE = 2000

MOST_DIGITS = 300
"""Digits in a row."""

MOST_OPERATORS = 120
MOST_DEPTH = 24
"""Brackets inside brackets."""

DIGITS = re.compile(rf"\d{{{MOST_DIGITS + 1}}}")
OPERATOR = re.compile(r"[-+*/^!=]|\\[A-Za-z]+")
BIG_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*-?\s*(?:\d[\d,]{3}|\d+\s*(?:!|(?:\^|\*|\\cdot|\\times)\s*\{?\s*\d))")
TOWER = re.compile(r"(?:\^|\*\*)\s*(?:\d+\s*(?:\^|\*\*)|\{[^{}]*\d\s*[\^!])")
POWER_OF_POWER = re.compile(r"\d\s*\^\s*(?:\{[^{}]*\}|\w)\s*[)}]+\s*\^")
FACTORIAL = re.compile(r"(?:\d{4,}|\^\s*\{?\s*\d+\s*\}?)\s*[)}]*\s*!|!\s*[)}\]]*\s*!|\\binom\s*\{\s*\d{5,}")
BY_ZERO = re.compile(r"/\s*\{?\s*0+(?![\d.,^!])|\\[dt]?frac\s*(?:\{[^{}]*\}|\w)\s*(?:\{\s*0+\s*\}|0)(?!\d)")
"""math-verify's verdict on `0 0/0` for 0 is right in one run and wrong in the next."""

LOOP = re.compile(r"\\(?:sum|prod|int)(?![A-Za-z])")


def too_long(answer: str, expected: str) -> str:
    """Why the answer is too long to be read, or nothing. Asked before anything else reads it."""
    longest = max(LONGEST, 2 * len(expected))
    if len(answer) > longest:
        return f"the answer is longer than {longest} characters"
    if DIGITS.search(answer) and not DIGITS.search(expected):
        return f"the answer has more than {MOST_DIGITS} digits in a row"
    return ""


def _operators(text: str) -> bool:
    return len(OPERATOR.findall(text)) > MOST_OPERATORS


def _deep(text: str) -> bool:
    depth = deepest = 0
    for sign in text:
        depth += (sign in "({[") - (sign in ")}]")
        deepest = max(deepest, depth)
    return deepest > MOST_DEPTH


SCREENS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("a division by zero", BY_ZERO.search),
    ("a power in a power", TOWER.search),
    ("a power of a power", POWER_OF_POWER.search),
    ("a huge exponent", BIG_EXPONENT.search),
    ("a huge factorial", FACTORIAL.search),
    ("too many operators", _operators),
    ("too many brackets", _deep),
    ("sums in sums", lambda text: len(LOOP.findall(text)) > 4),
)


def fault(answer: str, expected: str) -> str:
    """What makes the answer dangerous that its reference does not have, or nothing."""
    for name, found in SCREENS:
        if found(answer) and not found(expected):
            return f"{name}, which the reference has not"
    return ""
