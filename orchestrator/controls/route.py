"""After a group is scored: does it go on to the learner, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, assert_never

from orchestrator.controls.config import Constant, Control, Mixture, ZeroVariance
from orchestrator.controls.decide import State

EQUAL = 1e-9
"""Rewards this close are one reward: a rubric's weighted mean may differ in its last bit."""


@dataclass(frozen=True, slots=True)
class GroupStats:
    """What is known of one prompt's responses. A reward that no verifier gave is NaN."""

    rewards: tuple[float, ...]


class Routing(NamedTuple):
    """Where a group goes."""

    state: State
    verdict: Literal["keep", "drop"]
    reason: str
    """Empty when there is nothing to tell: the group goes on as groups do."""


def route(control: Control, state: State, group: GroupStats) -> Routing:
    """What `control` makes of a scored group."""
    match control:
        case Constant() | Mixture():
            return Routing(state, "keep", "")
        case ZeroVariance():
            return _zero_variance(control, state, group)
        case _:
            assert_never(control)


def _zero_variance(control: ZeroVariance, state: State, group: GroupStats) -> Routing:
    finding = _sameness(group)
    verdict = control.action if finding else "keep"
    count = "kept" if verdict == "keep" else "dropped"
    counted = {**state, count: int(state.get(count, 0)) + 1}
    return Routing(counted, verdict, f"{count}: {finding}" if finding else "")


def _sameness(group: GroupStats) -> str:
    """Why the group holds no difference to learn from; empty if it holds one."""
    known = [reward for reward in group.rewards if not math.isnan(reward)]
    if not known:
        return f"none of {len(group.rewards)} rewards is known"
    if max(known) - min(known) > EQUAL:
        return ""
    unknown = len(group.rewards) - len(known)
    tail = f" ({unknown} more are unknown)" if unknown else ""
    if len(known) == 1:
        return f"one reward alone, {known[0]:g}, has nothing to compare with{tail}"
    return f"all {len(known)} rewards are {known[0]:g}{tail}"


def route_group(controls: Sequence[Control], states: Sequence[State], group: GroupStats) -> tuple[Routing, ...]:
    """Every control's routing of one group, in order; one `drop` drops it."""
    return tuple(route(control, state, group) for control, state in zip(controls, states, strict=True))
