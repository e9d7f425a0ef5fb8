"""Supervision to advantages: what each token of a group's trajectories is worth. Numpy, no torch.

Axes: G trajectories of one group, T tokens of one trajectory.
"""

from collections.abc import Sequence
from typing import assert_never

from policies.config import (
    ConstantCredit,
    Credit,
    Gae,
    GroupCredit,
    PartCredit,
    ProcessCredit,
    SignCredit,
    TeacherGap,
    TurnCredit,
)
from policies.credit_group import group_advantages, group_credit, is_own_rollout, sign_credit
from policies.credit_spans import part_credit, process_credit, turn_credit
from policies.credit_step import rescale_by_nonzero, whiten
from policies.credit_token import gae_credit, teacher_gap_credit
from policies.credit_views import Assigned, Views, constant
from policies.trajectory import Float32, Trajectory

__all__ = ["Assigned", "Views", "assign", "group_advantages", "is_own_rollout", "needs_views", "over_step"]


def assign(credit: Credit, group: Sequence[Trajectory], views: Sequence[Views] = ()) -> Assigned:
    """Advantages by the strand's credit; `views` are the group's, in its order, or none at all.

    Raises ValueError when a view that the credit reads is missing, or unknown on a trained token.
    """
    if views and len(views) != len(group):
        raise ValueError(f"credit {credit.kind}: {len(group)} trajectories, but views of {len(views)}; give one each")
    match credit:
        case ConstantCredit() | SignCredit() | ProcessCredit() | TurnCredit():
            return _by_scores(credit, group)
        case GroupCredit() | TeacherGap() | Gae() | PartCredit():
            return _by_views(credit, group, views or [Views()] * len(group))
        case _:
            assert_never(credit)


def _by_scores(
    credit: ConstantCredit | SignCredit | ProcessCredit | TurnCredit, group: Sequence[Trajectory]
) -> Assigned:
    match credit:
        case ConstantCredit():
            return Assigned([constant(one, credit.value) for one in group])
        case SignCredit():
            return sign_credit(credit, group)
        case ProcessCredit():
            return process_credit(credit, group)
        case TurnCredit():
            return turn_credit(credit, group)
        case _:
            assert_never(credit)


def _by_views(
    credit: GroupCredit | TeacherGap | Gae | PartCredit, group: Sequence[Trajectory], views: Sequence[Views]
) -> Assigned:
    match credit:
        case GroupCredit():
            return group_credit(credit, group, views)
        case TeacherGap():
            return teacher_gap_credit(credit, group, views)
        case Gae():
            return gae_credit(credit, group, views)
        case PartCredit():
            return part_credit(credit, group, views)
        case _:
            assert_never(credit)


def over_step(
    credit: Credit, advantages: Sequence[Float32], trajectories: Sequence[Trajectory], groups: Sequence[str]
) -> list[Float32]:
    """Advantages scaled over one strand's whole step; the same ones where the credit asks for nothing.

    Give what trains alone: excluded members would count as zeros. `groups` names each trajectory's group.
    """
    whitened = isinstance(credit, GroupCredit) and credit.batch == "whiten"
    if whitened or (isinstance(credit, Gae) and credit.whiten):
        return whiten(advantages, trajectories)
    if isinstance(credit, GroupCredit) and credit.batch == "nonzero":
        return rescale_by_nonzero(advantages, groups)
    return list(advantages)


def needs_views(credit: Credit) -> set[str]:
    """What the credit reads: rewards (scores of steps, turns and parts among them), and views by their field's name."""
    match credit:
        case ConstantCredit():
            return set()
        case SignCredit() | ProcessCredit() | TurnCredit():
            return {"rewards"}
        case GroupCredit() | PartCredit():
            return {"rewards"} | _penalised(credit.kl)
        case Gae():
            return {"rewards", "values"} | _penalised(credit.kl)
        case TeacherGap():
            found = {"teacher_logps", "behavior_logps"}
            found |= {"reference_logps"} if credit.extrapolation != 1.0 else set()
            return found | ({"rewards"} if credit.outcome > 0 else set())
        case _:
            assert_never(credit)


def _penalised(kl: float) -> set[str]:
    return {"behavior_logps", "reference_logps"} if kl > 0 else set()
