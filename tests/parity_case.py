"""One drawn case that every oracle reads: numpy, float64, ragged lengths. Knows neither our code nor a library's.

Axes: B rows, T slots, V vocabulary; logits_BTV[b, t] predicts tokens_BT[b, t]. Rows are right-padded, so that each
row's mask is a run of True and then padding. Pairs: rows 0..B/2-1 are chosen, row i + B/2 is what i was chosen over.
Groups: `group_size` rows that follow one another.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Loss = Callable[[Floats], float]
"""Log-probabilities [B, T] (or logits [B, T, V]) to the loss."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Policy, views, rewards and labels of a step. Views are log-probabilities of the tokens; 0 on padding."""

    logits_BTV: Floats
    tokens_BT: npt.NDArray[np.int64]
    mask_BT: npt.NDArray[np.bool_]
    advantages_B: Floats
    rewards_B: Floats
    old_BT: Floats
    behavior_BT: Floats
    reference_logits_BTV: Floats
    teacher_logits_BTV: Floats
    labels_B: npt.NDArray[np.bool_]
    """Desirable or not (KTO)."""
    mismatched_B: Floats
    """Policy less reference log-probability of each prompt with another's response (KTO's z)."""
    off_B: npt.NDArray[np.bool_]
    """Rows that a demonstrator wrote; the last of each group."""
    group_size: int

    @property
    def logps_BT(self) -> Floats:
        """The policy's log-probabilities of the tokens."""
        return at(self.logits_BTV, self.tokens_BT)

    @property
    def reference_BT(self) -> Floats:
        """The reference's log-probabilities of the tokens."""
        return at(self.reference_logits_BTV, self.tokens_BT)

    @property
    def teacher_BT(self) -> Floats:
        """The teacher's log-probabilities of the tokens."""
        return at(self.teacher_logits_BTV, self.tokens_BT)

    @property
    def entropy_BT(self) -> Floats:
        """Entropy of the policy's next-token distributions, in nats."""
        logps = log_softmax(self.logits_BTV)
        return -(np.exp(logps) * logps).sum(-1)


def random_case(seed: int = 0, *, rows: int = 6, slots: int = 7, vocabulary: int = 13, group: int = 3) -> Case:
    """A case with ragged lengths from 1 to `slots`, no two log-ratios alike, and rewards 0 and 1 in every group."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, slots + 1, rows)
    lengths[0], lengths[-1] = slots, max(2, slots // 2)
    mask = np.arange(slots)[None] < lengths[:, None]
    logits = rng.normal(size=(rows, slots, vocabulary))
    tokens = rng.integers(0, vocabulary, (rows, slots))
    logps = at(logits, tokens)
    rewards = rng.integers(0, 2, rows).astype(np.float64)
    rewards[::group], rewards[group - 1 :: group] = 1.0, 0.0
    return Case(
        logits_BTV=logits,
        tokens_BT=tokens,
        mask_BT=mask,
        advantages_B=rng.normal(size=rows),
        rewards_B=rewards,
        old_BT=logps + 0.3 * rng.normal(size=(rows, slots)),
        behavior_BT=logps + 0.5 * rng.normal(size=(rows, slots)),
        reference_logits_BTV=logits + 0.5 * rng.normal(size=logits.shape),
        teacher_logits_BTV=logits + rng.normal(size=logits.shape),
        labels_B=np.arange(rows) % 2 == 0,
        mismatched_B=rng.normal(size=rows) + 0.4,
        off_B=np.arange(rows) % group == group - 1,
        group_size=group,
    )


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def at(logits_BTV: Floats, tokens_BT: npt.NDArray[np.int64]) -> Floats:
    """Log-probabilities of the tokens."""
    return np.take_along_axis(log_softmax(logits_BTV), tokens_BT[..., None], -1)[..., 0]


def slope(loss: Loss, x: Floats, where: npt.NDArray[np.bool_] | None = None, step: float = 1e-5) -> Floats:
    """d loss / dx by central differences, at the entries of `where` (all by default); 0 elsewhere."""
    out = np.zeros_like(x)
    for index in np.argwhere(np.ones(x.shape, bool) if where is None else where):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[tuple(index)] += sign * step
            values.append(loss(moved))
        out[tuple(index)] = (values[0] - values[1]) / (2 * step)
    return out


def through_softmax(g_BT: Floats, case: Case) -> Floats:
    """d loss / d logits [B, T, V] where d loss / d log p of the tokens is -g: the factor of `coefficient_BT`."""
    p = np.exp(log_softmax(case.logits_BTV))
    hot = np.eye(case.logits_BTV.shape[-1])[case.tokens_BT]
    return -(g_BT * case.mask_BT)[..., None] * (hot - p)
