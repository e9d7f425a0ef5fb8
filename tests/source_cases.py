"""A case as a small world of writers: what a stage prepares before it trains, and which rows a paper's rule would keep.

A group of rows is a prompt: first what is written at each attempt, then the demonstrations that the prompt has. A row's
first token is its number, by which it is known wherever it goes.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.engine import SampleRequest, TokenScores
from orchestrator import recipes
from orchestrator.collect import Collector, Recipe
from orchestrator.config import RecipeChoice, Stage
from orchestrator.controls import Scope, StepPlan, plan_step
from orchestrator.prepared import Prepared
from orchestrator.preparing import prepare
from orchestrator.records import Collected
from policies.prompt import Prompt
from policies.trajectory import Float32, Int32, ScoreEntry, Trajectory
from tests.fakes import prompt
from tests.parity_case import Case, random_case
from tests.recipe_bridge import trajectory
from tests.test_parity_guided import LETTERS

PROMPTS = 8


@dataclass
class World:
    """The case's rows behind the loop's ports: writer, scorer, shelf of demonstrations, ranker."""

    case: Case
    samples: int = 1
    """Rows that each attempt writes."""
    given: int = 1
    """Demonstrations, the last rows of each group."""
    known: Mapping[str, Any] = field(default_factory=dict)
    """Fields of every demonstration."""
    asked: list[str] = field(default_factory=list)
    """What each written response was asked with."""

    # ------------------------------------------------------------ ports

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """The row that stands for this prompt, attempt and draw."""
        return [self._written(one) for one in requests]

    def _written(self, one: SampleRequest) -> Trajectory:
        attempt, draw = (int(part) for part in one.id.rsplit("/", 1)[1].split("-"))
        row = int(one.prompt_id[1:]) * self.case.group_size + attempt * self.samples + draw
        self.asked.append(LETTERS.decode(one.context))
        fields = {"id": one.id, "group_id": one.group_id, "sampling": one.sampling, "behavior_context": one.context}
        return trajectory(self._all_own(), row, scores=(), **fields)

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The case's rewards; above a half a response passed."""
        return [replace(one, scores=(*one.scores, self._entry(one))) for one in trajectories]

    def _entry(self, one: Trajectory) -> ScoreEntry:
        value = float(self.case.rewards_B[one.tokens[0]])
        return ScoreEntry("reward", value, value > 0.5)

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        """A demonstration of the prompt."""
        if index >= self.given:
            return None
        row = (int(prompt_id[1:]) + 1) * self.case.group_size - self.given + index
        context = LETTERS.prompt(text(int(prompt_id[1:])))
        contexts = dict.fromkeys(("train_context", "behavior_context", "teacher_context"), context)
        one = trajectory(replace(self.case, off_B=np.ones_like(self.case.off_B)), row, scores=(), **contexts)
        return replace(one, text=f"book{row}", **self.known)

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        """Nobody draws demonstrations without a prompt here."""
        return []

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int) -> list[TokenScores]:
        """The policy's word of a whole response; without its prompt, from its first token on, the reference's."""
        return [TokenScores(self._likelihood(c, t)) for c, t in zip(contexts, tokens, strict=True)]

    def _likelihood(self, context: Int32, tokens: Int32) -> Float32:
        alone = len(context) == 1
        row = int((context if alone else tokens)[0])
        view = (self.case.reference_BT[:, 1:] if alone else self.case.logps_BT)[row, : len(tokens)]
        return view.astype(np.float32)

    async def hidden(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """Nobody asks."""
        raise NotImplementedError

    # ------------------------------------------------------------ runs

    def _all_own(self) -> Case:
        return replace(self.case, off_B=np.zeros_like(self.case.off_B))

    def collector(self, **fields: Any) -> Collector:
        """Everything behind one collector; the teacher writes as the learner does."""
        count = len(self.case.mask_BT) // self.case.group_size
        prompts = tuple(
            prompt(f"p{i}", text=text(i), tokens=LETTERS.prompt(text(i)), reference=f'"{i + 1}"') for i in range(count)
        )
        base: dict[str, Any] = {"tokenizer": LETTERS, "writers": {"teacher": self}, **fields}
        return Collector(self, self, prompts, {one.id: one for one in prompts}, self, 3, **base)

    def stage(self) -> Stage:
        """A stage of eleven steps, each of every prompt."""
        count = len(self.case.mask_BT) // self.case.group_size
        return Stage(name="a", recipe=RecipeChoice(kind="sft"), steps=11, prompts_per_step=count)

    def prepared(self, name: str, folder: Path, **parameters: Any) -> dict[str, Prepared]:
        """What the recipe prepares, strand by strand."""
        strands = recipes.load(name, **parameters).strands
        return asyncio.run(
            prepare(self.stage(), strands, self.collector(), folder, ranker=self, on_drop=lambda lost: None)
        )

    def collected(self, name: str, prepared: Mapping[str, Prepared], **parameters: Any) -> Collected:
        """The recipe's first step, with what was prepared for it."""
        recipe = recipes.load(name, **parameters)
        plan: StepPlan = plan_step((), [], 0, {}, 3, Scope(11, tuple(one.name for one in recipe.strands)))
        work = Recipe(self.stage(), recipe.strands)
        return asyncio.run(self.collector(prepared=prepared).collect(work, 0, plan))

    def rows(self, kept: Sequence[Trajectory]) -> list[int]:
        """The case's rows of these records, whose tokens they have."""
        found = [int(one.tokens[0]) for one in kept]
        for row, one in zip(found, kept, strict=True):
            np.testing.assert_array_equal(one.tokens, self.case.tokens_BT[row, self.case.mask_BT[row]])
        return found


def drawn(seed: int, group: int) -> Case:
    """Eight prompts with this many rows each; two in five responses pass."""
    rows = PROMPTS * group
    case = random_case(seed, rows=rows, group=group, vocabulary=max(rows, 13))
    passed = np.random.default_rng(seed + 5).random(rows) < 0.4
    tokens_BT = np.concatenate([np.arange(rows)[:, None], case.tokens_BT[:, 1:]], 1)
    return replace(case, tokens_BT=tokens_BT, rewards_B=passed.astype(float), off_B=np.zeros(rows, bool))


def text(number: int) -> str:
    """A prompt's text."""
    return f"{number}+1="
