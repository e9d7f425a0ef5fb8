"""What is measured at the ends of stages, and what must hold there."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from orchestrator.recipe_choice import RecipeChoice
from policies.config import Strict

Action = Literal["warn", "repair", "roll_back", "stop"]
"""From the mildest to the severest: of several that are asked for at once, the severest is done."""

Figure = Literal[
    "retained_support",
    "pass_at_1",
    "pass_at_k",
    "retention",
    "portability",
    "scaffold_gap",
    "agreement",
    "teacher_kl",
    "guard",
    "forgotten",
    "drift",
    "reach",
]
"""What a stage can be held to; `orchestrator.contracts.FIGURES` says what each one is."""

FOUND = "found"
"""As a repair's teacher: the policy as the stage that is repaired found it."""
FOUND_BY = f"{FOUND}:"
"""Before a stage's name: the policy as that stage found it."""


class Term(Strict):
    """A bound on one figure of the handoff, and what happens when it is broken."""

    at_least: float | None = None
    at_most: float | None = None
    no_worse_than: float | None = None
    """Change against the policy as the stage found it: -0.02 allows two points less."""
    when: Literal["shown", "measured", "possible"] = "shown"
    """When it counts as broken. shown: the whole interval lies beyond the bound; where the bound lies within, the term
    is undecided, which is told and does nothing. measured: the estimate alone lies beyond. possible: the interval does
    not lie within the bound, so that the stage has to show that it kept it. What could not be measured is told and
    never counts as broken."""
    otherwise: Action = "stop"
    """warn: it is told and the run goes on. repair: a repair stage is inserted, and judged by the same contract.
    roll_back: the next stage starts from the weights that this stage found. stop: the run ends with exit code 3."""


Contract = dict[Figure, Term]


class Repair(Strict):
    """The stage that is inserted after one whose broken term says `otherwise: repair`."""

    recipe: RecipeChoice = RecipeChoice(kind="on_policy_distillation", teacher=FOUND)
    """Any recipe; as a teacher, `found` is the policy as the repaired stage found it. Without a teacher of its own,
    replay serves too: {kind: exgrpo}. Prompts, sampling and optimizer are the repaired stage's."""
    steps: Annotated[int, Field(ge=1)] = 20
    tries: Annotated[int, Field(ge=1, le=9)] = 1
    """Repair stages one after the other until the contract holds; when it does not after the last, the run stops."""


class Handoff(Strict):
    """Measurements before the first stage and after each, and the contract between stages."""

    probe_samples: Annotated[int, Field(ge=1)] = 64
    """Most responses for each prompt at the ends of stages, at probe.temperature; fewer where the answer is clear. That
    a prompt is out of reach at epsilon 0.05 takes 59 responses to show; 16 show it at 0.2."""
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
    contract: Contract = Field(default={})
    """Figure -> the term that must hold after every stage; `stages.NAME.contract` stands in its place where a stage has
    one. retained_support, pass_at_1, pass_at_k, retention, portability, scaffold_gap, agreement, teacher_kl, guard,
    forgotten, drift, reach: docs/measuring.md says what each is."""
    repair: Repair = Repair()


SEVERITY: dict[Action, int] = {action: at for at, action in enumerate(get_args(Action))}
"""Action -> its rank, the severest last."""
