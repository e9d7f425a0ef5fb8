"""Curriculum by solve rate: prompts that are solved now and then come first."""

from collections.abc import Sequence

from orchestrator.controls.group import GroupStats
from orchestrator.controls.moment import Memory, Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Curriculum
from orchestrator.controls.routing import Routing


def choose(
    control: Curriculum, state: State, now: Moment, drawn: Sequence[str], count: int
) -> tuple[State, tuple[Place, ...], str]:
    """`count` of the drawn prompts."""
    raise NotImplementedError


def observe(control: Curriculum, memory: Memory, group: GroupStats, step: int) -> Routing:
    """Count a group's verdicts; `memory` is changed in place."""
    raise NotImplementedError
