"""Token targets: SFT and its reweighted kin (methods: 1.1-1.11, 9.8), written from the papers.

Each loss is of `c` (log-probabilities [B, T]) or of logits [B, T, V]; weights are detached, so they read the case.
"""

import math

import numpy as np

from tests.paper_parts import Rows, kl, reduced, slots, tempered
from tests.parity_case import Case, Floats


def sft(case: Case, c: Floats, *, reduce: str = "token", rows: Rows | None = None) -> float:
    """1.1: -c, per token."""
    return reduced(case, lambda i, t: -c[i, t], reduce, rows)


def dft(case: Case, c: Floats, *, reduce: str = "token", rows: Rows | None = None) -> float:
    """1.4 (arXiv 2508.05629): -sg(p) c."""
    return reduced(case, lambda i, t: -math.exp(case.logps_BT[i, t]) * c[i, t], reduce, rows)


def asft(case: Case, logits: Floats, *, coefficient: float = 0.05, reduce: str = "token") -> float:
    """1.6 (arXiv 2509.23753, code): -sg(p) c + lambda KL(ref || theta) over the whole vocabulary, of logits."""

    def loss(i: int, t: int) -> float:
        policy, reference = tempered(logits[i, t]), tempered(case.reference_logits_BTV[i, t])
        p = tempered(case.logits_BTV[i, t])[case.tokens_BT[i, t]]
        return -p * math.log(policy[case.tokens_BT[i, t]]) + coefficient * kl(reference, policy)

    return reduced(case, loss, reduce)


def psft(case: Case, c: Floats, *, low: float = 0.2, high: float = 0.28, reduce: str = "token") -> float:
    """1.5 (arXiv 2508.17784): A = 1, -min(r, clip(r, 1 - low, 1 + high)), r against the outer batch's policy."""

    def loss(i: int, t: int) -> float:
        r = math.exp(c[i, t] - case.old_BT[i, t])
        return -min(r, max(1 - low, min(r, 1 + high)))

    return reduced(case, loss, reduce)


def beyond_log_likelihood(case: Case, c: Floats, *, alpha: float = 1.0, reduce: str = "token") -> float:
    """1.7 (arXiv 2510.00526): (1 - p^alpha) / alpha; alpha 0 is the negative log-likelihood. Its g is p^alpha."""

    def loss(i: int, t: int) -> float:
        return -c[i, t] if alpha == 0 else (1 - math.exp(c[i, t]) ** alpha) / alpha

    return reduced(case, loss, reduce)


def thresholded(case: Case, c: Floats, *, low: float = 0.0, high: float = 1.0, reduce: str = "token") -> float:
    """1.7, variants: the likelihood of tokens with low <= p <= high alone; every token is counted."""

    def loss(i: int, t: int) -> float:
        return -c[i, t] if low <= math.exp(case.logps_BT[i, t]) <= high else 0.0

    return reduced(case, loss, reduce)


def highest_entropy(case: Case, share: float, rows: Rows | None = None) -> np.ndarray:
    """bool [B, T]: tokens whose entropy is at or above the step's (1 - share) quantile, linearly interpolated."""
    wanted = range(len(case.mask_BT)) if rows is None else rows
    values = sorted(float(case.entropy_BT[i, t]) for i in wanted for t in slots(case, i))
    place = (1 - share) * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    threshold = values[below] + (place - below) * (values[above] - values[below])
    return (case.entropy_BT >= threshold) & case.mask_BT


def mifo(case: Case, c: Floats, *, share: float = 0.2, reduce: str = "token", rows: Rows | None = None) -> float:
    """9.8 (arXiv 2510.04454): SFT on the tokens of highest entropy; every trained token is counted."""
    kept = highest_entropy(case, share, rows)
    return reduced(case, lambda i, t: -c[i, t] if kept[i, t] else 0.0, reduce, rows)
