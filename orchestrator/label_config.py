"""Config of step labels that are found by sampling."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.step_config import StepCut
from policies.strict import Strict


class StepLabels(Strict):
    """Scores named `step`, by completions of each step of a rollout that the verifier judges; for credit `process`.

    A step is worth the share of `completions` from it, drawn from the response's own tokens up to there, that are
    right; the last step is worth the outcome itself. Completions without a verdict are left out of the share.
    """

    kind: Literal["monte_carlo", "progress"] = "monte_carlo"
    """monte_carlo: that share (Math-Shepherd, arXiv 2312.08935); progress: what the step adds to it (PAV, 2410.08146),
    where before the first step stands the share of completions of the prompt."""
    writer: Literal["learner", "reference", "teacher"] = "learner"
    """Who completes: the newest policy, the stage's first weights, or the recipe's teacher. For progress, a prover that
    is not the policy itself."""
    completions: Annotated[int, Field(ge=1)] = 8
    """Drawn from the end of each step; the costs are in the step's figures, as `label_tokens`."""
    best_of: Annotated[int, Field(ge=1)] | Literal["all"] = 1
    """1: the share that is right (a soft label); all: 1 if any is right (a hard one); K: how often the best of K is
    right, 1 - (1 - share)^K, estimated without bias from the completions (PAV's prover)."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """Of the completions; the rollouts' own by default."""
    steps: StepCut = StepCut()
    """What a step is."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens drawn for labels in a step of training: responses beyond it get none, and are left out of that
    step with the reason; null is no limit."""

    @model_validator(mode="after")
    def _enough(self) -> "StepLabels":
        if self.best_of != "all" and self.best_of > self.completions:
            raise ValueError(
                f"best_of is {self.best_of}, and {self.completions} completions are drawn; raise them, or lower it"
            )
        return self
