"""Curriculum by solve rate: prompts that are solved now and then come first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.controls.chance import shuffled
from orchestrator.controls.group import GroupStats, count
from orchestrator.controls.moment import Memory, Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Curriculum
from orchestrator.controls.routing import SILENT, Routing

Float64 = npt.NDArray[np.float64]

UNSEEN = (0.0, 0.0, -1)
"""Passed, seen (decaying counts of verdicts), step of the last look: of a prompt without evidence."""
INSIDE, UNKNOWN, OUTSIDE = 0.0, 1.0, 2.0
"""How late a prompt comes: of the band, then without evidence, then the rest by their distance from the band."""


def choose(
    control: Curriculum, state: State, now: Moment, drawn: Sequence[str], count_: int
) -> tuple[State, tuple[Place, ...], str]:
    """`count_` of the drawn prompts: `explore` of them those least looked at, longest ago first, then those within the
    band, then those without evidence, then those nearest to the band.

    Equals are told apart by the run's seed. Over the stage's steps the explored ones are `explore` of all, to within
    one, however few a step has.
    """
    distinct = list(dict.fromkeys(drawn))
    pool = [distinct[at] for at in shuffled(len(distinct), now.seed, "curriculum", now.step)]
    known: Mapping[str, Any] = state["prompts"]
    passed_P, seen_P, last_P = _entries(known, pool)
    share, most = control.explore * count_, min(count_, len(pool))
    look = min(math.floor(share * (now.step + 1)) - math.floor(share * now.step), most)
    explored = np.lexsort((last_P, seen_P))[:look]  # both sorts keep the pool's order among equals
    late_P = _late(control, passed_P, seen_P)
    late_P[explored] = np.inf
    nearest = late_P.argsort(kind="stable")[: most - look]
    chosen = (*explored.tolist(), *nearest.tolist())
    said = _said(control, seen_P, seen_P[explored], late_P[nearest])
    return state, tuple(Place(pool[at]) for at in chosen), said


def _entries(known: Mapping[str, Any], pool: Sequence[str]) -> Float64:
    """What is known of each prompt, one row a figure: passed, seen, step of the last look."""
    figures = chain.from_iterable(known.get(prompt, UNSEEN) for prompt in pool)
    return np.fromiter(figures, np.float64, len(UNSEEN) * len(pool)).reshape(-1, len(UNSEEN)).T


def _late(control: Curriculum, passed_P: Float64, seen_P: Float64) -> Float64:
    rate_P = (passed_P + 0.5) / (seen_P + 1.0)  # the mean under Jeffreys' prior
    off_P = np.maximum(control.low - rate_P, rate_P - control.high)
    late_P: Float64 = np.where(off_P > 0.0, OUTSIDE + off_P, INSIDE)
    late_P[seen_P == 0.0] = UNKNOWN
    return late_P


def _said(control: Curriculum, seen_P: Float64, seen_E: Float64, late_N: Float64) -> str:
    """Of all candidates, of those explored and of those nearest to the band: how many were chosen, and as what."""
    inside, unseen = int((late_N == INSIDE).sum()), int((late_N == UNKNOWN).sum())
    return (
        f"{len(seen_E)} least looked at ({int((seen_E == 0.0).sum())} for the first time), {inside} solved at "
        f"{control.low:g} to {control.high:g}, {unseen} unseen, {len(late_N) - inside - unseen} outside it, of "
        f"{len(seen_P)} candidates, {int((seen_P == 0.0).sum())} of them unseen"
    )


def observe(control: Curriculum, memory: Memory, group: GroupStats, step: int) -> Routing:
    """Count a group's verdicts; `memory` is changed in place. What a hint helped says nothing of the bare prompt."""
    if group.segments:
        return SILENT
    counted = count(replace(group, members=group.first, level=0) if group.level else group, control.watch)
    if known := counted.passed + counted.failed:
        passed, seen, _ = memory["prompts"].get(group.prompt, UNSEEN)
        decay = control.decay
        memory["prompts"][group.prompt] = [
            round(decay * passed + counted.passed, 6),
            round(decay * seen + known, 6),
            step,
        ]
    return SILENT
