"""The one normaliser of each term: a count over the whole optimizer step, fixed before its first backward. No torch.

Any split of a step into micro-batches and ranks then has the same gradient as the undivided step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np

from policies.config import Only, Set, Strand, Term
from policies.example import Example
from policies.trajectory import Bool, Origin

Normalisers = tuple[tuple[float, ...], ...]
"""For each strand, for each of its terms: what the term's sum is divided by."""

UNARY: Final = frozenset({"kto", "bce", "value", "regression"})
"""Links that read each row, or each token, by itself."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a term reads in one step."""

    tokens: int
    sequences: int
    """Trajectories with at least one token that the term reads."""
    sets: int
    """Preference sets among these; for a unary link its labelled rows, or its tokens that have a target."""


def normaliser(term: Term, counts: Counts) -> float:
    """Denominator of a term. A set kernel gives one value for each set, so its tokens and sequences are sets."""
    units = counts.sets if isinstance(term.kernel, Set) else counts.sequences
    match term.reduce.kind:
        case "token":
            count = counts.sets if isinstance(term.kernel, Set) else counts.tokens
        case "sequence" | "sequence_sum":
            count = units
        case "batch_length":
            count = units * _length(term)
        case "length":
            count = _length(term)
        case _:
            assert_never(term.reduce.kind)
    return float(max(count, 1))  # an empty term is 0 / 1


def normalisers(strands: Sequence[Strand], examples: Sequence[Example]) -> Normalisers:
    """Denominators of a step; `examples` are those of every micro-batch and rank."""
    own = [[one for one in examples if one.strand == index] for index in range(len(strands))]
    return of_counts(
        strands, [[count(term, mine) for term in strand.terms] for strand, mine in zip(strands, own, strict=True)]
    )


def of_counts(strands: Sequence[Strand], counts: Sequence[Sequence[Counts]]) -> Normalisers:
    """Denominators from the counts of the strands' terms."""
    return tuple(
        tuple(normaliser(term, own) for term, own in zip(strand.terms, of_terms, strict=True))
        for strand, of_terms in zip(strands, counts, strict=True)
    )


def count(term: Term, examples: Sequence[Example]) -> Counts:
    """The counts of one term over its strand's examples of the whole step."""
    tokens = sequences = sets = 0
    names: set[str] = set()
    for example, read_T in _read(term.only, examples):
        tokens += int(read_T.sum())
        sequences += 1
        if isinstance(term.kernel, Set):
            sets += _rows(term.kernel, example, read_T)
            preference = example.trajectory.preference
            names |= {preference.set_id} if preference is not None else set()
    paired = isinstance(term.kernel, Set) and term.kernel.link not in UNARY
    return Counts(tokens, sequences, len(names) if paired else sets)


def _read(only: Only, examples: Sequence[Example]) -> Iterator[tuple[Example, Bool]]:
    """Examples of which the term reads anything, with the tokens that it reads."""
    for example in examples:
        read_T = example.trajectory.train_mask & reads(only, example)
        if read_T.any():
            yield example, read_T


def reads(only: Only, example: Example) -> Bool:
    """bool [T]: the tokens that the restriction leaves, trained or not."""
    trajectory = example.trajectory
    read_T = np.ones(len(trajectory.tokens), np.bool_)
    if only.origins:
        read_T &= np.isin(trajectory.origin, [int(Origin[name.upper()]) for name in only.origins])
    if only.part is not None:
        read_T &= example.part == only.part if example.part is not None else False
    if only.label != "any":
        label = np.nan if trajectory.preference is None else trajectory.preference.label
        read_T &= label > 0.5 if only.label == "chosen" else label <= 0.5
    return read_T


def _rows(kernel: Set, example: Example, read_T: Bool) -> int:
    """Values that a unary link gives for this example."""
    if kernel.unit == "token":
        return 0 if example.targets is None else int((np.isfinite(example.targets) & read_T).sum())
    preference = example.trajectory.preference
    return int(preference is not None and np.isfinite(preference.label))


def _length(term: Term) -> int:
    if term.reduce.length is None:
        raise ValueError(f"term {term.name!r}: reduce {term.reduce.kind} needs a length")
    return term.reduce.length
