"""Supervision to examples: views, credit by group and over the step, selection, and what each token is asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from orchestrator.marks import baseline_rows, parts, targets, unit
from orchestrator.records import Cause, Dropped, Group, Member
from orchestrator.views import Models, Seen, look
from policies.config import GroupCredit, Strand
from policies.credit import Assigned, Views, assign, needs_views, over_step
from policies.example import Example
from policies.select import choose
from policies.trajectory import Float32, Trajectory, reward


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """What the learner will train on, and what was left out."""

    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    aside: tuple[Example, ...] = ()
    """Of strands without terms: the policy does not train on them, co-learners may."""
    rows: int = 0
    """Of the examples, the last so many are no responses: see `marks.baseline_rows`."""


@dataclass(slots=True)
class _Credit:
    """Trajectory id -> what credit gave it."""

    advantages: dict[str, Float32] = field(default_factory=dict)
    targets: dict[str, Float32] = field(default_factory=dict)
    masked: set[str] = field(default_factory=set)
    excluded: dict[str, str] = field(default_factory=dict)


async def assemble(
    strands: Sequence[Strand], groups: Sequence[Group], models: Models, families: Mapping[str, str] | None = None
) -> Assembled:
    """Examples in group order; those of strands without terms stand aside, having served their group's statistics."""
    dropped: list[Dropped] = []
    whole = []
    for group in groups:
        kept, lost = usable(group)
        whole.append(joined(strands, kept))
        dropped += lost
    everybody = [member for group in whole for member in group.members]
    rows = [row for index, strand in enumerate(strands) for row in baseline_rows(strand, index, everybody)]
    seen = await look(strands, [*everybody, *rows], models, families or {})
    credit = _Credit()
    for group in whole:
        _give(strands, group, seen, credit)
    trained, left = _selected(strands, whole, credit)
    dropped += left
    advantages = _over_step(strands, trained, credit)
    examples = [_example(strands, one, advantages[one.trajectory.id], seen, credit) for one in trained]
    examples += [_example(strands, one, _nothing(one), seen, credit) for one in rows]
    aside = [one for one in everybody if not strands[one.strand].terms]
    others = [_example(strands, one, _nothing(one), seen, credit) for one in aside]
    return Assembled(tuple(examples), tuple(dropped), tuple(others), len(rows))


def _nothing(member: Member) -> Float32:
    return np.zeros(len(member.trajectory.tokens), np.float32)


def usable(group: Group) -> tuple[Group, list[Dropped]]:
    """The group without members that have no tokens: data with a reason, not a crash."""
    kept = tuple(one for one in group.members if len(one.trajectory.tokens))
    empty = [one.trajectory for one in group.members if not len(one.trajectory.tokens)]
    return replace(group, members=kept), [
        Dropped(one.id, f"no tokens: {one.finish_reason}", "no_tokens") for one in empty
    ]


def joined(strands: Sequence[Strand], group: Group) -> Group:
    """The group with the members of a joined strand (`select.join`) under the strand that pairs them."""
    into = {one.source.select.join: index for index, one in enumerate(strands) if one.source.select.join}
    taken = [replace(one, strand=into.get(strands[one.strand].name, one.strand)) for one in group.members]
    return replace(group, members=tuple(taken))


# ---------------------------------------------------------------- credit


def _give(strands: Sequence[Strand], group: Group, seen: Seen, credit: _Credit) -> None:
    """Each member's advantages by its own strand's credit; the group's comparisons are over all its strands."""
    for index in {member.strand for member in group.members}:
        strand = strands[index]
        if not strand.terms:
            continue
        own = {one.trajectory.id for one in group.members if one.strand == index}
        compared = _compared(strand, group, own, seen)
        given = assign(strand.credit, compared, [_views(one.id, seen) for one in compared])
        for place, one in enumerate(compared):
            if one.id in own:
                _note(credit, one.id, place, given)


def _note(credit: _Credit, name: str, place: int, given: Assigned) -> None:
    credit.advantages[name] = given.advantages[place]
    if given.targets is not None:
        credit.targets[name] = given.targets[place]
    if place in given.masked:
        credit.masked.add(name)
    if place in given.excluded:
        credit.excluded[name] = given.reasons.get(place, "its reward is not known")


def _compared(strand: Strand, group: Group, own: set[str], seen: Seen) -> list[Trajectory]:
    """Whose scores the credit sees: a comparison sees the group, of which a penalty can read only what has views."""
    everybody = [one.trajectory for one in group.members]
    if not isinstance(strand.credit, GroupCredit) or strand.credit.scope == "strand":
        return [one for one in everybody if one.id in own]
    if strand.credit.value == "children":
        return [one for one in everybody if one.id in own or one.parent_id in own]
    if "reference_logps" in needs_views(strand.credit):
        return [one for one in everybody if one.id in own or _penalisable(one, seen)]
    return everybody


def _penalisable(one: Trajectory, seen: Seen) -> bool:
    known = not np.isnan(one.behavior_logps[one.train_mask]).any()
    return known and one.id in seen.scores["reference"]


def _views(name: str, seen: Seen) -> Views:
    teacher, reference = seen.scores["teacher"].get(name), seen.scores["reference"].get(name)
    return Views(
        teacher_logps=teacher.logps if teacher else None,
        reference_logps=reference.logps if reference else None,
        values=seen.values.get(name),
    )


def _over_step(strands: Sequence[Strand], trained: Sequence[Member], credit: _Credit) -> dict[str, Float32]:
    """Advantages after what is scaled over a strand's whole step."""
    found: dict[str, Float32] = {}
    for index, strand in enumerate(strands):
        own = [one.trajectory for one in trained if one.strand == index]
        scaled = over_step(
            strand.credit, [credit.advantages[one.id] for one in own], own, [one.group_id for one in own]
        )
        found |= {one.id: values for one, values in zip(own, scaled, strict=True)}
    return found


# ---------------------------------------------------------------- selection


def _selected(
    strands: Sequence[Strand], groups: Sequence[Group], credit: _Credit
) -> tuple[list[Member], list[Dropped]]:
    """Who trains: with a known verdict where credit reads one, chosen by the strand, cut ones masked if it says so."""
    trained: list[Member] = []
    dropped: list[Dropped] = []
    for group in groups:
        for index in sorted({one.strand for one in group.members}):
            if strands[index].terms:
                kept, lost = _chosen(strands[index], [one for one in group.members if one.strand == index], credit)
                trained += kept
                dropped += lost
    return trained, dropped


def _chosen(strand: Strand, own: Sequence[Member], credit: _Credit) -> tuple[list[Member], list[Dropped]]:
    known = [one for one in own if one.trajectory.id not in credit.excluded]
    dropped = [
        Dropped(one.trajectory.id, credit.excluded[one.trajectory.id], _cause(one, "credit"))
        for one in own
        if one.trajectory.id in credit.excluded
    ]
    chosen = choose(strand.source.select, [one.trajectory for one in known])
    dropped += [
        Dropped(known[at].trajectory.id, why, _cause(known[at], "select")) for at, why in sorted(chosen.reasons.items())
    ]
    kept = []
    for place in chosen.kept:
        one = known[place].trajectory
        if place in chosen.preferences:
            named = replace(chosen.preferences[place], set_id=f"{one.group_id}/{strand.name}")
            one = replace(one, preference=named)
        if one.id in credit.masked:
            one = replace(one, train_mask=np.zeros(len(one.tokens), np.bool_))
        kept.append(replace(known[place], trajectory=one))
    return kept, dropped


def _cause(one: Member, known: Cause) -> Cause:
    """Nobody could say what it is worth; else who left it out."""
    return "no_verdict" if math.isnan(reward(one.trajectory)) else known


# ---------------------------------------------------------------- examples


def _example(strands: Sequence[Strand], member: Member, advantages: Float32, seen: Seen, credit: _Credit) -> Example:
    one, strand = member.trajectory, strands[member.strand]
    reference, teacher = seen.scores["reference"].get(one.id), seen.scores["teacher"].get(one.id)
    return Example(
        trajectory=one,
        strand=member.strand,
        advantages=advantages,
        reference_logps=reference.logps if reference else None,
        reference_topk_ids=reference.topk_ids if reference else None,
        reference_topk_logps=reference.topk_logps if reference else None,
        reference_hidden=seen.hidden["reference"].get(one.id),
        teacher_logps=teacher.logps if teacher else None,
        teacher_topk_ids=teacher.topk_ids if teacher else None,
        teacher_topk_logps=teacher.topk_logps if teacher else None,
        teacher_hidden=seen.hidden["teacher"].get(one.id),
        targets=credit.targets.get(one.id, targets(strand, one)),
        part=parts(one),
        unit=unit(strand, one),
    )
