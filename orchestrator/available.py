"""What a recommended pipeline can draw on: a model, prompts, who shows good responses, and who judges."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.config import ArithmeticPrompts, Pipeline, TaskPrompts
from orchestrator.load import recipe_of
from teachers.config import CarelessTeacher, ChainSolver, ModelDemonstrations, ToolCaller
from verifiers.environments.config import ToolsEnvironment

CARRIED = ("held_out_verifier", "health", "environment", "resources")
"""Parts of the measured pipeline that the recommended one takes over, where they are not the defaults."""

RUNS_ON = 1_000_000_000
"""Parameters that a model is taken to have where nobody can tell."""


@dataclass(frozen=True, slots=True)
class Available:
    """As a pipeline file has them; paths are absolute."""

    model: Mapping[str, Any]
    train: Mapping[str, Any]
    """Prompts to train on."""
    verifier: Mapping[str, Any]
    probe: Mapping[str, Any] | None = None
    """Held-out prompts; without them no contract can be measured."""
    demonstrations: Mapping[str, Any] | None = None
    teacher: str = ""
    """Folder of a model with the learner's tokenizer; empty: none."""
    earlier: str = ""
    """Folder of an earlier checkpoint, at which what was lost was still solved; empty: none."""
    scaffold: str = ""
    """Template of a context with help."""
    prompts: int = 0
    """How many there are to train on; 0: unknown."""
    parameters: int = RUNS_ON
    max_tokens: int = 64
    """Longest response."""
    also: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the pipeline, by name."""


def available_of(pipeline: Pipeline, folder: Path, *, prompts: int = 0, earlier: str = "") -> Available:
    """What a pipeline has, for whoever goes on from the model in `folder`; the pipeline's paths must be absolute.

    A demonstrator by rule counts where it can solve the prompts; the default one is no data of anybody's.
    """
    given = pipeline.demonstrations if shows(pipeline) else None
    own = pipeline.prompts
    others = {name: brief(one) for name, one in (("shifted", own.shifted), ("guard", own.guard)) if one is not None}
    also = {name: brief(getattr(pipeline, name)) for name in CARRIED if getattr(pipeline, name) is not None}
    return Available(
        model={"kind": "hf", "path": str(folder), "context": pipeline.model.context, "dtype": pipeline.model.dtype},
        train=brief(own.train),
        probe=None if own.probe is None else brief(own.probe),
        verifier=brief(pipeline.verifier),
        demonstrations=None if given is None else brief(given),
        teacher=teacher_of(pipeline),
        earlier=earlier,
        scaffold=pipeline.handoff.scaffold,
        prompts=prompts,
        parameters=parameters_of(folder),
        max_tokens=max(stage.sampling.max_tokens for stage in pipeline.stages),
        also={name: one for name, one in {**also, "prompts": others}.items() if one},
    )


def brief(config: BaseModel) -> dict[str, Any]:
    """A config as a pipeline file has it: its kind, and what differs from the defaults."""
    found: dict[str, Any] = {"kind": config.kind} if "kind" in type(config).model_fields else {}  # type: ignore[attr-defined]
    for name, own in type(config).model_fields.items():
        value = getattr(config, name)
        if name != "kind" and (own.is_required() or value != own.get_default(call_default_factory=True)):
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return brief(value)
        case tuple() | list():
            return [_plain(one) for one in value]
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case _:
            return value


def shows(pipeline: Pipeline) -> bool:
    """Whether the pipeline has somebody who can show good responses to its training prompts."""
    match pipeline.demonstrations:
        case None:
            return False
        case CarelessTeacher():
            return isinstance(pipeline.prompts.train, ArithmeticPrompts)
        case ChainSolver():
            source = pipeline.prompts.train
            return isinstance(source, TaskPrompts) and source.dataset == "chain_sum"
        case ToolCaller():
            return isinstance(pipeline.environment, ToolsEnvironment)
        case _:
            return True


def teacher_of(pipeline: Pipeline) -> str:
    """The folder of the first teacher that a stage names, or of the model that writes demonstrations; else empty."""
    for stage in pipeline.stages:
        named = recipe_of(stage.recipe).teacher
        if named and named != "self" and not named.startswith("stage:"):
            return named
    given = pipeline.demonstrations
    return given.model.path if isinstance(given, ModelDemonstrations) and given.model.kind == "hf" else ""


def parameters_of(folder: Path) -> int:
    """Parameters of a model folder, from the headers of its safetensors files; `RUNS_ON` where there are none."""
    found = sum(_elements(path) for path in sorted(folder.glob("*.safetensors")))
    return found or RUNS_ON


def _elements(path: Path) -> int:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(size))
    shapes: Sequence[Sequence[int]] = [one["shape"] for name, one in header.items() if name != "__metadata__"]
    return sum(math.prod(shape) for shape in shapes)
