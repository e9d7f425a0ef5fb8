"""What the papers' losses are made of: token losses, reducers and group arithmetic, token by token in float64.

`c` is the policy's log-probabilities [B, T] in a loss's argument; whatever a paper detaches is read from the case,
whose log-probabilities stay where they were drawn while `c` moves.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tests.parity_case import Case, Floats, at, log_softmax, slope

TokenLoss = Callable[[int, int], float]
Rows = Sequence[int]


def g_of(loss: Callable[[Floats], float], case: Case) -> Floats:
    """g = -d loss / d log p of every token: what `coefficient_BT` should be (methods: 13.1)."""
    return -slope(loss, case.logps_BT, case.mask_BT)


def logits_slope(loss: Callable[[Floats], float], case: Case) -> Floats:
    """d loss / d logits [B, T, V] of a loss over distributions."""
    return slope(loss, case.logits_BTV, np.broadcast_to(case.mask_BT[..., None], case.logits_BTV.shape))


# ---------------------------------------------------------------- rows, tokens, reducers


def slots(case: Case, i: int) -> list[int]:
    """The trained tokens of a row."""
    return [t for t in range(case.mask_BT.shape[1]) if case.mask_BT[i, t]]


def groups(case: Case) -> Iterator[list[int]]:
    """The rows of each group."""
    for start in range(0, len(case.mask_BT), case.group_size):
        yield list(range(start, start + case.group_size))


def everybody(case: Case) -> list[int]:
    return list(range(len(case.mask_BT)))


def off_rows(case: Case) -> list[int]:
    """Rows of demonstrators."""
    return [i for i in everybody(case) if case.off_B[i]]


def on_rows(case: Case) -> list[int]:
    """The policy's own rollouts."""
    return [i for i in everybody(case) if not case.off_B[i]]


def reduced(case: Case, loss: TokenLoss, kind: str = "token", rows: Rows | None = None, length: int = 9) -> float:
    """Sum of the token losses over its normaliser (methods: 0, aggregators): the rows and tokens of this component.

    token: / tokens; sequence: mean over rows of means; sequence_sum: mean over rows of sums; batch_length:
    / (rows x length), Dr.GRPO's; length: / length alone, LUFFY's and verl's.
    """
    total, tokens, count = 0.0, 0, 0
    for i in everybody(case) if rows is None else rows:
        own = slots(case, i)
        part = sum(loss(i, t) for t in own)
        total += part / len(own) if kind == "sequence" else part
        tokens, count = tokens + len(own), count + 1
    if not count:
        return 0.0
    return (
        total
        / {"token": tokens, "sequence": count, "sequence_sum": count, "batch_length": count * length, "length": length}[
            kind
        ]
    )


# ---------------------------------------------------------------- one token


def clipped(ratio: float, advantage: float, low: float = 0.2, high: float = 0.2, dual: float | None = None) -> float:
    """PPO's loss, arXiv 1707.06347 eq. 7; dual bound for A < 0, arXiv 1912.09729."""
    inside = 1 - low if ratio < 1 - low else 1 + high if ratio > 1 + high else ratio
    gain = min(ratio * advantage, inside * advantage)
    return -max(gain, dual * advantage) if dual is not None and advantage < 0 else -gain


def clamp(x: float, low: float, high: float) -> float:
    return low if x < low else high if x > high else x


def k3(c: float, target: float) -> float:
    """Schulman's third estimator, r - 1 - log r with r = target / policy."""
    return math.exp(target - c) - (target - c) - 1


def saturated(ratio: float, gamma: float = 0.1) -> float:
    """LUFFY's shape, arXiv 2504.14945 eq. 7."""
    return ratio / (ratio + gamma)


# ---------------------------------------------------------------- distributions


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def jsd(teacher: Sequence[float], student: Sequence[float], beta: float) -> float:
    """GKD's generalised Jensen-Shannon divergence, arXiv 2306.13649 eq. 1, with KLs at its ends."""
    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    mixture = [beta * a + (1 - beta) * b for a, b in zip(teacher, student, strict=True)]
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def tempered(logits: Floats, temperature: float = 1.0) -> list[float]:
    return [float(x) for x in np.exp(log_softmax(logits / temperature))]


def supported(p: Sequence[float], keep: Sequence[int], tail: str) -> list[float]:
    """Probabilities of the kept tokens: with one bucket of all others, renormalised, or raw."""
    own = [p[v] for v in keep]
    if tail == "bucket":
        return [*own, 1 - sum(own)]
    return [one / sum(own) for one in own] if tail == "renormalise" else own


def likeliest(logits: Floats, k: int) -> list[int]:
    return [int(v) for v in np.argsort(-logits)[:k]]


def logps_of(case: Case, logits_BTV: Floats) -> Floats:
    """Log-probabilities of the case's tokens under other logits."""
    return at(logits_BTV, case.tokens_BT)


# ---------------------------------------------------------------- groups


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Unbiased (ddof 1)."""
    return math.sqrt(sum((x - mean(values)) ** 2 for x in values) / (len(values) - 1))


def centred(
    case: Case, rows_of: Callable[[list[int]], list[int]] = lambda rows: rows, eps: float | None = None
) -> Floats:
    """R - mean of `rows_of(group)`'s rewards [B]; over their deviation + eps where eps is given."""
    out = np.zeros(len(case.rewards_B))
    for group in groups(case):
        known = [float(case.rewards_B[i]) for i in rows_of(group)]
        for i in group:
            out[i] = case.rewards_B[i] - mean(known)
            if eps is not None:
                out[i] /= deviation(known) + eps
    return out
