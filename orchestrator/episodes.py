"""What a step says of episodes: how many turns they had, what the turns earned, how many the environment broke off."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.trajectory import FinishReason, Origin, Trajectory
from verifiers.environment_config import TOLD


def facts(rollouts: Sequence[Trajectory]) -> dict[str, Any]:
    """Figures of responses with several turns, an environment's or a recipe's; nothing of a step that has none.

    turns_mean, observed_share (of the responses' tokens, those that nobody sampled), turn_reward_first and
    turn_reward_last (the earliest and the last known reward of a turn, where turns have rewards of their own), and
    episodes_broken (those that their environment could not end).
    """
    told = [one for one in rollouts if _played(one)]
    if not told:
        return {}
    tokens = sum(len(one.tokens) for one in told)
    seen = sum(int(np.count_nonzero(one.origin == Origin.ENVIRONMENT)) for one in told)
    rewards = [[entry.value for entry in one.scores if entry.name == "turn" and entry.status == "ok"] for one in told]
    known = [one for one in rewards if one]
    found: dict[str, Any] = {
        "turns_mean": math.fsum(map(turns, told)) / len(told),
        "observed_share": seen / tokens if tokens else math.nan,
        "episodes_broken": sum(one.finish_reason is FinishReason.ERROR for one in told),
    }
    if known:
        found["turn_reward_first"] = math.fsum(one[0] for one in known) / len(known)
        found["turn_reward_last"] = math.fsum(one[-1] for one in known) / len(known)
    return found


def turns(one: Trajectory) -> int:
    """Pieces of the response that the environment's words part; none of a response without tokens."""
    own = (one.origin != Origin.ENVIRONMENT).astype(np.int8)
    return int(np.count_nonzero(np.diff(np.concatenate([[0], own])) == 1))


def _played(one: Trajectory) -> bool:
    return any(entry.name in (TOLD, "turn") for entry in one.scores)
