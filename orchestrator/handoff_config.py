"""What is measured at the ends of stages, and what must hold there."""

from typing import Annotated, Literal

from pydantic import Field

from policies.config import Strict

Action = Literal["warn", "stop", "roll_back", "repair"]


class Term(Strict):
    """A bound on one figure of the handoff, and what happens when it is broken."""

    at_least: float | None = None
    at_most: float | None = None
    no_worse_than: float | None = None
    """Change against the policy as the stage found it: -0.02 allows two points less."""
    otherwise: Action = "stop"
    """warn: it is told and the run goes on. stop: the run ends with exit code 3. roll_back: the next stage starts from
    the weights that this stage found. repair: a repair stage is inserted, and judged by the same contract."""


class Contract(Strict):
    """What must hold after each stage; an empty contract measures and holds nobody to anything."""

    retained_support: Term | None = None
    """Share of the prompts solved before that are solved still (SRR)."""
    pass_at_1: Term | None = None
    """Mean pass rate of sampled responses on prompts.probe."""


class Handoff(Strict):
    """Measurements before the first stage and after each, and the contract between stages."""

    probe_samples: Annotated[int, Field(ge=1)] = 16
    """Responses for each prompt at the ends of stages, at probe.temperature; fewer where the answer is clear early."""
    sequential: bool = True
    """Stop drawing for a prompt once more draws would not change what is said of it."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Effective support: a prompt is solved where a response passes with at least this probability."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of every interval and verdict."""
    bank: Annotated[int, Field(ge=0)] = 64
    """Good trajectories, fixed at the start, that every checkpoint is asked the probability of; 0 keeps none."""
    scaffold: str = ""
    """Template of a context with help, as recipes have them ({{ prompt }}): the probe is drawn under it too, and the
    gap to the bare prompt says how much depends on it."""
    contract: Contract = Contract()
