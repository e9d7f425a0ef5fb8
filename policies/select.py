"""The selection slot: which of a group's scored trajectories go on, and as what.

Indices are those of the group, which stands in the order drawn; ties are settled by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from policies.config import Select
from policies.trajectory import Preference, ScoreEntry, Trajectory, reward


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who goes on, who is a chosen or rejected answer, and why the others stay behind."""

    kept: tuple[int, ...]
    """In the order drawn."""
    preferences: dict[int, Preference] = field(default_factory=dict)
    """Labels of the two members of a pair: 1 chosen, 0 rejected, margin the difference of their rewards."""
    reasons: dict[int, str] = field(default_factory=dict)
    """For every index that is not kept."""


def choose(select: Select, group: Sequence[Trajectory]) -> Chosen:
    """What the strand's `select` keeps of one group; an unknown reward or verdict never wins.

    `keep` limits every kind but pair, by the order drawn (best: by reward). Raises ValueError when best has no `keep`.
    """
    match select.kind:
        case "all":
            return _kept(select, group, list(range(len(group))), {})
        case "passed":
            return _sifted(select, group, [_why_not_passed(one) for one in group])
        case "above":
            return _sifted(select, group, [_why_not_above(one, select.threshold) for one in group])
        case "best":
            return _best(select, group)
        case "pair":
            return _pair(select, group)
        case _:
            assert_never(select.kind)


def _kept(select: Select, group: Sequence[Trajectory], ranked: list[int], reasons: dict[int, str]) -> Chosen:
    """The first `keep` of those ranked, all when it is 0."""
    most = select.keep or len(group)
    over = dict.fromkeys(ranked[most:], f"beyond the {most} kept of a group")
    return Chosen(tuple(sorted(ranked[:most])), reasons=reasons | over)


def _sifted(select: Select, group: Sequence[Trajectory], why_not: Sequence[str]) -> Chosen:
    """Those without a reason against them."""
    reasons = {index: reason for index, reason in enumerate(why_not) if reason}
    return _kept(select, group, [index for index in range(len(group)) if index not in reasons], reasons)


def _best(select: Select, group: Sequence[Trajectory]) -> Chosen:
    if select.keep == 0:
        raise ValueError("select.keep: best needs to know how many it keeps of a group; set it to 1 or more")
    reasons = {index: _no_verdict(one) for index, one in enumerate(group) if not math.isfinite(reward(one))}
    known = [index for index in range(len(group)) if index not in reasons]
    return _kept(select, group, sorted(known, key=lambda index: -reward(group[index])), reasons)


# ---------------------------------------------------------------- verdicts


def _verdict(one: Trajectory) -> ScoreEntry | None:
    return next((entry for entry in one.scores if entry.name == "reward"), None)


def _no_verdict(one: Trajectory) -> str:
    entry = _verdict(one)
    return f"no verdict: {entry.status if entry and entry.status != 'ok' else 'unscored'}"


def _passed(one: Trajectory) -> bool | None:
    """None where nobody knows."""
    entry = _verdict(one)
    return entry.passed if entry is not None and entry.status == "ok" else None


def _why_not_passed(one: Trajectory) -> str:
    passed = _passed(one)
    if passed is None:
        return _no_verdict(one)
    return "" if passed else "failed"


def _why_not_above(one: Trajectory, threshold: float) -> str:
    value = reward(one)
    if not math.isfinite(value):
        return _no_verdict(one)
    return "" if value > threshold else f"reward {value:g} is not above {threshold:g}"


# ---------------------------------------------------------------- pairs


def _pair(select: Select, group: Sequence[Trajectory]) -> Chosen:
    """The first highest against the first lowest reward, or the first passed against the first failed."""
    match select.by:
        case "reward":
            found = _by_reward(group, select.threshold)
        case "passed":
            found = _by_passed(group)
        case _:
            assert_never(select.by)
    if isinstance(found, str):
        return Chosen((), reasons=dict.fromkeys(range(len(group)), found))
    best, worst = found
    name = group[best].group_id or group[best].id
    margin = reward(group[best]) - reward(group[worst])
    labels = {best: Preference(name, 1.0, margin), worst: Preference(name, 0.0, margin)}
    reasons = {index: "neither side of the group's pair" for index in range(len(group)) if index not in labels}
    return Chosen(tuple(sorted(labels)), labels, reasons)


def _by_reward(group: Sequence[Trajectory], threshold: float) -> tuple[int, int] | str:
    known = [index for index, one in enumerate(group) if math.isfinite(reward(one))]
    if len(known) < 2:
        return f"no pair: {len(known)} of {len(group)} responses have a known reward"
    best = max(known, key=lambda index: reward(group[index]))  # the first of several
    worst = min(known, key=lambda index: reward(group[index]))
    difference = reward(group[best]) - reward(group[worst])
    if not difference > max(threshold, 0.0):
        return f"no pair: the rewards differ by {difference:g}, not by more than {max(threshold, 0.0):g}"
    return best, worst


def _by_passed(group: Sequence[Trajectory]) -> tuple[int, int] | str:
    verdicts = [_passed(one) for one in group]
    if True not in verdicts or False not in verdicts:
        return f"no pair: {verdicts.count(True)} of {len(group)} responses passed, {verdicts.count(False)} failed"
    return verdicts.index(True), verdicts.index(False)
