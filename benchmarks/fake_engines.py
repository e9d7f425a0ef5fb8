"""Engines that cost nothing, at the loop's ports: what is left of a step's time is the driver's own.

A fleet of rollout actors whose responses arrive as they would from `actors` machines, a scorer that knows at once, a
learner that learns nothing. Everything they say is a function of the request's seed.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.engine import SampleRequest
from actors.facts import PublishFacts
from actors.sharding import StepFacts
from policies.config import Optimizer, Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.trajectory import FinishReason, Float32, Int32, Origin, Producer, ScoreEntry, Trajectory

CONTEXT = np.arange(16, dtype=np.int32)


@dataclass(slots=True)
class Fleet:
    """Rollout actors, each with a queue; a response takes an exponential time of mean 1 / `each` seconds.

    With `each` 0 everything arrives at once: then nothing but the control plane takes time.
    """

    actors: int
    each: float
    """Responses a second of one actor."""
    length: int
    version: int = 0
    written: int = 0
    waited: float = 0.0
    """Seconds until the last response of each call arrived, summed: what the fleet alone would take."""

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """Responses in the order asked, when the last of them has arrived."""
        self.written += len(requests)
        if self.each:
            draws = np.random.default_rng(requests[0].seed).exponential(1.0 / self.each, len(requests))
            queues = np.zeros(self.actors)
            np.add.at(queues, np.arange(len(requests)) % self.actors, draws)
            self.waited += float(queues.max())
            await asyncio.sleep(float(queues.max()))
        else:
            await asyncio.sleep(0)
        return [self._one(one) for one in requests]

    def _one(self, asked: SampleRequest) -> Trajectory:
        size = self.length
        return Trajectory(
            id=asked.id,
            prompt_id=asked.prompt_id,
            group_id=asked.group_id,
            producer=Producer.ROLLOUT,
            model="learner",
            version=self.version,
            train_context=asked.context,
            behavior_context=asked.context,
            teacher_context=asked.context,
            tokens=np.full(size, asked.seed % 97, np.int32),
            origin=np.full(size, Origin.LEARNER, np.int8),
            token_version=np.full(size, self.version, np.int32),
            train_mask=np.ones(size, np.bool_),
            behavior_logps=np.full(size, -1.0, np.float32),
            finish_reason=FinishReason.STOP,
            sampling=asked.sampling,
            seed=asked.seed,
            text=f"{asked.seed}",
        )


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A scorer: a quarter of the prompts never pass, a quarter always do, the others by a coin of the response's id."""

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The same trajectories with a verdict each."""
        return [replace(one, scores=(self._entry(one),)) for one in trajectories]

    def _entry(self, one: Trajectory) -> ScoreEntry:
        kind = int(one.prompt_id[1:]) % 4
        right = kind == 1 or (kind > 1 and one.seed % 5 < kind)
        return ScoreEntry("reward", float(right), right)


@dataclass(slots=True)
class Idle:
    """A learner whose step takes no time."""

    trained: int = 0

    async def begin_stage(
        self, strands: Sequence[Strand], optimizer: Optimizer, steps: int, track: float | None = None
    ) -> None:
        """Nothing."""

    async def step(
        self,
        examples: Sequence[Example],
        updates: int,
        coefficients: Mapping[str, float],
        freeze: float | None = None,
        *,
        interference: bool = False,
    ) -> StepFacts:
        """The count of what it was given."""
        self.trained += len(examples)
        tokens = sum(int(one.trajectory.train_mask.sum()) for one in examples)
        return StepFacts(1.0, 0.5, 1e-3, 0, tokens, 0.0, {})

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """-1 for each token."""
        return [np.full(len(one), -1.0, np.float32) for one in tokens]

    async def save(self, directory: Path) -> None:
        """Nothing."""

    async def load(self, directory: Path) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Served:
    """Publishes a version to the fleet."""

    fleet: Fleet

    async def publish(self, version: int) -> PublishFacts:
        """At once."""
        self.fleet.version = version
        return PublishFacts(version, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """A demonstration for every prompt."""

    length: int

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        """The prompt's, whatever the index."""
        size = self.length
        return Trajectory(
            id=f"d-{prompt_id}",
            prompt_id=prompt_id,
            group_id="",
            producer=Producer.DEMONSTRATION,
            model="book",
            version=-1,
            train_context=CONTEXT,
            behavior_context=CONTEXT,
            teacher_context=CONTEXT,
            tokens=np.zeros(size, np.int32),
            origin=np.full(size, Origin.DEMONSTRATION, np.int8),
            token_version=np.full(size, -1, np.int32),
            train_mask=np.ones(size, np.bool_),
            behavior_logps=np.full(size, np.nan, np.float32),
            finish_reason=FinishReason.GIVEN,
            text="given",
        )

    def at_step(self, step: int, count: int, seed: int) -> Sequence[Trajectory]:
        """Nobody asks for a step's."""
        return ()


@dataclass(slots=True)
class Clock:
    """Looks on: seconds at which each step was done."""

    at: list[float] = field(default_factory=list)

    def step(self, row: Mapping[str, Any]) -> None:
        """Note the time."""
        self.at.append(time.perf_counter())


def prompts(count: int) -> tuple[Prompt, ...]:
    """`count` prompts of one context."""
    return tuple(Prompt(f"p{number}", f"p{number}", CONTEXT, '"1"') for number in range(count))
