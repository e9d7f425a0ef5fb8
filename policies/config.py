"""Config base and the branches that `policies` owns: models, optimizers, and what a recipe composes.

Every model is frozen and refuses unknown keys. A field's meaning stands under the field; its default is the
vetted one, and no other place holds a second default.
"""

from typing import Annotated, Literal

from pydantic import Field

from policies.credit_config import (
    ConstantCredit,
    Credit,
    Gae,
    GroupCredit,
    Overlong,
    PartCredit,
    ProcessCredit,
    SignCredit,
    TeacherGap,
    TurnCredit,
)
from policies.kernel_config import (
    BoxCox,
    Clip,
    Div,
    Identity,
    Kernel,
    Log,
    Only,
    OriginName,
    Parabola,
    Point,
    Reduce,
    Saturate,
    Set,
    Shape,
    SoftGate,
    Term,
    TokenWeight,
)
from policies.source_config import Past, Prepare, Select, Source, Template
from policies.strict import Strict

__all__ = [
    "BoxCox", "Clip", "ConstantCredit", "Credit", "Div", "Gae", "GroupCredit", "HfModel", "Identity", "Kernel", "Log",
    "Lora", "Model", "Only", "Optimizer", "OriginName", "Overlong", "Parabola", "PartCredit", "Past", "Point",
    "Prepare", "ProcessCredit", "Reduce", "Saturate", "Schedule", "Select", "Set", "Shape", "SignCredit", "SoftGate",
    "Source", "Strand", "Strict", "TeacherGap", "Template", "Term", "TinyModel", "TokenWeight", "TurnCredit",
]  # fmt: skip


# ---------------------------------------------------------------- models


class TinyModel(Strict):
    """A small Qwen3 with a character tokenizer, made from its seed: no download."""

    kind: Literal["tiny"] = "tiny"
    preset: Literal["arithmetic", "arithmetic-small"] = "arithmetic"
    """arithmetic: hidden 128, 4 layers, 0.8 M parameters; arithmetic-small: hidden 64, 2 layers."""
    context: Annotated[int, Field(ge=32, le=4096)] = 128
    """Longest prompt plus response, in tokens."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Parameter type of learner and engines."""


class HfModel(Strict):
    """A Hugging Face folder on this machine (config.json, tokenizer.json, *.safetensors)."""

    kind: Literal["hf"] = "hf"
    path: str
    """The folder, absolute or relative to the pipeline file."""
    context: Annotated[int, Field(ge=32)] = 2048
    """Longest prompt plus response, in tokens; must fit the model."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Parameter type of learner and engines."""


Model = Annotated[TinyModel | HfModel, Field(discriminator="kind")]


class Lora(Strict):
    """Low-rank adapters through peft; the engines receive merged weights."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter."""


class Schedule(Strict):
    """Learning rate over a stage: linear warm-up, then constant, linear or cosine decay to `floor` x peak."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps of linear warm-up from 0."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the peak that is left at the stage's last step."""


class Optimizer(Strict):
    """AdamW with global-norm clipping."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    betas: tuple[float, float] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest global gradient norm."""
    schedule: Schedule = Schedule()


# ---------------------------------------------------------------- strands


class Strand(Strict):
    """Source x supervision x objective."""

    name: str
    source: Source
    credit: Credit = GroupCredit()
    terms: tuple[Term, ...]
    """Empty where the trajectories serve their group alone: a greedy baseline, a first turn, another's correction."""
