"""The one normaliser of each term: a count over the whole optimizer step, fixed before its first backward. No torch.

Any split of a step into micro-batches and ranks then has the same gradient as the undivided step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from policies.config import Set, Strand, Term
from policies.example import Example

Normalisers = tuple[tuple[float, ...], ...]
"""For each strand, for each of its terms: what the term's sum is divided by."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a strand trains on in one step."""

    tokens: int
    sequences: int
    """Trajectories with at least one trained token."""
    sets: int
    """Preference sets among these."""


def normaliser(term: Term, counts: Counts) -> float:
    """Denominator of a term. A set kernel gives one value for each set, so its tokens and sequences are sets."""
    units = counts.sets if isinstance(term.kernel, Set) else counts.sequences
    match term.reduce.kind:
        case "token":
            count = counts.sets if isinstance(term.kernel, Set) else counts.tokens
        case "sequence":
            count = units
        case "batch_length":
            count = units * _length(term)
        case "length":
            count = _length(term)
        case _:
            assert_never(term.reduce.kind)
    return float(max(count, 1))  # an empty term is 0 / 1


def count(strand: int, examples: Sequence[Example]) -> Counts:
    """The counts of one strand over the whole step."""
    own = [
        example.trajectory for example in examples if example.strand == strand and example.trajectory.train_mask.any()
    ]
    return Counts(
        tokens=sum(int(trajectory.train_mask.sum()) for trajectory in own),
        sequences=len(own),
        sets=len({trajectory.preference.set_id for trajectory in own if trajectory.preference is not None}),
    )


def normalisers(strands: Sequence[Strand], examples: Sequence[Example]) -> Normalisers:
    """Denominators of a step; `examples` are those of every micro-batch and rank."""
    counts = [count(index, examples) for index in range(len(strands))]
    return of_counts(strands, counts)


def of_counts(strands: Sequence[Strand], counts: Sequence[Counts]) -> Normalisers:
    """Denominators from the strands' counts."""
    return tuple(
        tuple(normaliser(term, own) for term in strand.terms) for strand, own in zip(strands, counts, strict=True)
    )


def _length(term: Term) -> int:
    if term.reduce.length is None:
        raise ValueError(f"term {term.name!r}: reduce {term.reduce.kind} needs a length")
    return term.reduce.length
