"""Slow oracles in plain numpy, token by token, written from the papers. Nothing here knows the code under test.

A row is one trajectory: a dict with `strand`, `mask`, `advantage`, `old`, `behavior`, `reference`, `teacher` (lists of
T), `set`, `label`, and for top-k `teacher_topk` [T][K]. The policy is `c` [rows][T] (sampled log-probabilities),
`entropy` [rows][T] and `topk` [rows][T][K]. `frozen` is c where the paper stops the gradient: finite differences move
c alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
Policy = dict[str, Any]


# ---------------------------------------------------------------- one token


def ppo_clip(ratio: float, advantage: float, low: float, high: float, dual: float | None = None) -> float:
    """Loss of arXiv 1707.06347, equation 7; the dual bound of arXiv 1912.09729 for negative advantages."""
    inside = max(1 - low, min(ratio, 1 + high))
    surrogate = min(ratio * advantage, inside * advantage)
    if dual is not None and advantage < 0:
        surrogate = max(surrogate, dual * advantage)
    return -surrogate


def luffy(probability: float, advantage: float, gamma: float) -> float:
    """arXiv 2504.14945, equation 7: f(x) = x / (x + gamma)."""
    return -(probability / (probability + gamma)) * advantage


def k2(c: float, target: float) -> float:
    return (c - target) ** 2 / 2


def k3(c: float, target: float) -> float:
    """Schulman: r - 1 - log r with r = target / policy."""
    r = math.exp(target) / math.exp(c)
    return (r - 1) - math.log(r)


def truncated_importance(old: float, behavior: float, cap: float) -> float:
    return min(math.exp(old) / math.exp(behavior), cap)


def masked_importance(old: float, behavior: float, cap: float) -> float:
    ratio = math.exp(old) / math.exp(behavior)
    return ratio if 1 / cap <= ratio <= cap else 0.0


# ---------------------------------------------------------------- distributions


def buckets(logps: Sequence[float], temperature: float) -> list[float]:
    """Probabilities of the top-k and of the rest, tempered."""
    probabilities = [math.exp(x) for x in logps]
    probabilities.append(1 - sum(probabilities))
    powered = [p ** (1 / temperature) for p in probabilities]
    return [p / sum(powered) for p in powered]


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def jsd(teacher: Sequence[float], student: Sequence[float], beta: float) -> float:
    """arXiv 2306.13649, equation 1."""
    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    mixture = [beta * a + (1 - beta) * b for a, b in zip(teacher, student, strict=True)]
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


# ---------------------------------------------------------------- credit


def grpo_advantages(rewards: Sequence[float], eps: float) -> list[float]:
    """arXiv 2402.03300, section 4.1.2, with the unbiased deviation."""
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (deviation + eps) for r in rewards]


def rloo_advantages(rewards: Sequence[float]) -> list[float]:
    """arXiv 2402.14740: each reward less the mean of the others."""
    total = sum(rewards)
    return [r - (total - r) / (len(rewards) - 1) for r in rewards]


# ---------------------------------------------------------------- a whole objective


def objective(strands: Sequence[Any], rows: Sequence[Row], policy: Policy, frozen: Sequence[Sequence[float]]) -> float:
    """The step's loss, looping over strands, terms, trajectories and tokens."""
    total = 0.0
    for index, strand in enumerate(strands):
        mine = [i for i, row in enumerate(rows) if row["strand"] == index and any(row["mask"])]
        for term in strand.terms:
            value = set_term(term, rows, policy, mine) if term.kernel.kind == "set" else 0.0
            if term.kernel.kind != "set":
                value = sum(token_terms(term, rows[i], i, policy, frozen) for i in mine)
            total += term.coefficient * value / denominator(term, rows, mine)
    return total


def denominator(term: Any, rows: Sequence[Row], mine: Sequence[int]) -> float:
    tokens = sum(sum(rows[i]["mask"]) for i in mine)
    sequences = len(mine)
    if term.kernel.kind == "set":
        tokens = sequences = len({rows[i]["set"] for i in mine})
    reduce = term.reduce
    found = {"token": tokens, "sequence": sequences, "length": reduce.length}
    found["batch_length"] = sequences * (reduce.length or 0)
    return max(float(found[reduce.kind] or 0), 1.0)


def token_terms(term: Any, row: Row, i: int, policy: Policy, frozen: Sequence[Sequence[float]]) -> float:
    """Sum over a trajectory's trained tokens; their mean where sequences count alike."""
    trained = [t for t, on in enumerate(row["mask"]) if on]
    total = 0.0
    for t in trained:
        weight = 1.0
        for one in term.weights:
            weight *= token_weight(one, row, t, math.exp(frozen[i][t]))
        loss = point_loss if term.kernel.kind == "point" else div_loss
        total += weight * loss(term.kernel, row, i, t, policy, frozen)
    return total / len(trained) if term.reduce.kind == "sequence" else total


def token_weight(one: Any, row: Row, t: int, p: float) -> float:
    weights: dict[str, Callable[[], float]] = {
        "probability": lambda: p,
        "chord_phi": lambda: p - p * p,
        "truncated_importance": lambda: truncated_importance(row["old"][t], row["behavior"][t], one.cap),
        "masked_importance": lambda: masked_importance(row["old"][t], row["behavior"][t], one.cap),
    }
    return weights[one.kind]()


def point_loss(kernel: Any, row: Row, i: int, t: int, policy: Policy, frozen: Sequence[Sequence[float]]) -> float:
    c = policy["c"][i]
    below = {**row, "current": frozen[i], "one": [0.0] * len(c)}[kernel.denominator]
    ratio = math.exp(c[t]) / math.exp(below[t])
    if kernel.level == "geometric":  # the |y|-th root of the product of ratios, arXiv 2507.18071
        trained = [s for s, on in enumerate(row["mask"]) if on]
        ratio = math.prod(math.exp(c[s]) / math.exp(below[s]) for s in trained) ** (1 / len(trained))
    advantage = row["advantage"][t]
    match kernel.shape.kind:
        case "identity":
            return -ratio * advantage
        case "log":  # against itself: negative log-likelihood
            return -advantage * (c[t] if kernel.denominator == "current" else math.log(ratio))
        case "clip":
            return ppo_clip(ratio, advantage, kernel.shape.low, kernel.shape.high, kernel.shape.dual)
        case "saturate":
            return luffy(ratio, advantage, kernel.shape.gamma)
    raise AssertionError(kernel.shape.kind)


def div_loss(kernel: Any, row: Row, i: int, t: int, policy: Policy, frozen: Sequence[Sequence[float]]) -> float:
    if kernel.form == "entropy":
        return -float(policy["entropy"][i][t])
    if kernel.form in ("k2", "k3"):
        return (k2 if kernel.form == "k2" else k3)(policy["c"][i][t], row[kernel.target][t])
    student = buckets(policy["topk"][i][t], kernel.temperature)
    teacher = buckets(row["teacher_topk"][t], kernel.temperature)
    return jsd(teacher, student, {"forward": 0, "reverse": 1}.get(kernel.form, kernel.beta))


def set_term(term: Any, rows: Sequence[Row], policy: Policy, mine: Sequence[int]) -> float:
    """DPO (arXiv 2305.18290), SLiC and IPO (2310.12036): mean over the pairs of each set, summed over sets."""
    kernel, total = term.kernel, 0.0
    for name in {rows[i]["set"] for i in mine}:
        chosen = [i for i in mine if rows[i]["set"] == name and rows[i]["label"] == 1]
        rejected = [i for i in mine if rows[i]["set"] == name and rows[i]["label"] == 0]
        losses = [
            pair_loss(
                kernel,
                sequence_score(kernel, rows[a], policy["c"][a]) - sequence_score(kernel, rows[b], policy["c"][b]),
            )
            for a in chosen
            for b in rejected
        ]
        total += sum(losses) / len(losses)
    return total


def sequence_score(kernel: Any, row: Row, c: Sequence[float]) -> float:
    trained = [t for t, on in enumerate(row["mask"]) if on]
    total = sum(c[t] - (row["reference"][t] if kernel.reference else 0.0) for t in trained)
    return total / len(trained) if kernel.aggregate == "mean" else total


def pair_loss(kernel: Any, difference: float) -> float:
    if kernel.link == "logistic":
        return -math.log(1 / (1 + math.exp(-(kernel.beta * difference - kernel.margin))))
    if kernel.link == "hinge":
        return max(0.0, 1 - (kernel.beta * difference - kernel.margin))
    return (difference - kernel.margin / kernel.beta - 1 / (2 * kernel.beta)) ** 2


# ---------------------------------------------------------------- gradients


def coefficients(strands: Sequence[Any], rows: Sequence[Row], policy: Policy, step: float = 1e-5) -> list[np.ndarray]:
    """g = -d loss / d c of every token, by central differences; the frozen c stays."""
    frozen = [list(c) for c in policy["c"]]
    out = []
    for i, c in enumerate(policy["c"]):
        g = np.zeros(len(c))
        for t in range(len(c)):
            values = []
            for sign in (1, -1):
                moved = [list(one) for one in policy["c"]]
                moved[i][t] += sign * step
                values.append(objective(strands, rows, {**policy, "c": moved}, frozen))
            g[t] = -(values[0] - values[1]) / (2 * step)
        out.append(g)
    return out
