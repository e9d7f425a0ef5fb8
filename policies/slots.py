"""`Slots`: the trained tokens of one strand, flattened, with every view a kernel may read.

Axes: N trained slots, B trajectories of the batch, K top-k. Kernels work on these alone, so that none has to know of
masks, layouts or other strands.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from policies.batch import TrajectoryBatch


@dataclass(frozen=True, slots=True, eq=False)
class PolicyView:
    """What the policy in training says of a batch's slots; these tensors alone carry gradient."""

    logps_BT: Tensor
    """Log-probability of the target."""
    entropy_BT: Tensor | None = None
    """Entropy of the whole next-token distribution, in nats."""
    topk_logps_BTK: Tensor | None = None
    """Log-probabilities of batch.teacher_topk_ids_BTK."""


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """One strand's trained slots. A column that the batch lacks is None; a value that nobody knows is NaN."""

    strand: str
    logps_N: Tensor
    entropy_N: Tensor | None
    topk_logps_NK: Tensor | None
    trajectory_N: Tensor
    """Index of each slot's trajectory, in [0, trajectories)."""
    trajectories: int
    advantages_N: Tensor | None
    old_logps_N: Tensor | None
    behavior_logps_N: Tensor | None
    reference_logps_N: Tensor | None
    teacher_logps_N: Tensor | None
    teacher_topk_logps_NK: Tensor | None
    set_B: Tensor | None
    label_B: Tensor | None

    def known(self, name: str, reader: str) -> Tensor:
        """The column, detached if it is not the policy's own. Raises ValueError when it is absent or has a NaN."""
        column: Tensor | None = getattr(self, name)
        shown = name.replace("_NK", "_BTK").replace("_N", "_BT")
        if column is None and not len(self.logps_N):  # a micro-batch without this strand need not bring its views
            return self.logps_N.new_zeros((0, 1) if name.endswith("_NK") else (0,))
        if column is None:
            raise ValueError(f"strand {self.strand!r}: {reader} reads {shown}, which is missing; {FIXES[name]}")
        missing = int(column.isnan().reshape(len(column), -1).any(1).sum()) if len(column) else 0
        if missing and name in VIEWS:
            raise ValueError(
                f"strand {self.strand!r}: {reader} reads {shown}, unknown (NaN) on {missing} of {len(column)} trained "
                f"tokens; {FIXES[name]}"
            )
        return column.detach() if name in VIEWS else column

    def sum_by_trajectory(self, values_N: Tensor) -> Tensor:
        """[trajectories] sums."""
        return values_N.new_zeros(self.trajectories).index_add(0, self.trajectory_N, values_N)

    def counts_B(self) -> Tensor:
        """[trajectories] trained slots of each."""
        return self.sum_by_trajectory(torch.ones_like(self.logps_N, requires_grad=False))

    def mean_by_trajectory(self, values_N: Tensor) -> Tensor:
        """[trajectories] means; 0 for a trajectory without trained slots."""
        return self.sum_by_trajectory(values_N) / self.counts_B().clamp(min=1)


FIXES: Final = {
    "advantages_N": "assign credit before collating",
    "old_logps_N": "recompute the learner's log-probabilities before the update, or pass old_is_current=True where a "
    "step is one update",
    "behavior_logps_N": "tokens whose sampling probability nobody recorded (demonstrations) need denominator current, "
    "one or old and no importance weight",
    "reference_logps_N": "ask the frozen reference for them, or drop the term",
    "teacher_logps_N": "ask the teacher for them, or drop the term",
    "teacher_topk_logps_NK": "ask the teacher for its top-k, or use a sampled form (k2, k3)",
    "topk_logps_NK": "gather the policy's log-probabilities at batch.teacher_topk_ids_BTK",
    "entropy_N": "compute the policy's entropy too",
}
"""What to do about a column that is missing or unknown."""

VIEWS: Final = frozenset(FIXES) - {"topk_logps_NK", "entropy_N"}
"""Columns that are constants of the step."""


def take(
    strand: tuple[int, str], batch: TrajectoryBatch, policy: PolicyView, *, only: bool, old_is_current: bool
) -> Slots:
    """The slots of the strand (index, name). `only`: it is the step's one strand, so strand_B may be absent."""
    index, name = strand
    trained_BT = batch.mask_BT
    if batch.strand_B is not None:
        strand_BT = batch.strand_B[batch.trajectory_BT.clamp(min=0)] if batch.size else batch.trajectory_BT
        trained_BT = trained_BT & (strand_BT == index)
    elif not only:
        raise ValueError("TrajectoryBatch.strand_B is None: with several strands each trajectory has to name its own")
    at_N = trained_BT.flatten().nonzero()[:, 0]

    def flat(column: Tensor | None) -> Tensor | None:
        return None if column is None else column.flatten(0, 1)[at_N]

    logps_N = policy.logps_BT.flatten()[at_N]
    old_N = flat(batch.old_logps_BT)
    if old_N is None and old_is_current:
        old_N = logps_N.detach()
    return Slots(
        strand=name,
        logps_N=logps_N,
        entropy_N=flat(policy.entropy_BT),
        topk_logps_NK=flat(policy.topk_logps_BTK),
        trajectory_N=batch.trajectory_BT.flatten()[at_N],
        trajectories=batch.size,
        advantages_N=flat(batch.advantages_BT),
        old_logps_N=old_N,
        behavior_logps_N=flat(batch.behavior_logps_BT),
        reference_logps_N=flat(batch.reference_logps_BT),
        teacher_logps_N=flat(batch.teacher_logps_BT),
        teacher_topk_logps_NK=flat(batch.teacher_topk_logps_BTK),
        set_B=batch.set_B,
        label_B=batch.label_B,
    )
