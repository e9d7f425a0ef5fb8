"""The plan of a pipeline: what each stage is made of, who supplies what it needs, and what it takes on trust."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.checks import trajectories
from orchestrator.config import Pipeline, Stage
from orchestrator.legality import Verdict, judge, surroundings
from orchestrator.load import recipe_of
from orchestrator.needs import needs
from orchestrator.recipes import Recipe

__all__ = ["Plan", "StagePlan", "View", "needs", "plan"]


@dataclass(frozen=True, slots=True)
class View:
    """Something that a stage's strands read of every trajectory, and who gives it."""

    name: str
    supplier: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage, expanded."""

    name: str
    recipe: str
    summary: str
    citation: str
    labels: dict[str, Any]
    parameters: dict[str, Any]
    steps: int
    trajectories: int
    """A step's, all sources together."""
    shares: dict[str, float]
    """Producer -> its share of a step's trajectories. A share, not a claim: the ledger measures provenance."""
    strands: tuple[dict[str, Any], ...]
    controls: tuple[dict[str, Any], ...]
    views: tuple[View, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def legal(self) -> bool:
        """Whether no rule refuses the stage."""
        return all(verdict.level != "error" for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline, expanded."""

    name: str
    model: dict[str, Any]
    actors: dict[str, str]
    stages: tuple[StagePlan, ...]

    @property
    def legal(self) -> bool:
        """Whether every stage may run."""
        return all(stage.legal for stage in self.stages)

    def document(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {**asdict(self), "legal": self.legal}


def plan(pipeline: Pipeline) -> Plan:
    """Expand every stage of a checked pipeline."""
    stages = tuple(_stage(pipeline, stage, recipe_of(stage.recipe)) for stage in pipeline.stages)
    return Plan(pipeline.name, pipeline.model.model_dump(mode="json"), _actors(pipeline, stages), stages)


def _stage(pipeline: Pipeline, stage: Stage, recipe: Recipe) -> StagePlan:
    drawn = trajectories(stage.prompts_per_step, recipe)
    shares: dict[str, float] = {}
    for strand in recipe.strands:
        count = strand.source.per_prompt * stage.prompts_per_step + strand.source.per_step
        shares[strand.source.producer] = shares.get(strand.source.producer, 0.0) + count / drawn
    return StagePlan(
        name=stage.name,
        recipe=recipe.name,
        summary=recipe.summary,
        citation=str(recipe.citation),
        labels=recipe.labels.model_dump(mode="json"),
        parameters=dict(recipe.parameters),
        steps=stage.steps,
        trajectories=drawn,
        shares=shares,
        strands=tuple(strand.model_dump(mode="json") for strand in recipe.strands),
        controls=tuple(control.model_dump(mode="json") for control in recipe.controls),
        views=tuple(_views(pipeline, stage, recipe)),
        verdicts=judge(stage, recipe, surroundings(pipeline, pipeline.stages.index(stage))),
    )


# ---------------------------------------------------------------- needs (methods: the needs matrix)


def _views(pipeline: Pipeline, stage: Stage, recipe: Recipe) -> Iterator[View]:
    """The union of the strands' needs and, for each, the actor that is asked."""
    wanted = set().union(*(needs(strand) for strand in recipe.strands))
    producers = {strand.source.producer for strand in recipe.strands}
    frozen, rollout = pipeline.resources.frozen, pipeline.resources.rollout
    if "rollout" in producers:
        yield View("rollouts", f"rollout x {rollout.replicas} ({rollout.engine})", _staleness(stage))
    if "demonstration" in producers and pipeline.demonstrations is not None:
        yield View("demonstrations", f"driver ({pipeline.demonstrations.kind})")
    if "behavior_logps" in wanted:
        yield View("behavior_logps", "rollout", "recorded with every sampled token")
    if "rewards" in wanted:
        yield View("rewards", f"scorer x {pipeline.resources.scorer.replicas} ({pipeline.verifier.kind})")
    if "old_logps" in wanted:
        yield _old(stage)
    if "reference_logps" in wanted:
        yield View("reference_logps", f"frozen x {frozen.replicas} ({frozen.engine})", "the stage's first weights")
    for name in sorted(wanted & {"teacher_logps", "teacher_topk"}):
        yield View(name, f"frozen x {frozen.replicas} ({frozen.engine})", str(recipe.teacher or ""))


def _staleness(stage: Stage) -> str:
    lag = stage.max_staleness
    return f"at most {lag} version{'s' if lag > 1 else ''} old" if lag else "by the newest weights"


def _old(stage: Stage) -> View:
    if stage.updates == 1:
        return View("old_logps", "learner", "skipped: with one update a step it is the current policy, the ratio is 1")
    return View("old_logps", "learner", f"one pass without gradient before the step's {stage.updates} updates")


def _actors(pipeline: Pipeline, stages: tuple[StagePlan, ...]) -> dict[str, str]:
    """Who will be started, with what."""
    given = pipeline.resources
    learner, rollout = given.learner, given.rollout
    zero = f", ZeRO {learner.zero_stage}" if learner.engine == "deepspeed" else ""
    found = {
        "learner": f"{learner.replicas} x {learner.engine}{zero}{_gpus(learner.gpus)}",
        "rollout": f"{rollout.replicas} x {rollout.engine}{_gpus(rollout.gpus)}",
        "scorer": f"{given.scorer.replicas} x {pipeline.verifier.kind}",
    }
    if any("frozen" in view.supplier for stage in stages for view in stage.views):
        found["frozen"] = f"{given.frozen.replicas} x {given.frozen.engine}{_gpus(given.frozen.gpus)}"
    return found


def _gpus(count: float) -> str:
    return f", {count:g} GPU each" if count else ", CPU"
