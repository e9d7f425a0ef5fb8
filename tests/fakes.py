"""Fakes at the loop's ports, and builders of records; nothing here stands in for a part that runs."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.engine import SampleRequest, TokenScores
from actors.facts import PublishFacts
from actors.sharding import StepFacts
from policies.config import Optimizer, Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.trajectory import FinishReason, Float32, Int32, Origin, Producer, ScoreEntry, Trajectory

CONTEXT = np.array([5, 6, 7], np.int32)


def prompt(name: str = "p0", **fields: Any) -> Prompt:
    return Prompt(**{"id": name, "text": name, "tokens": CONTEXT, "reference": '"1"', **fields})


def trajectory(
    name: str = "t0", length: int = 4, *, version: int = 0, reward: float | None = None, **fields: Any
) -> Trajectory:
    """A rollout of `length` tokens; give `producer` and `origin` for anything else."""
    origin = fields.pop("origin_of", Origin.LEARNER)
    own = origin is Origin.LEARNER
    scores = () if reward is None else (ScoreEntry("reward", reward, reward > 0.5),)
    base: dict[str, Any] = {
        "id": name,
        "prompt_id": "p0",
        "group_id": "",
        "producer": Producer.ROLLOUT if own else Producer.DEMONSTRATION,
        "model": "learner" if own else "book",
        "version": version if own else -1,
        "train_context": CONTEXT,
        "behavior_context": CONTEXT,
        "teacher_context": CONTEXT,
        "tokens": np.arange(1, length + 1, dtype=np.int32),
        "origin": np.full(length, int(origin), np.int8),
        "token_version": np.full(length, version if own else -1, np.int32),
        "train_mask": np.ones(length, np.bool_),
        "behavior_logps": np.full(length, -1.0 if own else np.nan, np.float32),
        "scores": scores,
        "finish_reason": FinishReason.STOP if own else FinishReason.GIVEN,
        "text": "1",
    }
    return Trajectory(**{**base, **fields})


@dataclass
class FakeSampler:
    """Writes with the version that was last published; `pause` seconds a call; dies at call `dies_at`."""

    pause: float = 0.0
    dies_at: int = -1
    version: int = -1
    calls: list[int] = field(default_factory=list)
    """Version served at the start of each call."""
    asked: list[SampleRequest] = field(default_factory=list)
    """Every request, in order."""

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        self.calls.append(self.version)
        self.asked += requests
        if len(self.calls) - 1 == self.dies_at:
            raise RuntimeError("the sampler fell over")
        await asyncio.sleep(self.pause)
        return [
            trajectory(
                one.id,
                version=self.version,
                seed=one.seed,
                prompt_id=one.prompt_id,
                group_id=one.group_id,
                sampling=one.sampling,
                behavior_context=one.context,
                text=f"text of {one.id}",
            )
            for one in requests
        ]


@dataclass
class FakeFrozen:
    """Says -2 of every token; remembers the contexts that it was shown."""

    contexts: list[tuple[int, ...]] = field(default_factory=list)
    top_k: list[int] = field(default_factory=list)

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int) -> list[TokenScores]:
        self.contexts += [tuple(one.tolist()) for one in contexts]
        self.top_k.append(top_k)
        return [self._scores(len(one), top_k) for one in tokens]

    async def hidden(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        return [np.zeros((len(one), 3), np.float32) for one in tokens]

    def _scores(self, size: int, top_k: int) -> TokenScores:
        logps = np.full(size, -2.0, np.float32)
        if not top_k:
            return TokenScores(logps)
        return TokenScores(logps, np.zeros((size, top_k), np.int32), np.full((size, top_k), -2.0, np.float32))


@dataclass
class FakeScorer:
    """Rewards alternate 1, 0; the ids in `unknown` get no verdict; an id with a part of `passes` in it passes alone."""

    unknown: frozenset[str] = frozenset()
    passes: tuple[str, ...] | None = None
    judged: list[str] = field(default_factory=list)

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        assert all(one.prompt_id in prompts for one in trajectories)
        self.judged += [one.id for one in trajectories]
        return [replace(one, scores=(self._entry(one, index),)) for index, one in enumerate(trajectories)]

    def _entry(self, one: Trajectory, index: int) -> ScoreEntry:
        if one.id in self.unknown:
            return ScoreEntry("reward", float("nan"), None, "timeout", "too slow")
        right = index % 2 == 0 if self.passes is None else any(part in one.id for part in self.passes)
        return ScoreEntry("reward", float(right), right, reason="" if right else "wrong")


@dataclass
class FakeLearner:
    """Remembers what it was given."""

    pause: float = 0.0
    steps: list[tuple[Example, ...]] = field(default_factory=list)
    coefficients: list[dict[str, float]] = field(default_factory=list)

    async def begin_stage(
        self, strands: Sequence[Strand], optimizer: Optimizer, steps: int, track: float | None = None
    ) -> None: ...

    async def step(
        self,
        examples: Sequence[Example],
        updates: int,
        coefficients: Mapping[str, float],
        freeze: float | None = None,
        *,
        interference: bool = False,
    ) -> StepFacts:
        await asyncio.sleep(self.pause)
        self.steps.append(tuple(examples))
        self.coefficients.append(dict(coefficients))
        tokens = sum(int(one.trajectory.train_mask.sum()) for one in examples)
        return StepFacts(1.0, 0.5, 1e-3, 0, tokens, self.pause, {})

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        return [np.full(len(one), -1.0, np.float32) for one in tokens]

    async def save(self, directory: Path) -> None: ...

    async def load(self, directory: Path) -> None: ...


@dataclass
class FakePublisher:
    """Hands the version to the sampler."""

    sampler: FakeSampler

    async def publish(self, version: int) -> PublishFacts:
        self.sampler.version = version
        return PublishFacts(version, 0.0)


@dataclass
class FakeLedger:
    """Keeps rows in lists."""

    added: dict[int, tuple[Example, ...]] = field(default_factory=dict)
    pulled: dict[int, Float32] = field(default_factory=dict)
    decisions: list[Mapping[str, Any]] = field(default_factory=list)
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: int, examples: Sequence[Example], stage: str) -> None:
        assert step not in self.added, "a step is added once"
        self.added[step] = tuple(examples)

    def coefficients(self, step: int, examples: Sequence[Example], stage: str, g: Float32) -> None:
        assert self.added[step] == tuple(examples), "of what was added"
        self.pulled[step] = g

    def decision(self, row: Mapping[str, Any]) -> None:
        self.decisions.append(row)

    def metrics(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)

    def event(self, kind: str, **facts: Any) -> None:
        self.events.append({"kind": kind, **facts})

    def flush(self) -> None: ...


class NoEyes:
    """Looks away."""

    def step(self, row: Mapping[str, Any]) -> None: ...
