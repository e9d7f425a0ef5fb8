"""A task of two turns, a start model that knows its form and nothing else, and SCoRe on it over the whole loop.

A prompt is a number, `417:`, and its answer the first digit, `#4`. The start model is right with a probability of about
`KNOWS` in either turn, whatever it said before: it does not correct itself. SCoRe's first stage must make the second
turn right while the first stays what it was; its second stage trains both.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from actors.config import Learner
from actors.learner import LearnerRank
from orchestrator.recipes import load
from policies.config import Optimizer, Schedule, TinyModel
from policies.example import Example
from policies.model_folder import materialise
from policies.prompt import Prompt
from policies.reduce import normalisers
from policies.tokens import Tokenizer
from policies.trajectory import Trajectory
from teachers.demonstrations import given

CONTEXT, MOST = 48, 4
TRAINED, HELD_OUT = 400, 80
REQUEST = "again:"
KNOWS = 0.5
"""Probability with which the start model answers right."""


def write_prompts(folder: Path) -> None:
    """train.jsonl and probe.jsonl: numbers and their answers."""
    draws = random.Random(0)
    numbers = draws.sample(range(100, 1000), TRAINED + HELD_OUT)
    for name, own in (("train", numbers[:TRAINED]), ("probe", numbers[TRAINED:])):
        rows = [{"prompt": f"{number}:", "reference": right(number)} for number in own]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def right(number: int) -> str:
    """The first digit."""
    return str(number)[0]


def start_model(folder: Path, steps: int = 160, batch: int = 64) -> Path:
    """The start model's folder in `folder` (some six seconds)."""
    tiny = TinyModel(preset="arithmetic-small", context=CONTEXT)
    base = materialise(tiny, folder / "base")
    tokenizer, strands, draws = Tokenizer.load(base), load("sft").strands, random.Random("start")
    rank = LearnerRank(base, tiny, Learner(engine="torch", threads=1), seed=1)
    rank.begin_stage(
        strands, Optimizer(learning_rate=5e-3, schedule=Schedule(kind="linear", warmup=10, floor=0.05)), steps
    )
    for step in range(steps):  # first without mistakes: copying is found sooner
        lessons = [_lesson(draws, tokenizer, sure=step < 0.7 * steps) for _ in range(batch)]
        examples = [Example(one, 0, np.ones(len(one.tokens), np.float32)) for one in lessons]
        rank.step([examples], [normalisers(strands, examples)], {}, False)
    rank.save(folder)
    return folder / "model"


def _lesson(draws: random.Random, tokenizer: Tokenizer, *, sure: bool) -> Trajectory:
    """Mostly the right answer, after a number, or after an answer and the request."""
    number = draws.randrange(100, 1000)
    asked = f"{number}:"
    digit = right(number) if sure or draws.random() < KNOWS else draws.choice("0123456789")
    if draws.random() < 0.5:
        asked += f"#{draws.randrange(10)}<eos>{REQUEST}"
    prompt = Prompt(asked, asked, tokenizer.prompt(asked), "null")
    return given(prompt, tokenizer.response(f"#{digit}"), f"#{digit}", name="start", index=0)


def pipeline(folder: Path, model: Path, by: str, steps: int = 25) -> dict[str, Any]:
    """Both stages of SCoRe; `by` says whether the recipe or the environment makes the second turn."""

    def stage(name: str, rate: float) -> dict[str, Any]:
        own: dict[str, Any] = {"by": by} if by == "environment" else {"turn": REQUEST}
        return {
            "name": f"stage-{name}",
            "recipe": {"kind": "score", "stage": name, "rollouts": 8, "first_kl": 1.0, **own},
            "steps": steps,
            "prompts_per_step": 8,
            "optimizer": {"learning_rate": rate, "schedule": {"kind": "constant", "warmup": 5}},
            "sampling": {"max_tokens": MOST},
        }

    content: dict[str, Any] = {
        "name": "correction",
        "seed": 3,
        "model": {"kind": "hf", "path": str(model), "context": CONTEXT, "dtype": "float32"},
        "prompts": {name: {"kind": "jsonl", "path": str(folder / f"{name}.jsonl")} for name in ("train", "probe")},
        "demonstrations": None,
        "verifier": {"kind": "answer"},
        "stages": [stage("one", 1e-3), stage("two", 3e-4)],
        "probe": {"samples": 2},
    }
    if by == "environment":
        content["environment"] = {"kind": "retry", "request": REQUEST}
    return content
