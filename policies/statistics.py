"""Figures that a term needs of the whole optimizer step: taken before its first backward, the same on every rank.

Each rank lists its own values (`local`), the ranks exchange the lists, and `finish` makes one number of them, so that
any split of the step has the same gradient. Examples bring the learner's `old_logps` and `old_entropy`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from policies.config import Set, Strand, Term, TokenWeight
from policies.example import Example
from policies.reduce import reads

Statistics = Mapping[str, float]
"""strand/term/what -> value."""

NONE: Final[Statistics] = {}


def key(strand: str, term: str, what: str) -> str:
    """Name of a statistic."""
    return f"{strand}/{term}/{what}"


def wanted(strands: Sequence[Strand]) -> bool:
    """Whether any term of the strands needs to know the whole step."""
    return any(True for strand in strands for term in strand.terms for _ in _of_term(term))


def reads_old_logps(strand: Strand) -> bool:
    """Whether a statistic of the strand is taken from the learner's log-probabilities at the step's start."""
    return any(what == "kto" for term in strand.terms for what, _ in _of_term(term))


def reads_old_entropy(strand: Strand) -> bool:
    """Whether a statistic of the strand is taken from the learner's entropies at the step's start."""
    return any(what == "top_entropy" for term in strand.terms for what, _ in _of_term(term))


def _of_term(term: Term) -> Iterator[tuple[str, TokenWeight | None]]:
    if isinstance(term.kernel, Set) and term.kernel.link == "kto":
        yield "kto", None
    for weight in term.weights:
        if weight.kind == "top_entropy":
            yield "top_entropy", weight


def is_baseline(strand: Strand, example: Example) -> bool:
    """Whether the example only serves a statistic: a mismatched row of KTO, whose label is nobody's."""
    preference = example.trajectory.preference
    unlabelled = preference is None or math.isnan(preference.label)
    return unlabelled and any(isinstance(term.kernel, Set) and term.kernel.link == "kto" for term in strand.terms)


def local(strands: Sequence[Strand], examples: Sequence[Example]) -> dict[str, list[float]]:
    """The values that these examples bring to each statistic."""
    found: dict[str, list[float]] = {}
    for index, strand in enumerate(strands):
        own = [one for one in examples if one.strand == index]
        for term in strand.terms:
            for what, _ in _of_term(term):
                values = _gaps(strand, own) if what == "kto" else _entropies(strand, term, own)
                found[key(strand.name, term.name, what)] = values
    return found


def _gaps(strand: Strand, own: Sequence[Example]) -> list[float]:
    """log p - log p_reference of each mismatched response (KTO, arXiv 2402.01306, section 4.1)."""
    values = []
    for one in own:
        if not is_baseline(strand, one):
            continue
        if one.old_logps is None or one.reference_logps is None:
            raise ValueError(f"strand {strand.name!r}: {one.trajectory.id!r} needs old and reference log-probabilities")
        gap = np.where(one.trajectory.train_mask, one.old_logps - one.reference_logps, 0.0)
        values.append(float(gap.sum(dtype=np.float64)))
    return values


def _entropies(strand: Strand, term: Term, own: Sequence[Example]) -> list[float]:
    values: list[float] = []
    for one in own:
        if one.old_entropy is None:
            raise ValueError(f"strand {strand.name!r}: {one.trajectory.id!r} needs the old policy's entropy")
        values += one.old_entropy[one.trajectory.train_mask & reads(term.only, one)].tolist()
    return values


def finish(strands: Sequence[Strand], gathered: Sequence[Mapping[str, Sequence[float]]]) -> Statistics:
    """The statistics, from every rank's values in any order."""
    found: dict[str, float] = {}
    for strand in strands:
        for term in strand.terms:
            for what, weight in _of_term(term):
                name = key(strand.name, term.name, what)
                found[name] = figure(weight, [value for rank in gathered for value in rank.get(name, ())])
    return found


def figure(weight: TokenWeight | None, values: Sequence[float]) -> float:
    """KTO's baseline, max(mean, 0); or the entropy that the highest share of tokens reaches. NaN of no tokens."""
    if weight is None:
        return max(math.fsum(values) / len(values), 0.0) if values else math.nan
    return float(np.quantile(np.asarray(values, np.float64), 1.0 - weight.share)) if values else math.nan
