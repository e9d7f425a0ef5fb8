"""Planted prompts as what a probe would have drawn of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.probes.sequential import Counts, Plan
from orchestrator.probes.snapshot import Sampled

Floats = npt.NDArray[np.float64]


def counts(rng: np.random.Generator, rates: npt.ArrayLike, plan: Plan, *, known: bool = False) -> Counts:
    """Counts of prompts that pass at these rates, drawn look after look as the prober draws. With `known` the counts
    carry the plan, else they pass for a fixed n."""
    p = np.asarray(rates, np.float64)
    n, c = np.zeros(p.shape, np.int64), np.zeros(p.shape, np.int64)
    drawn, open_ = 0, np.ones(p.shape, bool)
    for look in plan.looks:
        c += np.where(open_, rng.binomial(look - drawn, p), 0)
        n = np.where(open_, look, n)
        open_ &= ~plan.stopped(n, c)
        drawn = look
    return Counts(n, c, plan if known else None)


def sampled(
    verdicts: Sequence[Sequence[bool]],
    *,
    ids: Sequence[str] | None = None,
    answers: Sequence[dict[str, int]] | None = None,
    sound: Sequence[int] | None = None,
) -> Sampled:
    """The record of these verdicts, in the order of their draws."""
    size = len(verdicts)
    n = np.array([len(one) for one in verdicts], np.int64)
    c = np.array([sum(one) for one in verdicts], np.int64)
    return Sampled(
        tuple(ids or (f"prompt-{at}" for at in range(size))),
        ("",) * size,
        n,
        c,
        np.zeros(size, np.int64),
        np.full(size, np.nan),
        tuple(answers or [{}] * size),
        tuple(tuple(bool(verdict) for verdict in one) for one in verdicts),
        None if sound is None else np.asarray(sound, np.int64),
    )
