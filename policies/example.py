"""`Example`: a trajectory as the learner will train on it, with the views its strand needs. Host side, no torch."""

from dataclasses import dataclass

from policies.trajectory import Float32, Int32, Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A trajectory, the strand that reads it, its per-token advantages, and log-probability views where asked for.

    T = len(trajectory.tokens); K = the teacher's top-k. A view that nobody asked for is None.
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
