"""Demonstrations: responses that somebody else wrote, by prompt, as trajectories with their provenance."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np

from policies.bad_input import BadInput, refuse, shown
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Int32, Origin, Producer, Trajectory
from teachers import careless, chain_solver
from teachers.config import (
    CarelessTeacher,
    ChainSolver,
    Demonstrations,
    JsonlDemonstrations,
    ModelDemonstrations,
    ParquetDemonstrations,
)
from teachers.draws import draw
from teachers.rows import Row, Table, read_jsonl, read_parquet

KEY = "demonstrations"
"""Where they are configured in the pipeline file."""


@dataclass(frozen=True, slots=True)
class DemonstrationSet:
    """Trajectories that teach, by prompt. Draws are pure functions: a resumed run needs no cursor."""

    name: str
    by_prompt: Mapping[str, tuple[Trajectory, ...]]
    flat: tuple[Trajectory, ...]
    """Every demonstration, in a fixed order."""

    @classmethod
    def of(cls, name: str, trajectories: Sequence[Trajectory]) -> "DemonstrationSet":
        """Group trajectories by their prompt."""
        by_prompt: dict[str, list[Trajectory]] = defaultdict(list)
        for trajectory in trajectories:
            by_prompt[trajectory.prompt_id].append(trajectory)
        return cls(name, {key: tuple(found) for key, found in by_prompt.items()}, tuple(trajectories))

    def __len__(self) -> int:
        return len(self.flat)

    def for_prompt(self, prompt_id: str, index: int = 0) -> Trajectory | None:
        """The prompt's demonstration number `index`, or None when it has not so many."""
        found = self.by_prompt.get(prompt_id, ())
        return found[index] if index < len(found) else None

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        """`count` demonstrations for a step, epoch by epoch through a seeded order."""
        return [self.flat[index] for index in draw(len(self.flat), step, count, seed)]


@dataclass(frozen=True, slots=True)
class _Written:
    """A response before it is tokenised; `place` names it in an error."""

    place: str
    prompt: Prompt
    text: str


def load(
    config: Demonstrations, prompts: Sequence[Prompt], tokenizer: Tokenizer, *, base: Path, seed: int, context: int
) -> DemonstrationSet:
    """Demonstrations for the training prompts, tokenised, each ending with the end token.

    `base` is the pipeline file's folder, `context` the longest prompt plus response. Raises `BadInput` with all faults.
    """
    name, written = _written(config, prompts, base, seed)
    faults: list[str] = []
    trajectories: list[Trajectory] = []
    counts: dict[str, int] = defaultdict(int)
    for one in written:
        tokens = _tokens(one, tokenizer, context)
        if isinstance(tokens, str):
            faults.append(tokens)
            continue
        trajectories.append(given(one.prompt, tokens, one.text, name=name, index=counts[one.prompt.id]))
        counts[one.prompt.id] += 1
    refuse(faults)
    return DemonstrationSet.of(name, trajectories)


def _tokens(one: _Written, tokenizer: Tokenizer, context: int) -> Int32 | str:
    """The response's tokens, or the fault in words."""
    try:
        tokens = tokenizer.response(one.text)
    except ValueError as error:
        return f"{one.place}: {error}"
    room = context - len(one.prompt.tokens)
    if len(tokens) > room:
        return (
            f"{one.place}: response of {len(tokens)} tokens, but only {room} fit (context {context} less the prompt's "
            f"{len(one.prompt.tokens)}) (got {shown(one.text)}); shorten it, or raise model.context"
        )
    return tokens


def given(prompt: Prompt, tokens: Int32, text: str, *, name: str, index: int) -> Trajectory:
    """A response that was written elsewhere: every token a demonstration's, its probability unknown."""
    size = len(tokens)
    return Trajectory(
        id=f"{name}-{prompt.id}-{index}",
        prompt_id=prompt.id,
        group_id=prompt.id,
        producer=Producer.DEMONSTRATION,
        model=name,
        version=-1,
        train_context=prompt.tokens,
        behavior_context=prompt.tokens,
        teacher_context=prompt.tokens,
        tokens=tokens,
        origin=np.full(size, Origin.DEMONSTRATION, np.int8),
        token_version=np.full(size, -1, np.int32),
        train_mask=np.ones(size, np.bool_),
        behavior_logps=np.full(size, np.nan, np.float32),
        finish_reason=FinishReason.GIVEN,
        text=text,
    )


# ---------------------------------------------------------------- who writes


def _written(
    config: Demonstrations, prompts: Sequence[Prompt], base: Path, seed: int
) -> tuple[str, Sequence[_Written]]:
    """The set's name, and its responses."""
    match config:
        case CarelessTeacher():
            return config.kind, _worked(prompts, lambda p: careless.work(p.text, config.carelessness, _draws(seed, p)))
        case ChainSolver():
            return config.kind, _worked(prompts, lambda p: chain_solver.work(p.text, p.reference, config.marker))
        case JsonlDemonstrations():
            table = Table(base / config.path, (config.prompt, config.response), KEY)
            return Path(config.path).stem, _matched(read_jsonl(table), config, prompts)
        case ParquetDemonstrations():
            table = Table(base / config.path, (config.prompt, config.response), KEY)
            return Path(config.path).stem, _matched(read_parquet(table), config, prompts)
        case ModelDemonstrations():
            raise BadInput([f"{KEY}.kind: a model writes these when the run starts; they cannot be read (got 'model')"])
        case _:
            assert_never(config)


def _draws(seed: int, prompt: Prompt) -> random.Random:
    """A prompt's own randomness: the same demonstration whatever else is in the set."""
    return random.Random(f"{seed}:{prompt.text}")


def _worked(prompts: Sequence[Prompt], teacher: Callable[[Prompt], str]) -> list[_Written]:
    faults: list[str] = []
    written: list[_Written] = []
    for prompt in prompts:
        try:
            written.append(_Written(f"{KEY}: prompt {prompt.id}", prompt, teacher(prompt)))
        except ValueError as error:
            faults.append(f"{KEY}: prompt {prompt.id}: {error} (got {shown(prompt.text)}); choose another teacher")
    refuse(faults)
    return written


def _matched(
    rows: Sequence[Row], config: JsonlDemonstrations | ParquetDemonstrations, prompts: Sequence[Prompt]
) -> list[_Written]:
    """The rows with the training prompts they answer; a row that answers none is a fault."""
    by_text = {prompt.text: prompt for prompt in prompts}
    found = [_match(row, config, by_text) for row in rows]
    refuse([one for one in found if isinstance(one, str)])
    return [one for one in found if isinstance(one, _Written)]


def _match(
    row: Row, config: JsonlDemonstrations | ParquetDemonstrations, by_text: Mapping[str, Prompt]
) -> _Written | str:
    """The row as a response to its prompt, or the fault in words."""
    prompt, response = row.values[config.prompt], row.values[config.response]
    for name, value in ((config.prompt, prompt), (config.response, response)):
        if not isinstance(value, str) or not value:
            return f"{row.place}: {name}: not a text (got {shown(value)}); it is a non-empty string"
    if prompt not in by_text:
        return (
            f"{row.place}: {config.prompt}: no such prompt among prompts.train (got {shown(prompt)}); "
            "remove the row, or add the prompt there (its count may leave it out)"
        )
    return _Written(row.place, by_text[prompt], response)
