"""After a pass of groups is scored: who goes on, who is drawn again and with what, and who is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.asking import Slot, passed
from orchestrator.controls import Control, GroupStats, MemberStats, Routing, Routings, State, route_groups
from orchestrator.records import Dropped, Group, Member
from policies.config import GroupCredit, Strand
from policies.trajectory import reward


@dataclass(slots=True)
class Routed:
    """What came of a step's groups so far; it grows from pass to pass."""

    states: tuple[State, ...]
    kept: list[Group] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    """Groups that went on (kept), were left out (dropped), left out for another prompt (redrawn), drawn again with a
    hint (hinted); of those kept, how many hold hinted responses (swapped), and `without STRAND`: lost its members."""
    again: list[tuple[Slot, Group]] = field(default_factory=list)
    """Slots to draw again with a hint, and their groups as they were first drawn."""
    elsewhere: list[Slot] = field(default_factory=list)
    """Slots for which another prompt is to be drawn."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over slots: what was asked, what came, and how groups looked before any hint."""

    slots: Mapping[str, Slot]
    """Group id -> its slot; groups that the step drew as a whole have none."""
    groups: Sequence[Group]
    firsts: Mapping[str, Group]
    segments: Mapping[str, int]
    """Group id -> parts of the demonstration that its prefixed responses started from."""


def stats_of(strands: Sequence[Strand], now: Pass) -> list[GroupStats]:
    """What controls are told of each group of a pass."""
    return [_stats(strands, now, group) for group in now.groups]


def route(
    controls: Sequence[Control],
    strands: Sequence[Strand],
    now: Pass,
    so_far: Routed,
    stats: Sequence[GroupStats],
    step: int,
) -> None:
    """Hear the controls on every group of a pass, in order; `step` is the stage's, `stats` are the groups'."""
    so_far.states, routed = route_groups(controls, so_far.states, stats, step)
    so_far.again, so_far.elsewhere = [], []
    for group, words in zip(now.groups, routed, strict=True):
        _settle(strands, now, group, words, so_far)


def _settle(strands: Sequence[Strand], now: Pass, group: Group, words: Routings, so_far: Routed) -> None:
    slot, first = now.slots.get(group.id), now.firsts.get(group.id, group)
    so_far.reasons += [f"{group.id}: {reason}" for reason in words.reasons]
    if words.ladder.hint_level and slot is not None:
        so_far.again.append((_hinted(slot, words.ladder), first))
        so_far.verdicts["hinted"] += 1
        so_far.dropped += _outside(group.members, first.members, words.ladder.reason)
        return
    why = "; ".join(words.reasons)
    if words.verdict == "drop":
        so_far.dropped.append(Dropped(group.id, why, "control", _ids((*first.members, *group.members))))
        elsewhere = [slot] if words.redraw and slot is not None else []
        so_far.elsewhere += elsewhere
        so_far.verdicts["redrawn" if elsewhere else "dropped"] += 1
        return
    members = _climbed(group, first, words.ladder)
    stay = [one for one in members if strands[one.strand].name not in words.without]
    so_far.dropped += [Dropped(one.trajectory.id, why, "control") for one in members if one not in stay]
    so_far.dropped += _outside((*first.members, *group.members), members, words.ladder.reason)
    so_far.verdicts.update(_kept(strands, words, members, stay))
    if stay:
        so_far.kept.append(Group(group.id, tuple(stay)))


def never_settled(group: Group) -> Dropped:
    """A group that would be drawn again with a hint, in a step that has asked often enough."""
    reason = "the step stopped asking before its hints came to an end"
    return Dropped(group.id, reason, "control", _ids(group.members))


def _kept(
    strands: Sequence[Strand], words: Routings, members: Sequence[Member], stay: Sequence[Member]
) -> dict[str, int]:
    """What was done to one group that no control drops; a group that nobody is left in is dropped all the same."""
    away = sorted({strands[one.strand].name for one in members if one not in stay})
    swapped = {"swapped": 1} if words.ladder.replace in ("all", "one") else {}
    return {"kept" if stay else "dropped": 1, **swapped, **{f"without {name}": 1 for name in away}}


def _ids(members: Sequence[Member]) -> tuple[str, ...]:
    """Ids of the members' trajectories, each once."""
    return tuple(dict.fromkeys(one.trajectory.id for one in members))


def _outside(members: Sequence[Member], going_on: Sequence[Member], why: str) -> list[Dropped]:
    """Those of `members` that a hint ladder leaves behind."""
    stay = set(_ids(going_on))
    return [Dropped(name, why, "control") for name in _ids(members) if name not in stay]


def _hinted(slot: Slot, word: Routing) -> Slot:
    shares = {**slot.shares, word.hint_strand: word.hint_share}
    return replace(slot, level=word.hint_level, shares=shares, only=frozenset({word.hint_strand}))


def _climbed(group: Group, first: Group, word: Routing) -> tuple[Member, ...]:
    """The members that go on once a ladder has said what its hints did."""
    if word.replace == "none":
        return first.members
    if word.replace == "one" and word.swap is not None:
        failure, success = word.swap
        swapped = list(first.members)
        swapped[failure] = group.members[success]
        return tuple(swapped)
    return group.members


def _stats(strands: Sequence[Strand], now: Pass, group: Group) -> GroupStats:
    slot = now.slots.get(group.id)
    level = slot.level if slot else 0
    return GroupStats(
        id=group.id,
        prompt=group.members[0].trajectory.prompt_id,
        members=_members(strands, group),
        level=level,
        first=_members(strands, now.firsts[group.id]) if level else (),
        round=slot.round if slot else 0,
        segments=now.segments.get(group.id),
    )


def _members(strands: Sequence[Strand], group: Group) -> tuple[MemberStats, ...]:
    return tuple(
        MemberStats(
            strands[one.strand].name,
            reward(one.trajectory),
            passed(one.trajectory),
            isinstance(strands[one.strand].credit, GroupCredit),
        )
        for one in group.members
    )
