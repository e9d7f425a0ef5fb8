"""One pipeline from a start model until its tokens are spent, on the real loop in one process; what it then solves."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.local import LocalParts, local_parts
from benchmarks.fixed_pipelines import Part
from benchmarks.planted_families import Task, demonstrations_of, prompts_of
from benchmarks.solve_counts import SAMPLING, VERIFIER, Solved, asked
from benchmarks.start_model import Start
from orchestrator.collect import Collector
from orchestrator.config import RecipeChoice, Stage
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.recipes import load
from orchestrator.replay import Replay
from policies.config import Optimizer, Schedule, Select, Strand
from policies.example import Example
from policies.tokens import Tokenizer
from policies.trajectory import Float32

ENDLESS = 1_000_000
"""Steps of a stage: budgets end it, not its length."""
WARMUP = 5
"""Steps of linear warm-up: Adam's first steps at full rate undo a start model."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens that a pipeline may spend; it stops after the step that reaches either."""

    trained: int
    generated: int


class Spent(Exception):  # noqa: N818  (an end, not an error)
    """A stage's budget is used up."""


@dataclass(slots=True)
class Meter:
    """Counts a pipeline's tokens and ends a stage when they are spent: the loop's eyes and its `after_step`."""

    budget: Budget
    trained: int = 0
    generated: int = 0
    steps: int = 0
    share: float = 1.0
    """Of the learner's budget that the stage ends at."""
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def step(self, row: Mapping[str, Any]) -> None:
        """A step is done."""
        self.trained += int(row["tokens_trained"])
        self.generated += int(row["tokens_generated"])
        self.steps += 1
        self.rows.append(row)

    @property
    def spent(self) -> bool:
        """Whether the stage is at its end."""
        return self.trained >= self.share * self.budget.trained or self.generated >= self.budget.generated

    async def after_step(self, stage: StageRun, state: RunState) -> None:
        """End the stage by an exception, before anybody plans another step."""
        if self.spent:
            raise Spent


@dataclass(slots=True)
class Notes:
    """A ledger that keeps decisions alone."""

    decisions: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, step: int, examples: Sequence[Example], stage: str) -> None:
        """Nothing."""

    def coefficients(self, step: int, examples: Sequence[Example], stage: str, g: Float32) -> None:
        """Nothing."""

    def decision(self, row: Mapping[str, Any]) -> None:
        """Keep it."""
        self.decisions.append(row)

    def metrics(self, row: Mapping[str, Any]) -> None:
        """Nothing: the meter has it."""

    def event(self, kind: str, **facts: Any) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pipeline used and what its policy solves."""

    solved: Mapping[str, Solved]
    trained: int
    generated: int
    steps: int
    seconds: float
    decisions: Sequence[Mapping[str, Any]] = ()
    rows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What all pipelines of a seed share."""

    tasks: Sequence[Task]
    start: Start
    seed: int
    budget: Budget
    samples: int


def run(parts: Sequence[Part], rate: float, setting: Setting) -> Outcome:
    """Train as the pipeline says, at one learning rate, and measure."""
    return asyncio.run(_run(parts, rate, setting))


async def _run(pipeline: Sequence[Part], rate: float, setting: Setting) -> Outcome:
    began = time.perf_counter()
    model = setting.start.model
    tokenizer = Tokenizer.load(setting.start.folder)
    parts = local_parts(setting.start.folder, model, VERIFIER, seed=setting.seed)
    meter, notes, state = Meter(setting.budget), Notes(), RunState()
    try:
        for index, part in enumerate(pipeline):
            meter.share = part.share
            stage = _stage(index, part, rate)
            await parts.learner.begin_stage(stage.strands, stage.config.optimizer, ENDLESS)
            await parts.publish(state.version)
            await _until_spent(stage, _ports(parts, stage, setting, tokenizer, meter, notes), state)
            state.stage, state.stage_step, state.controls = index + 1, 0, []
        await parts.publish(state.version)
        solved = await asked(parts, setting.tasks, tokenizer, setting.seed, setting.samples)
    finally:
        await parts.sampler.close()
    seconds = time.perf_counter() - began
    return Outcome(solved, meter.trained, meter.generated, meter.steps, seconds, notes.decisions, meter.rows)


async def _until_spent(stage: StageRun, ports: Ports, state: RunState) -> None:
    try:
        await run_stage(stage, ports, state)
    except* Spent:
        pass


def _stage(index: int, part: Part, rate: float) -> StageRun:
    chosen = load(part.recipe, **part.parameters)
    config = Stage(
        name=f"part-{index}",
        recipe=RecipeChoice(kind=part.recipe),
        steps=ENDLESS,
        prompts_per_step=part.prompts,
        optimizer=Optimizer(learning_rate=part.times * rate, schedule=Schedule(warmup=WARMUP)),
        sampling=SAMPLING,
    )
    return StageRun(index, config, _verified(chosen.strands) if part.verified else chosen.strands, chosen.controls)


def _verified(strands: Sequence[Strand]) -> tuple[Strand, ...]:
    """The strands, whose demonstrations are judged first: those that fail do not train."""
    passed = Select(kind="passed")
    return tuple(
        one.model_copy(update={"source": one.source.model_copy(update={"select": passed})})
        if one.source.producer == "demonstration"
        else one
        for one in strands
    )


def _ports(
    parts: LocalParts, stage: StageRun, setting: Setting, tokenizer: Tokenizer, meter: Meter, notes: Notes
) -> Ports:
    prompts = prompts_of(setting.tasks, tokenizer)
    collector = Collector(
        parts.sampler,
        parts.scorer,
        prompts,
        {one.id: one for one in prompts},
        demonstrations_of(setting.tasks, prompts, tokenizer),
        setting.seed,
        tokenizer,
        replay=Replay.of(stage.strands),
        policy=parts.learner,
    )
    return Ports(collector, parts.learner, parts, notes, meter, None, None, meter.after_step, lambda run, state: False)
