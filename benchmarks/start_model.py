"""The model that every pipeline of a seed starts from: trained until each family has its solve rate, and measured."""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.config import Learner
from actors.learner import LearnerRank
from benchmarks.planted_families import FAMILIES, Task, prompts_of, start_data
from benchmarks.solve_counts import Solved, by_family, measure
from orchestrator.recipes import load
from policies.config import HfModel, Optimizer, Schedule, TinyModel
from policies.example import Example
from policies.model_folder import materialise
from policies.reduce import normalisers
from policies.tokens import Tokenizer

CONTEXT = 32
WANTED: Mapping[str, tuple[float, float]] = {
    "mastered": (0.9, 1.0),
    "unreliable": (0.3, 0.6),
    "unreachable": (0.0, 0.005),
    "regressing": (0.9, 1.0),
}
"""Family -> least and greatest mean solve rate of its prompts at temperature 1."""
STEPS, MORE, TRIES = 300, 150, 4
LEARNING_RATE = 3e-3


@dataclass(frozen=True, slots=True)
class Start:
    """A start model on disk, and what it solves."""

    folder: Path
    solved: Mapping[str, Solved]
    """Prompt id -> verdicts."""

    @property
    def model(self) -> HfModel:
        """As a pipeline names it."""
        return HfModel(path=str(self.folder), context=CONTEXT, dtype="float32")


def prepared(tasks: Sequence[Task], seed: int, where: Path, samples: int) -> Start:
    """The start model in `where`, made and measured unless it is there; RuntimeError if a family stays off."""
    found = where / "solved.json"
    if not found.exists():
        _prepare(tasks, seed, where, samples)
    told = json.loads(found.read_text())
    return Start(where / "model", {name: Solved(*counts) for name, counts in told.items()})


def off(rates: Mapping[str, float]) -> list[str]:
    """The families whose solve rate is not the wanted one, in words."""
    return [
        f"{name} is solved at {rates[name]:.3f}, wanted {low} to {high}"
        for name, (low, high) in WANTED.items()
        if not low <= rates[name] <= high
    ]


def _prepare(tasks: Sequence[Task], seed: int, where: Path, samples: int) -> None:
    base = materialise(TinyModel(preset="arithmetic-small", context=CONTEXT), where / "base")
    for attempt in range(TRIES):
        _train(tasks, seed + 1000 * attempt, base, where, STEPS + MORE * attempt)
        start = Start(where / "model", {})
        solved = asyncio.run(measure(start.model, tasks, seed, samples))
        faults = off({name: by_family(tasks, solved)[name].sampled for name in FAMILIES})
        if not faults:
            (where / "solved.json").write_text(json.dumps({name: list(one) for name, one in solved.items()}))
            return
    raise RuntimeError(f"start model of seed {seed}: after {TRIES} tries {'; '.join(faults)}")


def _train(tasks: Sequence[Task], seed: int, base: Path, where: Path, steps: int) -> None:
    """Maximum likelihood on data drawn anew at each step: unreliable prompts stay as uncertain as their data."""
    tokenizer = Tokenizer.load(base)
    prompts, strands = prompts_of(tasks, tokenizer), load("sft").strands
    tiny = TinyModel(preset="arithmetic-small", context=CONTEXT)
    rank = LearnerRank(base, tiny, Learner(engine="torch", threads=1), seed=seed)
    schedule = Schedule(kind="linear", warmup=10, floor=0.05)
    rank.begin_stage(strands, Optimizer(learning_rate=LEARNING_RATE, schedule=schedule), steps)
    draws = random.Random(f"start/{seed}")
    for _ in range(steps):
        drawn = start_data(tasks, prompts, tokenizer, draws)
        examples = [Example(one, 0, np.ones(len(one.tokens), np.float32)) for one in drawn]
        rank.step([examples], [normalisers(strands, examples)], {}, False)
    rank.save(where)
