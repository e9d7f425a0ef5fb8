"""Cross-checks of a pipeline that need no torch: each fault names its key, its value and its fix."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.config import ArithmeticPrompts, Pipeline, PromptSource, TaskPrompts, verifiers_of
from orchestrator.controls import Shares
from orchestrator.data_checks import called, supplies
from orchestrator.data_checks import files as data_files
from orchestrator.environment_checks import environment_faults
from orchestrator.explain import Fault, shown
from orchestrator.handoff_checks import contract_faults
from orchestrator.handoff_config import FOUND_BY
from orchestrator.judge_checks import comparing_faults, judging_faults
from orchestrator.legality import judge, surroundings
from orchestrator.needs import reads_steps
from orchestrator.recipes import Recipe, load
from orchestrator.repairs import expanded
from policies.config import HfModel, Model, Strand
from teachers.config import (
    ChainSolver,
    ModelDemonstrations,
)
from verifiers import function
from verifiers.config import RubricVerifier, StepsVerifier, TaskVerifier, Verifier
from verifiers.text_config import FunctionVerifier

Keys = tuple[str | int, ...]


def check(pipeline: Pipeline, recipes: Sequence[Recipe], *, files: bool = True) -> list[Fault]:
    """Every fault of the pipeline as a whole; `recipes` are its stages', in order; paths are absolute by now.

    Without `files` nothing is looked for on this machine's disk.
    """
    found = [*_probe(pipeline), *_budget(pipeline), *_solver(pipeline), *_resources(pipeline)]
    if files:
        found += [*data_files(pipeline), *_model(pipeline.model, ("model",))]
        if isinstance(pipeline.demonstrations, ModelDemonstrations):
            found += _model(pipeline.demonstrations.model, ("demonstrations", "model"))
        for key, verifier in verifiers_of(pipeline).items():
            found += _functions(verifier, (key,))
        for index, recipe in enumerate(recipes):
            found += _teacher(pipeline, index, recipe)
    found += [
        *_held_out(pipeline),
        *(one for key, own in verifiers_of(pipeline).items() for one in _verifier(own, (key,), pipeline.prompts.train)),
        *judging_faults(pipeline, files=files),
        *comparing_faults(pipeline, recipes),
        *environment_faults(pipeline, files=files),
    ]
    found += [*_labels(pipeline, recipes), *contract_faults(pipeline, recipes), *_repairs(pipeline, files)]
    for index, recipe in enumerate(recipes):
        found += [*_stage(pipeline, index, recipe), *_legality(pipeline, index, recipe, files)]
    return found


# ---------------------------------------------------------------- prompts and models


def _probe(pipeline: Pipeline) -> Iterator[Fault]:
    if pipeline.probe.every is not None and pipeline.prompts.probe is None:
        problem = f"there is nothing to probe {shown(pipeline.probe.every)}"
        yield Fault(("probe", "every"), problem, "add prompts.probe, or remove this")


def _budget(pipeline: Pipeline) -> Iterator[Fault]:
    if pipeline.budget is not None and pipeline.budget.amount is None and pipeline.variants is None:
        fix = "add it; only among `variants` is it what the baseline spent"
        yield Fault(("budget", "amount"), f"missing, and nothing says how many {pipeline.budget.unit}", fix)


def _model(model: Model, key: Keys) -> Iterator[Fault]:
    if not isinstance(model, HfModel):
        return
    folder = Path(model.path)
    if not folder.is_dir():
        fix = "give a Hugging Face folder on this machine; `braid import-model` makes one of a GGUF file"
        yield Fault((*key, "path"), f"no such folder (got '{model.path}')", fix)
        return
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        fix = "give the folder that transformers' save_pretrained wrote"
        yield Fault((*key, "path"), f"holds no {', '.join(missing)} (got '{model.path}')", fix)
    yield from _context(model, folder / "config.json", key)


def _context(model: HfModel, config: Path, key: Keys) -> Iterator[Fault]:
    """The model's own longest context, where its config says one."""
    try:
        said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except ValueError as error:
        yield Fault((*key, "path"), f"config.json is no JSON ({error}) (got '{model.path}')", "copy the folder again")
        return
    longest = said.get("max_position_embeddings") if isinstance(said, dict) else None
    if isinstance(longest, int) and model.context > longest:
        yield Fault(
            (*key, "context"), f"longer than the model's {longest} {shown(model.context)}", f"set it to {longest}"
        )


# ---------------------------------------------------------------- demonstrations


def _solver(pipeline: Pipeline) -> Iterator[Fault]:
    prompts = pipeline.prompts.train
    if isinstance(pipeline.demonstrations, ChainSolver) and not _is_chain_sum(prompts):
        problem = f"solves reasoning_gym's chain_sum alone, but prompts.train is {called(prompts)} (got 'chain_solver')"
        yield Fault(("demonstrations", "kind"), problem, "take demonstrations from jsonl, parquet or model")


def _is_chain_sum(prompts: PromptSource) -> bool:
    return isinstance(prompts, TaskPrompts) and prompts.dataset == "chain_sum"


# ---------------------------------------------------------------- verifier


def _verifier(verifier: Verifier, key: Keys, prompts: PromptSource) -> Iterator[Fault]:
    match verifier:
        case RubricVerifier():
            for index, part in enumerate(verifier.parts):
                yield from _verifier(part, (*key, "parts", index), prompts)
        case StepsVerifier():
            yield from _verifier(verifier.step, (*key, "step"), prompts)
            yield from _verifier(verifier.outcome, (*key, "outcome"), prompts)
        case TaskVerifier() if isinstance(prompts, ArithmeticPrompts):
            problem = "judges reasoning_gym tasks, but prompts.train is arithmetic (got 'reasoning_gym')"
            yield Fault((*key, "kind"), problem, "use the answer verifier, or reasoning_gym prompts")
        case TaskVerifier() if isinstance(prompts, TaskPrompts) and prompts.dataset != verifier.dataset:
            problem = f"prompts.train has tasks of {prompts.dataset} {shown(verifier.dataset)}"
            yield Fault((*key, "dataset"), problem, f"set it to {prompts.dataset}")


def _held_out(pipeline: Pipeline) -> Iterator[Fault]:
    """One that agrees with the verifier by construction says nothing of it."""
    if pipeline.held_out_verifier == pipeline.verifier:
        problem = f"the same as the verifier that rewards {shown(pipeline.verifier.kind)}: they can never part"
        yield Fault(("held_out_verifier",), problem, "choose another one, or remove it")


def _functions(verifier: Verifier, key: Keys) -> Iterator[Fault]:
    """A user's own functions that are not in their files; the files are read, not run."""
    match verifier:
        case RubricVerifier():
            for index, part in enumerate(verifier.parts):
                yield from _functions(part, (*key, "parts", index))
        case StepsVerifier():
            yield from _functions(verifier.step, (*key, "step"))
            yield from _functions(verifier.outcome, (*key, "outcome"))
        case FunctionVerifier() if found := function.fault(verifier.path, verifier.function):
            name, problem = found
            fixes = {
                "path": "give the Python file, relative to the pipeline file's folder",
                "function": "name one of them",
            }
            yield Fault((*key, name), problem, fixes[name])


# ---------------------------------------------------------------- resources


def _resources(pipeline: Pipeline) -> Iterator[Fault]:
    learner, rollout = pipeline.resources.learner, pipeline.resources.rollout
    key: Keys = ("resources", "learner")
    if learner.engine == "deepspeed" and learner.zero_stage == 0 and pipeline.model.dtype == "bfloat16":
        fix = "set it to 1 or more, or model.dtype to float32"
        yield Fault((*key, "zero_stage"), "bfloat16 with DeepSpeed needs partitioned optimizer state (got 0)", fix)
    if learner.engine == "torch" and learner.zero_stage > 0:
        problem = f"the torch engine partitions nothing {shown(learner.zero_stage)}"
        yield Fault((*key, "zero_stage"), problem, "set it to 0, or the engine to deepspeed")
    if learner.gpus > 1:
        yield Fault((*key, "gpus"), f"one rank uses one GPU {shown(learner.gpus)}", "set it to 1, and replicas higher")
    if rollout.engine == "torch" and rollout.gpus > 1:
        problem = f"the torch engine uses one GPU {shown(rollout.gpus)}"
        yield Fault(("resources", "rollout", "gpus"), problem, "set it to 1, or the engine to vllm")


# ---------------------------------------------------------------- stages


def _stage(pipeline: Pipeline, index: int, recipe: Recipe) -> Iterator[Fault]:
    stage, key = pipeline.stages[index], ("stages", index)
    names = [other.name for other in pipeline.stages]
    if names.index(stage.name) < index:
        yield Fault((*key, "name"), f"stage {names.index(stage.name)} has this name {shown(stage.name)}", "rename one")
    producers = {strand.source.producer for strand in recipe.strands}
    yield from supplies(pipeline, recipe, (*key, "recipe"))
    if "rollout" not in producers and stage.max_staleness:
        problem = f"{recipe.name} draws no rollouts that could lag {shown(stage.max_staleness)}"
        yield Fault((*key, "max_staleness"), problem, "remove it")
    if "rollout" in producers and stage.sampling.max_tokens >= pipeline.model.context:
        problem = f"leaves no room for a prompt in model.context {pipeline.model.context}"
        fix = f"set it below {pipeline.model.context}, or raise model.context"
        yield Fault((*key, "sampling", "max_tokens"), f"{problem} {shown(stage.sampling.max_tokens)}", fix)
    drawn = trajectories(stage.prompts_per_step, recipe)
    if stage.updates > drawn:
        problem = f"a step has {drawn} trajectories to split {shown(stage.updates)}"
        yield Fault((*key, "updates"), problem, f"set it to {drawn} or less, or raise prompts_per_step")


def trajectories(prompts: int, recipe: Recipe) -> int:
    """How many trajectories a step draws on average, where no strand rests."""
    return int(sum(asked(strand, prompts, recipe) for strand in recipe.strands))


def asked(strand: Strand, prompts: int, recipe: Recipe) -> float:
    """How many of them are the strand's: where prompts are shared out, for its share of them."""
    shares = (one.shares for one in recipe.controls if isinstance(one, Shares))
    share = next((one[strand.name] for one in shares if strand.name in one), 1.0)
    return strand.source.per_prompt * prompts * share + strand.source.per_step


def _labels(pipeline: Pipeline, recipes: Sequence[Recipe]) -> Iterator[Fault]:
    if pipeline.step_labels is not None and not any(reads_steps(one) for recipe in recipes for one in recipe.strands):
        problem = f"no stage's credit reads scores named step {shown(pipeline.step_labels.kind)}"
        yield Fault(("step_labels",), problem, "choose math_shepherd, pav or step_credit, or remove it")


def _teacher(pipeline: Pipeline, index: int, recipe: Recipe) -> Iterator[Fault]:
    key: Keys = ("stages", index, "recipe")
    named = [((*key, "teacher"), recipe.teacher)] if recipe.teacher else []
    named += [((*key, "teachers", family), where) for family, where in recipe.teachers.items()]
    earlier = [stage.name for stage in pipeline.stages[:index]]
    for place, where in named:
        if where.startswith("stage:"):
            if where.removeprefix("stage:") not in earlier:
                fix = f"the stages before this one are {', '.join(earlier) or 'none'}"
                yield Fault(place, f"no earlier stage (got '{where}')", fix)
        elif where != "self" and not where.startswith(FOUND_BY) and not (Path(where) / "config.json").is_file():
            fix = "give a Hugging Face folder; paths are relative to the pipeline file's folder"
            yield Fault(place, f"no model folder (got '{where}')", fix)


def _repairs(pipeline: Pipeline, files: bool) -> Iterator[Fault]:
    """What is wrong with the stages that a broken contract would insert, as faults of handoff.repair."""
    whole, where = expanded(pipeline)
    for index, repair in where.items():
        recipe = load(repair.config.recipe.kind, **(repair.config.recipe.model_extra or {}))
        found = [*_stage(whole, index, recipe), *_legality(whole, index, recipe, files)]
        for fault in [*found, *(_teacher(whole, index, recipe) if files else ())]:
            key = fault.path[2:] if fault.path[2:3] == ("recipe",) else ()
            after = f"after {pipeline.stages[repair.of].name}: "
            yield Fault(("handoff", "repair", *key), after + fault.problem, fault.fix)


def _legality(pipeline: Pipeline, index: int, recipe: Recipe, files: bool) -> Iterator[Fault]:
    for verdict in judge(pipeline.stages[index], recipe, surroundings(pipeline, index, files=files)):
        if verdict.level == "error":
            where = f" of {verdict.where}" if verdict.where else ""
            key: Keys = ("stages", index, *(verdict.key or ("recipe",)))
            yield Fault(key, f"{verdict.rule}{where}: {verdict.text}", verdict.fix)
