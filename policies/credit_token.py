"""Advantages of single tokens: the teacher's gap, and a critic's generalised estimate.

Axes: T tokens of one trajectory.
"""

from collections.abc import Sequence

import numpy as np

from policies.config import Gae, GroupCredit, TeacherGap
from policies.credit_group import group_advantages
from policies.credit_views import (
    Assigned,
    Float64,
    Views,
    constant,
    known_members,
    penalty,
    suffix_sum,
    unknown_rewards,
    view,
)
from policies.trajectory import Bool, Float32, Trajectory, reward

# ---------------------------------------------------------------- teacher


def teacher_gap_credit(credit: TeacherGap, group: Sequence[Trajectory], views: Sequence[Views]) -> Assigned:
    """scale x (target - behavior) on trained tokens, 0 elsewhere, and the outcome's advantage where it is asked for.

    On-policy distillation; ExOPD (arXiv 2602.12125) with an extrapolation; MiniLLM's long-term part (2306.08543,
    length-normalised) with suffix means. Raises ValueError when a trained token's log-probability is unknown.
    """
    outcomes_G, unknown = outcome_advantages(credit.outcome, group)
    return Assigned(
        [
            constant(one, 0.0) if index in unknown else _gap(credit, one, views[index], outcomes_G[index])
            for index, one in enumerate(group)
        ],
        excluded=tuple(sorted(unknown)),
        reasons=unknown,
    )


def outcome_advantages(weight: float, group: Sequence[Trajectory]) -> tuple[Float64, dict[int, str]]:
    """[G] weight x (reward - group mean), and whose reward is unknown; with weight 0 nobody's reward is read."""
    advantages_G = np.zeros(len(group))
    if weight == 0:
        return advantages_G, {}
    unknown = unknown_rewards(group)
    known_G = known_members(len(group), unknown)
    rewards_G = np.array([reward(one) for one in group], np.float64)[known_G]
    counted_G = np.ones(len(rewards_G), bool)
    advantages_G[known_G] = weight * group_advantages(GroupCredit(baseline="mean"), rewards_G, counted_G)
    return advantages_G, unknown


def _gap(credit: TeacherGap, trajectory: Trajectory, views: Views, outcome: float) -> Float32:
    behavior = view("teacher_gap", trajectory, "behavior log-probabilities", trajectory.behavior_logps)
    target = view("teacher_gap", trajectory, "teacher log-probabilities", views.teacher_logps)
    if credit.extrapolation != 1.0:
        base = view("teacher_gap", trajectory, "reference log-probabilities", views.reference_logps)
        target = base + credit.extrapolation * (target - base)
    gap = np.where(trajectory.train_mask, target - behavior, 0.0)
    if credit.spread == "suffix_mean":
        gap = suffix_sum(gap) / np.maximum(suffix_sum(trajectory.train_mask.astype(np.float64)), 1.0)
    return np.where(trajectory.train_mask, credit.scale * gap + outcome, 0.0).astype(np.float32)


# ---------------------------------------------------------------- critic


def gae_credit(credit: Gae, group: Sequence[Trajectory], views: Sequence[Views]) -> Assigned:
    """Advantages and returns of each trajectory by itself; the group is not compared.

    A token's reward is -kl x k1, and the outcome on the last trained one. Raises ValueError when a trained token's
    value is unknown, or its log-probability where there is a penalty.
    """
    unknown = unknown_rewards(group)
    advantages, targets = [], []
    for index, one in enumerate(group):
        advantage_T, target_T = np.zeros(len(one.tokens)), np.full(len(one.tokens), np.nan)
        if index not in unknown and one.train_mask.any():
            values_T = view("gae", one, "values", views[index].values)
            rewards_T = _token_rewards(credit, one, views[index])
            advantage_T = gae(rewards_T, values_T, one.train_mask, gamma=credit.gamma, lam=credit.lam)
            target_T = np.where(one.train_mask, advantage_T + values_T, np.nan)
        advantages.append(advantage_T.astype(np.float32))
        targets.append(target_T.astype(np.float32))
    return Assigned(advantages, excluded=tuple(sorted(unknown)), reasons=unknown, targets=targets)


def _token_rewards(credit: Gae, trajectory: Trajectory, views: Views) -> Float64:
    rewards_T = np.zeros(len(trajectory.tokens))
    if credit.kl > 0:
        rewards_T = -credit.kl * penalty("gae", trajectory, views)
    rewards_T[np.flatnonzero(trajectory.train_mask)[-1]] += reward(trajectory)
    return rewards_T


def gae(rewards_T: Float64, values_T: Float64, trained_T: Bool, *, gamma: float, lam: float) -> Float64:
    """[T] A_t = d_t + gamma lam A_t', d_t = r_t + gamma V_t' - V_t, t' the next trained token.

    arXiv 1506.02438, eq. 16. After the last one value and advantage are 0; so are the advantages of other tokens.
    """
    advantages_T = np.zeros(len(rewards_T))
    later_value, later_advantage = 0.0, 0.0
    for t in np.flatnonzero(trained_T)[::-1]:
        difference = rewards_T[t] + gamma * later_value - values_T[t]
        later_advantage = difference + gamma * lam * later_advantage
        later_value = values_T[t]
        advantages_T[t] = later_advantage
    return advantages_T
