"""Supervision to examples: route each group, give credit, attach the views that the strands ask for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from actors.engine import TokenScores
from orchestrator.collect import Collected, Group, Member
from orchestrator.plan import needs
from policies.config import GroupCredit, Strand
from policies.credit import Views, assign
from policies.example import Example
from policies.trajectory import Float32, Int32, reward

TEACHER_TOP_K = 32
"""Teacher tokens kept for a divergence; the rest goes into the tail bucket."""


class FrozenModel(Protocol):
    """A model that is not trained."""

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int) -> list[TokenScores]:
        """One entry for each (context, tokens)."""
        ...


@dataclass(frozen=True, slots=True)
class Dropped:
    """A group or trajectory that does not train, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """What the learner will train on, and what was left out."""

    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]


def wants_reference(strand: Strand) -> bool:
    """Whether a term of the strand reads the frozen reference."""
    return "reference_logps" in needs(strand)


def wants_teacher(strand: Strand) -> bool:
    """Whether the strand's credit or a term of it reads a teacher."""
    return bool(needs(strand) & {"teacher_logps", "teacher_topk"})


def wants_top_k(strand: Strand) -> bool:
    """Whether a term compares whole next-token distributions."""
    return "teacher_topk" in needs(strand)


def usable(strands: Sequence[Strand], group: Group) -> tuple[Group, list[Dropped]]:
    """The group without members that have no tokens or no verdict: data with a reason, not a crash."""
    kept, dropped = [], []
    for member in group.members:
        one = member.trajectory
        if len(one.tokens) == 0:
            dropped.append(Dropped(one.id, f"no tokens: {one.finish_reason}"))
        elif isinstance(strands[member.strand].credit, GroupCredit) and np.isnan(reward(one)):
            dropped.append(Dropped(one.id, "no verdict: " + next((s.status for s in one.scores), "unscored")))
        else:
            kept.append(member)
    return replace(group, members=tuple(kept)), dropped


async def assemble(
    strands: Sequence[Strand],
    collected: Collected,
    *,
    reference: FrozenModel | None,
    teacher: FrozenModel | None,
) -> Assembled:
    """Examples in group order. Views are asked for once, over every trajectory of the strands that need them."""
    groups, dropped = [], []
    for group in collected.groups:
        kept, lost = usable(strands, group)
        groups.append(kept)
        dropped += lost
    members = [member for group in groups for member in group.members]
    references = await _views(strands, members, reference, wants_reference)
    teachers = await _views(strands, members, teacher, wants_teacher)
    advantages = {name: own for group in groups for name, own in _credited(strands, group, teachers).items()}
    examples = [_example(member, advantages, references, teachers) for member in members]
    return Assembled(tuple(examples), tuple(dropped))


def _example(
    member: Member,
    advantages: Mapping[str, Float32],
    references: Mapping[str, TokenScores],
    teachers: Mapping[str, TokenScores],
) -> Example:
    one = member.trajectory
    of_teacher = teachers.get(one.id)
    return Example(
        trajectory=one,
        strand=member.strand,
        advantages=advantages[one.id],
        reference_logps=references[one.id].logps if one.id in references else None,
        teacher_logps=of_teacher.logps if of_teacher else None,
        teacher_topk_ids=of_teacher.topk_ids if of_teacher else None,
        teacher_topk_logps=of_teacher.topk_logps if of_teacher else None,
    )


def _credited(strands: Sequence[Strand], group: Group, teachers: Mapping[str, TokenScores]) -> dict[str, Float32]:
    """Each member's advantages by its own strand's credit; the whole group, of all strands, forms the statistics."""
    found: dict[str, Float32] = {}
    for index in {member.strand for member in group.members}:
        credit = strands[index].credit
        own = {member.trajectory.id for member in group.members if member.strand == index}
        compared = isinstance(credit, GroupCredit)
        judged = [one.trajectory for one in group.members if compared or one.trajectory.id in own]
        views = [Views(teacher_logps=teachers[one.id].logps) if one.id in teachers else Views() for one in judged]
        given = assign(credit, judged, views).advantages
        found |= {one.id: values for one, values in zip(judged, given, strict=True) if one.id in own}
    return found


async def _views(
    strands: Sequence[Strand],
    members: Sequence[Member],
    model: FrozenModel | None,
    wants: Callable[[Strand], bool],
) -> dict[str, TokenScores]:
    """Trajectory id -> what the frozen model says of its tokens, for the strands that want it."""
    chosen = [member for member in members if wants(strands[member.strand])]
    if not chosen:
        return {}
    if model is None:
        raise ValueError("a strand reads a frozen model that was never started; the plan should have named it")
    records = [member.trajectory for member in chosen]
    top_k = TEACHER_TOP_K if any(wants_top_k(strands[member.strand]) for member in chosen) else 0
    scores = await model.logprobs([one.train_context for one in records], [one.tokens for one in records], top_k)
    return {one.id: score for one, score in zip(records, scores, strict=True)}
