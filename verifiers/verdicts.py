"""What a judge must end with, read strictly: one JSON object of exactly the keys asked, sealed, and nothing after it.

Whatever else a judge writes is no verdict. Nothing is guessed: no number is fished out of prose.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

LONGEST = 50_000
"""Characters of a reply that are read; a longer one is no verdict."""

MOST_BRACES = 1_000
"""Opening braces of a reply that is read: what is nested without end takes long to find broken."""

CRITIQUE = 2_000
"""Characters of the critique that are kept as a score's reason."""

KEYS = frozenset({"seal", "score", "met", "better", "refuse"})
"""An object with one of them is meant as a verdict."""

THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
FENCE_END = re.compile(r"\s*\n?```\s*\Z")
DECLINED = re.compile(
    r"\A\W*(?:i'?m (?:sorry|afraid|unable)|i am (?:sorry|afraid|unable)|sorry|apologies|"
    r"i (?:can ?not|can't|won't|will not|must decline|decline)|as an ai\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Scale:
    """The verdict {"score": n}, a whole number in [low, high]."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Checks:
    """The verdict {"met": {"1": true, ...}}, one entry for each of `count` questions."""

    count: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The verdict {"better": "A"}, or "B", or "tie"."""


Shape = Scale | Checks | Choice


@dataclass(frozen=True, slots=True)
class Verdict:
    """A valid one, as values in [0, 1]: one number, or one for each question."""

    values: tuple[float, ...]
    critique: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no verdict."""

    reason: str
    refused: bool = False


def example(shape: Shape) -> tuple[str, str]:
    """The verdict's own key with an example, and in words what may stand there."""
    match shape:
        case Scale(low, high):
            return '"score": N', f"N is a whole number from {low} to {high}."
        case Checks(count):
            entries = ", ".join(f'"{at}": B' for at in range(1, count + 1))
            return f'"met": {{{entries}}}', "Each B is true or false, for the entry of that number."
        case Choice():
            return '"better": "X"', "X is A, B or tie."
        case _:
            assert_never(shape)


def read(reply: str, seal: str, shape: Shape) -> Verdict | Fault:
    """The verdict that a reply ends with, or why it has none."""
    if len(reply) > LONGEST or reply.count("{") > MOST_BRACES:
        return Fault(f"the judge wrote more than {LONGEST} characters, or more than {MOST_BRACES} braces")
    said = FENCE_END.sub("", THOUGHT.sub("", reply)).rstrip()
    if said.lstrip().startswith("<think>"):
        return Fault("the judge never ended its thought")
    found = [one for one in objects(said) if isinstance(one.content, dict) and KEYS & one.content.keys()]
    if not found:
        declined = DECLINED.match(said.lstrip())
        return Fault("the judge declined" if declined else "the judge gave no verdict", refused=bool(declined))
    if len(found) > 1:
        return Fault(f"the judge gave {len(found)} verdicts")
    only = found[0]
    if only.end != len(said):
        return Fault("the judge went on after its verdict")
    critique = _critique(said[: only.start], seal)
    return _checked(only.content, seal, shape, critique)


def _checked(content: Mapping[str, Any], seal: str, shape: Shape, critique: str) -> Verdict | Fault:
    if content.get("seal") != seal:
        return Fault("the verdict does not bear the seal")
    rest = {key: value for key, value in content.items() if key != "seal"}
    if set(rest) == {"refuse"} and isinstance(rest["refuse"], str):
        return Fault(f"the judge declined: {rest['refuse'][:200]}", refused=True)
    values = _values(rest, shape)
    return values if isinstance(values, Fault) else Verdict(values, critique)


def _values(rest: Mapping[str, Any], shape: Shape) -> tuple[float, ...] | Fault:
    match shape, dict(rest):
        case Scale(low, high), {"score": int() as score, **more} if not more and not isinstance(score, bool):
            if not low <= score <= high:
                return Fault(f"the score is off the scale of {low} to {high}")
            return ((score - low) / (high - low),)
        case Checks(count), {"met": dict() as met, **more} if not more:
            asked = [str(at) for at in range(1, count + 1)]
            if set(met) != set(asked) or not all(isinstance(value, bool) for value in met.values()):
                return Fault(f"the verdict does not say true or false of each of {count} entries")
            return tuple(float(met[at]) for at in asked)
        case Choice(), {"better": "A" | "B" | "tie" as better, **more} if not more:
            return ({"A": 1.0, "B": 0.0, "tie": 0.5}[better],)
        case _:
            return Fault("the verdict has other keys or values than asked")


def _critique(text: str, seal: str) -> str:
    """What stands before the verdict, without the opening of a code block and without the seal."""
    kept = re.sub(r"```(?:json)?\s*\Z", "", text.rstrip()).replace(seal, "").strip()
    return kept if len(kept) <= CRITIQUE else kept[:CRITIQUE].rstrip() + " ..."


# ---------------------------------------------------------------- JSON in a text


@dataclass(frozen=True, slots=True)
class Found:
    """A JSON object of a text, at characters [start, end)."""

    start: int
    end: int
    content: Any


class _NotPlainError(ValueError):
    """A key that stands twice, or a number that is none."""


def objects(text: str) -> Iterator[Found]:
    """Every outermost JSON object of the text, in order; what is half of one is none."""
    at = text.find("{")
    while at >= 0:
        try:
            content, end = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield Found(at, end, content)
        at = text.find("{", end)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _NotPlainError("a key stands twice")
    return dict(pairs)


def _no_number(text: str) -> float:
    raise _NotPlainError(f"{text} is no number")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
