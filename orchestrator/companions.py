"""Co-learners in a step: a critic's values before credit, a reward model's scores, and the records that train them.

A co-learner's strand bears the name of the policy's strand whose records it reads. A critic learns the returns that
credit gave; a reward model learns to tell what others wrote (label 1) from the policy's own responses (label 0).
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

import numpy as np

from actors.sharding import StepFacts
from orchestrator.ports import Learner, Scorer
from orchestrator.recipes.schema import CoLearner
from policies.config import Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.trajectory import Float32, Int32, Preference, Producer, ScoreEntry, Trajectory

OTHERS = (Producer.DEMONSTRATION, Producer.TEACHER)
"""Whose responses a reward model is to score above the policy's own."""


class ScalarLearner(Learner, Protocol):
    """A learner with a scalar head."""

    async def values(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response: what the head foresees before each token."""
        ...

    async def scores(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[float]:
        """The head's output at each response's last token; NaN for an empty one."""
        ...


@dataclass(frozen=True, slots=True)
class Companion:
    """A co-learner of the stage and the learner that is it."""

    config: CoLearner
    learner: ScalarLearner


def policy_rests(companions: Sequence[Companion], stage_step: int) -> bool:
    """Whether a co-learner still trains alone; `stage_step` counts the stage's steps that are done."""
    return any(stage_step < one.config.warmup for one in companions)


async def values(companions: Sequence[Companion], trajectories: Sequence[Trajectory]) -> dict[str, Float32]:
    """Trajectory id -> the critic's value before each of its tokens; nothing where the stage has no critic."""
    critics = [one for one in companions if one.config.role == "critic"]
    if not critics or not trajectories:
        return {}
    found = await critics[0].learner.values(*_pairs(trajectories))
    return {one.id: own for one, own in zip(trajectories, found, strict=True)}


async def train(
    companions: Sequence[Companion], strands: Sequence[Strand], examples: Sequence[Example], updates: int
) -> dict[str, StepFacts]:
    """One step of every co-learner on its share of the policy's examples; none for one without records."""
    given = {one.config.name: examples_for(one.config, strands, examples) for one in companions}
    busy = [one for one in companions if given[one.config.name]]
    facts = await asyncio.gather(*(one.learner.step(given[one.config.name], updates, {}) for one in busy))
    return {one.config.name: own for one, own in zip(busy, facts, strict=True)}


def facts(found: Mapping[str, StepFacts]) -> dict[str, float]:
    """What the step's row says of its co-learners."""
    return {
        f"learners/{name}/{what}": float(getattr(own, what))
        for name, own in found.items()
        for what in ("loss", "gradient_norm", "learning_rate", "skipped", "tokens", "seconds")
    }


# ---------------------------------------------------------------- records


def examples_for(config: CoLearner, strands: Sequence[Strand], examples: Sequence[Example]) -> list[Example]:
    """The policy's examples that the co-learner reads, as examples of its own strands."""
    own = {strand.name: index for index, strand in enumerate(config.strands)}
    read = [one for one in examples if strands[one.strand].name in own]
    renamed = [replace(one, strand=own[strands[one.strand].name]) for one in read]
    match config.role:
        case "critic":
            return [one for one in renamed if one.targets is not None and bool(np.isfinite(one.targets).any())]
        case "reward":
            return _told_apart(config, renamed)
        case _:
            assert_never(config.role)


def _told_apart(config: CoLearner, examples: Sequence[Example]) -> list[Example]:
    """Given preference sets as they are; else each group that holds both kinds, as one set of the training strand.

    Members of other strands join the first strand that has terms, for a kernel compares within one strand.
    """
    trained = next(index for index, strand in enumerate(config.strands) if strand.terms)
    groups: dict[str, list[Example]] = {}
    found: list[Example] = []
    for one in examples:
        if one.trajectory.preference is not None:
            found.append(one)
        else:
            groups.setdefault(one.trajectory.group_id, []).append(one)
    for name, members in groups.items():
        labels = [float(one.trajectory.producer in OTHERS) for one in members]
        if len(set(labels)) == 2:
            found += [_labelled(one, name, label, trained) for one, label in zip(members, labels, strict=True)]
    return found


def _labelled(one: Example, group: str, label: float, strand: int) -> Example:
    return replace(one, strand=strand, trajectory=replace(one.trajectory, preference=Preference(group, label)))


def _pairs(trajectories: Sequence[Trajectory]) -> tuple[list[Int32], list[Int32]]:
    return [one.train_context for one in trajectories], [one.tokens for one in trajectories]


# ---------------------------------------------------------------- rewards


@dataclass(frozen=True, slots=True)
class RewardedBy:
    """The scorer's port with a co-learner in it: the verifier judges, and the co-learner's score is the reward.

    The verifier's own entry stays, as `verdict`; whether the response passed is still its word.
    """

    scorer: Scorer
    companion: Companion
    version: Callable[[], int]
    """The policy's, which counts the steps that the co-learner has trained too."""

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The same trajectories with their scores, in order."""
        judged = await self.scorer.score(trajectories, prompts)
        if not judged:
            return []
        version = str(self.version())
        found = await self.companion.learner.scores(*_pairs(judged))
        return [
            replace(one, scores=self._entries(one, value, version)) for one, value in zip(judged, found, strict=True)
        ]

    def _entries(self, one: Trajectory, value: float, version: str) -> tuple[ScoreEntry, ...]:
        verdict = next((entry for entry in one.scores if entry.name == "reward"), None)
        known = math.isfinite(value)
        entry = ScoreEntry(
            name="reward",
            value=value,
            passed=None if verdict is None else verdict.passed,
            status="ok" if known else "error",
            reason="" if known else "the response has no tokens, or its score is not finite",
            scorer=self.companion.config.name,
            scorer_version=version,
        )
        renamed = (replace(other, name="verdict") if other is verdict else other for other in one.scores)
        return (entry, *renamed)


def rewarded(scorer: Scorer, companions: Sequence[Companion], version: Callable[[], int]) -> Scorer:
    """The scorer, with the stage's reward model in it where it has one."""
    judges = [one for one in companions if one.config.role == "reward"]
    return RewardedBy(scorer, judges[0], version) if judges else scorer
