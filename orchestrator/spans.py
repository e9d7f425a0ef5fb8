"""Verdicts on parts of a text, as spans of tokens: a verifier reads characters, credit reads tokens."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from policies.tokens import Tokenizer
from policies.trajectory import Origin, ScoreEntry, Trajectory


def in_tokens(one: Trajectory, entries: Sequence[ScoreEntry], tokenizer: Tokenizer | None) -> tuple[ScoreEntry, ...]:
    """The entries with spans over `one.tokens` in place of spans over `one.text`; those without a span as they are.

    The text is that of the last turn, so its spans begin after the environment's last token. A token belongs to a part
    if any of its characters does, or any byte of one.
    """
    if all(entry.start is None for entry in entries):
        return tuple(entries)
    if tokenizer is None:
        raise ValueError(f"trajectory {one.id!r}: the verifier speaks of parts, and the collector has no tokenizer")
    first = last_turn(one)
    ends = list(accumulate(map(len, tokenizer.pieces(one.tokens[first:]))))
    return tuple(_moved(entry, ends, first) for entry in entries)


def last_turn(one: Trajectory) -> int:
    """Where its text begins: after the environment's last token."""
    between = np.flatnonzero(one.origin == Origin.ENVIRONMENT)
    return int(between[-1]) + 1 if len(between) else 0


def _moved(entry: ScoreEntry, ends: Sequence[int], first: int) -> ScoreEntry:
    """`ends`: how many characters each token and those before it hold whole."""
    if entry.start is None or entry.end is None:
        return entry
    start = _holding(ends, entry.start) if entry.start else 0
    if start and ends[start - 1] > entry.start:
        start -= 1  # the token that ends the part before holds this one's first character, too
    return replace(entry, start=first + min(start, max(len(ends) - 1, 0)), end=first + _holding(ends, entry.end))


def _holding(ends: Sequence[int], characters: int) -> int:
    """The fewest tokens that hold so many characters whole; all of them where the response has fewer."""
    return min(bisect_left(ends, characters) + 1, len(ends))
