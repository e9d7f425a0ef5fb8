"""Advantages by comparison within a group: baseline, scale, and what is done to the reward before.

Axes: G trajectories of one group, T tokens of one trajectory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from policies.config import GroupCredit, Overlong, SignCredit
from policies.credit_views import (
    Assigned,
    Float64,
    Views,
    constant,
    known_members,
    penalty,
    suffix_sum,
    unknown_rewards,
)
from policies.trajectory import Bool, FinishReason, Origin, Producer, Trajectory, reward

NO_GREEDY = "no greedy response with a known reward to compare with"


def is_own_rollout(trajectory: Trajectory) -> bool:
    """Whether the learner wrote all of it that is not environment, on this step's prompts."""
    written = trajectory.origin[trajectory.origin != Origin.ENVIRONMENT]
    return trajectory.producer == Producer.ROLLOUT and bool(np.all(written == Origin.LEARNER))


def is_greedy(trajectory: Trajectory) -> bool:
    """Whether it was decoded at temperature 0."""
    return trajectory.sampling is not None and trajectory.sampling.temperature == 0


def overlong(shape: Overlong, length: int) -> float:
    """What is added to the reward of a response of `length` generated tokens (DAPO, arXiv 2503.14476, eq. 13)."""
    return -min(max((length - (shape.length - shape.cache)) / shape.cache, 0.0), 1.0)


def group_advantages(
    credit: GroupCredit,
    rewards_G: Float64,
    counted_G: Bool,
    *,
    lengths_G: Float64 | None = None,
    greedy: float = math.nan,
) -> Float64:
    """(reward - baseline) / scale; `counted_G` are the members whose rewards form the statistics.

    GRPO (arXiv 2402.03300): mean, std. RLOO (2402.14740): leave_one_out. OPO (2505.23585): length_mean, which reads
    `lengths_G`. ReMax (2310.10505): greedy, the greedy response's reward. MaxRL: mean, mean. A group without spread
    gives exact zeros to its counted members, and is not divided by eps for the others.
    """
    counted = rewards_G[counted_G]
    uses_statistics = credit.baseline not in ("zero", "greedy") or credit.scale != "none"
    if uses_statistics and len(counted) < 2:
        return rewards_G.copy() if credit.lone == "reward" else np.zeros_like(rewards_G)
    if credit.baseline == "greedy":
        return (rewards_G - greedy) * _factor(credit, counted)
    return (rewards_G - _baseline(credit, rewards_G, counted_G, lengths_G)) * _factor(credit, counted)


def _baseline(credit: GroupCredit, rewards_G: Float64, counted_G: Bool, lengths_G: Float64 | None) -> Float64:
    counted = rewards_G[counted_G]
    if credit.baseline == "zero":
        return np.zeros_like(rewards_G)
    if counted.min() == counted.max():  # a mean of equal numbers may differ from them in the last bit
        return np.full_like(rewards_G, counted[0])
    if credit.baseline == "mean":
        return np.full_like(rewards_G, counted.mean())
    if credit.baseline == "length_mean":
        if lengths_G is None:
            raise ValueError("credit group: baseline length_mean needs the lengths of the responses")
        return np.full_like(rewards_G, _length_mean(counted, lengths_G[counted_G]))
    baseline: Float64 = (counted.sum() - np.where(counted_G, rewards_G, 0.0)) / (len(counted) - counted_G)
    return baseline


def _length_mean(counted: Float64, lengths: Float64) -> float:
    """Where none of them trains a token, every weight is as good as another."""
    return float(np.average(counted, weights=lengths if lengths.any() else None))


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


@dataclass(frozen=True, slots=True, eq=False)
class _Worth:
    """What each member is worth before it is compared: own or children's reward, overlong shaping, KL penalty."""

    rewards_G: Float64
    """NaN where unknown."""
    penalties: list[Float64]
    """[T] each: k1, or zeros where no penalty is asked for."""
    unknown: dict[int, str]


def group_credit(credit: GroupCredit, group: Sequence[Trajectory], views: Sequence[Views]) -> Assigned:
    """Each member against its group, spread over its tokens.

    Raises ValueError when a KL penalty lacks a log-probability on a trained token of a member with a known reward.
    """
    worth = _worth(credit, group, views)
    advantages_G, unknown = _compared(credit, group, worth)
    advantages = [constant(one, float(value)) for one, value in zip(group, advantages_G, strict=True)]
    for index, k1_T in enumerate(worth.penalties):
        if credit.kl_spread == "suffix" and index not in unknown and not _is_anchor(credit, group[index]):
            advantages[index] = (advantages_G[index] - credit.kl * suffix_sum(k1_T)).astype(np.float32)
    cut = credit.truncated == "mask"
    return Assigned(
        advantages,
        excluded=tuple(sorted(unknown)),
        reasons=unknown,
        masked=tuple(i for i, one in enumerate(group) if cut and one.finish_reason == FinishReason.LENGTH),
    )


def _is_anchor(credit: GroupCredit, trajectory: Trajectory) -> bool:
    """Whether the others are compared with it, so that it is not compared itself."""
    return credit.baseline == "greedy" and is_greedy(trajectory)


def _worth(credit: GroupCredit, group: Sequence[Trajectory], views: Sequence[Views]) -> _Worth:
    rewards_G, unknown = _children(group) if credit.value == "children" else _own(group)
    penalties = [np.zeros(len(one.tokens)) for one in group]
    for index, one in enumerate(group):
        if index in unknown:
            continue
        if credit.overlong is not None:
            rewards_G[index] += overlong(credit.overlong, generated(one))
        if credit.kl > 0:
            penalties[index] = penalty("group", one, views[index])
        if credit.kl_spread == "sequence":
            rewards_G[index] -= credit.kl * penalties[index].sum()
    return _Worth(rewards_G, penalties, unknown)


def generated(trajectory: Trajectory) -> int:
    """Tokens of the response that its writer wrote: neither the environment's nor a hint's."""
    given = (trajectory.origin == Origin.ENVIRONMENT) | (trajectory.origin == Origin.HINT)
    return int(np.sum(~given))


def _own(group: Sequence[Trajectory]) -> tuple[Float64, dict[int, str]]:
    return np.array([reward(one) for one in group], np.float64), unknown_rewards(group)


def _children(group: Sequence[Trajectory]) -> tuple[Float64, dict[int, str]]:
    """Mean reward of the members that have this one as parent; unknown for whoever has none with a known reward."""
    rewards_G = np.full(len(group), np.nan)
    unknown: dict[int, str] = {}
    for index, parent in enumerate(group):
        born = [reward(one) for one in group if one.parent_id == parent.id and parent.id]
        known = [value for value in born if math.isfinite(value)]
        if known:
            rewards_G[index] = np.mean(known)
        else:
            unknown[index] = f"none of its {len(born)} children has a known reward"
    return rewards_G, unknown


def _compared(credit: GroupCredit, group: Sequence[Trajectory], worth: _Worth) -> tuple[Float64, dict[int, str]]:
    """[G] advantages, and who is excluded and why."""
    advantages_G = np.zeros(len(group))
    known_G = known_members(len(group), worth.unknown)
    anchor_G = np.array([_is_anchor(credit, one) for one in group], bool)
    if credit.baseline == "greedy" and not (anchor_G & known_G).any():
        return advantages_G, {index: worth.unknown.get(index, NO_GREEDY) for index in range(len(group))}
    counted_G = np.array([credit.scope != "on_policy" or is_own_rollout(one) for one in group], bool) & ~anchor_G
    advantages_G[known_G] = group_advantages(
        credit,
        worth.rewards_G[known_G],
        counted_G[known_G],
        lengths_G=np.array([one.train_mask.sum() for one in group], np.float64)[known_G],
        greedy=next(iter(worth.rewards_G[anchor_G & known_G]), math.nan),
    )
    advantages_G[anchor_G] = 0.0
    return advantages_G, worth.unknown


def sign_credit(credit: SignCredit, group: Sequence[Trajectory]) -> Assigned:
    """1 above the threshold, -1 elsewhere (SRFT, arXiv 2506.19767)."""
    unknown = unknown_rewards(group)
    signs = [1.0 if reward(one) > credit.threshold else -1.0 for one in group]
    return Assigned(
        [constant(one, 0.0 if index in unknown else signs[index]) for index, one in enumerate(group)],
        excluded=tuple(sorted(unknown)),
        reasons=unknown,
    )
