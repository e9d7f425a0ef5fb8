"""CoT-pass@k: at least one of k responses passes with a chain of thought that a process verifier approves
(arXiv 2506.14245). A right answer after wrong steps does not count.

Where a plan ended draws by their passes, approvals beyond the end are unknown: a prompt that stopped after four passes
may have shown no approved chain, and what would have come is not told by its passes. So k goes up to the plan's first
look; for a fixed n up to n. P = prompts, O = outcomes, J = passes among the first k draws.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from orchestrator.probes import curves
from orchestrator.probes.intervals import Interval
from orchestrator.probes.sequential import Plan, counts
from orchestrator.probes.snapshot import Float64, Int64, Sampled


def estimates(sampled: Sampled, k: int, plan: Plan | None = None) -> Float64:
    """[P]: the unbiased estimate of each prompt's CoT-pass@k; NaN where it is unknown (no process verifier, k beyond
    the first look, fewer than k verdicts, verdicts past the plan's end)."""
    out = np.full(len(sampled.prompts), np.nan)
    if sampled.sound_P is None:
        return out
    of = counts(sampled, plan)
    for design, rows in of.designs(of.n_P == sampled.n_P):
        if k <= design.looks[0]:
            at = design.outcomes().place(of.n_P[rows], of.c_P[rows])
            out[rows] = _estimates(design, k, of.c_P[rows], sampled.sound_P[rows], at)
    return out


def curve(sampled: Sampled, ks: Sequence[int], *, confidence: float, plan: Plan | None = None) -> list[Interval]:
    """Mean CoT-pass@k over the distribution of prompts, for each k."""
    return [curves.mean(estimates(sampled, k, plan), float(np.sum(sampled.n_P // k)), confidence) for k in ks]


def steps(sampled: Sampled, plan: Plan | None = None) -> tuple[int, ...]:
    """The ks that can be shown."""
    if sampled.sound_P is None:
        return ()
    of = counts(sampled, plan)
    first = of.plan.looks[0] if of.plan is not None else np.inf
    return tuple(k for k in curves.steps(of) if k <= first)


def _estimates(design: Plan, k: int, c_P: Int64, sound_P: Int64, at_P: Int64) -> Float64:
    """1 less the chance that none of the first k draws is sound: over J, how many of them passed, given the outcome;
    then which of the passes are sound is as good as shuffled."""
    none = np.zeros(len(c_P))
    for passes in range(k + 1):
        ways = special.comb(k, passes) * design.begins(k, passes)[at_P]
        none += ways * _none_among(c_P, sound_P, passes)
    return np.clip(1.0 - none, 0.0, 1.0)


def _none_among(c_P: Int64, sound_P: Int64, passes: int) -> Float64:
    """C(c - sound, passes) / C(c, passes): chance that so many of the passes hold no sound one; 0 where impossible."""
    kept = np.ones(len(c_P))
    for drawn in range(passes):
        left = np.maximum(c_P - drawn, 1)
        kept *= np.maximum(c_P - sound_P - drawn, 0) / left
    return kept
