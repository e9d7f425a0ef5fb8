"""Preferences (methods: 2), written from the papers where TRL has no loss of theirs, or has it in float32 alone.

Rows 0..B/2-1 are chosen, row i + B/2 is what i was chosen over. `c` is the policy's log-probabilities [B, T].
"""

import math
from collections.abc import Callable, Sequence

from tests.paper_parts import Rows, mean, reduced, slots
from tests.parity_case import Case, Floats


def gain(case: Case, c: Floats, i: int) -> float:
    """s(y), the sum over a response of c - reference."""
    return sum(float(c[i, t] - case.reference_BT[i, t]) for t in slots(case, i))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _of_pairs(case: Case, link: Callable[[float, float], float], score: Callable[[int], float]) -> float:
    """Mean over the pairs of the link of the chosen's and the rejected's scores."""
    half = len(case.mask_BT) // 2
    return mean([link(score(i), score(i + half)) for i in range(half)])


def gpo(case: Case, c: Floats, link: str = "logistic", *, beta: float = 0.1) -> float:
    """GPO (arXiv 2402.05749, table 1): f(beta delta); `square` in IPO's units, (delta - 1 / (2 beta))^2."""
    f: dict[str, Callable[[float], float]] = {
        "logistic": lambda delta: math.log(1 + math.exp(-beta * delta)),
        "hinge": lambda delta: max(0.0, 1 - beta * delta),
        "square": lambda delta: (delta - 1 / (2 * beta)) ** 2,
        "exponential": lambda delta: math.exp(-beta * delta),
    }
    return _of_pairs(case, lambda won, lost: f[link](won - lost), lambda i: gain(case, c, i))


def cdpo(case: Case, c: Floats, *, beta: float = 0.1, smoothing: float = 0.1) -> float:
    """Conservative DPO: the labels are wrong with probability `smoothing`."""

    def link(won: float, lost: float) -> float:
        right = _sigmoid(beta * (won - lost))
        return -(1 - smoothing) * math.log(right) - smoothing * math.log(1 - right)

    return _of_pairs(case, link, lambda i: gain(case, c, i))


def f_dpo(case: Case, c: Floats, divergence: str, *, beta: float = 0.1, order: float = 0.5) -> float:
    """f-DPO (arXiv 2309.16240): f' of the ratio u = exp(s) stands for log u.

    `alpha` is (1 - u^-a) / a with a = 1 - `order`: TRL names the order from the other end than the paper's table.
    """
    a = 1 - order
    prime: dict[str, Callable[[float], float]] = {
        "reverse_kl": math.log,
        "forward_kl": lambda u: 1 - 1 / u,
        "jensen_shannon": lambda u: math.log(2 * u / (1 + u)),
        "alpha": lambda u: (1 - u**-a) / a,
    }

    def link(won: float, lost: float) -> float:
        return math.log(1 + math.exp(-beta * (won - lost)))

    return _of_pairs(case, link, lambda i: prime[divergence](math.exp(gain(case, c, i))))


def ld_dpo(case: Case, c: Floats, *, beta: float = 0.1, tail: float = 0.5) -> float:
    """LD-DPO (arXiv 2409.06411, eq. 11): tokens past the shorter response's length count `tail`."""
    half = len(case.mask_BT) // 2

    def score(i: int) -> float:
        shorter = min(len(slots(case, i % half)), len(slots(case, i % half + half)))
        own = slots(case, i)
        gains = [float(c[i, t] - case.reference_BT[i, t]) for t in own]
        return sum(gains[:shorter]) + tail * sum(gains[shorter:])

    return _of_pairs(case, lambda won, lost: math.log(1 + math.exp(-beta * (won - lost))), score)


def iterative_rpo(case: Case, c: Floats, *, beta: float = 0.1, nll: float = 1.0) -> float:
    """Iterative RPO (arXiv 2404.19733, eq. 1): DPO and the chosen's likelihood over its own length."""
    chosen = range(len(case.mask_BT) // 2)
    return gpo(case, c, beta=beta) + nll * reduced(case, lambda i, t: -c[i, t], "sequence", chosen)


def xpo(case: Case, c: Floats, references: Rows, *, beta: float = 0.1, alpha: float = 1e-5) -> float:
    """XPO (arXiv 2405.21046, algorithm 1): DPO, and alpha x log-likelihood of the reference's responses, minimised."""
    drawn = [sum(float(c[i, t]) for t in slots(case, i)) for i in references]
    return gpo(case, c, beta=beta) + alpha * mean(drawn)


def outcome_bce(scores: Sequence[float], labels: Sequence[float]) -> float:
    """Mean binary cross-entropy of the responses' scores (arXiv 2305.20050, outcome supervision)."""
    return mean(
        [
            -(label * math.log(_sigmoid(score)) + (1 - label) * math.log(1 - _sigmoid(score)))
            for score, label in zip(scores, labels, strict=True)
        ]
    )
