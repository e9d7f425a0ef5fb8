"""Figures of steps as columns, and columns in buckets: what every curve and the braid are drawn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.page.reading import Reading
from orchestrator.page.tail import Row

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

POINTS = 600
"""Buckets that a view asks for by default: about a screen's width."""
MOST_POINTS = 4000


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Steps first..last in [B] runs of neighbours. `edges[b]:edges[b + 1]` are the places of bucket b in `steps`."""

    steps: Int64
    """[S] every step in the range, rising."""
    edges: Int64
    """[B + 1]"""

    @property
    def first(self) -> list[int]:
        """[B] each bucket's first step."""
        return [int(step) for step in self.steps[self.edges[:-1]]]

    @property
    def last(self) -> list[int]:
        """[B] each bucket's last step."""
        return [int(step) for step in self.steps[self.edges[1:] - 1]]

    def sums(self, values: Float64) -> Float64:
        """[B] sums of [S] values; what is NaN counts as nothing."""
        return self._reduced(np.add, np.nan_to_num(values, nan=0.0))

    def means(self, values: Float64, weights: Float64 | None = None) -> Float64:
        """[B] means over the known values, weighted where asked; NaN where none is known."""
        known = ~np.isnan(values)
        weight = np.where(known, 1.0 if weights is None else np.nan_to_num(weights, nan=0.0), 0.0)
        total = self._reduced(np.add, weight)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, self._reduced(np.add, np.where(known, values, 0.0) * weight) / total, np.nan)

    def ranges(self, values: Float64) -> tuple[Float64, Float64]:
        """[B] least and [B] greatest of the known values; NaN where none is known."""
        return self._reduced(np.fmin, values), self._reduced(np.fmax, values)

    def _reduced(self, how: np.ufunc, values: Float64) -> Float64:
        found: Float64 = how.reduceat(values, self.edges[:-1]) if len(self.steps) else np.zeros(0)
        return found


def buckets(reading: Reading, start: int | None = None, stop: int | None = None, points: int = POINTS) -> Buckets:
    """The known steps from `start` to `stop` (both included; None: an end of the run) in at most `points` buckets."""
    steps = all_steps(reading)
    low = 0 if start is None else int(np.searchsorted(steps, start, "left"))
    high = len(steps) if stop is None else int(np.searchsorted(steps, stop, "right"))
    found = steps[low:high]
    count = min(max(1, min(points, MOST_POINTS)), len(found))
    edges = np.linspace(0, len(found), count + 1).round().astype(np.int64) if count else np.zeros(1, np.int64)
    return Buckets(found, edges)


def all_steps(reading: Reading) -> Int64:
    """Every step that has a metrics row, rising."""
    found: Int64 = reading.remembered("steps", reading.changes, lambda: np.array(sorted(reading.steps), dtype=np.int64))
    return found


def column(reading: Reading, steps: Int64, key: str) -> Float64:
    """[S] a figure of the metrics rows of these steps; NaN where a row does not know it."""
    return _of_steps(reading, steps, key, lambda row: row.get(key))


def within(reading: Reading, steps: Int64, part: str, name: str, key: str) -> Float64:
    """[S] a figure of one strand or origin (`part` is by_strand or by_origin); NaN where it is absent or unknown."""
    return _of_steps(reading, steps, f"{part} {name} {key}", lambda row: row[part].get(name, {}).get(key))


def _of_steps(reading: Reading, steps: Int64, name: str, figure: Callable[[Row], Any]) -> Float64:
    every = all_steps(reading)
    rows = reading.steps
    whole: Float64 = reading.remembered(
        f"column {name}",
        reading.changes,
        lambda: np.array([_number(figure(rows[int(step)])) for step in every], np.float64),
    )
    return whole[np.searchsorted(every, steps)]


def names(reading: Reading, part: str) -> list[str]:
    """Every origin or strand that any step has, in the order of appearance."""
    found: list[str] = reading.remembered(
        f"names of {part}",
        reading.changes,
        lambda: list(dict.fromkeys(name for step in all_steps(reading) for name in reading.steps[int(step)][part])),
    )
    return found


def listed(values: Sequence[float] | Float64, digits: int = 6) -> list[float | None]:
    """Numbers for JSON: rounded to `digits` significant ones, None for NaN and infinities."""
    return [float(f"{value:.{digits}g}") + 0.0 if np.isfinite(value) else None for value in values]  # no -0


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) else float("nan")
