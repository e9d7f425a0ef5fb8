"""Scaling over a whole optimizer step, after the groups have had their say.

Axes: T tokens of one trajectory.
"""

from collections.abc import Sequence

import numpy as np

from policies.trajectory import Float32, Trajectory

EPS = 1e-8
"""Added to the variance, as verl does; it is no setting anywhere."""


def whiten(advantages: Sequence[Float32], trajectories: Sequence[Trajectory]) -> list[Float32]:
    """(A - mean) / sqrt(unbiased variance + EPS) over all trained tokens; 0 elsewhere (REINFORCE++, 2501.03262).

    Advantages that do not differ become exact zeros.
    """
    if not advantages:
        return []
    flat = np.concatenate([a[one.train_mask] for a, one in zip(advantages, trajectories, strict=True)])
    flat = flat.astype(np.float64)
    mean, factor = 0.0, 0.0
    if len(flat) and flat.min() < flat.max():
        mean, factor = float(flat.mean()), float(1.0 / np.sqrt(flat.var(ddof=1) + EPS))
    return [
        np.where(one.train_mask, (a.astype(np.float64) - mean) * factor, 0.0).astype(np.float32)
        for a, one in zip(advantages, trajectories, strict=True)
    ]


def rescale_by_nonzero(advantages: Sequence[Float32], groups: Sequence[str]) -> list[Float32]:
    """A x groups / groups whose advantages are not all 0 (GPG, arXiv 2504.02546)."""
    telling = {group for a, group in zip(advantages, groups, strict=True) if np.any(a)}
    factor = len(set(groups)) / len(telling) if telling else 1.0
    return [(a.astype(np.float64) * factor).astype(np.float32) for a in advantages]
