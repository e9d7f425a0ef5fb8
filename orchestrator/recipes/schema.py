"""What a recipe is: the file's form, and the recipe that comes of it once its parameters are known."""

from typing import Any, Literal

from pydantic import Field, create_model

from orchestrator.controls.config import Control
from policies.config import Optimizer, Strand, Strict

Scalar = bool | int | float | str | dict[str, str]
Type = Literal["int", "float", "bool", "str", "path", "paths"]

_PYTHON: dict[Type, type] = {"int": int, "float": float, "bool": bool, "str": str, "path": str, "paths": dict[str, str]}


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


class Refresh(Strict):
    """When a frozen model gets the learner's weights again."""

    kind: Literal["fixed", "every", "average", "best"] = "fixed"
    """fixed: never after the stage's start; every: each `every` steps; average: after each step a share `rate` of the
    learner's weights is mixed in (an exponential moving average); best: when a probe's accuracy is the stage's best."""
    every: int = Field(default=1, ge=1)
    rate: float = Field(default=0.05, gt=0, le=1)


class CoLearner(Strict):
    """A further learner with a scalar head, trained in every step on the records of the policy's strands."""

    name: str
    role: Literal["critic", "reward"]
    """critic: its values reach credit `gae`; reward: its score is the reward (GAD's discriminator)."""
    strands: tuple[Strand, ...] = Field(min_length=1)
    """Each bears the name of the policy's strand whose records it reads; its source is that strand's."""
    optimizer: Optimizer = Optimizer()
    warmup: int = Field(default=0, ge=0)
    """Steps in which it trains alone, before the policy does."""


class RecipeFile(Strict):
    """A recipe file: parameters, and strands and controls in which `$name` stands for a parameter's value.

    A mapping with `when: $name` is left out where the value is false, 0 or empty; so is a term with coefficient 0.
    `{when: $name, use: $name}` is a single value that is left out in the same way.
    """

    name: str
    summary: str
    citation: Citation
    labels: Labels
    notes: tuple[str, ...] = ()
    """What is not verified, and where the defaults come from when they are not the paper's."""
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    teacher: str | None = None
    teachers: str | None = None
    refresh: dict[str, Any] | None = None
    restart: str | bool = False
    head: Literal["language", "scalar"] = "language"
    learners: tuple[dict[str, Any], ...] = ()
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
    notes: tuple[str, ...] = ()
    teacher: str | None = None
    """Folder of the model whose log-probabilities are the teacher's; `self` is the policy as the stage finds it."""
    teachers: dict[str, str] = Field(default_factory=dict)
    """Prompt family -> folder of its teacher, in place of `teacher`; the family `*` is everybody else's."""
    refresh: Refresh = Refresh()
    """Of the teacher `self`, or of the reference where there is none."""
    restart: bool = False
    """Whether the stage's weights start from the run's first ones, once its data are prepared (STaR, ReST-EM)."""
    head: Literal["language", "scalar"] = "language"
    """scalar: the stage trains a reward model: the model's head gives one number."""
    learners: tuple[CoLearner, ...] = ()


def parameter_model(file: RecipeFile) -> type[Strict]:
    """A model with a field for each parameter: it checks types and bounds, and refuses unknown names."""
    fields: dict[str, Any] = {}
    for name, parameter in file.parameters.items():
        bounds = parameter.model_dump(include={"ge", "gt", "le", "lt"}, exclude_none=True)
        default = ... if parameter.required else parameter.default
        kind = Literal[parameter.choices] if parameter.choices else _PYTHON[parameter.type]
        fields[name] = (kind, Field(default, description=parameter.doc, **bounds))
    return create_model(f"Parameters of {file.name}", __base__=Strict, **fields)
