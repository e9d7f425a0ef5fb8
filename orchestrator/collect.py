"""Sources: who writes a step's trajectories, and what is said of them before credit.

A step's groups are a pure function of (run seed, stage, step) and of the weights: no cursor to save, nothing to lose.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from actors.engine import SampleRequest
from orchestrator.config import Stage
from orchestrator.ports import Sampler, Scorer
from orchestrator.prompts import at_step
from policies.config import GroupCredit, Strand
from policies.prompt import Prompt
from policies.trajectory import Sampling, Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A trajectory and the strand (index) that reads it."""

    trajectory: Trajectory
    strand: int


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Members that share a prompt; credit compares them with each other."""

    id: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """A step's groups, scored, and what they cost."""

    step: int
    groups: tuple[Group, ...]
    tokens_generated: int
    missing_demonstrations: int
    seconds_generate: float
    seconds_score: float


class Demonstrations(Protocol):
    """Responses that somebody else wrote, by prompt."""

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        """The prompt's demonstration number `index`, or None."""
        ...

    def at_step(self, step: int, count: int, seed: int) -> Sequence[Trajectory]:
        """`count` demonstrations for a step; a pure function of its arguments."""
        ...


def group_name(stage: Stage, step: int, slot: int) -> str:
    """The group of prompt `slot` at a step of a stage."""
    return f"{stage.name}/{step:06d}/{slot:04d}"


def _join(groups: dict[str, list[Member]], group: str, found: Trajectory, strand: int, name: str) -> None:
    """Put a given trajectory into a group under an id of its own; its lineage names where it came from."""
    own = replace(found, id=f"{group}/{name}", group_id=group, parent_id=found.id)
    groups.setdefault(group, []).append(Member(own, strand))


def seed_for(*parts: object) -> int:
    """A 31-bit seed from what it is for: run seed, trajectory id, attempt."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True, slots=True)
class Collector:
    """Asks the sources for a step's trajectories and the scorer for what they are worth."""

    sampler: Sampler
    scorer: Scorer
    prompts: tuple[Prompt, ...]
    by_id: Mapping[str, Prompt]
    demonstrations: Demonstrations | None
    seed: int

    async def collect(self, stage: Stage, strands: Sequence[Strand], step: int) -> Collected:
        """Everything that step `step` (counted within the stage, from 0) trains on."""
        shared = self._shared(stage, strands, step)
        requests, owners = self._requests(stage, strands, shared, step)
        began = time.perf_counter()
        written = await self.sampler.generate(requests) if requests else []
        generated = time.perf_counter()
        groups, missing = self._given(stage, strands, shared, step)
        for trajectory, strand in zip(written, owners, strict=True):
            groups.setdefault(trajectory.group_id, []).append(Member(trajectory, strand))
        scored = await self._score(strands, groups)
        return Collected(
            step=step,
            groups=scored,
            tokens_generated=sum(len(one.tokens) for one in written),
            missing_demonstrations=missing,
            seconds_generate=generated - began,
            seconds_score=time.perf_counter() - generated,
        )

    def _shared(self, stage: Stage, strands: Sequence[Strand], step: int) -> list[Prompt]:
        if not any(strand.source.per_prompt for strand in strands):
            return []
        return at_step(self.prompts, step, stage.prompts_per_step, seed_for(self.seed, stage.name, "prompts"))

    def _requests(
        self, stage: Stage, strands: Sequence[Strand], shared: Sequence[Prompt], step: int
    ) -> tuple[list[SampleRequest], list[int]]:
        config = stage.sampling
        sampling = Sampling(config.temperature, config.top_p, config.top_k, config.max_tokens, config.stop)
        requests, owners = [], []
        for slot, prompt in enumerate(shared):
            group = group_name(stage, step, slot)
            for index, strand in enumerate(strands):
                if strand.source.producer != "rollout":
                    continue
                for draw in range(strand.source.per_prompt):
                    name = f"{group}/{strand.name}-{draw}"
                    seed = seed_for(self.seed, name)
                    requests.append(SampleRequest(name, prompt.tokens, sampling, seed, prompt.id, group))
                    owners.append(index)
        return requests, owners

    def _given(
        self, stage: Stage, strands: Sequence[Strand], shared: Sequence[Prompt], step: int
    ) -> tuple[dict[str, list[Member]], int]:
        """The step's demonstrations: those in its prompts' groups, and those drawn for the step as a whole."""
        groups: dict[str, list[Member]] = {}
        missing = 0
        for index, strand in enumerate(strands):
            if strand.source.producer != "demonstration" or self.demonstrations is None:
                continue
            for slot, prompt in enumerate(shared):
                for draw in range(strand.source.per_prompt):
                    found = self.demonstrations.for_prompt(prompt.id, draw)
                    missing += found is None
                    if found is not None:
                        _join(groups, group_name(stage, step, slot), found, index, f"{strand.name}-{draw}")
            if strand.source.per_step:
                seed = seed_for(self.seed, stage.name, strand.name)
                for draw, found in enumerate(self.demonstrations.at_step(step, strand.source.per_step, seed)):
                    _join(groups, f"{stage.name}/{step:06d}/{strand.name}-{draw:04d}", found, index, "given")
        return groups, missing

    async def _score(self, strands: Sequence[Strand], groups: Mapping[str, list[Member]]) -> tuple[Group, ...]:
        """Judge every member whose group's credit compares rewards; imitation needs no verdict."""
        judged = {
            name: members
            for name, members in groups.items()
            if any(isinstance(strands[member.strand].credit, GroupCredit) for member in members)
        }
        flat = [member.trajectory for members in judged.values() for member in members]
        scored = iter(await self.scorer.score(flat, self.by_id) if flat else [])
        return tuple(
            Group(
                name,
                tuple(Member(next(scored), member.strand) if name in judged else member for member in members),
            )
            for name, members in groups.items()
        )
