"""After a pass of groups is scored: who goes on, who is drawn again and with what, and who is left out."""

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
        return
    why = "; ".join(words.reasons)
    if words.verdict == "drop":
        so_far.dropped.append(Dropped(group.id, why))
        if words.redraw and slot is not None:
            so_far.elsewhere.append(slot)
        return
    members = _climbed(group, first, words.ladder)
    stay = [one for one in members if strands[one.strand].name not in words.without]
    so_far.dropped += [Dropped(one.trajectory.id, why) for one in members if one not in stay]
    if stay:
        so_far.kept.append(Group(group.id, tuple(stay)))


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
