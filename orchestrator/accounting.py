"""The accounts of a step: what became of every response, and who wrote the tokens that train.

    written + given = trained + dropped (by cause) + aside

holds exactly, in the step and for each strand; `unaccounted` is what is left of it, and is 0.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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


COUNTS = ("written", "given", "admitted", "trained", "masked", "aside")


def funnel(strands: Sequence[Strand], collected: Collected, assembled: Assembled, *, trains: bool) -> dict[str, Any]:
    """Counts of responses, in the step and for each strand that asked for them (`by_strand`).

    written, given: by a writer in this step, or there before it. scored: status of the verdict (ok, timeout, error ...;
    none where nobody was asked) -> count. admitted: went on once controls had routed the groups. trained: handed to the
    learner; of them `masked` have no token that trains. aside: only co-learners train on it, or nobody. dropped: cause
    -> count. `trains` is False where the policy rests in a step that co-learners train in.
    """
    strand_of = {name: strands[index].name for name, index in collected.strand_of.items()}
    lent = {strand.name for strand in strands if is_given(strand)}
    examples = [one.trajectory for one in assembled.examples[: len(assembled.examples) - assembled.rows]]
    fates = [(name, lost.cause) for lost in assembled.dropped for name in lost.lost]

    def by_strand(names: Iterable[str]) -> Counter[str]:
        return Counter(strand_of.get(name, NOBODY) for name in names)

    came = by_strand(one.id for one in collected.seen)
    counted = {
        "written": Counter({name: count for name, count in came.items() if name not in lent}),
        "given": Counter({name: count for name, count in came.items() if name in lent}),
        "admitted": by_strand(member.trajectory.id for group in collected.groups for member in group.members),
        "trained": by_strand(one.id for one in examples if trains),
        "masked": by_strand(one.id for one in examples if trains and not one.train_mask.any()),
        "aside": by_strand(one.trajectory.id for one in assembled.aside)
        + by_strand(one.id for one in examples if not trains),
    }
    scored = Counter((strand_of.get(one.id, NOBODY), _status(one)) for one in collected.seen)
    dropped: Counter[tuple[str, str]] = Counter((strand_of.get(name, NOBODY), cause) for name, cause in fates)
    known = [strand.name for strand in strands]
    strangers = {name for name, _ in dropped} | {name for names in counted.values() for name in names}
    ways = {
        name: _way({key: counted[key][name] for key in COUNTS}, _of(scored, name), _of(dropped, name))
        for name in (*known, *sorted(strangers.difference(known)))
    }
    whole = {key: counted[key].total() for key in COUNTS}
    return {**_way(whole, _of(scored), _of(dropped)), "by_strand": ways}


def _of(counts: Mapping[tuple[str, str], int], strand: str | None = None) -> dict[str, int]:
    """One strand's counts, or all strands', by the second name."""
    found: Counter[str] = Counter()
    for (name, key), count in counts.items():
        if strand in (None, name):
            found[key] += count
    return dict(sorted(found.items()))


def _way(counts: dict[str, int], scored: dict[str, int], dropped: dict[str, int]) -> dict[str, Any]:
    """One row, with what no fate explains."""
    went = counts["trained"] + counts["aside"] + sum(dropped.values())
    unaccounted = counts["written"] + counts["given"] - went
    return {**counts, "scored": scored, "dropped": dropped, "unaccounted": unaccounted}


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
    own = [one.trajectory for one in examples]
    number = [numbers.setdefault(one.group_id or one.id, len(numbers)) for one in own]
    masks = np.concatenate([one.train_mask for one in own])
    groups = np.repeat(number, [len(one.tokens) for one in own])[masks]
    origins = np.concatenate([one.origin for one in own])[masks]
    found: dict[str, dict[str, Any]] = {}
    for origin in Origin:
        here = origins == origin
        if here.any():
            name = origin.name.lower()
            counted = {"tokens": int(here.sum()), "groups": len(np.unique(groups[here]))}
            found[name] = {**facts.get(name, {}), **counted}
    return found


def staleness(examples: Sequence[Example], version: int) -> dict[str, int]:
    """Versions behind `version` -> trained tokens that a policy so old sampled; tokens of others are in none."""
    if not examples:
        return {}
    masks = np.concatenate([one.trajectory.train_mask for one in examples])
    versions = np.concatenate([one.trajectory.token_version for one in examples])[masks]
    behind, counts = np.unique(version - versions[versions >= 0], return_counts=True)
    return {str(int(at)): int(count) for at, count in zip(behind, counts, strict=True)}
