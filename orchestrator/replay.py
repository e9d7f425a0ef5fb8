"""Past rollouts by prompt: what the learner wrote and trained on before, with the scores and probabilities of then.

Bounded: a window for each prompt. It holds what the ledger holds and nothing else, so that a resumed run reads it back
from the ledger's files and draws what the unbroken one would have.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import numpy as np

from policies.config import Source, Strand
from policies.trajectory import Origin, Producer, ScoreEntry, Trajectory, reward

BUCKETS = 8
"""Solve rates are told apart in eighths; a bucket is drawn by how near it is to one half (ExGRPO, arXiv 2510.02245)."""


@dataclass(slots=True)
class Replay:
    """Each prompt's newest rollouts, oldest first."""

    window: int
    past: dict[str, deque[Trajectory]] = field(default_factory=dict)

    def remember(self, trajectories: Iterable[Trajectory]) -> None:
        """Add a step's trajectories; those that the learner did not write in that step are passed over."""
        for one in trajectories:
            if one.producer in (Producer.ROLLOUT, Producer.REVISION) and bool(np.any(one.origin == Origin.LEARNER)):
                self.past.setdefault(one.prompt_id, deque(maxlen=self.window)).append(one)

    def of_prompt(self, prompt_id: str, count: int, source: Source, seed: int) -> list[Trajectory]:
        """At most `count` of the prompt's past rollouts, by the source's `refill`; fewer where it has fewer."""
        past = list(self.past.get(prompt_id, ()))[-source.window :]
        return [past[index] for index in _chosen(past, min(count, len(past)), source, seed)]

    def at_step(self, step: int, count: int, source: Source, seed: int) -> list[Trajectory]:
        """At most one past rollout for each of `count` prompts that have a past."""
        names = sorted(self.past)
        if not names or not count:
            return []
        draws = np.random.default_rng([seed, step])
        weights = self._weights(names, source)
        chosen = draws.choice(
            len(names), min(count, int((weights > 0).sum())), replace=False, p=weights / weights.sum()
        )
        return [one for index in chosen for one in self.of_prompt(names[index], 1, source, seed + step)]

    def _weights(self, names: Sequence[str], source: Source) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """How likely each prompt is drawn: all alike, or by the bucket of its solve rate."""
        if source.refill != "bucket":
            return np.ones(len(names))
        rates = np.array([_solve_rate(self.past[name]) for name in names])
        middle = np.round(rates * BUCKETS) / BUCKETS
        return np.exp(-0.5 * (middle - 0.5) ** 2)


def window_of(strands: Sequence[Strand]) -> int:
    """Rollouts remembered for each prompt; 0 where no strand replays."""
    return max((strand.source.window for strand in strands if strand.source.producer == "replay"), default=0)


def read_back(folder: Path, step: int, window: int) -> Replay:
    """The memory as it stood after `step`, from the ledger's files (`folder` is its `trajectories`)."""
    import pyarrow.parquet as pq

    from policies.arrow import from_table

    replay = Replay(window)
    for path in sorted(folder.glob("step=*.parquet")):
        if int(path.stem.partition("=")[2]) <= step:
            replay.remember(from_table(pq.read_table(path)))
    return replay


# ---------------------------------------------------------------- which ones


def _chosen(past: Sequence[Trajectory], count: int, source: Source, seed: int) -> list[int]:
    """Indices into `past`, oldest first."""
    newest = list(range(len(past)))[::-1]
    known = [index for index in newest if np.isfinite(reward(past[index]))]
    match source.refill:
        case "recent":
            picked = newest[:count]
        case "random":
            picked = [int(i) for i in np.random.default_rng(seed).choice(len(past), count, replace=False)]
        case "best":
            picked = sorted(known, key=lambda index: -reward(past[index]))[:count]
        case "variance":
            picked = _spread(past, known, count)
        case "bucket":
            passing = [index for index in newest if _passed(past[index])] or newest
            picked = sorted(passing, key=lambda index: _surprise(past[index]))[:count]
        case _:
            assert_never(source.refill)
    return sorted(picked)


def _spread(past: Sequence[Trajectory], known: Sequence[int], count: int) -> list[int]:
    """The `count` rewards with the greatest variance: the lowest and the highest, by the best split of the two."""
    ranked = sorted(known, key=lambda index: (reward(past[index]), index))
    count = min(count, len(ranked))
    splits = [ranked[:low] + ranked[len(ranked) - (count - low) :] for low in range(count + 1)]
    return max(splits, key=lambda split: float(np.var([reward(past[index]) for index in split])) if split else 0.0)


def _verdict(one: Trajectory) -> ScoreEntry | None:
    return next((entry for entry in one.scores if entry.name == "reward"), None)


def _passed(one: Trajectory) -> bool:
    entry = _verdict(one)
    return entry is not None and entry.passed is True


def _solve_rate(past: Iterable[Trajectory]) -> float:
    return float(np.mean([_passed(one) for one in past]))


def _surprise(one: Trajectory) -> float:
    """Mean negative log-probability at sampling: an estimate of the entropy of what was written."""
    known = one.behavior_logps[np.isfinite(one.behavior_logps)]
    return float(-known.mean()) if len(known) else float("inf")
