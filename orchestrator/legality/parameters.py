"""Which key of the pipeline sets a control's field: a recipe's controls are written in its parameters."""

import re
from typing import Any

from orchestrator import recipes
from orchestrator.controls.config import Control
from orchestrator.recipes import Recipe


def key_of(recipe: Recipe, control: Control, field: str, entry: str = "") -> tuple[str, ...]:
    """`(recipe, size)`: the parameter that stands at the control's `field`, within the stage; else the recipe alone.

    `entry` is a key of a field that is a mapping. Where several parameters stand in an expression it is the first.
    """
    value = _written(recipe, control).get(field)
    if entry and isinstance(value, dict):
        value = value.get(entry)
    named = re.findall(r"[a-z_]\w*", value) if isinstance(value, str) and value.startswith("$") else []
    parameter = next((name for name in named if name in recipe.parameters), None)
    return ("recipe", parameter) if parameter else ("recipe",)


def _written(recipe: Recipe, control: Control) -> dict[str, Any]:
    """The control as it stands in the recipe's file; empty for a recipe that has none."""
    if recipe.name not in recipes.names():
        return {}
    of_file = [one for one in recipes.file(recipe.name).controls if one.get("kind") == control.kind]
    of_recipe = [one for one in recipe.controls if one.kind == control.kind]
    if len(of_file) != len(of_recipe) or control not in of_recipe:
        return {}  # one was left out by `when`: which is which is not known
    return of_file[of_recipe.index(control)]
