"""How much of a response says again what it said before. One pass of sorting for each doubling of the n-gram's length.

N-grams are compared exactly: words get numbers, pairs of neighbouring numbers get numbers, and so on, doubling the
length; two numbers that overlap make the lengths between. No hash can collide; 10^6 characters take two seconds or so.
"""

from typing import Any

import numpy as np

from verifiers.grader import Grader, Item, one_by_one
from verifiers.kinds import Tools
from verifiers.score import Score
from verifiers.text_config import RepetitionVerifier
from verifiers.words import pieces

PERIODS = range(1, 9)
"""Lengths of what goes round and round in a run of characters."""

SHOWN = 40
"""Characters of the first repeated stretch that the reason shows."""

Array = np.ndarray[Any, np.dtype[Any]]


def open_grader(own: RepetitionVerifier, _: Tools) -> Grader:
    """A grader of a text."""
    return one_by_one(lambda item: judge(own, item))


def judge(own: RepetitionVerifier, item: Item) -> Score:
    """1 - the share of characters that repeat."""
    if not item.response:
        return Score(1.0, True)
    again = repeated(item.response, own.ngram) | runs(item.response, own.run)
    share = float(again.mean())
    if not share:
        return Score(1.0, True)
    first = int(again.argmax())
    shown = item.response[first : first + SHOWN]
    return Score(1.0 - share, share <= own.most, reason=f"{share:.0%} of the text repeats, first {shown!r}")


def repeated(text: str, ngram: int) -> Array:
    """For each character whether it stands in an n-gram of words that occurred before; gaps between them included."""
    spans = np.array(pieces(text), dtype=np.int64).reshape(-1, 2)
    marks = np.zeros(len(text) + 1, dtype=np.int64)
    if len(spans) > ngram:
        known: dict[str, int] = {}
        numbers = np.array([known.setdefault(text[start:end], len(known)) for start, end in spans.tolist()])
        names = ngrams(numbers, ngram)
        _, firsts = np.unique(names, return_index=True)
        old = np.ones(len(names), dtype=bool)
        old[firsts] = False
        at = np.flatnonzero(old)
        np.add.at(marks, spans[at, 0], 1)
        np.subtract.at(marks, spans[at + ngram - 1, 1], 1)
    return np.cumsum(marks)[:-1] > 0


def ngrams(numbers: Array, length: int) -> Array:
    """A number for each n-gram, the same for the same words."""
    names, have = numbers, 1
    while have < length:
        step = min(have, length - have)
        pairs = names[:-step] * np.int64(names.max() + 1) + names[step:]
        names = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        have += step
    return names


def runs(text: str, least: int) -> Array:
    """For each character whether it stands in a run of `least` or more with a period of at most 8."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    inside = np.zeros(len(codes), dtype=bool)
    for period in PERIODS:
        if len(codes) < max(least, period + 1):
            break
        same = np.concatenate(([False], codes[period:] == codes[:-period], [False]))
        turns = np.flatnonzero(same[1:] != same[:-1]).reshape(-1, 2)
        for start, end in turns[turns[:, 1] - turns[:, 0] + period >= least].tolist():
            inside[start : end + period] = True
    return inside
