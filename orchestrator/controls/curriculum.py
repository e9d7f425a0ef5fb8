"""Curriculum by solve rate: prompts that are solved now and then come first."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.controls.chance import uniform
from orchestrator.controls.group import GroupStats, count
from orchestrator.controls.moment import Memory, Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Curriculum
from orchestrator.controls.routing import SILENT, Routing


def choose(
    control: Curriculum, state: State, now: Moment, drawn: Sequence[str], count_: int
) -> tuple[State, tuple[Place, ...], str]:
    """`count_` of the drawn prompts: `explore` of them those least looked at, then those within the band.

    What is left goes to those nearest to the band. Equals are told apart by the run's seed.
    """
    known: dict[str, Any] = state["prompts"]
    pool = list(dict.fromkeys(drawn))
    luck = {prompt: uniform(now.seed, "curriculum", now.step, prompt) for prompt in pool}
    seen = {prompt: known[prompt][1] if prompt in known else 0.0 for prompt in pool}
    by_sight = sorted(pool, key=lambda prompt: (seen[prompt], luck[prompt]))
    explored = by_sight[: min(round(control.explore * count_), len(pool))]
    taken = set(explored)
    rest = [prompt for prompt in pool if prompt not in taken]
    outside = {prompt: _outside(control, known, prompt) for prompt in rest}
    nearest = sorted(rest, key=lambda prompt: (outside[prompt], luck[prompt]))[: max(count_ - len(explored), 0)]
    inside = sum(outside[prompt] == 0.0 for prompt in nearest)
    reason = (
        f"{len(explored)} least seen, {inside} solved at {control.low:g} to {control.high:g}, {len(nearest) - inside} "
        f"outside it, of {len(pool)} candidates, {sum(not seen[prompt] for prompt in pool)} of them unseen"
    )
    return state, tuple(Place(prompt) for prompt in (*explored, *nearest)), reason


def _outside(control: Curriculum, known: dict[str, Any], prompt: str) -> float:
    """How far the estimated solve rate lies outside the band; a prompt without evidence is estimated at one half."""
    passed, seen = known[prompt][:2] if prompt in known else (0.0, 0.0)
    rate = (passed + 0.5) / (seen + 1.0)  # the mean under Jeffreys' prior
    return max(control.low - rate, rate - control.high, 0.0)


def observe(control: Curriculum, memory: Memory, group: GroupStats, step: int) -> Routing:
    """Count a group's verdicts; `memory` is changed in place. What a hint helped says nothing of the bare prompt."""
    if group.segments:
        return SILENT
    counted = count(replace(group, members=group.first, level=0) if group.level else group, control.watch)
    if counted.known:
        passed, seen, _ = memory["prompts"].get(group.prompt, (0.0, 0.0, -1))
        decay = control.decay
        memory["prompts"][group.prompt] = [
            round(decay * passed + counted.passed, 6),
            round(decay * seen + counted.known, 6),
            step,
        ]
    return SILENT
