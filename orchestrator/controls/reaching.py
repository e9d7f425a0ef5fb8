"""Who wants to know how probable a prompt's known good response is."""

from collections.abc import Sequence

from orchestrator.controls import bottleneck
from orchestrator.controls.config import Control
from orchestrator.controls.group import GroupStats
from orchestrator.controls.moment import State
from orchestrator.controls.prompt_config import Bottleneck


def asks_reach(controls: Sequence[Control], states: Sequence[State], group: GroupStats) -> bool:
    """Whether a control would learn more of the group's prompt from its reach."""
    return any(
        isinstance(control, Bottleneck) and control.reach > 0 and bottleneck.asks_reach(control, state, group)
        for control, state in zip(controls, states, strict=True)
    )
