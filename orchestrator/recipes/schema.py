"""What a recipe is: the file's form, and the recipe that comes of it once its parameters are known."""

from typing import Any, Literal

from pydantic import Field, create_model

from orchestrator.controls.config import Control
from policies.config import Strand, Strict

Scalar = bool | int | float | str
Type = Literal["int", "float", "bool", "str", "path"]

_PYTHON: dict[Type, type] = {"int": int, "float": float, "bool": bool, "str": str, "path": str}


class Citation(Strict):
    """Where the recipe comes from."""

    paper: str
    arxiv: str

    def __str__(self) -> str:
        return f"{self.paper} (arXiv {self.arxiv})"


class Labels(Strict):
    """The survey's labels (arXiv 2604.07941): provenance, supervision interface, role."""

    provenance: Literal["off", "on", "mixed"]
    interface: tuple[Literal["token_targets", "preferences", "reward", "process", "teacher"], ...]
    role: tuple[Literal["expansion", "reshaping", "consolidation"], ...]


class Parameter(Strict):
    """One number, switch or path that a pipeline may set; it has no default where it must be set."""

    type: Type
    doc: str
    default: Scalar | None = None
    choices: tuple[str, ...] = ()
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    @property
    def required(self) -> bool:
        """Whether a pipeline must set it."""
        return self.default is None


class RecipeFile(Strict):
    """A recipe file: parameters, and strands and controls in which `$name` stands for a parameter's value.

    A mapping with `when: $name` is left out where the value is false, 0 or empty; so is a term with coefficient 0.
    """

    name: str
    summary: str
    citation: Citation
    labels: Labels
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    teacher: str | None = None
    strands: tuple[dict[str, Any], ...] = Field(min_length=1)
    controls: tuple[dict[str, Any], ...] = ()


class Recipe(Strict):
    """Strands and controls, with every parameter filled in."""

    name: str
    summary: str
    citation: Citation
    labels: Labels
    parameters: dict[str, Scalar]
    """Every parameter's value, defaults included."""
    strands: tuple[Strand, ...] = Field(min_length=1)
    controls: tuple[Control, ...] = ()
    teacher: str | None = None
    """Folder of the model that the teacher's log-probabilities come from."""


def parameter_model(file: RecipeFile) -> type[Strict]:
    """A model with a field for each parameter: it checks types and bounds, and refuses unknown names."""
    fields: dict[str, Any] = {}
    for name, parameter in file.parameters.items():
        bounds = parameter.model_dump(include={"ge", "gt", "le", "lt"}, exclude_none=True)
        default = ... if parameter.required else parameter.default
        kind = Literal[parameter.choices] if parameter.choices else _PYTHON[parameter.type]
        fields[name] = (kind, Field(default, description=parameter.doc, **bounds))
    return create_model(f"Parameters of {file.name}", __base__=Strict, **fields)
