"""Teacher-forced rows by writer and model, and two models' rows of the same responses next to each other."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.probes.snapshot import Scored, Who

Floats = npt.NDArray[np.float64]
Pair = tuple[Scored, Scored]

IMPOSSIBLE = -1e4
"""A token that the model gives no probability at all counts as this log-probability, so that sums stay finite."""


def under(rows: Sequence[Scored], writer: Who, model: Who) -> dict[str, Scored]:
    """The responses of one writer as one model scores them, by id; those without one known token are left out."""
    return {
        one.id: one
        for one in rows
        if one.writer == writer and one.model == model and bool(np.any(~np.isnan(one.logps)))
    }


def paired(rows: Sequence[Scored], writer: Who, first: Who, second: Who) -> list[Pair]:
    """Responses of a writer that both models scored: the same id and tokens under both, in the order of the first."""
    one, other = under(rows, writer, first), under(rows, writer, second)
    return [(row, other[name]) for name, row in one.items() if name in other and _same(row, other[name])]


def known(row: Scored) -> npt.NDArray[np.bool_]:
    """[T] positions that the model acted at: not the environment's tokens, which have no log-probability."""
    return ~np.isnan(row.logps)


def logps(row: Scored) -> Floats:
    """[T] log-probabilities in float64, 0 where unknown."""
    return np.where(known(row), np.maximum(row.logps.astype(np.float64), IMPOSSIBLE), 0.0)


def first_choice(row: Scored) -> Floats:
    """[T] 1 where the token is the model's likeliest, 0 where it is not, NaN where that is unknown."""
    return np.where((row.best_ids >= 0) & known(row), (row.best_ids == row.tokens).astype(np.float64), np.nan)


def _same(one: Scored, other: Scored) -> bool:
    return np.array_equal(one.tokens, other.tokens)
