"""`Example`: a trajectory as the learner will train on it, with the views its strand needs. Host side, no torch."""

from dataclasses import dataclass

from policies.trajectory import Float32, Int32, Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A trajectory, the strand that reads it, its per-token advantages, and log-probability views where asked for.

    T = len(trajectory.tokens); K = the top-k; H = a frozen model's hidden size. A view that nobody asked for is None.
    """

    trajectory: Trajectory
    strand: int
    """Index into the step's strands."""
    advantages: Float32
    """[T]"""
    old_logps: Float32 | None = None
    """[T] the learner at the start of the update."""
    reference_logps: Float32 | None = None
    """[T]"""
    teacher_logps: Float32 | None = None
    """[T]"""
    teacher_topk_ids: Int32 | None = None
    """[T, K]"""
    teacher_topk_logps: Float32 | None = None
    """[T, K]"""
    reference_topk_ids: Int32 | None = None
    """[T, K]"""
    reference_topk_logps: Float32 | None = None
    """[T, K]"""
    teacher_hidden: Float32 | None = None
    """[T, H] the teacher's last hidden states, for divergences over the whole vocabulary."""
    reference_hidden: Float32 | None = None
    """[T, H]"""
    old_entropy: Float32 | None = None
    """[T] of the learner's next-token distribution at the start of the step."""
    old_values: Float32 | None = None
    """[T] a scalar head's outputs at the start of the step."""
    targets: Float32 | None = None
    """[T] what a scalar head should say at each token (returns, step labels); NaN where nothing is asked."""
    part: Int32 | None = None
    """[T] which part (turn, step) of the response each token is of; -1 for none."""
    unit: str = ""
    """Examples of one unit are never parted over micro-batches and ranks; empty: its preference set, if it has one."""

    @property
    def together(self) -> str | None:
        """Name shared by the examples that must not be parted from this one; None where it may go anywhere."""
        if self.unit:
            return self.unit
        preference = self.trajectory.preference
        return preference.set_id if preference is not None and preference.set_id else None
