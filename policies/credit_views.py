"""What credit reads of a trajectory and what it gives back: views, their penalties, and the advantages assigned.

Axes: G trajectories of one group, T tokens of one trajectory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from policies.trajectory import Bool, Float32, Trajectory, reward

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """What other models say of one trajectory's tokens, [T] each; None where nobody asked."""

    teacher_logps: Float32 | None = None
    reference_logps: Float32 | None = None
    values: Float32 | None = None
    """The critic's value before each token, at the start of the step."""


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """Advantages of a group's trajectories, in its order."""

    advantages: list[Float32]
    """[T] each."""
    excluded: tuple[int, ...] = ()
    """Indices whose supervision nobody knows: advantage 0, and no part in the group's statistics. Report them."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Why, for each of the excluded."""
    masked: tuple[int, ...] = ()
    """Indices that served the statistics and whose tokens must not train."""
    targets: list[Float32] | None = None
    """[T] each: the returns that a critic learns; NaN on tokens that are not trained."""


def why_unknown(trajectory: Trajectory, name: str = "reward") -> str:
    """The reason that there is no score `name`: its status, or that nobody gave one."""
    status = next((entry.status for entry in trajectory.scores if entry.name == name and entry.status != "ok"), None)
    return f"no {name}: {status or 'unscored'}"


def unknown_rewards(group: Sequence[Trajectory]) -> dict[int, str]:
    """Index -> reason, of the members whose reward nobody knows."""
    return {index: why_unknown(one) for index, one in enumerate(group) if not math.isfinite(reward(one))}


def known_members(size: int, unknown: Mapping[int, str]) -> Bool:
    """[G] true where nothing is unknown."""
    return np.array([index not in unknown for index in range(size)], bool)


def constant(trajectory: Trajectory, value: float) -> Float32:
    """[T] the same number on every token."""
    return np.full(len(trajectory.tokens), value, np.float32)


def view(reader: str, trajectory: Trajectory, name: str, values: Float32 | None) -> Float64:
    """[T] a view in float64, NaN allowed on untrained tokens alone.

    Raises ValueError when it is missing, has another length, or is unknown on a trained token.
    """
    size = len(trajectory.tokens)
    if values is None or len(values) != size:
        got = "none" if values is None else len(values)
        raise ValueError(
            f"credit {reader}: trajectory {trajectory.id!r} needs {size} {name}, got {got}; have its model score it"
        )
    unknown = int(np.sum(np.isnan(values) & trajectory.train_mask))
    if unknown:
        raise ValueError(
            f"credit {reader}: trajectory {trajectory.id!r} has {unknown} trained tokens whose {name} are unknown; use "
            "it where they are recorded"
        )
    return values.astype(np.float64)


def penalty(reader: str, trajectory: Trajectory, views: Views) -> Float64:
    """[T] k1 = log p_behavior - log p_reference on trained tokens, 0 elsewhere; never differentiated."""
    behavior = view(reader, trajectory, "behavior log-probabilities", trajectory.behavior_logps)
    reference = view(reader, trajectory, "reference log-probabilities", views.reference_logps)
    return np.where(trajectory.train_mask, behavior - reference, 0.0)


def suffix_sum(values_T: Float64) -> Float64:
    """[T] each entry and those after it, summed."""
    return np.cumsum(values_T[::-1])[::-1]
