"""Learning rate as a pure function of the update's number: nothing to save, nothing to restore."""

import math
from typing import assert_never

from policies.config import Schedule


def learning_rate(schedule: Schedule, peak: float, update: int, updates: int) -> float:
    """Rate of update number `update` (from 0) of a stage of `updates`.

    Warm-up rises by peak / warmup an update and reaches the peak at update warmup - 1, so that no update is spent at 0;
    decay ends at floor x peak on the last update, and stays there if the stage runs on.
    """
    if update < schedule.warmup:
        return peak * (update + 1) / schedule.warmup
    start = max(schedule.warmup - 1, 0)
    past = min(1.0, (update - start) / max(1, updates - 1 - start))
    return peak * (schedule.floor + (1 - schedule.floor) * _left(schedule, past))


def _left(schedule: Schedule, past: float) -> float:
    """Share of the way down that is left after `past` of it, 1 to 0."""
    match schedule.kind:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - past
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * past))
        case _:
            assert_never(schedule.kind)
