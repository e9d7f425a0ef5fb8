"""Demonstrations that a frozen model writes: draw a few for each prompt, judge them, keep the best.

Pure over two callables, so that the wiring to an engine and a scorer stays with the actors. The teacher must share the
learner's tokenizer: its tokens are kept as they are, with the probabilities it gave them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2s
from pathlib import Path
from typing import Protocol

import numpy as np

from policies.config import HfModel, Model
from policies.prompt import Prompt
from policies.trajectory import FinishReason, Float32, Int32, Origin, Producer, ScoreEntry, Trajectory, reward
from teachers.config import ModelDemonstrations
from verifiers.grader import Asked


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """One response to draw."""

    id: str
    context: Int32
    temperature: float
    seed: int


class Drawn(Protocol):
    """What an engine answers. T = tokens, the end token included when it stopped there."""

    @property
    def tokens(self) -> Int32:
        """Token ids, [T]."""
        ...

    @property
    def logps(self) -> Float32:
        """[T] log-probability at sampling, NaN where unknown."""
        ...

    @property
    def text(self) -> str:
        """The response's text."""
        ...

    @property
    def finish_reason(self) -> FinishReason:
        """Why the tokens end."""
        ...

    @property
    def seconds(self) -> float:
        """What it took."""
        ...


Generate = Callable[[Sequence[Wanted]], Awaitable[Sequence[Drawn]]]
"""Draws every response, in the order asked."""

Judge = Callable[[Sequence[Asked]], Awaitable[Sequence[tuple[ScoreEntry, ...]]]]
"""Scores every response, in the order asked."""


async def write(
    config: ModelDemonstrations, prompts: Sequence[Prompt], generate: Generate, judge: Judge, *, seed: int
) -> list[Trajectory]:
    """The best-scored response of each prompt, in the order of the prompts.

    A response without a verdict ranks below every other; with `only_passed` a prompt whose responses all failed gives
    none. Equal scores keep the first drawn.
    """
    owners = [prompt for prompt in prompts for _ in range(config.samples)]
    wanted = [
        Wanted(f"teacher-{prompt.id}-{index % config.samples}", prompt.tokens, config.temperature, _seed(seed, index))
        for index, prompt in enumerate(owners)
    ]
    drawn = await generate(wanted)
    name = model_name(config.model)
    trajectories = [
        _trajectory(want, prompt, one, name) for want, prompt, one in zip(wanted, owners, drawn, strict=True)
    ]
    asked = [Asked(t.id, p.text, t.text, p.reference, t.group_id) for t, p in zip(trajectories, owners, strict=True)]
    scores = await judge(asked)
    scored = [replace(t, scores=entries) for t, entries in zip(trajectories, scores, strict=True)]
    groups = [scored[start : start + config.samples] for start in range(0, len(scored), config.samples)]
    best = [max(group, key=_rank) for group in groups]
    return [one for one in best if _passed(one) or not config.only_passed]


def model_name(model: Model) -> str:
    """What a trajectory's `model` says: the folder's name, or the tiny preset's."""
    return Path(model.path).name if isinstance(model, HfModel) else f"tiny-{model.preset}"


def _seed(seed: int, index: int) -> int:
    return int.from_bytes(blake2s(f"{seed}:{index}".encode(), digest_size=4).digest(), "big") >> 1


def _trajectory(want: Wanted, prompt: Prompt, drawn: Drawn, name: str) -> Trajectory:
    size = len(drawn.tokens)
    return Trajectory(
        id=want.id,
        prompt_id=prompt.id,
        group_id=prompt.id,
        producer=Producer.TEACHER,
        model=name,
        version=-1,
        train_context=prompt.tokens,
        behavior_context=prompt.tokens,
        teacher_context=prompt.tokens,
        tokens=np.asarray(drawn.tokens, np.int32),
        origin=np.full(size, Origin.TEACHER, np.int8),
        token_version=np.full(size, -1, np.int32),
        train_mask=np.ones(size, np.bool_),
        behavior_logps=np.asarray(drawn.logps, np.float32),
        finish_reason=drawn.finish_reason,
        seed=want.seed,
        text=drawn.text,
        seconds=drawn.seconds,
        tokens_generated=size,
    )


def _outcome(trajectory: Trajectory) -> ScoreEntry | None:
    return next((entry for entry in trajectory.scores if entry.name == "reward"), None)


def _passed(trajectory: Trajectory) -> bool:
    outcome = _outcome(trajectory)
    return outcome is not None and outcome.passed is True


def _rank(trajectory: Trajectory) -> tuple[bool, float]:
    """Passed before failed, then by reward; unknown last."""
    value = reward(trajectory)
    return _passed(trajectory), value if np.isfinite(value) else -np.inf
