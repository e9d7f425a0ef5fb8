"""The accounts of a step: what became of every response, and who wrote the tokens that train.

    written + given = trained + dropped (by cause) + aside

holds exactly, in the step and for each strand; `unaccounted` is what is left of it, and is 0.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestrator.assemble import Assembled
from orchestrator.given import is_given
from orchestrator.records import Collected
from policies.config import Strand
from policies.example import Example
from policies.trajectory import Origin, ScoreEntry, Trajectory

NOBODY = "?"
"""Strand of a response that no strand asked for; there is none while the accounts balance."""


@dataclass(slots=True)
class _Way:
    """Counts of responses on their way from writer to learner."""

    counts: Counter[str] = field(default_factory=Counter)
    scored: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def row(self) -> dict[str, Any]:
        """As JSON, with what no count explains."""
        counts = {key: self.counts[key] for key in ("written", "given", "admitted", "trained", "masked", "aside")}
        went = counts["trained"] + counts["aside"] + self.dropped.total()
        unaccounted = counts["written"] + counts["given"] - went
        tables = {"scored": dict(sorted(self.scored.items())), "dropped": dict(sorted(self.dropped.items()))}
        return {**counts, **tables, "unaccounted": unaccounted}


def funnel(strands: Sequence[Strand], collected: Collected, assembled: Assembled, *, trains: bool) -> dict[str, Any]:
    """Counts of responses, in the step and for each strand that asked for them (`by_strand`).

    written, given: by a writer in this step, or there before it. scored: status of the verdict (ok, timeout, error ...;
    none where nobody was asked) -> count. admitted: went on once controls had routed the groups. trained: handed to the
    learner; of them `masked` have no token that trains. aside: only co-learners train on it, or nobody. dropped: cause
    -> count. `trains` is False where the policy rests in a step that co-learners train in.
    """
    ways: dict[str, _Way] = {strand.name: _Way() for strand in strands}
    strand_of = {name: strands[index] for name, index in collected.strand_of.items()}

    def way(name: str) -> _Way:
        strand = strand_of.get(name)
        return ways.setdefault(NOBODY if strand is None else strand.name, _Way())

    for one in collected.seen:
        way(one.id).scored[_status(one)] += 1
        way(one.id).counts["given" if is_given(strand_of[one.id]) else "written"] += 1
    for group in collected.groups:
        _count(way, "admitted", (member.trajectory.id for member in group.members))
    examples = assembled.examples[: len(assembled.examples) - assembled.rows]
    _count(way, "trained" if trains else "aside", (one.trajectory.id for one in examples))
    if trains:
        _count(way, "masked", (one.trajectory.id for one in examples if not one.trajectory.train_mask.any()))
    _count(way, "aside", (one.trajectory.id for one in assembled.aside))
    for lost in assembled.dropped:
        for name in lost.lost:
            way(name).dropped[lost.cause] += 1
    return {**_sum(ways.values()).row(), "by_strand": {name: one.row() for name, one in ways.items()}}


def _count(way: Any, key: str, names: Iterable[str]) -> None:
    for name in names:
        way(name).counts[key] += 1


def _sum(ways: Iterable[_Way]) -> _Way:
    whole = _Way()
    for one in ways:
        whole.counts.update(one.counts)
        whole.scored.update(one.scored)
        whole.dropped.update(one.dropped)
    return whole


def _status(one: Trajectory) -> str:
    """Of its verdict; `none` where nobody gave one."""
    entry: ScoreEntry | None = next((entry for entry in one.scores if entry.name == "reward"), None)
    if entry is None:
        return "none"
    return "unknown" if entry.status == "ok" and math.isnan(entry.value) else entry.status


# ---------------------------------------------------------------- tokens


def by_origin(examples: Sequence[Example], facts: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Origin's name -> groups and tokens that train, counted from the records, and what the learner says of them.

    Loss and gradient mass are sums; origins without trained tokens are absent.
    """
    if not examples:
        return {}
    numbers: dict[str, int] = {}
    groups = np.concatenate([_repeated(one, numbers) for one in examples])
    origins = np.concatenate([one.trajectory.origin[one.trajectory.train_mask] for one in examples])
    found: dict[str, dict[str, Any]] = {}
    for origin in Origin:
        own = origins == origin
        if own.any():
            name = origin.name.lower()
            counted = {"tokens": int(own.sum()), "groups": len(np.unique(groups[own]))}
            found[name] = {**facts.get(name, {}), **counted}
    return found


def _repeated(one: Example, numbers: dict[str, int]) -> np.ndarray:
    """The number of the example's group, for each of its tokens that trains; what has no group is one."""
    trajectory = one.trajectory
    number = numbers.setdefault(trajectory.group_id or trajectory.id, len(numbers))
    return np.full(int(trajectory.train_mask.sum()), number, np.int64)


def staleness(examples: Sequence[Example], version: int) -> dict[str, int]:
    """Versions behind `version` -> trained tokens that a policy so old sampled; tokens of others are in none."""
    if not examples:
        return {}
    versions = np.concatenate([one.trajectory.token_version[one.trajectory.train_mask] for one in examples])
    behind, counts = np.unique(version - versions[versions >= 0], return_counts=True)
    return {str(int(at)): int(count) for at, count in zip(behind, counts, strict=True)}
