"""Slow oracles of the set kernel's links, one pair or row at a time, in plain Python from the papers."""

import math
from typing import Any


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def logistic(kernel: Any, z: float) -> float:
    """Bradley-Terry with labels that are wrong with probability `smoothing` (arXiv 2305.18290; cDPO)."""
    return -(1 - kernel.smoothing) * math.log(sigmoid(z)) - kernel.smoothing * math.log(sigmoid(-z))


def pair_loss(kernel: Any, won: float, lost: float, margin: float) -> float:  # noqa: C901  (a table of links)
    """Loss of a pair by the two scores."""
    z, beta, eps = kernel.beta * (won - lost) - margin, kernel.beta, kernel.smoothing
    match kernel.link:
        case "logistic":
            return logistic(kernel, z)
        case "hinge":
            return max(0.0, 1 - z)
        case "square":  # IPO, arXiv 2310.12036, equation 17
            return (won - lost - margin / beta - 1 / (2 * beta)) ** 2
        case "exponential":
            return math.exp(-z)
        case "robust":  # arXiv 2403.00409, equation 12
            return (-(1 - eps) * math.log(sigmoid(z)) + eps * math.log(sigmoid(-z))) / (1 - 2 * eps)
        case "exo":  # arXiv 2402.00856, equation 16
            p, q = (sigmoid(z), sigmoid(-z)), (1 - eps, eps)
            return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        case "discopop":  # arXiv 2406.08414, equation 5
            share = sigmoid(z / kernel.temperature)
            return -math.log(sigmoid(z)) * (1 - share) + math.exp(-z) * share
        case "nca":  # arXiv 2402.05369
            a, b = beta * won, beta * lost
            return -math.log(sigmoid(a)) - math.log(sigmoid(-a)) / 2 - math.log(sigmoid(-b)) / 2
        case "sppo":  # arXiv 2405.00675, hard labels
            return (won - 0.5 / beta) ** 2 + (lost + 0.5 / beta) ** 2
        case "apo_zero":  # arXiv 2408.06266, equation 7
            return 1 - sigmoid(beta * won) + sigmoid(beta * lost)
        case "apo_down":  # equation 8
            return sigmoid(beta * won) + 1 - sigmoid(beta * (won - lost))
        case "bco":
            return -math.log(sigmoid(beta * won)) - math.log(sigmoid(-beta * lost))
        case "odds":  # ORPO, arXiv 2403.07691
            odds = [math.exp(s) / (1 - math.exp(s)) for s in (won, lost)]
            return -math.log(sigmoid(math.log(odds[0] / odds[1])))
    raise AssertionError(kernel.link)


def f_dpo(kernel: Any, log_ratio: float) -> float:
    """f'(u) of the ratio u (arXiv 2309.16240, table 1); the constant 1 of the reverse KL cancels in a pair."""
    u = math.exp(log_ratio)
    match kernel.divergence:
        case "reverse_kl":
            return math.log(u)
        case "forward_kl":
            return 1 - 1 / u
        case "jensen_shannon":
            return math.log(2 * u / (1 + u))
        case "alpha":
            power = kernel.divergence_alpha - 1
            return (u**power - 1) / power
    raise AssertionError(kernel.divergence)


def kto(kernel: Any, score: float, label: float, z: float) -> float:
    """arXiv 2402.01306, equation 7, as a loss."""
    if label == 1:
        return float(kernel.desirable * (1 - sigmoid(kernel.beta * (score - z))))
    return float(kernel.undesirable * (1 - sigmoid(kernel.beta * (z - score))))


def cross_entropy(z: float, label: float) -> float:
    return -label * math.log(sigmoid(z)) - (1 - label) * math.log(sigmoid(-z))
