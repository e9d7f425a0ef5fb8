"""Supervision to advantages: what each token of a group's trajectories is worth. Numpy, no torch.

Axes: G trajectories of one group, T tokens of one trajectory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from policies.config import ConstantCredit, Credit, GroupCredit, TeacherGap
from policies.trajectory import Float32, Origin, Producer, Trajectory, reward

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """Advantages of a group's trajectories, in its order."""

    advantages: list[Float32]
    """[T] each."""
    excluded: tuple[int, ...] = ()
    """Indices whose reward nobody knows: advantage 0, and no part in the group's statistics. Report them."""


def assign(
    credit: Credit, group: Sequence[Trajectory], *, teacher_logps: Sequence[Float32 | None] | None = None
) -> Assigned:
    """Advantages by the strand's credit. `teacher_logps` ([T] each) is read by TeacherGap alone.

    Raises ValueError when TeacherGap lacks a log-probability on a trained token.
    """
    match credit:
        case ConstantCredit():
            return Assigned([np.full(len(one.tokens), credit.value, np.float32) for one in group])
        case TeacherGap():
            views = teacher_logps if teacher_logps is not None else [None] * len(group)
            return Assigned([_teacher_gap(credit, one, view) for one, view in zip(group, views, strict=True)])
        case GroupCredit():
            return _group(credit, group)
        case _:
            assert_never(credit)


def is_own_rollout(trajectory: Trajectory) -> bool:
    """Whether the learner wrote all of it that is not environment, on this step's prompts."""
    written = trajectory.origin[trajectory.origin != Origin.ENVIRONMENT]
    return trajectory.producer == Producer.ROLLOUT and bool(np.all(written == Origin.LEARNER))


def group_advantages(credit: GroupCredit, rewards_G: Float64, counted_G: npt.NDArray[np.bool_]) -> Float64:
    """(reward - baseline) / scale; `counted_G` are the members whose rewards form the statistics.

    GRPO (arXiv 2402.03300): mean, std. RLOO (2402.14740): leave_one_out. A group without spread gives exact zeros to
    its counted members, and is not divided by eps for the others.
    """
    counted = rewards_G[counted_G]
    uses_statistics = credit.baseline != "zero" or credit.scale != "none"
    if uses_statistics and len(counted) < 2:
        return rewards_G.copy() if credit.lone == "reward" else np.zeros_like(rewards_G)
    return (rewards_G - _baseline(credit, rewards_G, counted_G)) * _factor(credit, counted)


def _baseline(credit: GroupCredit, rewards_G: Float64, counted_G: npt.NDArray[np.bool_]) -> Float64:
    counted = rewards_G[counted_G]
    if credit.baseline == "zero":
        return np.zeros_like(rewards_G)
    if counted.min() == counted.max():  # a mean of equal numbers may differ from them in the last bit
        return np.full_like(rewards_G, counted[0])
    if credit.baseline == "mean":
        return np.full_like(rewards_G, counted.mean())
    baseline: Float64 = (counted.sum() - np.where(counted_G, rewards_G, 0.0)) / (len(counted) - counted_G)
    return baseline


def _factor(credit: GroupCredit, counted: Float64) -> float:
    """What the differences are multiplied by."""
    match credit.scale:
        case "none":
            return 1.0
        case "std":
            spread = counted.min() < counted.max()
            return 1.0 / (float(counted.std(ddof=1)) + credit.eps) if spread else 1.0
        case "mean":
            mean = float(counted.mean())
            return 1.0 / mean if mean > 0 else 0.0
        case _:
            assert_never(credit.scale)


def _group(credit: GroupCredit, group: Sequence[Trajectory]) -> Assigned:
    rewards_G = np.array([reward(one) for one in group], np.float64)
    known_G = np.isfinite(rewards_G)
    counted_G = np.array([credit.scope == "all" or is_own_rollout(one) for one in group], bool)
    advantages_G = np.zeros(len(group))
    advantages_G[known_G] = group_advantages(credit, rewards_G[known_G], counted_G[known_G])
    spread = [np.full(len(one.tokens), value, np.float32) for one, value in zip(group, advantages_G, strict=True)]
    return Assigned(spread, excluded=tuple(int(index) for index in np.flatnonzero(~known_G)))


def _teacher_gap(credit: TeacherGap, trajectory: Trajectory, teacher_logps: Float32 | None) -> Float32:
    """scale x (teacher - behavior) on trained tokens, 0 elsewhere."""
    if teacher_logps is None or len(teacher_logps) != len(trajectory.tokens):
        got = "none" if teacher_logps is None else len(teacher_logps)
        raise ValueError(
            f"credit teacher_gap: trajectory {trajectory.id!r} needs {len(trajectory.tokens)} teacher "
            f"log-probabilities, got {got}; have a teacher score it"
        )
    gap = credit.scale * (teacher_logps.astype(np.float32) - trajectory.behavior_logps)
    unknown = int(np.sum(np.isnan(gap) & trajectory.train_mask))
    if unknown:
        raise ValueError(
            f"credit teacher_gap: trajectory {trajectory.id!r} has {unknown} trained tokens whose behavior or teacher "
            "log-probability is unknown; use it on rollouts with recorded log-probabilities"
        )
    return np.where(trajectory.train_mask, gap, np.float32(0)).astype(np.float32)
