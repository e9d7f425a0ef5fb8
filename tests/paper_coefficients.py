"""The papers' gradients in closed form: g of every token, grad loss = -sum g grad log p (methods: 13.1).

Each gives [B, T] before the reducer; times `share` it is what `coefficient_BT` should be. 0 on padding.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from tests.paper_parts import Rows, clamp, everybody, mean, slots
from tests.parity_case import Case, Floats


def share(case: Case, kind: str = "token", rows: Rows | None = None, length: int = 9) -> Floats:
    """What one token of these rows counts in each reducer; 0 for other rows."""
    members = everybody(case) if rows is None else list(rows)
    tokens = sum(len(slots(case, i)) for i in members)
    out = np.zeros(case.mask_BT.shape)
    for i in members:
        own = slots(case, i)
        out[i, own] = {
            "token": 1 / tokens,
            "sequence": 1 / len(members) / len(own),
            "sequence_sum": 1 / len(members),
            "batch_length": 1 / len(members) / length,
            "length": 1 / length,
        }[kind]
    return out


def _each(case: Case, g: Callable[[int, int], float]) -> Floats:
    out = np.zeros(case.mask_BT.shape)
    for i in everybody(case):
        for t in slots(case, i):
            out[i, t] = g(i, t)
    return out


def sft(case: Case) -> Floats:
    return _each(case, lambda i, t: 1.0)


def dft(case: Case) -> Floats:
    return _each(case, lambda i, t: math.exp(case.logps_BT[i, t]))


def beyond_log_likelihood(case: Case, *, alpha: float = 1.0) -> Floats:
    """p^alpha."""
    return _each(case, lambda i, t: math.exp(alpha * case.logps_BT[i, t]))


def chord_phi(case: Case) -> Floats:
    """p (1 - p)."""
    return _each(case, lambda i, t: math.exp(case.logps_BT[i, t]) * (1 - math.exp(case.logps_BT[i, t])))


def luffy_off(case: Case, *, gamma: float = 0.1) -> Floats:
    """A gamma p / (p + gamma)^2."""

    def g(i: int, t: int) -> float:
        p = math.exp(case.logps_BT[i, t])
        return float(case.advantages_B[i]) * gamma * p / (p + gamma) ** 2

    return _each(case, g)


def ppo(case: Case, *, low: float = 0.2, high: float = 0.2) -> Floats:
    """A r where the clip lets it through: r <= 1 + high for A > 0, r >= 1 - low for A < 0."""

    def g(i: int, t: int) -> float:
        r, a = math.exp(case.logps_BT[i, t] - case.old_BT[i, t]), float(case.advantages_B[i])
        inside = r <= 1 + high if a > 0 else r >= 1 - low
        return a * r if inside else 0.0

    return _each(case, g)


def cispo(case: Case, *, low: float = 0.2, high: float = 0.2) -> Floats:
    """A clip(r, 1 - low, 1 + high)."""
    return _each(
        case,
        lambda i, t: (
            float(case.advantages_B[i]) * clamp(math.exp(case.logps_BT[i, t] - case.old_BT[i, t]), 1 - low, 1 + high)
        ),
    )


def gspo(case: Case, *, low: float = 3e-4, high: float = 4e-4) -> Floats:
    """A s where the clip lets it through, s the row's geometric ratio; with the sequence reducer."""

    def g(i: int, t: int) -> float:
        s = math.exp(mean([case.logps_BT[i, u] - case.old_BT[i, u] for u in slots(case, i)]))
        a = float(case.advantages_B[i])
        return a * s if (s <= 1 + high if a > 0 else s >= 1 - low) else 0.0

    return _each(case, g)


def sapo(case: Case, *, positive: float = 1.0, negative: float = 1.05) -> Floats:
    """A r 4 s (1 - s), s = sigmoid(tau (r - 1))."""

    def g(i: int, t: int) -> float:
        r, a = math.exp(case.logps_BT[i, t] - case.old_BT[i, t]), float(case.advantages_B[i])
        s = _sigmoid((positive if a > 0 else negative) * (r - 1))
        return a * r * 4 * s * (1 - s)

    return _each(case, g)


def opd(case: Case) -> Floats:
    """r (teacher - behavior), r = exp(c - behavior)."""
    return _each(
        case,
        lambda i, t: (
            math.exp(case.logps_BT[i, t] - case.behavior_BT[i, t]) * (case.teacher_BT[i, t] - case.behavior_BT[i, t])
        ),
    )


def k2(case: Case) -> Floats:
    """reference - c."""
    return _each(case, lambda i, t: case.reference_BT[i, t] - case.logps_BT[i, t])


def k3(case: Case) -> Floats:
    """exp(reference - c) - 1."""
    return _each(case, lambda i, t: math.exp(case.reference_BT[i, t] - case.logps_BT[i, t]) - 1)


def dpo(case: Case, *, beta: float = 0.1) -> Floats:
    """+-beta sigmoid(-beta delta) on every token of the chosen and the rejected; / pairs by the caller."""
    scores, pairs = [_gain(case, i) for i in everybody(case)], len(case.mask_BT) // 2

    def g(i: int, t: int) -> float:
        delta = scores[i % pairs] - scores[i % pairs + pairs]
        return (1 if i < pairs else -1) * beta * _sigmoid(-beta * delta)

    return _each(case, g)


def simpo(case: Case, *, beta: float = 2.5, margin: float = 1.375) -> Floats:
    """+-beta / |y| sigmoid(margin - beta (mean c_w - mean c_l))."""
    means, pairs = (
        [mean([case.logps_BT[i, t] for t in slots(case, i)]) for i in everybody(case)],
        len(case.mask_BT) // 2,
    )

    def g(i: int, t: int) -> float:
        delta = means[i % pairs] - means[i % pairs + pairs]
        return (1 if i < pairs else -1) * beta / len(slots(case, i)) * _sigmoid(margin - beta * delta)

    return _each(case, g)


def kto(case: Case, *, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0) -> Floats:
    """+-lambda beta s (1 - s), s = sigmoid(+-beta (score - z)); / rows by the caller."""
    z = max(mean([float(x) for x in case.mismatched_B]), 0.0)

    def g(i: int, t: int) -> float:
        sign, weight = (1, desirable) if case.labels_B[i] else (-1, undesirable)
        s = _sigmoid(sign * beta * (_gain(case, i) - z))
        return sign * weight * beta * s * (1 - s)

    return _each(case, g)


CLOSED_FORMS: Mapping[str, Callable[[Case], Floats]] = {
    "sft": sft,
    "dft": dft,
    "beyond_log_likelihood": beyond_log_likelihood,
    "chord_phi": chord_phi,
    "luffy_off": luffy_off,
    "ppo": ppo,
    "cispo": cispo,
    "gspo": gspo,
    "sapo": sapo,
    "opd": opd,
    "k2": k2,
    "k3": k3,
    "dpo": dpo,
    "simpo": simpo,
    "kto": kto,
}


def _gain(case: Case, i: int) -> float:
    return sum(case.logps_BT[i, t] - case.reference_BT[i, t] for t in slots(case, i))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
