r"""Mathematical equivalence by math-verify, with its known mistakes screened out first.

math-verify 0.9.0 alone accepts `x=4=3` for `x=3`, `346+77` for 423, `\{0,1\}` for the interval (0,1), 10 in base 2
for 10 and `3\text{ m}` for `3\text{ cm}`, and one huge power holds the interpreter for a minute. So: text and exact
fractions decide here what they can (most answers are plain numbers), and `equal` runs only where it can be killed.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from verifiers import answers, bombs, brackets, choices, config, notation, plain_numbers, solution_sets, units
from verifiers.grader import Grader, Item, in_threads
from verifiers.kinds import Tools
from verifiers.notation import Written
from verifiers.score import Score, Status
from verifiers.workers import Workers

REMEMBERED = 8192
"""Verdicts kept: the responses to one prompt repeat each other's answers."""

NAME = r"(?:[A-Za-z]|\\[a-z]+)(?:_\{?\w+\}?)?(?:\([a-z]\))?|\(\s*[a-z](?:\s*,\s*[a-z])*\s*\)"
NAMED = re.compile(rf"\s*(?P<name>{NAME})\s*(?:=|\\approx(?![a-z]))(?P<value>[^=]+)\Z")
"""`x = 3` names its value; `4 = 3` does not."""

RELATION = re.compile(r"=|\\approx|\\equiv|\\sim\b|\\to\b")
UNWORKED = re.compile(
    r"[+*!^|]|(?<=[\w)}])\s*-|/.*/|\\frac.*\\frac|[\d)]\s*\("
    r"|\\(?:cdot|times|div|sqrt|[dt]?binom|log|ln|exp|sin|cos|tan|sum|prod|int|lim|pm|[lg]cm|gcd|max|min|det|[lr]?vert|lfloor"
    r"|lceil|begin|operatorname)(?![a-z])"
)
APART = re.compile(r"\d\s+\d+(?![\d\s]*[/\d])")


WARMING = (
    (r"\frac{1}{2}", "0.5"),
    ("x+1+x", "2x+1"),
    (r"\sin^2 x", r"1-\cos^2 x"),
    ("y=2x", "2x-y=0"),
    (r"x \le 2", r"(-\infty,2]"),
    (r"\{1,2\}", "2,1"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
)


class Question(NamedTuple):
    """What only algebra can decide."""

    answer: str
    expected: str


@dataclass(frozen=True, slots=True)
class MathGrader:
    """Decides what text can decide at once, and asks the workers the rest; what it learnt it does not ask again."""

    own: config.MathVerifier
    workers: Workers
    known: dict[Question, Score] = field(default_factory=dict)
    """Verdicts, and references that cannot be read."""

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each; only answers that need algebra wait for a worker."""
        scores = [self._decide(item) for item in items]
        open_ = [at for at, score in enumerate(scores) if isinstance(score, Question)]
        asked = in_threads(self._ask, self.own.workers).grade([items[at] for at in open_], until)
        for at, score in zip(open_, asked, strict=True):
            scores[at] = score
        return [score for score in scores if isinstance(score, Score)]

    def close(self) -> None:
        """The workers are not its own."""

    def _decide(self, item: Item) -> Score | Question:
        began = time.monotonic()
        found = decide(item.response, item.reference, self.own)
        if isinstance(found, Question):
            found = self.known.get(found) or self.known.get(Question("", found.expected)) or found
        if isinstance(found, Score):
            return Score(found.value, found.passed, found.status, found.reason, seconds=time.monotonic() - began)
        return found

    def _ask(self, item: Item) -> Score:
        question = self._decide(item)
        if isinstance(question, Score):
            return question
        request = {"task": "math", "tolerance": self.own.tolerance, **question._asdict()}
        value = self.workers.ask(request, self.own.timeout)
        if len(self.known) > REMEMBERED:
            self.known.clear()
        if not isinstance(value, Score):
            self.known[question] = answers.right() if value == 1.0 else answers.wrong("not equivalent")
            return self.known[question]
        if value.reason != UnreadableReferenceError.__name__:
            return value
        self.known[Question("", question.expected)] = _unread(question.expected)
        return _unread(question.expected)


def open_grader(own: config.MathVerifier, tools: Tools) -> Grader:
    """A grader that screens here and compares in killable workers."""
    return MathGrader(own, tools.killable())


class UnreadableReferenceError(ValueError):
    """The reference is no mathematics that math-verify can read."""


def decide(response: str, reference: Any, own: config.MathVerifier) -> Score | Question:
    """The verdict where no algebra is needed, else the question for `equal`."""
    expected = answers.unboxed(answers.plain(reference) or "")
    if not expected:
        return answers.unusable(reference)
    found, why = answers.final(response, own.marker, own.boxes)
    if found is None:
        return answers.wrong(why)
    if notation.bare(found) == notation.bare(expected):
        return answers.right()
    if len(expected) > bombs.LONGEST_REFERENCE:
        return _unread(f"{expected[:60]}... is longer than {bombs.LONGEST_REFERENCE} characters")
    fault = bombs.too_long(found, expected)
    if fault:
        return answers.wrong(fault)
    return _compare(found, expected, own)


def _unread(reference: str) -> Score:
    return Score.unknown(Status.ERROR, f"the reference cannot be read as mathematics: {reference[:200]}")


def _compare(found: str, expected: str, own: config.MathVerifier) -> Score | Question:
    for by_text in (choices.letter, choices.words):
        same = by_text(found, expected)
        if same is not None:
            return answers.right() if same else answers.wrong("another choice")
    answer, wanted = _with_letters(notation.read(found), notation.read(expected))
    fault = _fault(answer, wanted) or units.fault(answer.unit, wanted.unit, own.units)
    if fault:
        return answers.wrong(fault)
    answer, wanted = _values(answer, wanted)
    if answer == wanted or (answer.text == wanted.text and answer.percent == wanted.percent):
        return answers.right()
    return _numbers(answer, wanted, own.tolerance) or _algebra(answer, wanted)


def _with_letters(answer: Written, wanted: Written) -> tuple[Written, Written]:
    """Both, with a letter after a number for a unit where it is one."""
    if not wanted.unit and (split := units.letter(wanted.text, bool(answer.unit))):
        wanted = Written(*split)
    if not answer.unit and (split := units.letter(answer.text, bool(wanted.unit))):
        answer = Written(*split)
    return answer, wanted


def _fault(answer: Written, wanted: Written) -> str:
    """Why the answer cannot be right whatever math-verify says of it, or nothing."""
    if not answer.text:
        return "the answer is empty"
    relations = _relations(answer.text)
    if relations > max(_relations(wanted.text), 1):
        return "a chain of equations"
    named, value = _named(answer.text), _named(wanted.text)
    if relations and not named and (not RELATION.search(wanted.text) or (value and plain_numbers.read(value[1]))):
        return "an equation where a value is asked"
    if named and value and named[0] != value[0] and "(" not in named[0] + value[0]:
        return f"the value of {named[0]}, not of {value[0]}"
    return bombs.fault(answer.text, wanted.text)


def _relations(text: str) -> int:
    """How many relations stand in one row, at most."""
    return max(len(RELATION.findall(part)) for part in brackets.split(text))


def _named(text: str) -> tuple[str, str] | None:
    """The name and the value of `x = 3`, of `x = 1, x = 2` too."""
    parts = [NAMED.match(part) for part in brackets.split(text)]
    if not parts or not parts[0]:
        return None
    name = parts[0]["name"].replace(" ", "")
    if len(parts) > 1 and all(part and part["name"].replace(" ", "") == name for part in parts):
        return name, ", ".join(part["value"].strip() for part in parts if part)
    whole = NAMED.match(text)
    return (name, whole["value"].strip()) if whole else None


def _values(answer: Written, wanted: Written) -> tuple[Written, Written]:
    """Both without the name before their value, where the other has a value to compare it with."""
    named, value = _named(answer.text), _named(wanted.text)
    if named and (value or not RELATION.search(wanted.text)):
        answer = notation.read(named[1] + (r"\%" if answer.percent else ""))
    if value and (named or not RELATION.search(answer.text)):
        wanted = notation.read(value[1] + (r"\%" if wanted.percent else ""))
    return answer, wanted


def _numbers(answer: Written, wanted: Written, tolerance: float) -> Score | None:
    """The verdict where the reference is a plain number; None where the answer still needs algebra."""
    expected = plain_numbers.read(wanted.text)
    if expected is None:
        return None
    ways = [answer.text]
    if expected.places and (pointed := plain_numbers.decimal_comma(answer.text)):
        ways.append(pointed)
    found = [number for way in ways if (number := plain_numbers.read(way))]
    if not found:
        return _no_number(answer.text, expected)
    to = (expected, wanted.percent)
    same = any(plain_numbers.same_with_percent((number, answer.percent), to, tolerance) for number in found)
    return answers.right() if same else answers.wrong("another number")


def _no_number(text: str, expected: plain_numbers.Number) -> Score | None:
    if APART.search(text) or brackets.shape(text):
        return answers.wrong("several numbers")
    if notation.INEQUALITY.search(text):
        return answers.wrong("an inequality where a number is asked")
    if UNWORKED.search(text) and not expected.approximate:
        return answers.wrong("arithmetic that is not worked out")
    if not any(sign.isdigit() for sign in text) and not expected.approximate:
        return answers.wrong("no number")
    return None


def _algebra(answer: Written, wanted: Written) -> Score | Question:
    fault = brackets.fault(answer.text, wanted.text)
    if fault:
        return answers.wrong(fault)
    same = _of_numbers(answer, wanted)
    if same is not None:
        return answers.right() if same else answers.wrong("other numbers")
    number = plain_numbers.read(wanted.text)
    plain = number is not None and number.places is None and not wanted.percent
    return Question(answer.latex, plain_numbers.latex(number) if number and plain else wanted.latex)


def _of_numbers(answer: Written, wanted: Written) -> bool | None:
    """Whether two pairs, intervals, lists or sets of plain numbers are the same; None for others."""
    kind = brackets.shape(wanted.text)
    if not kind or not brackets.shape(answer.text):
        return None
    found, expected = (_exact(brackets.parts(one.text)) for one in (answer, wanted))
    if found is None or expected is None:
        return None
    return set(found) == set(expected) if kind in brackets.UNORDERED else found == expected


def _exact(texts: list[str]) -> list[Fraction] | None:
    numbers = [plain_numbers.read(text) for text in texts]
    if any(number is None or number.approximate for number in numbers):
        return None
    return [number.value for number in numbers if number]


def preload(_: str) -> None:
    """Load what `work` needs, in a worker: much of sympy is imported only when it is first used."""
    for answer, reference in WARMING:
        equal(answer, reference)


def work(_: str, request: Mapping[str, Any]) -> float:
    """The worker's task `math`: 1 if `answer` and `expected` are the same."""
    return float(equal(request["answer"], request["expected"], request.get("tolerance", 0.0)))


def equal(answer: str, reference: str, tolerance: float = 0.0) -> bool:
    """Whether the two are the same mathematics. May hang or use up memory: call it in a judging process."""
    from math_verify import verify

    gold, found = _gold(reference), _parsed(answer)
    rounding = plain_numbers.DECIMALS
    if verify(gold, found, float_rounding=rounding, allow_set_relation_comp=True, timeout_seconds=None):
        return True
    if found and solution_sets.same(found[0], gold[0]):
        return True
    return tolerance > 0 and _near(found, gold, tolerance)


def _near(found: Sequence[Any], gold: Sequence[Any], tolerance: float) -> bool:
    """Whether both are numbers, and within `tolerance` of the second."""
    from sympy import Expr  # type: ignore[import-untyped]

    if not (found and isinstance(found[0], Expr) and isinstance(gold[0], Expr)):
        return False
    a, b = found[0].evalf(30), gold[0].evalf(30)
    return bool(a.is_number and b.is_number and a.is_finite and b.is_finite and abs(a - b) <= tolerance * abs(b))


@lru_cache(maxsize=1024)
def _gold(reference: str) -> list[Any]:
    gold = _parsed(reference)
    if not gold:
        raise UnreadableReferenceError(reference)
    return gold


def _parsed(text: str) -> list[Any]:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    config = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=rules)]
    found: list[Any] = parse(f"\\boxed{{{text}}}", config, fallback_mode="no_fallback", parsing_timeout=None)
    return found
