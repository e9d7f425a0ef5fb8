"""The bottleneck control: per prompt, what keeps the policy from solving it decides where its data come from."""

from collections.abc import Sequence

from orchestrator.controls.group import GroupStats
from orchestrator.controls.moment import Memory, Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Bottleneck
from orchestrator.controls.routing import Routing


def choose(
    control: Bottleneck, state: State, now: Moment, drawn: Sequence[str], count: int
) -> tuple[State, tuple[Place, ...], str]:
    """At most `count` of the drawn prompts that do not rest, each with the strands that its class needs."""
    raise NotImplementedError


def observe(control: Bottleneck, memory: Memory, group: GroupStats, step: int) -> Routing:
    """Take a group's verdicts and reach as evidence; `memory` is changed in place. Says when the class changes."""
    raise NotImplementedError


def asks_reach(control: Bottleneck, state: State, group: GroupStats) -> bool:
    """Whether the probability of the prompt's known good response would tell more than the group's verdicts do."""
    raise NotImplementedError
