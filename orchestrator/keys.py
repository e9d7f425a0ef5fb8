"""The pipeline file's keys: which models may stand at a path, which names they take, and every key there is."""

from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

Model = type[BaseModel]


@cache
def fields(model: Model) -> dict[str, Any]:
    """Field name -> annotation, forward references resolved."""
    hints = get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in model.model_fields if name in hints}


def models(annotation: Any) -> tuple[Model, ...]:
    """The config models that may stand where `annotation` does; several where a `kind` chooses."""
    if get_origin(annotation) is Annotated:
        return models(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(model for part in get_args(annotation) if part is not NoneType for model in models(part))
    return (annotation,) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()


def item(annotation: Any) -> Any:
    """What one entry of a list, or one value of a mapping, is; Any where that is open."""
    if get_origin(annotation) is Annotated:
        return item(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return next((item(part) for part in get_args(annotation) if part is not NoneType and get_args(part)), Any)
    arguments = get_args(annotation)
    if get_origin(annotation) in (tuple, list):
        return arguments[0]
    return arguments[-1] if get_origin(annotation) is dict else Any


def kind_of(model: Model) -> str:
    """The `kind` that chooses this model; empty where none does."""
    annotation = fields(model).get("kind")
    return str(get_args(annotation)[0]) if get_origin(annotation) is Literal else ""


def by_kind(annotation: Any) -> dict[str, Model]:
    """kind -> model, where a `kind` chooses among several; empty elsewhere."""
    found = models(annotation)
    return {kind_of(model): model for model in found} if len(found) > 1 else {}


def step_in(annotation: Any, element: str | int) -> Any:
    """What stands at `element` of something that is `annotation`; Any where that is open or unknown."""
    if isinstance(element, int):
        return item(annotation)
    for model in models(annotation):
        if element in fields(model):
            return fields(model)[element]
    return item(annotation)


def names_at(annotation: Any, value: Any) -> tuple[str, ...]:
    """The keys that may stand there, given what does."""
    found = models(annotation)
    kind = value.get("kind") if isinstance(value, dict) else None
    chosen = by_kind(annotation).get(kind) if isinstance(kind, str) else None
    return tuple(fields(chosen or found[0])) if chosen or len(found) == 1 else ()


def reachable(model: Model) -> Iterator[Model]:
    """The model and every config model below it, each once."""
    seen: list[Model] = []
    waiting = [model]
    while waiting:
        found = waiting.pop()
        if found not in seen:
            seen.append(found)
            waiting += [below for annotation in fields(found).values() for below in _below(annotation)]
    return iter(seen)


def _below(annotation: Any) -> tuple[Model, ...]:
    here = models(annotation)
    inside = item(annotation)
    return here if here or inside is Any else _below(inside)


def every_key(model: Model) -> list[str]:
    """Every key as Model.field, sorted: a model that stands in two places, or is inherited from, counts once."""
    return sorted({f"{_owner(found, name)}.{name}" for found in reachable(model) for name in fields(found)})


def _owner(model: Model, field: str) -> str:
    return next(base.__name__ for base in model.__mro__ if field in vars(base).get("__annotations__", {}))
