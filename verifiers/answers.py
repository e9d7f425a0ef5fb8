"""Where the final answer stands in a response. Pure text, linear in its length."""

import re
from typing import Any

from verifiers import config
from verifiers.grader import Grader, one_by_one
from verifiers.kinds import Tools
from verifiers.score import Score, Status

BOX = re.compile(r"\\f?boxed\s*\{")
FRAME = re.compile(r"\\(?:f?boxed|fbox)(?![A-Za-z])")
PHRASE = re.compile(r"\banswer\s*(?:(?:is|=|:)\s*:?\s*|(?=\$|\\[(\[]))", re.IGNORECASE)
HOPE = re.compile(r"\.?\s*I hope it is correct\.?\s*\Z", re.IGNORECASE)
"""Minerva's closing words (Lewkowycz et al. 2022, appendix D)."""

PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\b")
"""A word: two letters or more that are no LaTeX command."""


def after_marker(response: str, marker: str) -> str | None:
    """Text after the last marker, to the end of its line, stripped; None without one; the whole for marker ''."""
    if not marker:
        return response.strip()
    _, found, rest = response.rpartition(marker)
    if not found:
        return None
    return rest.partition("\n")[0].strip()


def boxes(response: str) -> list[str]:
    r"""Contents of every outermost closed \boxed{...}, in order."""
    found: list[str] = []
    start = 0
    while match := BOX.search(response, start):
        end = _closing(response, match.end())
        if end is None:
            break  # never closed: all that follows lies inside it
        found.append(response[match.end() : end].strip())
        start = end + 1
    return found


def _closing(text: str, start: int) -> int | None:
    """Index of the brace that closes the one opened just before `start`; escaped braces do not count."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return None


def final(response: str, marker: str, several: str = "one") -> tuple[str | None, str]:
    """The one final answer, or None and the reason why there is none. `several`: `MathVerifier.boxes`."""
    boxed = list(dict.fromkeys(boxes(response)))
    if boxed:
        return _of_boxes(boxed, boxes(response)[-1], several)
    if BOX.search(response):
        return None, "the box is never closed"
    answer = after_marker(response, marker) if marker else None
    if answer is None:
        answer = _unmarked(response.strip())
    return (answer, "") if answer else (None, "no final answer: no box, and nothing after a marker")


def _of_boxes(different: list[str], last: str, several: str) -> tuple[str | None, str]:
    if len(different) > 1 and several == "one":
        return None, f"{len(different)} different boxed answers"
    if several == "last":
        different = [last]
    if not all(different):
        return None, "the box is empty"
    answer = unboxed(", ".join(different))
    return (None, "a box beside something else in the box") if FRAME.search(answer) else (answer, "")


def unboxed(text: str) -> str:
    r"""What the one box holds that is the whole text, boxed up to three times; another text as it is."""
    for _ in range(3):
        match = BOX.match(text)
        if not match or _closing(text, match.end()) != len(text) - 1:
            break
        text = text[match.end() : -1].strip()
    return text


def _unmarked(response: str) -> str | None:
    """What follows the last "answer is" in the last line, or a response that is one line without a word of prose."""
    last = HOPE.sub("", response[response.rfind("\n") + 1 :][-2000:])
    if phrases := list(PHRASE.finditer(last)):
        return last[phrases[-1].end() :].strip().rstrip(".")
    if "\n" in response or PROSE.search(response[:2000]):
        return None
    return response


def plain(reference: Any) -> str | None:
    """A reference as text; None if it is no text and no number."""
    match reference:
        case str():
            return reference.strip()
        case bool() | None:
            return None
        case int() | float():
            return str(reference)
        case _:
            return None


def unusable(reference: Any) -> Score:
    """No verdict: the reference is not what this verifier reads."""
    return Score.unknown(Status.ERROR, f"reference is {type(reference).__name__}, not the answer's text")


def right() -> Score:
    """The whole point."""
    return Score(value=1.0, passed=True)


def wrong(reason: str) -> Score:
    """A verdict against the response, with why."""
    return Score(value=0.0, passed=False, reason=reason)


def exact(response: str, reference: Any, marker: str) -> Score:
    """1 if the text after the last marker is the reference, character for character."""
    expected = plain(reference)
    if expected is None:
        return unusable(reference)
    answer = after_marker(response, marker)
    if answer is None:
        return wrong(f"no marker {marker!r}")
    return right() if answer == expected else wrong("another answer" if answer else "no answer after the marker")


def open_grader(own: config.AnswerVerifier, _: Tools) -> Grader:
    """A grader of exact answers."""
    return one_by_one(lambda item: exact(item.response, item.reference, own.marker))
