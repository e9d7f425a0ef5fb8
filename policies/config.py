"""Config base and the branches that `policies` owns: models, optimizers, and what a recipe composes.

Every model is frozen and refuses unknown keys. A field's meaning stands under the field; its default is the
vetted one, and no other place holds a second default.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of every config model: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


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


# ---------------------------------------------------------------- credit: supervision -> advantages


class GroupCredit(Strict):
    """Advantage of a trajectory = (reward - baseline) / scale, spread over its tokens."""

    kind: Literal["group"] = "group"
    baseline: Literal["zero", "mean", "leave_one_out"] = "mean"
    """zero: the reward itself; mean: group mean (GRPO); leave_one_out: mean of the others (RLOO)."""
    scale: Literal["none", "std", "mean"] = "none"
    """std: unbiased (ddof 1) group deviation + eps (GRPO); mean: group mean reward (MaxRL)."""
    eps: Annotated[float, Field(gt=0)] = 1e-4
    scope: Literal["all", "on_policy"] = "all"
    """Whose rewards form the group's statistics: every member, or the learner's own rollouts alone."""
    lone: Literal["zero", "reward"] = "zero"
    """Advantage of a group of one: 0 (as TRL), or the reward itself (as verl and LUFFY)."""


class ConstantCredit(Strict):
    """Advantage 1 on every token: imitation."""

    kind: Literal["constant"] = "constant"
    value: float = 1.0


class TeacherGap(Strict):
    """Per token: scale x (teacher log-probability - behavior log-probability), detached (on-policy distillation)."""

    kind: Literal["teacher_gap"] = "teacher_gap"
    scale: float = 1.0


Credit = Annotated[GroupCredit | ConstantCredit | TeacherGap, Field(discriminator="kind")]


# ---------------------------------------------------------------- kernels (methods.md 13.4)


class Identity(Strict):
    """f = r A."""

    kind: Literal["identity"] = "identity"


class Log(Strict):
    """f = log(r) A: with denominator `current` this is plain weighted likelihood."""

    kind: Literal["log"] = "log"


class Clip(Strict):
    """f = min(r A, clip(r, 1-low, 1+high) A); for A < 0 never below dual x A (PPO, arXiv 1707.06347 eq. 7)."""

    kind: Literal["clip"] = "clip"
    low: Annotated[float, Field(gt=0, le=1)] = 0.2
    high: Annotated[float, Field(gt=0)] = 0.2
    dual: Annotated[float, Field(gt=1)] | None = None


class Saturate(Strict):
    """f = r/(r+gamma) A: LUFFY's policy shaping (arXiv 2504.14945)."""

    kind: Literal["saturate"] = "saturate"
    gamma: Annotated[float, Field(gt=0)] = 0.1


Shape = Annotated[Identity | Log | Clip | Saturate, Field(discriminator="kind")]


class Point(Strict):
    """-f(r, A) for each sampled token, r = exp(log p - log p_denominator)."""

    kind: Literal["point"] = "point"
    denominator: Literal["current", "one", "old", "behavior"] = "old"
    """current: exp(c - sg c), the pure likelihood gradient; one: the probability itself; old; behavior: importance."""
    level: Literal["token", "geometric"] = "token"
    """geometric: the sequence's mean log-ratio (GSPO)."""
    shape: Shape = Clip()


class Set(Strict):
    """A link over scores of sets of sequences; S = sum or mean of (log p - reference)."""

    kind: Literal["set"] = "set"
    link: Literal["logistic", "hinge", "square"] = "logistic"
    beta: Annotated[float, Field(gt=0)] = 0.1
    margin: float = 0.0
    aggregate: Literal["sum", "mean"] = "sum"
    reference: bool = True


class Div(Strict):
    """A divergence between the policy and a target next-token distribution.

    `k2`, `k3` are sampled-token estimators against `target`; `forward`, `reverse`, `jsd` use the teacher's top-k
    with a tail bucket; `entropy` is the negative entropy of the policy (a bonus when its coefficient is positive).
    """

    kind: Literal["div"] = "div"
    form: Literal["k2", "k3", "forward", "reverse", "jsd", "entropy"] = "k3"
    target: Literal["reference", "teacher", "uniform"] = "reference"
    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """jsd alone: weight of the teacher in the mixture."""
    temperature: Annotated[float, Field(gt=0)] = 1.0


Kernel = Annotated[Point | Set | Div, Field(discriminator="kind")]


class TokenWeight(Strict):
    """A detached factor >= 0 on each token of a term."""

    kind: Literal["probability", "chord_phi", "truncated_importance", "masked_importance"]
    """probability: p (DFT); chord_phi: p(1-p); truncated_importance: min(exp(old - behavior), cap) (TIS);
    masked_importance: the ratio where it lies in [1/cap, cap], else 0 (IcePop)."""
    cap: Annotated[float, Field(gt=0)] = 2.0


class Reduce(Strict):
    """The one normaliser of a term: a global count of the whole optimizer step, fixed before the first backward."""

    kind: Literal["token", "sequence", "batch_length", "length"] = "token"
    """token: / tokens; sequence: mean over sequences of the mean over tokens; batch_length: / (sequences x length);
    length: / length alone (LUFFY)."""
    length: Annotated[int, Field(ge=1)] | None = None
    """For batch_length and length: the constant; required there and refused elsewhere."""


class Term(Strict):
    """kernel x weights / reduce x coefficient, over the trainable tokens of its strand."""

    name: str
    kernel: Kernel
    weights: tuple[TokenWeight, ...] = ()
    reduce: Reduce = Reduce()
    coefficient: float = 1.0


class Source(Strict):
    """Who writes the strand's trajectories, and how many."""

    producer: Literal["rollout", "demonstration", "teacher"]
    per_prompt: Annotated[int, Field(ge=0)] = 0
    """Trajectories for each of the step's prompts: they share the prompt's group."""
    per_step: Annotated[int, Field(ge=0)] = 0
    """Trajectories drawn for the step as a whole, on prompts of their own."""


class Strand(Strict):
    """Source x supervision x objective."""

    name: str
    source: Source
    credit: Credit = GroupCredit()
    terms: tuple[Term, ...]
