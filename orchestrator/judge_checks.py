"""Cross-checks of the models that a verifier asks, by what their folders say; nothing is loaded.

And of verifiers that compare: whether each stage gives them a group.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from orchestrator.config import Pipeline, verifiers_of
from orchestrator.explain import Fault, shown
from orchestrator.recipes import Recipe
from verifiers.config import AnyVerifier, RubricVerifier, StepsVerifier
from verifiers.endpoint import unset
from verifiers.judge_config import Endpoint, JudgeVerifier
from verifiers.kinds import compares, wanted
from verifiers.scalar_folder import NoScalarHeadError, examine
from verifiers.scalar_model import ONCE
from verifiers.served import Wanted

Keys = tuple[str | int, ...]


def judging_faults(pipeline: Pipeline, *, files: bool) -> Iterator[Fault]:
    """Folders without a scalar head, and machines that are asked for and not needed."""
    judge = pipeline.resources.judge
    models = [one for verifier in verifiers_of(pipeline).values() for one in wanted(verifier)]
    if judge.gpus and not models:
        problem = f"the verifier {pipeline.verifier.kind} asks no model {shown(judge.gpus)}"
        yield Fault(("resources", "judge", "gpus"), problem, "set it to 0")
    elif judge.gpus > 1 and any(one.role != "judge" for one in models):
        problem = f"a model with a scalar head uses one GPU {shown(judge.gpus)}"
        yield Fault(("resources", "judge", "gpus"), problem, "set it to 1, and replicas higher")
    if files:
        found = (_leaves(verifier, (key,)) for key, verifier in verifiers_of(pipeline).items())
        for key, leaf in chain.from_iterable(found):
            for one in wanted(leaf):
                yield from _folder(one, (*key, "path"))
            if isinstance(leaf, JudgeVerifier):
                yield from _in_words(leaf, (*key, "model"))


def _leaves(verifier: AnyVerifier, key: Keys) -> Iterator[tuple[Keys, AnyVerifier]]:
    """Each verifier that judges something itself, and where it stands."""
    match verifier:
        case RubricVerifier():
            for index, part in enumerate(verifier.parts):
                yield from _leaves(part, (*key, "parts", index))
        case StepsVerifier():
            yield from _leaves(verifier.step, (*key, "step"))
            yield from _leaves(verifier.outcome, (*key, "outcome"))
        case _:
            yield key, verifier


def _folder(one: Wanted, key: Keys) -> Iterator[Fault]:
    if one.role == "judge":
        return
    try:
        found = examine(one.path)
    except NoScalarHeadError as error:
        yield Fault(key, error.problem, error.fix)
        return
    if one.role == "process" and not found.every_token:
        problem, _, fix = ONCE.partition("; ")
        yield Fault(key, f"{problem} (got '{one.path}')", fix)


def _in_words(own: JudgeVerifier, key: Keys) -> Iterator[Fault]:
    """A judge's folder that is none, or an endpoint whose key is not there; the key's name may be the key itself."""
    if not isinstance(own.model, Endpoint):
        folder = Path(own.model.path)
        missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
        missing += [] if any(folder.glob("*.safetensors")) else ["*.safetensors"]
        if missing:
            said = f"holds no {', '.join(missing)}" if folder.is_dir() else "no such folder"
            fix = "give a Hugging Face folder on this machine; `braid import-model` makes one of a GGUF file"
            yield Fault((*key, "path"), f"{said} (got '{own.model.path}')", fix)
    elif own.model.key_variable and not os.environ.get(own.model.key_variable, "").strip():
        problem, _, fix = unset(own.model).partition("; ")
        yield Fault((*key, "key_variable"), problem, fix)


# ---------------------------------------------------------------- groups


def comparing_faults(pipeline: Pipeline, recipes: Sequence[Recipe]) -> Iterator[Fault]:
    """Where a verifier that compares the responses of a group would find one alone, every verdict is unknown."""
    for key, step in _steps(pipeline.verifier, ("verifier",)):
        if compares(step):
            problem = f"compares the responses of a group, and a step has none (got '{step.kind}')"
            yield Fault((*key, "kind"), problem, "compare in `outcome`, or with the reference")
    if not compares(pipeline.verifier):
        return
    for index, recipe in enumerate(recipes):
        lone = _lone(recipe)
        if lone:
            fix = "draw two or more for each prompt, or let the verifier compare with the reference"
            problem = f"{lone}, and the verifier compares the responses of a group (got '{recipe.name}')"
            yield Fault(("stages", index, "recipe", "kind"), problem, fix)


def _steps(verifier: AnyVerifier, key: Keys) -> Iterator[tuple[Keys, AnyVerifier]]:
    """The verifiers of single steps."""
    match verifier:
        case RubricVerifier():
            for index, part in enumerate(verifier.parts):
                yield from _steps(part, (*key, "parts", index))
        case StepsVerifier():
            yield (*key, "step"), verifier.step
            yield from _steps(verifier.outcome, (*key, "outcome"))
        case _:
            return


def _lone(recipe: Recipe) -> str:
    """Which responses of a recipe are judged alone, in words; empty where none is."""
    for strand in recipe.strands:
        prepare = strand.source.prepare
        if prepare is not None and prepare.writer != "nobody" and prepare.keep != "all":
            return f"what strand {strand.name} prepares is judged one by one"
    drawn = sum(strand.source.per_prompt for strand in recipe.strands)
    written = any(strand.source.producer == "rollout" for strand in recipe.strands)
    return "a prompt has one response" if written and drawn == 1 else ""
