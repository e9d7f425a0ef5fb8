"""Recipes: strands and controls as data, one YAML file each. Code knows no algorithm's name.

`names()` lists them, `load(name, **parameters)` fills one in.
"""

from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.controls import strands_of
from orchestrator.notation import parse
from orchestrator.recipes.arithmetic import arithmetic
from orchestrator.recipes.schema import Citation, Labels, Parameter, Recipe, RecipeFile, parameter_model
from policies.bad_input import BadInput, near, refuse
from policies.config import Strand, Strict

__all__ = [
    "Citation", "Labels", "Parameter", "Recipe", "RecipeFile", "file", "load", "names", "parameter_model",
    "parameters_of",
]  # fmt: skip

FOLDER = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Every recipe's name, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@cache
def file(name: str) -> RecipeFile:
    """The recipe's file as it stands, parameters not filled in; BadInput where there is none of that name."""
    if name not in names():
        raise BadInput([f"recipe: no recipe '{name}'{near(name, names())}; `braid recipes` lists them"])
    return RecipeFile.model_validate(parse((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


@cache
def parameters_of(name: str) -> type[Strict]:
    """The recipe's `parameter_model`, made once: making one takes longer than all that is checked with it."""
    return parameter_model(file(name))


def load(name: str, **overrides: Any) -> Recipe:
    """The recipe with its parameters filled in: BadInput for an unknown name, ValidationError for a bad parameter."""
    source = file(name)
    values = parameters_of(name).model_validate(overrides).model_dump()
    filled = _filled(source.model_dump(include=COMPOSED, exclude_none=True), values)
    about = source.model_dump(include={"name", "summary", "citation", "labels", "notes"})
    recipe = Recipe.model_validate({**about, **_without_idle_terms(filled), "parameters": values})
    refuse(tuple(_faults(recipe)))
    return recipe


COMPOSED = {"strands", "controls", "teacher", "teachers", "refresh", "restart", "head", "learners"}
"""The parts of a recipe file in which parameters stand."""

_ABSENT = object()


def _filled(node: Any, values: dict[str, Any]) -> Any:
    """`node` with `$name` and `$(arithmetic)` replaced, and without the mappings whose `when` is false."""
    match node:
        case str() if node.startswith("$("):
            return arithmetic(node, values)
        case str() if node.startswith("$"):
            return values[node[1:]]
        case dict():
            if not _filled(node.get("when", True), values):
                return _ABSENT
            if set(node) == {"when", "use"}:
                return _filled(node["use"], values)
            items = {key: _filled(value, values) for key, value in node.items() if key != "when"}
            return {key: value for key, value in items.items() if value is not _ABSENT}
        case list() | tuple():
            return [value for value in (_filled(item, values) for item in node) if value is not _ABSENT]
        case _:
            return node


def _without_idle_terms(filled: dict[str, Any]) -> dict[str, Any]:
    """A term with coefficient 0 asks for views and adds nothing: it goes."""
    strands = [
        {**strand, "terms": [term for term in strand["terms"] if term.get("coefficient", 1.0) != 0]}
        for strand in filled["strands"]
    ]
    return {**filled, "strands": strands}


def _faults(recipe: Recipe) -> list[str]:
    """What the types cannot say: names that must match, and constants that a reducer needs."""
    strands = [strand.name for strand in recipe.strands]
    named = [strand for control in recipe.controls for strand in strands_of(control)]
    faults = [
        f"{recipe.name}: controls: no strand '{name}'{near(name, strands)}" for name in named if name not in strands
    ]
    faults += [f"{recipe.name}: strands: two are called '{name}'" for name in set(strands) if strands.count(name) > 1]
    if not any(strand.terms for strand in recipe.strands):
        faults.append(f"{recipe.name}: strands: every coefficient is 0; nothing is left to learn")
    return faults + [fault for strand in recipe.strands for fault in _strand_faults(recipe.name, strand)]


def _strand_faults(recipe: str, strand: Strand) -> list[str]:
    key = f"{recipe}: strands.{strand.name}"
    source = strand.source
    faults = []
    if bool(source.per_prompt) == bool(source.per_step):
        faults.append(f"{key}.source: set one of per_prompt and per_step (got {source.per_prompt}, {source.per_step})")
    for term in strand.terms:
        needs_length = term.reduce.kind in ("batch_length", "length")
        if needs_length != (term.reduce.length is not None):
            verb = "needs" if needs_length else "takes no"
            faults.append(
                f"{key}.terms.{term.name}.reduce: {term.reduce.kind} {verb} length (got {term.reduce.length})"
            )
    return faults
