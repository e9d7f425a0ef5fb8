"""What moves through a step: members of groups, what was left out and why, and the whole that was collected."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from actors.meter import Bill
from orchestrator.controls import State, StepPlan
from policies.trajectory import Trajectory
from teachers.contexts import Facts


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A trajectory and the strand (index) that reads it."""

    trajectory: Trajectory
    strand: int
    facts: Facts | None = None
    """What its contexts were made from; None where it was given."""
    parent: Trajectory | None = None
    """The response of this step that it follows."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Members that share a prompt; credit compares them with each other."""

    id: str
    members: tuple[Member, ...]


Cause = Literal["control", "credit", "select", "no_tokens", "no_verdict", "context", "unwritten"]
"""Who left it out. control: a routing; credit: no advantage; select: the strand's own choice; no_tokens: an empty
response; no_verdict: nobody could say what it is worth; context: it does not fit, or a template had nothing to show;
unwritten: nothing was asked for, so nothing is lost of what was written."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A group or trajectory that does not train, and why."""

    id: str
    reason: str
    cause: Cause = "control"
    members: tuple[str, ...] | None = None
    """Ids of the trajectories that it stands for: a group's; none where nothing was written. None: `id` is one's."""

    @property
    def lost(self) -> tuple[str, ...]:
        """Ids of the trajectories that do not train."""
        return (self.id,) if self.members is None else self.members


@dataclass(frozen=True, slots=True)
class LabelCosts:
    """What a step's labels cost: completions of prefixes, their tokens, and the time to draw and judge them."""

    completions: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def plus(self, other: "LabelCosts") -> "LabelCosts":
        """Both together."""
        return LabelCosts(
            self.completions + other.completions, self.tokens + other.tokens, self.seconds + other.seconds
        )


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """A step's groups, scored and routed, with what was decided on the way and what they cost."""

    step: int
    groups: tuple[Group, ...]
    """Those that go on."""
    plan: StepPlan
    states: tuple[State, ...]
    """The controls' states once the step is routed."""
    routed: tuple[str, ...] = ()
    """What the controls said of groups, for the ledger."""
    verdicts: Mapping[str, int] = field(default_factory=dict)
    """What the controls did -> groups that they did it to: see `routes.Routed.verdicts`."""
    dropped: tuple[Dropped, ...] = ()
    seen: tuple[Trajectory, ...] = ()
    """Every trajectory that was written or judged, whether its group goes on or not: what the step's rewards are of."""
    strand_of: Mapping[str, int] = field(default_factory=dict)
    """Id of each of them -> index of the strand that asked for it."""
    tokens_generated: int = 0
    missing_demonstrations: int = 0
    seconds_generate: float = 0.0
    seconds_score: float = 0.0
    labels: LabelCosts = LabelCosts()
    bill: Bill = field(default_factory=Bill)
    """All that was computed for it."""
