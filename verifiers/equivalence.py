r"""Mathematical equivalence by math-verify, with its known mistakes screened out first.

math-verify 0.9.0 alone accepts `\boxed{4=3}` for 3, `346+77` for 423, `0.333333` for 1/3 and `1 2` for 3, and one
huge power holds the interpreter for a minute. So: cheap screens here, and `equal` only in a process that can be killed.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from verifiers import answers, config
from verifiers.grader import Grader, Item, in_threads
from verifiers.kinds import Tools
from verifiers.score import Score
from verifiers.workers import Workers

LONGEST = 1000
"""Characters of an answer that are read; a longer one is wrong."""

MOST_DIGITS = 300
"""Digits in a row."""

DECIMALS = 12
"""Decimal places to which numbers must agree."""

NAMED = re.compile(r"\s*[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?\s*=(?P<value>[^=]+)\Z")
"""`x = 3` names its value; `4 = 3` does not."""

RELATION = re.compile(r"=|\\approx|\\equiv|\\sim\b|\\to\b|\\neq?\b")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
SUM = re.compile(r"\d\)?\s*(?:[-+*]|\\cdot|\\times)(?!\s*10\s*\^)\s*\(?\s*[-+]?\d")
APART = re.compile(r"\d\s+\d+(?![\d\s]*[/\d])")
DIGITS = re.compile(rf"\d{{{MOST_DIGITS + 1}}}")
WRAPPING = ("$$", "$", "**", r"\(", r"\)", r"\[", r"\]")


def open_grader(own: config.MathVerifier, tools: Tools) -> Grader:
    """A grader that screens here and compares in killable workers."""
    workers = tools.killable()
    return in_threads(lambda item: judge(own, item, workers), own.workers)


def judge(own: config.MathVerifier, item: Item, workers: Workers) -> Score:
    """The verdict on one answer."""
    screened = screen(item.response, item.reference, own.marker)
    if isinstance(screened, Score):
        return screened
    reference = bare(answers.plain(item.reference) or "")
    value = workers.ask({"task": "math", "answer": screened, "reference": reference}, own.timeout)
    if isinstance(value, Score):
        return value
    return answers.right() if value == 1.0 else answers.wrong("not equivalent")


class UnreadableReferenceError(ValueError):
    """The reference is no mathematics that math-verify can read."""


def bare(text: str) -> str:
    """The answer without the dollar signs, bold marks and full stop that people write round it."""
    text = text.strip()
    for mark in WRAPPING:
        text = text.removeprefix(mark).removesuffix(mark)
    return text.strip().removesuffix(".").strip()


def screen(response: str, reference: Any, marker: str) -> Score | str:
    """The verdict where no mathematics is needed, else the answer that `equal` must compare."""
    expected = answers.plain(reference)
    if not expected:
        return answers.unusable(reference)
    found, why = answers.final(response, marker)
    if found is None:
        return answers.wrong(why)
    answer = bare(found)
    if answer == bare(expected):
        return answers.right()
    fault = _fault(answer, bare(expected))
    if fault:
        return answers.wrong(fault)
    named = NAMED.match(answer)
    return named["value"].strip() if named and "=" not in expected else answer


def _fault(answer: str, expected: str) -> str:
    """Why the answer cannot be right whatever math-verify says of it, or nothing."""
    if not answer:
        return "the answer is empty"
    if len(answer) > max(LONGEST, 2 * len(expected)):
        return f"the answer is longer than {LONGEST} characters"
    if DIGITS.search(answer):
        return f"the answer has more than {MOST_DIGITS} digits in a row"
    if RELATION.search(answer) and not RELATION.search(expected) and not NAMED.match(answer):
        return "an equation where a value is asked"
    if APART.search(answer):
        return "several numbers"
    if NUMBER.fullmatch(expected) and SUM.search(answer):
        return "arithmetic that is not worked out"
    return ""


def preload(_: str) -> None:
    """Load what `work` needs, in a worker."""
    equal("\\frac{1}{2}", "0.5")


def work(_: str, request: Mapping[str, Any]) -> float:
    """The worker's task `math`: 1 if `answer` and `reference` are the same."""
    return float(equal(request["answer"], request["reference"]))


def equal(answer: str, reference: str) -> bool:
    """Whether the two are the same mathematics. May hang or use up memory: call it in a judging process."""
    from math_verify import verify

    gold = _gold(reference)
    return bool(verify(gold, _parsed(answer), float_rounding=DECIMALS, timeout_seconds=None))


@lru_cache(maxsize=1024)
def _gold(reference: str) -> list[Any]:
    gold = _parsed(reference)
    if not gold:
        raise UnreadableReferenceError(reference)
    return gold


def _parsed(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    found: list[Any] = parse(f"\\boxed{{{text}}}", config, fallback_mode="no_fallback", parsing_timeout=None)
    return found
