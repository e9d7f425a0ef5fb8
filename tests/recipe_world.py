"""A small world in which any recipe of the catalogue can train: real engine, learners and loop, in this process."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.local import LocalParts, local_parts
from orchestrator import recipes
from orchestrator.collect import Collector, Recipe
from orchestrator.companions import Companion, rewarded
from orchestrator.config import RecipeChoice, SamplingConfig, Stage
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.needs import wanted
from orchestrator.preparing import furnish
from orchestrator.recipes.schema import Recipe as Expanded
from policies.config import Optimizer, TinyModel
from policies.model_folder import materialise
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Int32, Origin, Preference, ScoreEntry, Trajectory
from tests.fakes import FakeLedger, NoEyes, prompt, trajectory
from verifiers.config import FormatVerifier

MODEL = TinyModel(preset="arithmetic-small", context=96)
REQUIRED = {"teacher": "some/folder", "teachers": {"*": "some/folder"}}
PROMPTS = 6


@dataclass(frozen=True, slots=True)
class Lowered:
    """The tiny model's tokenizer, which knows no capitals and little punctuation, over templates that have both."""

    own: Tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def prompt(self, text: str) -> Int32:
        """The text without what the model cannot read, at most 60 characters of it."""
        return self.own.prompt(re.sub(r"[^0-9a-z+=;# ]", "", text.lower())[-60:] or "?")

    def turn(self, text: str, *, ended: bool) -> Int32:
        return self.prompt(text[:8])


@dataclass(frozen=True, slots=True)
class Shelves:
    """Two demonstrations for each prompt, pairs, and labelled rows."""

    tokenizer: Tokenizer

    def given(self, prompt_id: str, name: str, text: str, **fields: Any) -> Trajectory:
        tokens, context = self.tokenizer.response(text), self.tokenizer.prompt(f"{prompt_id[1:]}+1=")
        contexts = dict.fromkeys(("train_context", "behavior_context", "teacher_context"), context)
        told = {"tokens": tokens, "text": text, "prompt_id": prompt_id, **contexts, **fields}
        return trajectory(name, len(tokens), origin_of=Origin.DEMONSTRATION, **told)

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        texts = ("12;3#4", "1;2;3#5")
        return self.given(prompt_id, f"d{index}-{prompt_id}", texts[index]) if index < 2 else None

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        return [self.given(f"p{at % PROMPTS}", f"d0-p{at % PROMPTS}", "12;3#4") for at in range(count)]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A longer chosen and a shorter rejected answer."""

    shelves: Shelves

    def at_step(self, step: int, count: int, seed: int) -> list[tuple[Trajectory, ...]]:
        return [
            tuple(
                self.shelves.given(f"p{at % PROMPTS}", f"s{at}-{label}", text, preference=Preference(f"s{at}", label))
                for text, label in (("12;3#4", 1.0), (f"{at}", 0.0))
            )
            for at in range(count)
        ]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows with a label each, or with labels of their steps."""

    shelves: Shelves
    steps: bool

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        spans = (ScoreEntry("step", 1.0, start=0, end=3), ScoreEntry("step", 0.0, start=3, end=6))
        return [
            self.shelves.given(
                f"p{at % PROMPTS}",
                f"l{at}",
                f"12;{at % 7}#4",
                preference=None if self.steps else Preference("", float(at % 2)),
                scores=spans if self.steps else (),
            )
            for at in range(count)
        ]


@dataclass(frozen=True, slots=True)
class Stepwise:
    """The verifier's verdict, and a score for each half of every response, as a process verifier would give."""

    scorer: Any

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        return [self._halved(one) for one in await self.scorer.score(trajectories, prompts)]

    def _halved(self, one: Trajectory) -> Trajectory:
        size = len(one.text)
        halves = ((0, size // 2, float(size % 2)), (size // 2, size, float(size % 3 == 0)))
        spans = [
            ScoreEntry(name, value, value > 0, start=start, end=end)
            for name in ("step", "part")
            for start, end, value in halves
            if end > start
        ]
        return replace(one, scores=(*one.scores, *spans))


async def train(name: str, steps: int = 3, **parameters: Any) -> FakeLedger:
    """A stage of the recipe over real parts; the ledger that it leaves."""
    required = {key: REQUIRED[key] for key, one in recipes.file(name).parameters.items() if one.required}
    recipe = recipes.load(name, **required, **parameters)
    folder = Path(tempfile.mkdtemp())
    where = materialise(MODEL, folder / "model")
    parts = local_parts(
        where,
        MODEL,
        FormatVerifier(pattern=r"(?s)[0-9a-m].*"),  # a random policy passes half of the time
        seed=1,
        head=recipe.head,
        companions=[one.name for one in recipe.learners],
        frozen=["frozen"],
    )
    stage = Stage(
        name="a",
        recipe=RecipeChoice(kind=name),
        steps=steps,
        prompts_per_step=3,
        optimizer=Optimizer(learning_rate=1e-3),
        sampling=SamplingConfig(max_tokens=6),
    )
    await begin(parts, recipe, stage)
    ledger = FakeLedger()
    run = StageRun(0, stage, recipe.strands, recipe.controls, recipe.teacher, recipe.learners)
    await run_stage(run, await ports(parts, recipe, stage, Tokenizer.load(where), ledger), RunState())
    await parts.sampler.close()
    return ledger


async def begin(parts: LocalParts, recipe: Expanded, stage: Stage) -> None:
    """The stage's learners, and its frozen model with the policy's first weights."""
    for one in recipe.learners:
        await parts.companions[one.name].begin_stage(one.strands, one.optimizer, stage.steps)
    await parts.learner.begin_stage(recipe.strands, stage.optimizer, stage.steps)
    if recipe.head == "language":
        await parts.publish(0)
        await parts.frozen["frozen"].update_weights(parts.learner.rank.export_weights(0))
        for role in ("teacher", "reference"):
            if f"{role}_hidden" in wanted(recipe.strands):
                await parts.learner.attach_head(role, await parts.frozen["frozen"].head())


async def ports(parts: LocalParts, recipe: Expanded, stage: Stage, tokenizer: Tokenizer, ledger: FakeLedger) -> Ports:
    """The loop's ports over the parts."""
    shelves, frozen = Shelves(tokenizer), parts.frozen["frozen"]
    steps = any(getattr(term.kernel, "unit", "") == "token" for one in recipe.strands for term in one.terms)
    asked = [f"{at}+1=" for at in range(PROMPTS)]
    prompts = tuple(
        prompt(f"p{at}", text=text, tokens=tokenizer.prompt(text), reference=json.dumps(str(at + 1)))
        for at, text in enumerate(asked)
    )
    companions = tuple(Companion(one, parts.companions[one.name]) for one in recipe.learners)
    collector = Collector(
        parts.sampler,
        rewarded(Stepwise(parts.scorer), companions, lambda: 0),
        prompts,
        {one.id: one for one in prompts},
        shelves,
        3,
        Lowered(tokenizer),  # type: ignore[arg-type]
        {"teacher": frozen, "reference": frozen},
        Pairs(shelves),
        Labelled(shelves, steps),
        longest=MODEL.context,
    )
    furnished = await furnish(
        collector,
        Recipe(stage, recipe.strands),
        Path(tempfile.mkdtemp()),
        step=0,
        ranker=frozen,
        on_drop=lambda one: None,
    )

    async def after(run: StageRun, state: RunState) -> None:
        json.dumps(state.controls)  # a checkpoint can hold them

    reads = [furnished, parts.learner, parts, ledger, NoEyes(), frozen, frozen, after]
    return Ports(*reads, wants_weights=lambda run, state: False, companions=companions)


def trained(ledger: FakeLedger) -> list[dict[str, Any]]:
    """Rows of the steps in which the policy trained."""
    return [dict(row) for row in ledger.rows if row["tokens_trained"] > 0 and np.isfinite(row["loss"])]
