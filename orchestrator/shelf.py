"""The recipes as `braid recipes` shows them: labels, citation, and a composition that is made from the strands."""

import json
from collections.abc import Sequence
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator import recipes
from orchestrator.composition import composition, say_control, with_defaults
from orchestrator.plan_text import say_labels, say_parts, table
from orchestrator.recipes import Labels, RecipeFile
from policies.bad_input import BadInput, near


def chosen(name: str = "", *, provenance: str = "", interface: str = "", role: str = "") -> list[RecipeFile]:
    """Recipes with these labels, in order of their names, or the one of that name; BadInput for an unknown one."""
    wanted = {"provenance": provenance, "interface": interface, "role": role}
    for label, value in wanted.items():
        known = _values(label)
        if value and value not in known:
            there = f"it is one of {', '.join(known)}{near(value, known)}"
            raise BadInput([f"--{label}: no such label (got '{value}'); {there}"])
    files = [recipes.file(one) for one in ([name] if name else recipes.names())]
    return [file for file in files if all(_has(file.labels, *one) for one in wanted.items())]


def _values(label: str) -> tuple[str, ...]:
    """The words that a label may be."""
    kind = Labels.model_fields[label].annotation
    inner = get_args(kind)
    return inner if label == "provenance" else get_args(inner[0])


def _has(labels: Labels, label: str, value: str) -> bool:
    own = getattr(labels, label)
    return not value or value == own or (isinstance(own, tuple) and value in own)


def document(file: RecipeFile) -> dict[str, Any]:
    """Everything of one recipe as JSON values; `composition` is that of the defaults."""
    return {**file.model_dump(mode="json"), "composition": composition(with_defaults(file))}


def listing(files: Sequence[RecipeFile]) -> Table:
    """A row for each: name, labels, and below its summary the composition and the paper."""
    found = Table("recipe", "labels", "composition and source", box=None, padding=(0, 2, 1, 0), header_style="bold")
    found.columns[0].no_wrap = True
    for file in files:
        labels = [file.labels.provenance, *file.labels.interface, *file.labels.role]
        about = Text.assemble(composition(with_defaults(file)), "\n", (str(file.citation), "dim"))
        found.add_row(Text(file.name, "bold"), Text("\n".join(labels)), about)
    return found


def describe(file: RecipeFile) -> RenderableType:
    """One recipe: what it is, its strands at the defaults, its parameters and notes."""
    recipe = with_defaults(file)
    about = [
        ("from", str(file.citation)),
        ("labels", say_labels(file.labels)),
        ("composition", composition(recipe)),
        *say_parts(recipe.strands, recipe.learners),
        *(("control", say_control(control)) for control in recipe.controls),
        *(("note", note) for note in file.notes),
    ]
    title = Text.assemble((file.name, "bold"), f"  {file.summary}")
    return Group(title, table(about), Text(), _parameters(file))


def _parameters(file: RecipeFile) -> RenderableType:
    if not file.parameters:
        return Text("  no parameters")
    found = Table("parameter", "type", "default", "meaning", box=None, padding=(0, 2), header_style="bold")
    for name, parameter in file.parameters.items():
        default = "required" if parameter.required else json.dumps(parameter.default)
        choices = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
        found.add_row(name, parameter.type, default, Text(parameter.doc + choices))
    return found
