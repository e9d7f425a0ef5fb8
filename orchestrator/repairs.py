"""Repair stages: planned up front for every stage whose contract may ask for one, and run only when it does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import recipes
from orchestrator.config import Pipeline, RecipeChoice, Stage
from orchestrator.handoff_config import FOUND, FOUND_BY, Contract


@dataclass(frozen=True, slots=True)
class Planned:
    """A repair that may be run."""

    of: int
    """Index of the stage that it repairs, in the pipeline."""
    attempt: int
    """The first is 1."""
    config: Stage


def contract_of(pipeline: Pipeline, stage: Stage) -> Contract:
    """What the stage is held to: its own contract, or else the pipeline's."""
    return pipeline.handoff.contract if stage.contract is None else stage.contract


def tries(pipeline: Pipeline, stage: Stage) -> int:
    """How many repairs may follow the stage; 0 where no term asks for any."""
    asked = any(term.otherwise == "repair" for term in contract_of(pipeline, stage).values())
    return pipeline.handoff.repair.tries if asked else 0


def planned(pipeline: Pipeline, begun: tuple[int, int] = (-1, 0)) -> Iterator[Planned]:
    """Every repair that the pipeline's contracts may ask for, by stage and attempt.

    `begun`: index of a stage and an attempt at its repair that a run has begun, whatever its contract is now.
    """
    for index, stage in enumerate(pipeline.stages):
        least = begun[1] if index == begun[0] else 0
        for attempt in range(1, max(tries(pipeline, stage), least) + 1):
            yield Planned(index, attempt, _stage(pipeline, stage, attempt))


def expanded(pipeline: Pipeline) -> tuple[Pipeline, dict[int, Planned]]:
    """The pipeline in which every repair does run, the first attempt of each, and these by their index there."""
    first = {one.of: one for one in planned(pipeline) if one.attempt == 1}
    stages: list[Stage] = []
    where: dict[int, Planned] = {}
    for index, stage in enumerate(pipeline.stages):
        stages.append(stage)
        if index in first:
            where[len(stages)] = first[index]
            stages.append(first[index].config)
    return pipeline.model_copy(update={"stages": tuple(stages)}), where


def name(stage: str, attempt: int) -> str:
    """`sharpen-repair`, then `sharpen-repair-2`."""
    return f"{stage}-repair" if attempt == 1 else f"{stage}-repair-{attempt}"


def _stage(pipeline: Pipeline, stage: Stage, attempt: int) -> Stage:
    repair = pipeline.handoff.repair
    return Stage(
        name=name(stage.name, attempt),
        recipe=_recipe(repair.recipe, stage.name),
        steps=repair.steps,
        prompts_per_step=stage.prompts_per_step,
        optimizer=stage.optimizer,
        sampling=stage.sampling,
        contract=contract_of(pipeline, stage),
    )


def _recipe(choice: RecipeChoice, stage: str) -> RecipeChoice:
    """The recipe whose teacher is the policy as `stage` found it, where it names that."""
    parameters = recipes.file(choice.kind).parameters

    def told(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: told(one) for key, one in value.items()}
        return f"{FOUND_BY}{stage}" if value == FOUND else value

    given = choice.model_extra or {}
    models = {key for key, one in parameters.items() if one.type in ("path", "paths")}
    return RecipeChoice(kind=choice.kind, **{key: told(one) if key in models else one for key, one in given.items()})
