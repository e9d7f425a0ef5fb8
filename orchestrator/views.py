"""What frozen models say of a step's tokens: log-probabilities, top-k, hidden states, each model asked once.

The reference sees the training context, the teacher the teacher's; with several teachers the prompt's family routes.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from actors.engine import TokenScores
from orchestrator import companions
from orchestrator.companions import Companion
from orchestrator.needs import DISTRIBUTIONS, needs
from orchestrator.ports import FrozenModel
from orchestrator.records import Member
from policies.config import Div, Strand
from policies.trajectory import Float32, Int32, Trajectory

Role = Literal["reference", "teacher"]
EVERYBODY = "*"
"""The family of prompts that no teacher of its own has."""


@dataclass(frozen=True, slots=True)
class Models:
    """The stage's models that are read and not trained here."""

    reference: FrozenModel | None = None
    teachers: Mapping[str, FrozenModel] = field(default_factory=dict)
    """Prompt family -> teacher; `*` is everybody else's."""
    companions: Sequence[Companion] = ()


@dataclass(slots=True)
class Seen:
    """Trajectory id -> what was said of it."""

    scores: dict[Role, dict[str, TokenScores]] = field(default_factory=lambda: {"reference": {}, "teacher": {}})
    hidden: dict[Role, dict[str, Float32]] = field(default_factory=lambda: {"reference": {}, "teacher": {}})
    values: dict[str, Float32] = field(default_factory=dict)


def wants(strand: Strand, role: Role) -> bool:
    """Whether the strand reads anything of a frozen model."""
    return bool(needs(strand) & {f"{role}_logps", f"{role}_topk", f"{role}_hidden"})


def top_k(strands: Iterable[Strand], role: Role) -> int:
    """Likeliest tokens that the strands' divergences compare: the most that any asks for."""
    asked = (term.kernel for strand in strands for term in strand.terms)
    return max(
        (
            kernel.top_k
            for kernel in asked
            if isinstance(kernel, Div)
            and kernel.form in DISTRIBUTIONS
            and (kernel.target, kernel.support) == (role, "top_k")
        ),
        default=0,
    )


async def look(
    strands: Sequence[Strand], members: Sequence[Member], models: Models, families: Mapping[str, str]
) -> Seen:
    """Everything that the strands read of the members; `families` maps a prompt's id to its family."""
    seen = Seen()
    asked = []
    read = [needs(strand) for strand in strands]
    for role in ("reference", "teacher"):
        wanting = [wants(strand, role) for strand in strands]
        own = [one for one in members if wanting[one.strand]]
        for model, share in _dealt(own, role, models, families):
            asked += [_scored(seen, strands, share, model, role), _hidden(seen, strands, share, model, role)]
    valued = [one.trajectory for one in members if "values" in read[one.strand]]
    await asyncio.gather(*asked, _valued(seen, valued, models.companions))
    return seen


def _dealt(
    members: Sequence[Member], role: Role, models: Models, families: Mapping[str, str]
) -> list[tuple[FrozenModel, list[Member]]]:
    """Each model with the members that it is asked about."""
    shares: dict[str, list[Member]] = {}
    for one in members:
        family = families.get(one.trajectory.prompt_id, "") if role == "teacher" else ""
        shares.setdefault(family if family in models.teachers else EVERYBODY, []).append(one)
    return [(_model(models, role, family), share) for family, share in shares.items()]


def _model(models: Models, role: Role, family: str) -> FrozenModel:
    found = models.reference if role == "reference" else models.teachers.get(family)
    if found is None:
        raise ValueError(
            f"a strand reads the {role}, a frozen model that was never started; the plan should have named it"
        )
    return found


async def _scored(
    seen: Seen, strands: Sequence[Strand], share: Sequence[Member], model: FrozenModel, role: Role
) -> None:
    """Log-probabilities of the tokens, with the top-k where a divergence compares distributions."""
    reads = [bool(needs(strand) & {f"{role}_logps", f"{role}_topk"}) for strand in strands]
    chosen = [one for one in share if reads[one.strand]]
    if chosen:
        records = [one.trajectory for one in chosen]
        most = top_k((strands[index] for index in {one.strand for one in chosen}), role)
        answers = await model.logprobs([_context(one, role) for one in records], [one.tokens for one in records], most)
        seen.scores[role] |= {one.id: answer for one, answer in zip(records, answers, strict=True)}


async def _hidden(
    seen: Seen, strands: Sequence[Strand], share: Sequence[Member], model: FrozenModel, role: Role
) -> None:
    reads = [f"{role}_hidden" in needs(strand) for strand in strands]
    records = [one.trajectory for one in share if reads[one.strand]]
    if records:
        answers = await model.hidden([_context(one, role) for one in records], [one.tokens for one in records])
        seen.hidden[role] |= {one.id: answer for one, answer in zip(records, answers, strict=True)}


async def _valued(seen: Seen, records: Sequence[Trajectory], beside: Sequence[Companion]) -> None:
    seen.values |= await companions.values(beside, records)
    if records and not seen.values:
        raise ValueError("credit gae reads a critic's values, and the recipe has no learner with the role critic")


def _context(one: Trajectory, role: Role) -> Int32:
    return one.train_context if role == "reference" else one.teacher_context
