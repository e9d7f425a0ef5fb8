"""The pipelines that are compared: recipes with the parameters that a step of this size asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.solve_counts import MAX_TOKENS

PROMPTS, ROLLOUTS = 16, 8
LENGTH = PROMPTS * ROLLOUTS * MAX_TOKENS
"""The constant that LUFFY, ReLIFT and HPT divide by: the most tokens that a step's rollouts can have."""
IMITATED = 48
"""Prompts of a step that imitates alone: demonstrations are short, and its steps should not be an eighth of others'."""


@dataclass(frozen=True, slots=True)
class Part:
    """One stage of a pipeline."""

    recipe: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    prompts: int = PROMPTS
    share: float = 1.0
    """Of the learner's budget, after which the next stage begins; the last one has the rest."""
    times: float = 1.0
    """Of the pipeline's learning rate."""
    verified: bool = False
    """Whether only demonstrations that the verifier passes train."""


def pipelines(steps: int) -> dict[str, tuple[Part, ...]]:
    """Every pipeline by name, the control last; `steps` is about how many the budgets allow, for schedules."""
    rollouts = {"rollouts": ROLLOUTS}
    return {
        "sft": (Part("sft", prompts=IMITATED),),
        "sft-verified": (Part("sft", prompts=IMITATED, verified=True),),
        "grpo": (Part("grpo", rollouts),),
        "sft-grpo": (Part("sft", prompts=IMITATED, share=0.3, times=3.0), Part("grpo", rollouts)),
        "alternate": (Part("alternate", rollouts),),
        "luffy": (Part("luffy", {"rollouts": ROLLOUTS - 1, "length": LENGTH}),),
        "chord": (Part("chord", {**rollouts, "demonstrations": 2 * PROMPTS, "decay": steps}),),
        "relift": (Part("relift", {**rollouts, "size": PROMPTS, "length": LENGTH}),),
        "hpt": (Part("hpt", {**rollouts, "length": LENGTH}),),
        "srft": (Part("srft", rollouts),),
        CONTROL: (Part("bottleneck", rollouts),),
    }


CONTROL = "bottleneck"
