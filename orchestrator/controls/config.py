"""Config of controls: what decides shares and contexts before a step and routes groups after they are scored."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from policies.config import Strict


class Constant(Strict):
    """A strand's coefficient stays what it is."""

    kind: Literal["constant"] = "constant"
    strand: str
    coefficient: Annotated[float, Field(ge=0)] = 1.0


class Mixture(Strict):
    """Two strands share the step: one has coefficient mu, the other 1 - mu.

    Over the stage's steps mu rises from 0 to `peak` (linear), falls to `floor` (cosine), and stays there.
    """

    kind: Literal["mixture"] = "mixture"
    strand: str
    """Scaled by mu."""
    against: str
    """Scaled by 1 - mu."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps from 0 to `peak`."""
    decay: Annotated[int, Field(ge=0)] = 200
    """Steps from `peak` to `floor`."""
    peak: Annotated[float, Field(ge=0, le=1)] = 0.9
    floor: Annotated[float, Field(ge=0, le=1)] = 0.05


class Bernoulli(Strict):
    """Each step is `strand`'s with this probability, else `against`'s (GKD's lambda); the coin is the run's seed's."""

    kind: Literal["bernoulli"] = "bernoulli"
    strand: str
    against: str
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5


class Alternate(Strict):
    """`steps` steps are `strand`'s, the next `against_steps` are `against`'s, and so on; the other one rests."""

    kind: Literal["alternate"] = "alternate"
    strand: str
    """First."""
    against: str
    steps: Annotated[int, Field(ge=1)] = 1
    against_steps: Annotated[int, Field(ge=1)] = 1


class ZeroVariance(Strict):
    """What becomes of a group whose rewards are all equal: a group baseline finds no difference in it to learn from."""

    kind: Literal["zero_variance"] = "zero_variance"
    action: Literal["keep", "drop", "redraw"] = "keep"
    """keep: its tokens still count in the normaliser (GRPO); drop: it never reaches the learner; redraw: other prompts
    are drawn in its place, at most `rounds` times, then it is dropped (DAPO's dynamic sampling)."""
    rounds: Annotated[int, Field(ge=1)] = 3


class Gate(Strict):
    """Per prompt, by how many of `strand`'s responses passed: at most `at_most`, and the group's members of `strand`
    are dropped and `otherwise`'s train; else the reverse (HPT)."""

    kind: Literal["gate"] = "gate"
    strand: str
    otherwise: str
    at_most: Annotated[int, Field(ge=0)] = 0


class Buffer(Strict):
    """Prompts of which at most `at_most` of `watch`'s responses passed wait in a buffer; once it holds `size`, the next
    step trains `strand` on them alone, `watch` resting (ReLIFT)."""

    kind: Literal["buffer"] = "buffer"
    watch: str
    strand: str
    size: Annotated[int, Field(ge=1)] = 128
    at_most: Annotated[int, Field(ge=0)] = 0


class Ladder(Strict):
    """A group of `strand` that all failed is drawn again with a hint of level 1, 2 ... `levels`, until one passes.

    The hint is the level's share of the prompt's demonstration; the source's `behavior` template places it.
    """

    kind: Literal["ladder"] = "ladder"
    strand: str
    levels: Annotated[int, Field(ge=1)] = 3
    replace: Literal["all", "one"] = "all"
    """all: the hinted group takes the failed one's place (SAGE); one: one hinted success replaces one failure
    (Scaf-GRPO)."""
    full: bool = False
    """Whether the last level is the whole demonstration, or stops short of it by one part."""


class Prefix(Strict):
    """How much of the demonstration a source with `prefix` starts from, in `segments` equal parts.

    cosine: the expected share falls from `high` to `low` over `over` steps, then 0; the parts are drawn binomially
    (UFT). fixed: always `high`, in whole parts, rounded down. bisect: per prompt, between `low` and `high` in whole
    parts, from `low` up when every response failed, down when every one passed (BREAD).
    """

    kind: Literal["prefix"] = "prefix"
    strand: str
    schedule: Literal["cosine", "fixed", "bisect"] = "cosine"
    low: Annotated[float, Field(ge=0, le=1)] = 0.05
    high: Annotated[float, Field(ge=0, le=1)] = 0.95
    over: Annotated[int, Field(ge=1)] = 300
    segments: Annotated[int, Field(ge=1)] = 5


class Scaffold(Strict):
    """The share of the rubric's criteria that a prompt shows: response i of n gets (n-1-i)/(n-1), times
    1 / (1 + exp(steepness (progress - midpoint))) (RuscaRL, arXiv 2508.16949)."""

    kind: Literal["scaffold"] = "scaffold"
    strand: str
    steepness: Annotated[float, Field(gt=0)] = 125.0
    midpoint: Annotated[float, Field(ge=0, le=1)] = 0.2


class StartWhen(Strict):
    """`strand` rests until a fact of the last step first reaches `at_least` (ExGRPO: the batch's solve rate 0.35)."""

    kind: Literal["start_when"] = "start_when"
    strand: str
    fact: str = "accuracy"
    at_least: float = 0.35


class Freeze(Strict):
    """In steps that train `strand` alone, the share of parameters that the other steps moved most stays as it is
    (MIFO, arXiv 2510.04454)."""

    kind: Literal["freeze"] = "freeze"
    strand: str
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight of the earlier movement when new movement is added; 0 remembers the last steps alone."""


class Anneal(Strict):
    """A strand's coefficient goes from `start` to `end` over `over` steps (ExPO's beta), and stays there."""

    kind: Literal["anneal"] = "anneal"
    strand: str
    start: Annotated[float, Field(ge=0)] = 1.0
    end: Annotated[float, Field(ge=0)] = 0.0
    over: Annotated[int, Field(ge=1)] = 100
    curve: Literal["linear", "cosine"] = "linear"


Control = Annotated[
    Constant
    | Mixture
    | Bernoulli
    | Alternate
    | ZeroVariance
    | Gate
    | Buffer
    | Ladder
    | Prefix
    | Scaffold
    | StartWhen
    | Freeze
    | Anneal
    | Shares
    | Curriculum
    | Bottleneck,
    Field(discriminator="kind"),
]
