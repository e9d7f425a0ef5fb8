"""Verdicts on parts of a text, as spans of tokens: a verifier reads characters, credit reads tokens."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from policies.tokens import Tokenizer
from policies.trajectory import Int32, Origin, ScoreEntry, Trajectory


def in_tokens(one: Trajectory, entries: Sequence[ScoreEntry], tokenizer: Tokenizer | None) -> tuple[ScoreEntry, ...]:
    """The entries with spans over `one.tokens` in place of spans over `one.text`; those without a span as they are.

    The text is that of the last turn, so its spans begin after the environment's last token. A token belongs to a part
    if any of its characters does.
    """
    if all(entry.start is None for entry in entries):
        return tuple(entries)
    if tokenizer is None:
        raise ValueError(f"trajectory {one.id!r}: the verifier speaks of parts, and the collector has no tokenizer")
    between = np.flatnonzero(one.origin == Origin.ENVIRONMENT)
    first = int(between[-1]) + 1 if len(between) else 0
    return tuple(_moved(entry, one.tokens[first:], first, tokenizer) for entry in entries)


def _moved(entry: ScoreEntry, tokens: Int32, first: int, tokenizer: Tokenizer) -> ScoreEntry:
    if entry.start is None or entry.end is None:
        return entry
    start = _covering(tokens, entry.start + 1, tokenizer) - 1
    return replace(entry, start=first + max(start, 0), end=first + _covering(tokens, entry.end, tokenizer))


def _covering(tokens: Int32, characters: int, tokenizer: Tokenizer) -> int:
    """The fewest tokens whose text has so many characters; all of them where the whole has fewer."""
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(tokens[:middle])) < characters:
            low = middle + 1
        else:
            high = middle
    return low
