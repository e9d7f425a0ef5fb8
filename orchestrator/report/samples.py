"""Trajectories of the ledger as a person reads them: text cut by who wrote it, with what was said of it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import pyarrow.parquet as pq

from orchestrator.run_directory import RunDirectory
from policies.arrow import from_table
from policies.bad_input import BadInput
from policies.tokens import Tokenizer
from policies.trajectory import Origin, Trajectory, reward

Order = Literal["written", "reward", "-reward", "advantage", "-advantage", "length", "-length"]
"""`written` is the ledger's order; a minus puts the largest first. Unknown rewards come last."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of one writer; origin None where the text cannot be cut without the tokenizer."""

    origin: Origin | None
    text: str
    tokens: int
    note: str
    """Who, how many tokens, which versions, mean log-probability."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A trajectory of the ledger, its place in the run, and its text in segments."""

    trajectory: Trajectory
    step: int
    stage: str
    strand: str
    advantage: float
    """Mean over tokens."""
    prompt: str
    """Decoded context; empty where the run directory has no tokenizer."""
    segments: tuple[Segment, ...]

    @property
    def reward(self) -> float:
        """The outcome; NaN where unknown."""
        return reward(self.trajectory)


def steps_of(run: RunDirectory) -> list[int]:
    """Steps whose trajectories are in the ledger; a step that trained on nothing has a file without rows."""
    return sorted(int(path.stem.partition("=")[2]) for path in run.trajectories.glob("step=*.parquet"))


def told_of(run: RunDirectory, step: int) -> bool:
    """Whether the ledger holds any trajectory of the step."""
    return bool(pq.read_metadata(run.trajectory_file(step)).num_rows)


def load(run: RunDirectory, step: int | None = None, strand: str | None = None) -> list[Sample]:
    """Trajectories of a step (by default the newest), of one strand or of all, in the ledger's order."""
    steps = steps_of(run)
    if not steps:
        raise BadInput([f"{run.trajectories}: no trajectories yet"])
    at = steps[-1] if step is None else step
    if at not in steps:
        raise BadInput([f"--step: no trajectories of step {at}; there are steps {steps[0]} to {steps[-1]}"])
    table = pq.read_table(run.trajectory_file(at), page_checksum_verification=True)
    places = table.select(["stage", "strand", "advantage"]).to_pylist()
    strands = sorted({place["strand"] for place in places})
    if not places:
        raise BadInput(
            [f"--step: step {at} trained on nothing; `braid query` over events tells what was dropped and why"]
        )
    if strand is not None and strand not in strands:
        raise BadInput([f"--strand: step {at} has no strand {strand!r}; it has {', '.join(strands)}"])
    tokenizer = tokenizer_of(run)
    return [
        _sample(one, at, place, tokenizer)
        for one, place in zip(from_table(table), places, strict=True)
        if strand in (None, place["strand"])
    ]


def ordered(samples: Iterable[Sample], order: Order) -> list[Sample]:
    """The samples in this order."""
    match order:
        case "written":
            return list(samples)
        case "reward" | "-reward":
            key: Callable[[Sample], float] = lambda one: one.reward  # noqa: E731
        case "advantage" | "-advantage":
            key = lambda one: one.advantage  # noqa: E731
        case "length" | "-length":
            key = lambda one: float(len(one.trajectory.tokens))  # noqa: E731
        case _:
            assert_never(order)
    sign = -1.0 if order.startswith("-") else 1.0
    return sorted(samples, key=lambda one: (math.isnan(key(one)), sign * key(one)))


def tokenizer_of(run: RunDirectory) -> Tokenizer | None:
    """The tokenizer of the run's model folder, or of its newest checkpoint's; None if there is neither."""
    folders: list[Path] = [run.root / "model", *sorted(run.checkpoints.glob("step-*/model"), reverse=True)]
    found = next((folder for folder in folders if (folder / "tokenizer.json").is_file()), None)
    return None if found is None else Tokenizer.load(found)


def _sample(one: Trajectory, step: int, place: dict[str, object], tokenizer: Tokenizer | None) -> Sample:
    advantages = place["advantage"]
    assert isinstance(advantages, list)
    return Sample(
        trajectory=one,
        step=step,
        stage=str(place["stage"]),
        strand=str(place["strand"]),
        advantage=float(np.mean(advantages)) if advantages else math.nan,
        prompt=tokenizer.decode(one.train_context) if tokenizer else "",
        segments=tuple(_segments(one, tokenizer)),
    )


def _segments(one: Trajectory, tokenizer: Tokenizer | None) -> list[Segment]:
    """Runs of tokens with one origin. One writer's text is the text itself; several need the tokenizer to cut it."""
    spans = [list(group) for _, group in groupby(range(len(one.tokens)), key=lambda t: one.origin[t])]
    if len(spans) == 1:
        return [Segment(Origin(one.origin[0]), one.text, len(one.tokens), _note(one, spans[0]))]
    if tokenizer is None:
        note = "; ".join(_note(one, span) for span in spans) or "no tokens"
        return [Segment(None, one.text, len(one.tokens), note)]
    return [
        Segment(Origin(one.origin[span[0]]), tokenizer.decode(one.tokens[span]), len(span), _note(one, span))
        for span in spans
    ]


def _note(one: Trajectory, span: Sequence[int]) -> str:
    """`learner, 12 tokens, version 3, mean log-probability -0.42`."""
    told = [Origin(one.origin[span[0]]).name.lower(), f"{len(span)} tokens"]
    versions = one.token_version[span]
    sampled = versions[versions >= 0]
    if len(sampled):
        first, last = int(sampled.min()), int(sampled.max())
        told.append(f"version {first}" if first == last else f"versions {first} to {last}")
    mean = float(np.mean(one.behavior_logps[span]))
    if not math.isnan(mean):
        told.append(f"mean log-probability {mean:.2f}")
    return ", ".join(told)
