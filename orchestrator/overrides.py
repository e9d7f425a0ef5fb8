"""`--set key=value`: a change to the pipeline file's content before it is read. Unknown paths are errors."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import yaml

from orchestrator.config import Pipeline
from orchestrator.explain import Fault, nearest, spell
from orchestrator.keys import by_kind, models, names_at, step_in
from orchestrator.notation import parse

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """A file's content after the changes, the paths they touched, and what was wrong with them."""

    content: Any
    paths: tuple[Path, ...]
    faults: tuple[Fault, ...]


class WrongPathError(Exception):
    """A change that cannot be made."""


def apply(content: Any, sets: Sequence[str]) -> Changed:
    """`content` with every `key.path=value`; values are YAML, stages go by name or index."""
    changed = copy.deepcopy(content)
    paths: list[Path] = []
    faults: list[Fault] = []
    for text in sets:
        key, equals, value = text.partition("=")
        try:
            if not equals or not key.strip():
                raise WrongPathError("is not a change; write key.path=value")
            path = _path(key.strip(), changed)
            _put(changed, path, _value(value))
            paths.append(path)
        except WrongPathError as error:
            faults.append(Fault((key,), str(error)))
    return Changed(changed, tuple(paths), tuple(faults))


def _value(text: str) -> Any:
    try:
        return parse(text)
    except yaml.YAMLError as error:
        raise WrongPathError(f"the value is not YAML (got {text!r}); quote it") from error


def _path(key: str, content: Any) -> Path:
    """`stages[1].steps`, `stages.1.steps` or `stages.sharpen.steps` as a path."""
    parts = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    if len(parts) > 1 and parts[0] == "stages":
        return ("stages", _stage(parts[1], content), *(_element(part) for part in parts[2:]))
    return tuple(_element(part) for part in parts)


def _element(part: str) -> str | int:
    if not part:
        raise WrongPathError("has an empty part; write key.path=value")
    return int(part) if part.isdigit() else part


def _stage(part: str, content: Any) -> int:
    stages = content.get("stages") if isinstance(content, dict) else None
    stages = stages if isinstance(stages, list) else []
    names = [str(stage.get("name")) if isinstance(stage, dict) else "" for stage in stages]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(stages):
        return int(part)
    listed = ", ".join(f"{index} {name}" for index, name in enumerate(names))
    close = nearest(part, names)
    raise WrongPathError(f"no stage '{part}'; {close + ' ' if close else ''}the stages are {listed or 'none'}")


def _put(content: Any, path: Path, value: Any) -> None:
    """Set the value, making the mappings above it where the file leaves them to their defaults."""
    here, annotation = content, Pipeline
    for place, element in enumerate(path):
        _check(here, annotation, path[: place + 1], content)
        below = step_in(annotation, element)
        if place == len(path) - 1:
            here[element] = value
            return
        if isinstance(element, str) and here.get(element) is None:
            if below is not Any and not models(below) and not _maps(below):
                raise WrongPathError(f"cannot be set in part; set {spell(path[: place + 1])} as a whole, [a, b]")
            here[element] = _default(annotation, here, element)
        here, annotation = here[element], below


def _check(here: Any, annotation: Any, path: Path, content: Any) -> None:
    """Raise where `path` leads nowhere."""
    element, above = path[-1], spell(path[:-1], content) or "the file"
    if isinstance(here, list):
        if not isinstance(element, int) or element >= len(here):
            raise WrongPathError(f"{above} has entries 0 to {len(here) - 1} (got '{element}')")
    elif not isinstance(here, dict):
        raise WrongPathError(f"{above} is a single value and has no key '{element}'")
    elif isinstance(element, int):
        raise WrongPathError(f"{above} is a mapping and has no entry {element}")
    else:
        known = names_at(annotation, here)
        if models(annotation) and known and element not in known and not _open(annotation):
            raise WrongPathError(f"unknown key; {nearest(element, known) or 'the keys there are ' + ', '.join(known)}")


def _open(annotation: Any) -> bool:
    """Whether the model takes keys of its own, as a recipe does."""
    return any(model.model_config.get("extra") == "allow" for model in models(annotation))


def _maps(annotation: Any) -> bool:
    """Whether a mapping of the user's own choice stands there, such as a contract's figures."""
    return dict in (get_origin(annotation), *map(get_origin, get_args(annotation)))


def _default(annotation: Any, here: dict[str, Any], element: str) -> dict[str, Any]:
    """What the file means by leaving `element` out, as far as its kind."""
    chosen = by_kind(annotation).get(str(here.get("kind"))) or (models(annotation) or (None,))[0]
    field = chosen.model_fields.get(element) if chosen is not None else None
    default = field.default if field is not None else None
    kind = getattr(default, "kind", None)
    return {} if kind is None else {"kind": kind}
