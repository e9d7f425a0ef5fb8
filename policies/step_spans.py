"""Steps of a response as spans of its own tokens: the tokens' pieces of text are searched, nothing is encoded again.

A response that is encoded anew may have other tokens, and spans over those would credit the wrong ones. Here T tokens
are cut into [start, end) that cover 0 to T without gaps, so that every token bears some step's credit and every prefix
is one that was sampled.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import assert_never

from policies.step_config import StepCut
from policies.tokens import Tokenizer
from policies.trajectory import Int32

Spans = list[tuple[int, int]]

_HEADING = re.compile(r"^[ \t]*(?:[#*_>-]+[ \t]*)?step[ \t]*\d+\b", re.IGNORECASE | re.MULTILINE)
_SENTENCE = re.compile(r"[.!?]+[\"'”’)\]]*\s+|[。！？]+\s*|\n+")
_NO_END = re.compile(r"(?:^|[\s(])(?:\d+|[A-Za-z]|e\.g|i\.e|cf|vs|approx|Mrs?|Dr|Prof|St|Figs?|Eqs?|No)$")
"""What stands before a full stop that ends nothing: the number of a list, an initial, an abbreviation."""


def step_spans(tokenizer: Tokenizer, tokens: Int32, cut: StepCut) -> Spans:
    """The response's steps; none of an empty response, one where nothing cuts it.

    A token that holds the end of one step and the beginning of the next belongs to the one that it ends; a character
    that is spread over several tokens is never cut. A step without text of its own (blanks, separators, special
    tokens) belongs to the one before it. A last step that was cut short is a step.
    """
    size = len(tokens)
    if not size:
        return []
    pieces = tokenizer.pieces(tokens)
    ends = list(accumulate(map(len, pieces)))
    text = "".join(pieces)
    bounds = sorted({bound for bound in _bounds(tokens, text, ends, cut) if 0 < bound < size})
    spans = list(pairwise([0, *bounds, size]))
    if cut.size:
        spans = [part for span in spans for part in _sized(span, pieces, cut.size)]
    separator = cut.separator if cut.at == "separator" and isinstance(cut.separator, str) else ""
    spans = _told(spans, ["".join(pieces[start:end]) for start, end in spans], separator)
    return _at_most(spans, cut.max_steps)


def _bounds(tokens: Int32, text: str, ends: Sequence[int], cut: StepCut) -> Iterator[int]:
    """Where steps end, as numbers of tokens."""
    match cut.at:
        case "separator" if isinstance(cut.separator, int):
            yield from (at + 1 for at, token in enumerate(tokens.tolist()) if token == cut.separator)
        case "separator":
            yield from (_through(ends, end) for end in _found(text, str(cut.separator)))
        case "sentence":
            yield from (_through(ends, end) for end in _sentences(text))
        case "heading":
            yield from (bisect_right(ends, match.start()) for match in _HEADING.finditer(text))
        case "length":
            return
        case _:
            assert_never(cut.at)


def _through(ends: Sequence[int], characters: int) -> int:
    """The fewest tokens that hold so many characters whole."""
    return bisect_left(ends, characters) + 1


def _found(text: str, separator: str) -> Iterator[int]:
    at = text.find(separator)
    while at >= 0:
        yield at + len(separator)
        at = text.find(separator, at + len(separator))


def _sentences(text: str) -> Iterator[int]:
    for match in _SENTENCE.finditer(text):
        stop = match.group().startswith(".") and "\n" not in match.group()
        if not (stop and _NO_END.search(text, max(0, match.start() - 12), match.start())):
            yield match.end()


def _sized(span: tuple[int, int], pieces: Sequence[str], size: int) -> Iterator[tuple[int, int]]:
    """The span in parts of `size` tokens; a character that is not whole there takes the tokens that it needs."""
    start, end = span
    while end - start > size:
        bound = start + size
        while bound < end and not pieces[bound - 1]:
            bound += 1
        yield start, bound
        start = bound
    if start < end:
        yield start, end


def _told(spans: Spans, texts: Sequence[str], separator: str) -> Spans:
    """The spans, each that says nothing joined to the one before it; the first ones to the one after."""
    found: Spans = []
    waiting = True
    for (start, end), text in zip(spans, texts, strict=True):
        says = bool((text.replace(separator, "") if separator else text).strip())
        if found and (waiting or not says):
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
        waiting = waiting and not says
    return found


def _at_most(spans: Spans, most: int) -> Spans:
    """Neighbours joined so that `most` remain, each of as many as the others or one more."""
    if len(spans) <= most:
        return spans
    cuts = [len(spans) * index // most for index in range(most + 1)]
    return [(spans[low][0], spans[high - 1][1]) for low, high in pairwise(cuts)]
