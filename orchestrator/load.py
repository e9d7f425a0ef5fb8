"""A pipeline file becomes a `Pipeline`: read, changed by `--set`, checked, every default and path filled in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator import recipes
from orchestrator.checks import check
from orchestrator.config import Pipeline, RecipeChoice
from orchestrator.explain import Fault, faults, nearest, yaml_line
from orchestrator.handoff_config import FOUND
from orchestrator.notation import parse, write
from orchestrator.overrides import Path as Keys
from orchestrator.overrides import apply
from policies.bad_input import BadInput, refuse


def read(path: Path | str, sets: Sequence[str] = (), *, elsewhere: bool = False, checked: bool = True) -> Pipeline:
    """The pipeline in the file, changed by `key.path=value`; BadInput with every fault it has.

    Paths in it come out absolute (a relative one starts at the file's folder) and recipes with all their parameters.
    `elsewhere`: it will run on another machine, so paths stay as written and nothing is looked for here. Without
    `checked` its parts are not judged together: it ran already, and is only to be read.
    """
    path = Path(path)
    changed = apply(_content(path), sets)
    origin = _Origin(str(path), changed.paths, changed.content)
    lines = [fault.line("--set") for fault in changed.faults]
    lines += [origin.line(fault) for fault in _recipe_faults(changed.content)]
    try:
        pipeline = Pipeline.model_validate(changed.content)
    except ValidationError as error:
        refuse([origin.line(fault) for fault in faults(error, Pipeline, changed.content)] + lines)
        raise
    refuse(lines)
    resolved = resolve(pipeline, None if elsewhere else path.absolute().parent)
    if checked:
        recipes_of_stages = [recipe_of(stage.recipe) for stage in resolved.stages]
        refuse([origin.line(fault) for fault in check(resolved, recipes_of_stages, files=not elsewhere)])
    return resolved


def dump(pipeline: Pipeline, *, base: Path | None = None) -> str:
    """The pipeline as YAML that `read` gives back equal; with `base`, relative paths are made absolute from there."""
    return write((pipeline if base is None else resolve(pipeline, base)).model_dump(mode="json"))


def recipe_of(choice: RecipeChoice) -> recipes.Recipe:
    """The recipe that a stage of a checked pipeline chose."""
    return recipes.load(choice.kind, **(choice.model_extra or {}))


class _Origin:
    """Says of a fault whether the file or a `--set` brought it."""

    def __init__(self, file: str, sets: Sequence[Keys], content: Any) -> None:
        self._file, self._sets, self._content = file, sets, content

    def line(self, fault: Fault) -> str:
        brought = any(fault.path[: len(path)] == path or path[: len(fault.path)] == fault.path for path in self._sets)
        return fault.line(f"{self._file} with --set" if brought and fault.path else self._file, self._content)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput([f"{path}: no such file; check the path"]) from error
    except (IsADirectoryError, PermissionError) as error:
        raise BadInput([f"{path}: {str(error.strerror).lower()}; give a pipeline file"]) from error
    except UnicodeDecodeError as error:
        raise BadInput([f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"]) from error
    except yaml.YAMLError as error:
        raise BadInput([yaml_line(error, str(path))]) from error
    if not isinstance(content, dict):
        was = "is empty" if content is None else "is not a mapping"
        raise BadInput([f"{path}: {was}; a pipeline has `name:` and `stages:` at least"])
    return content


# ---------------------------------------------------------------- recipes


def _recipe_faults(content: Mapping[str, Any]) -> list[Fault]:
    """Unknown recipes and illegal parameters, stage by stage, whatever else is wrong with the file."""
    stages = content.get("stages")
    listed = stages if isinstance(stages, list) else []
    places: list[tuple[Any, Keys]] = [(stage, ("stages", index)) for index, stage in enumerate(listed)]
    found: list[Fault] = []
    for holder, key in [*places, (_inside(content, "handoff", "repair"), ("handoff", "repair"))]:
        choice = _inside(holder, "recipe")
        if isinstance(choice, dict) and isinstance(choice.get("kind"), str):
            found += _choice_faults(choice, (*key, "recipe"))
    return found


def _inside(content: Any, *keys: str) -> Any:
    """What stands below these keys; None where nothing does."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _choice_faults(choice: Mapping[str, Any], key: Keys) -> list[Fault]:
    kind = choice["kind"]
    parameters = {name: value for name, value in choice.items() if name != "kind"}
    if kind not in recipes.names():
        close = nearest(kind, recipes.names())
        fix = f"{close + ' ' if close else ''}`braid recipes` lists them"
        return [Fault((*key, "kind"), f"unknown recipe (got '{kind}')", fix)]
    model = recipes.parameters_of(kind)
    try:
        model.model_validate(parameters)
        recipes.load(kind, **parameters)
    except ValidationError as error:
        return faults(error, model, parameters, key)
    except BadInput as error:
        return [Fault(key, line) for line in error.lines]
    return []


# ---------------------------------------------------------------- resolution


def resolve(pipeline: Pipeline, folder: Path | None) -> Pipeline:
    """The pipeline with paths made absolute from `folder` and every recipe parameter written out.

    Resolving twice changes nothing. Without a folder, paths stay as they are.
    """
    content = _absolute(pipeline, folder)
    for stage, written in zip(pipeline.stages, content["stages"], strict=True):
        written["recipe"] = _parameters(stage.recipe, folder)
    content["handoff"]["repair"]["recipe"] = _parameters(pipeline.handoff.repair.recipe, folder)
    return Pipeline.model_validate(content)


def _parameters(choice: RecipeChoice, folder: Path | None) -> dict[str, Any]:
    recipe = recipe_of(choice)
    of_file = recipes.file(choice.kind).parameters
    filled = {
        name: _model_place(value, folder) if of_file[name].type in ("path", "paths") else value
        for name, value in recipe.parameters.items()
    }
    return {"kind": choice.kind, **filled}


def _absolute(node: Any, folder: Path | None) -> Any:
    """A config model as plain data, each field called `path` made absolute."""
    match node:
        case BaseModel():
            return {name: _place(value, folder) if name == "path" else _absolute(value, folder) for name, value in node}
        case tuple():
            return [_absolute(one, folder) for one in node]
        case _:
            return node


def _model_place(value: Any, folder: Path | None) -> Any:
    """A model's folder made absolute, or several; `self`, `found` and `stage:NAME` are no paths."""
    if isinstance(value, Mapping):
        return {name: _model_place(one, folder) for name, one in value.items()}
    return value if value in ("self", FOUND) or value.startswith("stage:") else _place(value, folder)


def _place(path: str, folder: Path | None) -> str:
    return path if folder is None else str((folder / Path(path).expanduser()).resolve())
