"""The plan of a pipeline: what each stage is made of, who supplies what it needs, and what it takes on trust."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from orchestrator import contracts
from orchestrator.checks import asked, trajectories
from orchestrator.composition import composition, refreshed
from orchestrator.config import Pipeline, Stage, models_that_judge
from orchestrator.controls import Bottleneck, Control, watched
from orchestrator.handoff_config import FOUND_BY
from orchestrator.legality import Verdict, judge, surroundings
from orchestrator.legality.waits import most_tried
from orchestrator.load import recipe_of
from orchestrator.needs import needs, of_terms, reads_steps, wanted
from orchestrator.recipes import Recipe
from orchestrator.recipes.schema import CoLearner
from orchestrator.repairs import contract_of, expanded
from orchestrator.schedule_text import say_schedule
from policies.config import Strand
from verifiers.config import AnyVerifier, RubricVerifier, part_name

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
    """A step's, all sources together, where no strand rests."""
    shares: dict[str, float]
    """Producer -> its share of a step's trajectories. A share, not a claim: the ledger measures provenance."""
    composition: str
    """The recipe in one line."""
    notes: tuple[str, ...]
    """The recipe's own: what is not verified, where defaults come from."""
    strands: tuple[Strand, ...]
    learners: tuple[CoLearner, ...]
    controls: tuple[Control, ...]
    schedule: tuple[str, ...]
    """What each control does in this stage, in words."""
    views: tuple[View, ...]
    verdicts: tuple[Verdict, ...]
    contract: tuple[str, ...] = ()
    """What must hold after it, a line for each bound."""

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
    repairs: tuple[StagePlan, ...] = ()
    """Stages that are run only where a contract asks for them, the first attempt of each."""

    @property
    def legal(self) -> bool:
        """Whether every stage may run."""
        return all(stage.legal for stage in self.stages)

    def document(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {**TypeAdapter(Plan).dump_python(self, mode="json"), "legal": self.legal}


def plan(pipeline: Pipeline) -> Plan:
    """Expand every stage of a checked pipeline."""
    stages = tuple(_stage(pipeline, stage, recipe_of(stage.recipe)) for stage in pipeline.stages)
    whole, where = expanded(pipeline)
    repairs = tuple(_stage(whole, one.config, recipe_of(one.config.recipe)) for one in where.values())
    model = pipeline.model.model_dump(mode="json")
    return Plan(pipeline.name, model, _actors(pipeline, (*stages, *repairs)), stages, repairs)


def _stage(pipeline: Pipeline, stage: Stage, recipe: Recipe) -> StagePlan:
    drawn = trajectories(stage.prompts_per_step, recipe)
    shares: dict[str, float] = {}
    for strand in recipe.strands:
        count = asked(strand, stage.prompts_per_step, recipe)
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
        composition=composition(recipe),
        notes=recipe.notes,
        strands=recipe.strands,
        learners=recipe.learners,
        controls=recipe.controls,
        schedule=tuple(say_schedule(control, stage, most_tried(recipe, stage)) for control in recipe.controls),
        views=tuple(_views(pipeline, stage, recipe)),
        verdicts=judge(stage, recipe, surroundings(pipeline, pipeline.stages.index(stage))),
        contract=tuple(contracts.lines(contract_of(pipeline, stage))),
    )


# ---------------------------------------------------------------- views (methods: 13.3, the needs matrix)


def _views(pipeline: Pipeline, stage: Stage, recipe: Recipe) -> Iterator[View]:
    """The union of the strands' needs and, for each, the actor that is asked."""
    read = wanted(recipe.strands).union(*(of_terms(own) for learner in recipe.learners for own in learner.strands))
    yield from _written(pipeline, stage, recipe)
    if "parent_text" in read:
        yield View("parent_text", "driver", "a second round, once the parents are written")
    if "behavior_logps" in read:
        yield View("behavior_logps", "rollout", "recorded with every sampled token")
    yield from _judged(pipeline, recipe, read | _watched(recipe))
    yield from _recomputed(stage, recipe, read)
    yield from _frozen(pipeline, recipe, read)


def _written(pipeline: Pipeline, stage: Stage, recipe: Recipe) -> Iterator[View]:
    """Who writes the trajectories."""
    sampler, frozen = _sampler(pipeline), _engine(pipeline)
    producers = dict.fromkeys(strand.source.producer for strand in recipe.strands)
    if "rollout" in producers:
        yield View("rollouts", sampler, _staleness(stage))
    if "replay" in producers:
        yield View("replay", "driver", "what the learner wrote before, from the run's own store")
    for producer in ("teacher", "reference"):
        if producer in producers:
            yield View(f"{producer} responses", frozen, _whose(recipe, producer))
    for strand in recipe.strands:
        if strand.source.prepare is not None and strand.source.prepare.writer != "nobody":
            writer = sampler if strand.source.prepare.writer == "learner" else frozen
            yield View(f"prepared {strand.name}", writer, "written once, before the stage's first step")
    yield from _given(pipeline, recipe)


def _given(pipeline: Pipeline, recipe: Recipe) -> Iterator[View]:
    """Data sets of the pipeline."""
    producers = {strand.source.producer for strand in recipe.strands}
    hinted = any(strand.source.prefix or "demonstration_text" in needs(strand) for strand in recipe.strands)
    if pipeline.demonstrations is not None and ("demonstration" in producers or hinted):
        yield View("demonstrations", f"driver ({pipeline.demonstrations.kind})")
    if pipeline.preferences is not None and "preference" in producers:
        yield View("preferences", f"driver ({pipeline.preferences.kind})")
    if pipeline.labels is not None and "labelled" in producers:
        yield View("labels", f"driver ({pipeline.labels.kind})")


def _sampler(pipeline: Pipeline) -> str:
    return f"rollout x {pipeline.resources.rollout.replicas} ({pipeline.resources.rollout.engine})"


def _engine(pipeline: Pipeline) -> str:
    return f"frozen x {pipeline.resources.frozen.replicas} ({pipeline.resources.frozen.engine})"


def _watched(recipe: Recipe) -> set[str]:
    """What controls read of a group."""
    return {"rewards"} if any(watched(control) for control in recipe.controls) else set()


def _judged(pipeline: Pipeline, recipe: Recipe, read: set[str]) -> Iterator[View]:
    """Who says what a trajectory is worth."""
    scorer = f"scorer x {pipeline.resources.scorer.replicas} ({pipeline.verifier.kind})"
    judges = [learner.name for learner in recipe.learners if learner.role == "reward"]
    if "rewards" in read:
        yield View("rewards", f"co-learner {judges[0]}" if judges else scorer)
    if "step_scores" in read:
        yield _step_scores(pipeline, recipe, scorer)
    if "values" in read:
        critics = [learner.name for learner in recipe.learners if learner.role == "critic"]
        yield View("values", f"co-learner {critics[0]}" if critics else "nobody", "before the step's first update")


def _step_scores(pipeline: Pipeline, recipe: Recipe, scorer: str) -> View:
    """Who says what steps, turns and parts are worth."""
    labels = pipeline.step_labels
    if labels is None or not any(map(reads_steps, recipe.strands)):
        return View("step_scores", scorer, "entries with a span: steps, turns or parts")
    writer = _sampler(pipeline) if labels.writer == "learner" else _engine(pipeline)
    best = {1: "", "all": ", whether any is right"}.get(labels.best_of, f", the best of {labels.best_of}")
    what = "what each step adds" if labels.kind == "progress" else "each step's worth"
    whose = {"learner": "", "reference": " of the reference", "teacher": " of the teacher"}[labels.writer]
    return View(
        "step_scores", writer, f"{what}, by {labels.completions} completions{whose}{best}; the scorer judges them"
    )


def _recomputed(stage: Stage, recipe: Recipe, read: set[str]) -> Iterator[View]:
    """What learners say of the step before they change."""
    before = f"one pass without gradient before the step's {stage.updates} updates"
    if "old_logps" in read:
        skipped = stage.updates == 1 and "statistics" not in read
        note = "skipped: with one update a step it is the current policy, the ratio is 1" if skipped else before
        yield View("old_logps", "learner", note.replace("1 updates", "first update"))
    if "old_entropy" in read:
        yield View("old_entropy", "learner", before.replace("1 updates", "first update"))
    if "old_values" in read:
        yield View("old_values", "co-learner" if recipe.learners else "learner", "with the values")
    if "targets" in read:
        yield View("targets", "driver", "returns, or step labels of the data")
    if "statistics" in read:
        yield View("statistics", "learner", "over the whole step, gathered from every rank before the first backward")
    if any(isinstance(control, Bottleneck) and control.reach for control in recipe.controls):
        whose = "of the demonstrations of prompts that no fresh response passes"
        yield View("reach", "learner", f"one pass without gradient, {whose}")


def _frozen(pipeline: Pipeline, recipe: Recipe, read: set[str]) -> Iterator[View]:
    """What models that are not trained say of the tokens."""
    for model in ("reference", "teacher"):
        for form in ("logps", "topk", "hidden"):
            if f"{model}_{form}" in read:
                yield View(f"{model}_{form}", _engine(pipeline), _whose(recipe, model))


def _whose(recipe: Recipe, model: str) -> str:
    """Whose weights a frozen model holds, and until when."""
    folders = ", ".join(f"{family}: {folder}" for family, folder in recipe.teachers.items()) or recipe.teacher or ""
    itself = "self" in (recipe.teacher, *recipe.teachers.values())
    if model == "teacher" and not itself:
        return folders.replace(FOUND_BY, "the policy as it was before stage ")
    weights = f"{folders}, the stage's first weights" if model == "teacher" else "the stage's first weights"
    moves = recipe.refresh.kind != "fixed" and (model == "teacher") == itself
    return weights + (f", {refreshed(recipe.refresh)}" if moves else "")


def _staleness(stage: Stage) -> str:
    lag = stage.max_staleness
    return f"at most {lag} version{'s' if lag > 1 else ''} old" if lag else "by the newest weights"


def _actors(pipeline: Pipeline, stages: tuple[StagePlan, ...]) -> dict[str, str]:
    """Who will be started, with what."""
    given = pipeline.resources
    learner, rollout = given.learner, given.rollout
    zero = f", ZeRO {learner.zero_stage}" if learner.engine == "deepspeed" else ""
    found = {
        "learner": f"{learner.replicas} x {learner.engine}{zero}{_gpus(learner.gpus)}",
        "rollout": f"{rollout.replicas} x {rollout.engine}{_gpus(rollout.gpus)}",
        "scorer": f"{given.scorer.replicas} x {_judging(pipeline.verifier)}",
    }
    if pipeline.held_out_verifier is not None:
        found["held-out"] = f"{given.scorer.replicas} x {pipeline.held_out_verifier.kind}, which nothing trains on"
    if asked := models_that_judge(pipeline):
        found["judge"] = f"{given.judge.replicas} x {' and '.join(asked)}{_gpus(given.judge.gpus)}"
    if (acting := pipeline.environment) is not None:
        found["environment"] = f"{acting.replicas} x {acting.kind}, at most {acting.turns} turns"
    for name in dict.fromkeys(learner.name for stage in stages for learner in stage.learners):
        found[name] = f"{learner.replicas} x {learner.engine}, a co-learner with a scalar head"
    if any("frozen" in view.supplier for stage in stages for view in stage.views):
        found["frozen"] = f"{given.frozen.replicas} x {given.frozen.engine}{_gpus(given.frozen.gpus)}"
    return found


def _judging(verifier: AnyVerifier) -> str:
    """The verifier's kind, of a rubric with its parts."""
    parts = [part_name(one) for one in verifier.parts] if isinstance(verifier, RubricVerifier) else []
    return f"{verifier.kind} ({', '.join(parts)})" if parts else verifier.kind


def _gpus(count: float) -> str:
    return f", {count:g} GPU each" if count else ", CPU"
