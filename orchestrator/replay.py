"""Past trajectories: what trained before, with the scores, writers and probabilities of then.

Each source that replays has a store of what it asks for (`Source.past`), bounded for each prompt and in all. A store
holds what the ledger holds and nothing else, so that a resumed run reads it back from the ledger's files and draws what
the unbroken one would have. What is replayed is not remembered again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, assert_never

import numpy as np

from orchestrator.past import Held, Store, admits, fresh, timeless
from policies.config import Past, Source, Strand
from policies.trajectory import Trajectory

BUCKETS = 8
"""Solve rates are told apart in eighths; a bucket is drawn by how near it is to one half (ExGRPO, arXiv 2510.02245)."""

Weights = np.ndarray[tuple[int], np.dtype[np.float64]]


class Wanted(NamedTuple):
    """What a source wants to be remembered; sources that want the same share a store."""

    past: Past
    window: int
    limit: int

    @classmethod
    def by(cls, source: Source) -> "Wanted":
        """What this source wants."""
        return cls(source.past, source.window, source.limit)


@dataclass(slots=True, eq=False)
class Replay:
    """The stores of a stage's sources, and the moment that ages and versions are counted from."""

    stores: dict[Wanted, Store]
    version: Callable[[], int] | None = None
    """The learner's. None: one more than the newest remembered, as where every step trains and all of them publish."""
    step: int = 0
    """The run's last step that is remembered."""
    count: int = 0
    """Trajectories remembered so far, whatever has become of them."""
    newest: int = -1
    """Highest version of those."""

    @classmethod
    def of(cls, strands: Sequence[Strand], version: Callable[[], int] | None = None) -> "Replay | None":
        """An empty memory for these strands; None where none of them replays."""
        asked = [Wanted.by(one.source) for one in strands if one.source.producer == "replay"]
        return cls({one: Store(*one) for one in asked}, version) if asked else None

    def remember(self, trajectories: Iterable[Trajectory], step: int | None = None) -> None:
        """Add what a step of the run trains on; the step after the last by default."""
        self.step = self.step + 1 if step is None else step
        rows = list(trajectories)
        new = {at: {id(one) for one in store.new(rows)} for at, store in self.stores.items()}
        for one in rows:
            takers = [store for at, store in self.stores.items() if id(one) in new[at]]
            if not takers:
                continue
            before = takers[0].by_prompt.get(one.prompt_id)
            alike = before[next(reversed(before))].record if before else None
            held = Held.of(one, self.count, self.step, alike)
            self.count, self.newest = self.count + 1, max(self.newest, one.version)
            for store in takers:
                store.add(held)

    # ------------------------------------------------------------ asking

    def query(self, past: Past, prompt_id: str | None = None) -> list[Held]:
        """All that the stores hold and `past` asks for, of one prompt or of every one, each once, oldest first.

        What no source of the stage asks for is in the ledger alone.
        """
        found: dict[int, Held] = {}
        now, version = self.step + 1, self._version()
        for store in self.stores.values():
            some = store if prompt_id is None else store.of_prompt(prompt_id)
            found |= {one.number: one for one in some if admits(past, one.record) and fresh(past, one, now, version)}
        return [found[number] for number in sorted(found)]

    def of_prompt(self, prompt_id: str, count: int, source: Source, seed: int) -> list[Trajectory]:
        """At most `count` of what the source asks for of a prompt, by its `refill`; fewer where there are fewer."""
        return [one.trajectory for one in _drawn(self._asked(prompt_id, source), count, source, seed)]

    def at_step(self, step: int, count: int, source: Source, seed: int) -> list[Trajectory]:
        """At most one for each of `count` prompts of which there is any; `step` is the stage's."""
        if not count:
            return []
        past = {name: some for name in sorted(self._store(source).by_prompt) if (some := self._asked(name, source))}
        if not past:
            return []
        names, chances = list(past), weights(list(past.values()), source)
        draws = np.random.default_rng([seed, step])
        chosen = draws.choice(
            len(names), min(count, int((chances > 0).sum())), replace=False, p=chances / chances.sum()
        )
        return [one.trajectory for at in chosen for one in _drawn(past[names[at]], 1, source, seed + step)]

    def _asked(self, prompt_id: str, source: Source) -> list[Held]:
        """What the source asks for of a prompt, oldest first."""
        held = self._store(source).of_prompt(prompt_id)
        if timeless(source.past):
            return held
        now, version = self.step + 1, self._version()
        return [one for one in held if fresh(source.past, one, now, version)]

    def _store(self, source: Source) -> Store:
        wanted = Wanted.by(source)
        if wanted not in self.stores:
            raise ValueError(f"nothing is remembered for a source that asks for {wanted}: it is none of the stage's")
        return self.stores[wanted]

    def _version(self) -> int:
        return self.newest + 1 if self.version is None else self.version()


def read_back(
    folder: Path, step: int, strands: Sequence[Strand], version: Callable[[], int] | None = None
) -> Replay | None:
    """The memory as it stood after `step` of the run, of all its stages, from the ledger's files.

    `folder` is the ledger's `trajectories`, whose files are read one by one. None where no strand replays.
    """
    import pyarrow.parquet as pq

    from policies.arrow import from_table

    replay = Replay.of(strands, version)
    if replay is None:
        return None
    files = {int(path.stem.partition("=")[2]): path for path in folder.glob("step=*.parquet")}
    for at in sorted(one for one in files if one <= step):
        replay.remember(from_table(pq.read_table(files[at])), at)
    replay.step = step
    return replay


# ---------------------------------------------------------------- which ones


def weights(past: Sequence[Sequence[Held]], source: Source) -> Weights:
    """How likely each prompt is drawn, by what is held of it: all alike, or by the bucket of its solve rate."""
    if source.refill != "bucket":
        return np.ones(len(past))
    rates = np.array([sum(one.passed is True for one in some) / len(some) for some in past])
    middle = np.round(rates * BUCKETS) / BUCKETS
    return np.exp(-0.5 * (middle - 0.5) ** 2)


def _drawn(past: Sequence[Held], count: int, source: Source, seed: int) -> list[Held]:
    return [past[index] for index in _chosen(past, min(count, len(past)), source, seed)]


def _chosen(past: Sequence[Held], count: int, source: Source, seed: int) -> list[int]:
    """Indices into `past`, oldest first."""
    newest = list(range(len(past)))[::-1]
    known = [index for index in newest if np.isfinite(past[index].value)]
    match source.refill:
        case "recent":
            picked = newest[:count]
        case "random":
            picked = [int(i) for i in np.random.default_rng(seed).choice(len(past), count, replace=False)]
        case "best":
            picked = sorted(known, key=lambda index: -past[index].value)[:count]
        case "variance":
            picked = _spread(past, known, count)
        case "bucket":
            passing = [index for index in newest if past[index].passed is True] or newest
            picked = sorted(passing, key=lambda index: _surprise(past[index].record))[:count]
        case _:
            assert_never(source.refill)
    return sorted(picked)


def _spread(past: Sequence[Held], known: Sequence[int], count: int) -> list[int]:
    """The `count` rewards with the greatest variance: the lowest and the highest, by the best split of the two."""
    ranked = sorted(known, key=lambda index: (past[index].value, index))
    count = min(count, len(ranked))
    splits = [ranked[:low] + ranked[len(ranked) - (count - low) :] for low in range(count + 1)]
    return max(splits, key=lambda split: float(np.var([past[index].value for index in split])) if split else 0.0)


def _surprise(one: Trajectory) -> float:
    """Mean negative log-probability at sampling: an estimate of the entropy of what was written."""
    known = one.behavior_logps[np.isfinite(one.behavior_logps)]
    return float(-known.mean()) if len(known) else float("inf")
