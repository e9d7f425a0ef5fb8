"""Cross-checks of the models that a verifier asks, by what their folders say; nothing is loaded."""

from collections.abc import Iterator

from orchestrator.config import Pipeline
from orchestrator.explain import Fault, shown
from verifiers.config import AnyVerifier, RubricVerifier, StepsVerifier
from verifiers.kinds import wanted
from verifiers.scalar_folder import NoScalarHeadError, examine
from verifiers.scalar_model import ONCE
from verifiers.served import Wanted

Keys = tuple[str | int, ...]


def judging_faults(pipeline: Pipeline, *, files: bool) -> Iterator[Fault]:
    """Folders without a scalar head, and machines that are asked for and not needed."""
    judge, models = pipeline.resources.judge, wanted(pipeline.verifier)
    if judge.gpus and not models:
        problem = f"the verifier {pipeline.verifier.kind} asks no model {shown(judge.gpus)}"
        yield Fault(("resources", "judge", "gpus"), problem, "set it to 0")
    elif judge.gpus > 1 and any(one.role != "judge" for one in models):
        problem = f"a model with a scalar head uses one GPU {shown(judge.gpus)}"
        yield Fault(("resources", "judge", "gpus"), problem, "set it to 1, and replicas higher")
    if files:
        for key, leaf in _leaves(pipeline.verifier, ("verifier",)):
            for one in wanted(leaf):
                yield from _folder(one, (*key, "path"))


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
