"""`Slots`: the trained tokens of one strand, flattened, with every view a kernel may read.

Axes: N trained slots, B trajectories of the batch, K top-k. Kernels work on these alone, so that none has to know of
masks, layouts or other strands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import torch
from torch import Tensor

from policies import segments
from policies.batch import TrajectoryBatch
from policies.config import Div, Only
from policies.trajectory import Origin


@dataclass(frozen=True, slots=True)
class WholeVocabulary:
    """Which divergence over the whole vocabulary a tensor holds: two terms that agree on this share one."""

    form: str
    target: str
    beta: float
    temperature: float

    @classmethod
    def of(cls, kernel: Div) -> "WholeVocabulary":
        """The one that a kernel reads."""
        beta = kernel.beta if kernel.form == "jsd" else 0.0
        return cls(kernel.form, kernel.target, beta, kernel.temperature)


@dataclass(frozen=True, slots=True, eq=False)
class PolicyView:
    """What the policy in training says of a batch's slots; these tensors alone carry gradient."""

    logps_BT: Tensor
    """Log-probability of the target; of a scalar head, its outputs."""
    entropy_BT: Tensor | None = None
    """Entropy of the whole next-token distribution, in nats."""
    topk_logps_BTK: Tensor | None = None
    """Log-probabilities of batch.teacher_topk_ids_BTK."""
    reference_ids_logps_BTK: Tensor | None = None
    """Log-probabilities of batch.reference_topk_ids_BTK."""
    collision_BT: Tensor | None = None
    """log sum over the vocabulary of p^2, without gradient."""
    whole: Mapping[WholeVocabulary, Tensor] = field(default_factory=dict)
    """[B, T] divergences that were taken over the whole vocabulary, chunk by chunk."""
    scalar: bool = False
    """Whether logps_BT holds the outputs of a scalar head, not log-probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """One strand's trained slots. A column that the batch lacks is None; a value that nobody knows is NaN."""

    strand: str
    logps_N: Tensor
    trajectory_N: Tensor
    """Index of each slot's trajectory, in [0, trajectories), ascending."""
    trajectories: int
    scalar: bool = False
    entropy_N: Tensor | None = None
    collision_N: Tensor | None = None
    topk_logps_NK: Tensor | None = None
    """The policy's, at the teacher's top-k."""
    reference_ids_logps_NK: Tensor | None = None
    """The policy's, at the reference's top-k."""
    origin_N: Tensor | None = None
    part_N: Tensor | None = None
    advantages_N: Tensor | None = None
    targets_N: Tensor | None = None
    old_logps_N: Tensor | None = None
    old_entropy_N: Tensor | None = None
    old_values_N: Tensor | None = None
    behavior_logps_N: Tensor | None = None
    reference_logps_N: Tensor | None = None
    teacher_logps_N: Tensor | None = None
    teacher_topk_logps_NK: Tensor | None = None
    reference_topk_logps_NK: Tensor | None = None
    set_B: Tensor | None = None
    label_B: Tensor | None = None
    margin_B: Tensor | None = None
    whole: Mapping[WholeVocabulary, Tensor] = field(default_factory=dict)
    """[N] divergences."""

    def known(self, name: str, reader: str) -> Tensor:
        """The column, detached if it is not the policy's own. Raises ValueError when it is absent or has a NaN."""
        column: Tensor | None = getattr(self, name)
        if column is None and not len(self.logps_N):  # a micro-batch without this strand need not bring its views
            return self.logps_N.new_zeros((0, 1) if name.endswith("_NK") else (0,))
        if column is None:
            raise ValueError(f"strand {self.strand!r}: {reader} reads {_shown(name)}, which is missing; {FIXES[name]}")
        if name in VIEWS and (missing := _unknown(column)):
            raise ValueError(
                f"strand {self.strand!r}: {reader} reads {_shown(name)}, unknown (NaN) on {missing} of {len(column)} "
                f"trained tokens; {FIXES[name]}"
            )
        return column.detach() if name in VIEWS else column

    def at(self, keep_N: Tensor) -> "Slots":
        """These slots alone (a mask); trajectories keep their numbers."""
        at_N = keep_N.nonzero()[:, 0]
        kept: dict[str, Any] = {
            one.name: value.index_select(0, at_N)
            for one in fields(self)
            if one.name.endswith(("_N", "_NK")) and (value := getattr(self, one.name)) is not None
        }
        return replace(self, **kept, whole={key: value.index_select(0, at_N) for key, value in self.whole.items()})

    def read_by(self, only: Only) -> "Slots":
        """The slots that a term with this restriction reads."""
        if only == Only():
            return self
        keep_N = torch.ones_like(self.trajectory_N, dtype=torch.bool)
        if only.origins:
            wanted = torch.tensor([int(Origin[name.upper()]) for name in only.origins], device=keep_N.device)
            keep_N &= torch.isin(self.known("origin_N", "only.origins").long(), wanted)
        if only.part is not None:
            keep_N &= self.known("part_N", "only.part") == only.part
        if only.label != "any":
            if self.label_B is None:
                keep_N &= self._absent("label_B", "only.label")
            else:
                chosen_N = self.label_B[self.trajectory_N] > 0.5
                rejected_N = self.label_B[self.trajectory_N] <= 0.5
                keep_N &= chosen_N if only.label == "chosen" else rejected_N
        return self.at(keep_N)

    def _absent(self, name: str, reader: str) -> Tensor:
        """An empty column for a batch without slots; ValueError for any other."""
        if len(self.logps_N):
            raise ValueError(f"strand {self.strand!r}: {reader} reads {name}, which is missing; {FIXES[name]}")
        return torch.zeros(0, dtype=torch.bool, device=self.logps_N.device)

    def sum_by_trajectory(self, values_N: Tensor) -> Tensor:
        """[trajectories] sums."""
        return segments.total(values_N, self.trajectory_N, self.trajectories)

    def spread(self, values_B: Tensor) -> Tensor:
        """[N]: each trajectory's value at its slots."""
        return segments.spread(values_B, self.trajectory_N)

    def counts_B(self) -> Tensor:
        """[trajectories] trained slots of each."""
        return segments.counts(self.trajectory_N, self.trajectories).to(self.logps_N.dtype)

    def mean_by_trajectory(self, values_N: Tensor) -> Tensor:
        """[trajectories] means; 0 for a trajectory without trained slots."""
        return self.sum_by_trajectory(values_N) / self.counts_B().clamp(min=1)

    def position_N(self) -> Tensor:
        """Which trained slot of its trajectory each is, from 0; a trajectory's slots lie together, in order."""
        counts_B = segments.counts(self.trajectory_N, self.trajectories)
        starts_B = counts_B.cumsum(0) - counts_B
        return torch.arange(len(self.logps_N), device=counts_B.device) - starts_B[self.trajectory_N]


def _shown(name: str) -> str:
    """A column's name in the batch."""
    return name.replace("_NK", "_BTK").replace("_N", "_BT")


def _unknown(column: Tensor) -> int:
    """Rows with a NaN. One of them makes the sum one, which is far quicker to see than to count."""
    if not column.numel() or not bool(column.sum().isnan()):
        return 0
    return int(column.isnan().reshape(len(column), -1).any(1).sum())


FIXES: Final = {
    "advantages_N": "assign credit before collating",
    "old_logps_N": "recompute the learner's log-probabilities before the update, or pass old_is_current=True where a "
    "step is one update",
    "behavior_logps_N": "tokens whose sampling probability nobody recorded (demonstrations) need denominator current, "
    "one or old and no importance weight",
    "reference_logps_N": "ask the frozen reference for them, or drop the term",
    "teacher_logps_N": "ask the teacher for them, or drop the term",
    "teacher_topk_logps_NK": "ask the teacher for its top-k, or use a sampled form (k2, k3)",
    "reference_topk_logps_NK": "ask the reference for its top-k, or use a sampled form (k2, k3)",
    "old_entropy_N": "recompute it before the update",
    "old_values_N": "recompute the values before the update, or set no clip",
    "topk_logps_NK": "gather the policy's log-probabilities at batch.teacher_topk_ids_BTK",
    "reference_ids_logps_NK": "gather the policy's log-probabilities at batch.reference_topk_ids_BTK",
    "entropy_N": "compute the policy's entropy too",
    "collision_N": "compute the policy's collision probability too",
    "origin_N": "collate the trajectories' origins",
    "part_N": "give each example its parts (turns, steps), or read the whole response",
    "targets_N": "give each example targets for its head (labels, returns)",
    "label_B": "give the trajectories preference labels",
    "margin_B": "state a margin for every pair, or set row_margin: false",
}
"""What to do about a column that is missing or unknown."""

POLICY: Final = frozenset({"topk_logps_NK", "reference_ids_logps_NK", "entropy_N", "collision_N"})
"""Columns of the policy in training."""

VIEWS: Final = frozenset(FIXES) - POLICY - {"origin_N", "part_N", "targets_N", "label_B", "margin_B"}
"""Columns that are constants of the step and must be known wherever they are read."""

COLUMNS: Final = (
    "origin", "part", "advantages", "targets", "old_logps", "old_entropy", "old_values", "behavior_logps",
    "reference_logps", "teacher_logps",
)  # fmt: skip
"""Columns that a batch has as NAME_BT and slots have as NAME_N."""


def take(
    strand: tuple[int, str], batch: TrajectoryBatch, policy: PolicyView, *, only: bool, old_is_current: bool
) -> Slots:
    """The slots of the strand (index, name). `only`: it is the step's one strand, so strand_B may be absent."""
    index, name = strand
    trained_BT = batch.mask_BT
    if batch.strand_B is not None:
        own_B = batch.strand_B == index
        if not bool(own_B.all()):
            trained_BT = trained_BT & own_B[batch.trajectory_BT.clamp(min=0)]
    elif not only:
        raise ValueError("TrajectoryBatch.strand_B is None: with several strands each trajectory has to name its own")
    trained_N = trained_BT.flatten()
    at_N = None if bool(trained_N.all()) else trained_N.nonzero()[:, 0]  # None: all of them, and nothing is moved

    def here(column: Tensor) -> Tensor:
        flat = column.flatten(0, 1)
        return flat if at_N is None else flat.index_select(0, at_N)

    def flat(column: Tensor | None) -> Tensor | None:
        return None if column is None else here(column)

    logps_N = here(policy.logps_BT)
    columns: dict[str, Any] = {f"{column}_N": flat(getattr(batch, f"{column}_BT")) for column in COLUMNS}
    if columns["old_logps_N"] is None and old_is_current:
        columns["old_logps_N"] = logps_N.detach()
    if policy.scalar and columns["old_values_N"] is None and old_is_current:
        columns["old_values_N"] = logps_N.detach()
    return Slots(
        strand=name,
        logps_N=logps_N,
        trajectory_N=here(batch.trajectory_BT).contiguous(),
        trajectories=batch.size,
        scalar=policy.scalar,
        entropy_N=flat(policy.entropy_BT),
        collision_N=flat(policy.collision_BT),
        topk_logps_NK=flat(policy.topk_logps_BTK),
        reference_ids_logps_NK=flat(policy.reference_ids_logps_BTK),
        teacher_topk_logps_NK=flat(batch.teacher_topk_logps_BTK),
        reference_topk_logps_NK=flat(batch.reference_topk_logps_BTK),
        set_B=batch.set_B,
        label_B=batch.label_B,
        margin_B=batch.margin_B,
        whole={key: here(value) for key, value in policy.whole.items()},
        **columns,
    )
