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

from tests import set_oracles

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


def gmpo_held(log_ratio: float, advantage: float, bound: float) -> float:
    """arXiv 2507.20673, equation 5: clipped on the side where the advantage would push it further."""
    sign = math.copysign(1.0, advantage) if advantage else 0.0
    return sign * min(sign * log_ratio, bound) if sign else log_ratio


def k2(c: float, target: float) -> float:
    return (c - target) ** 2 / 2


def k3(c: float, target: float) -> float:
    """Schulman: r - 1 - log r with r = target / policy."""
    r = math.exp(target) / math.exp(c)
    return (r - 1) - math.log(r)


def masked_importance(ratio: float, cap: float, keep_ratio: bool) -> float:
    return (ratio if keep_ratio else 1.0) if 1 / cap <= ratio <= cap else 0.0


def importance(row: Row, t: int, level: str) -> float:
    """How much likelier the learner held the token than its sampler; the product or geometric mean over a response."""
    trained = [s for s, on in enumerate(row["mask"]) if on]
    ratios = [math.exp(row["old"][s]) / math.exp(row["behavior"][s]) for s in trained]
    if level == "token":
        return math.exp(row["old"][t]) / math.exp(row["behavior"][t])
    return math.prod(ratios) ** (1 if level == "sequence" else 1 / len(ratios))


# ---------------------------------------------------------------- distributions


def buckets(logps: Sequence[float], temperature: float, tail: str = "bucket") -> list[float]:
    """Probabilities of the top-k and of the rest, tempered."""
    probabilities = [math.exp(x) for x in logps]
    if tail == "raw":
        return probabilities
    if tail == "bucket":
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


# ---------------------------------------------------------------- a whole objective


def objective(strands: Sequence[Any], rows: Sequence[Row], policy: Policy, frozen: Sequence[Sequence[float]]) -> float:
    """The step's loss, looping over strands, terms, trajectories and tokens."""
    total = 0.0
    for index, strand in enumerate(strands):
        own = [i for i, row in enumerate(rows) if row["strand"] == index]
        for term in strand.terms:
            seen = [{**row, "mask": read(term.only, row)} for row in rows]
            mine = [i for i in own if any(seen[i]["mask"])]
            value = set_term(term, seen, policy, mine) if term.kernel.kind == "set" else 0.0
            if term.kernel.kind != "set":
                value = sum(token_terms(term, seen[i], i, policy, frozen) for i in mine)
            total += term.coefficient * value / denominator(term, seen, mine)
    return total


def constant(policy: Policy, name: str) -> Any:
    """The policy's value where the paper stops the gradient."""
    return policy.get(f"frozen_{name}", policy[name])


def read(only: Any, row: Row) -> list[bool]:
    """The trained tokens that the term reads."""
    names = ("learner", "demonstration", "teacher", "hint", "environment")
    keep = []
    for t, on in enumerate(row["mask"]):
        on = on and (not only.origins or names[row["origin"][t]] in only.origins)
        on = on and (only.part is None or row["part"][t] == only.part)
        keep.append(bool(on and (only.label == "any" or row["label"] == (only.label == "chosen"))))
    return keep


def denominators(strands: Sequence[Any], rows: Sequence[Row]) -> tuple[tuple[float, ...], ...]:
    """Each term's, over all rows."""
    found = []
    for index, strand in enumerate(strands):
        own = []
        for term in strand.terms:
            seen = [{**row, "mask": read(term.only, row)} for row in rows]
            mine = [i for i, row in enumerate(seen) if row["strand"] == index and any(row["mask"])]
            own.append(denominator(term, seen, mine))
        found.append(tuple(own))
    return tuple(found)


def statistics(strands: Sequence[Any], rows: Sequence[Row], policy: Policy) -> dict[str, float]:
    """What terms need to know of all rows: KTO's baseline."""
    found = {}
    for index, strand in enumerate(strands):
        for term in strand.terms:
            if term.kernel.kind == "set" and term.kernel.link == "kto":
                own = [i for i, row in enumerate(rows) if row["strand"] == index and math.isnan(row["label"])]
                gaps = [sequence_score(term.kernel, rows[i], policy["c"][i], 99) for i in own]
                found[f"{strand.name}/{term.name}/kto"] = max(sum(gaps) / len(gaps), 0.0)
    return found


def denominator(term: Any, rows: Sequence[Row], mine: Sequence[int]) -> float:
    tokens = sum(sum(rows[i]["mask"]) for i in mine)
    sequences = len(mine)
    if term.kernel.kind == "set" and term.kernel.link in ("kto", "bce"):
        tokens = sequences = sum(not math.isnan(rows[i]["label"]) for i in mine)
    elif term.kernel.kind == "set":
        tokens = sequences = len({rows[i]["set"] for i in mine})
    reduce = term.reduce
    found = {"token": tokens, "sequence": sequences, "sequence_sum": sequences, "length": reduce.length}
    found["batch_length"] = sequences * (reduce.length or 0)
    return max(float(found[reduce.kind] or 0), 1.0)


def token_terms(term: Any, row: Row, i: int, policy: Policy, frozen: Sequence[Sequence[float]]) -> float:
    """Sum over a trajectory's trained tokens; their mean where sequences count alike."""
    trained = [t for t, on in enumerate(row["mask"]) if on]
    total = 0.0
    for t in trained:
        weight = 1.0
        for one in term.weights:
            weight *= token_weight(one, row, t, math.exp(frozen[i][t]), constant(policy, "entropy")[i][t])
        loss = point_loss if term.kernel.kind == "point" else div_loss
        total += weight * loss(term.kernel, row, i, t, policy, frozen)
    return total / len(trained) if term.reduce.kind == "sequence" else total


def token_weight(one: Any, row: Row, t: int, p: float, entropy: float) -> float:
    high = math.inf if one.high is None else one.high
    positive = row["advantage"][t] > 0
    weights: dict[str, Callable[[], float]] = {
        "probability": lambda: p**one.power,
        "chord_phi": lambda: p - p * p,
        "probability_window": lambda: float(one.low <= p <= high),
        "entropy": lambda: math.exp(entropy) ** one.power,
        "truncated_importance": lambda: min(importance(row, t, one.level), one.cap),
        "masked_importance": lambda: masked_importance(importance(row, t, one.level), one.cap, one.keep_ratio),
        "clipped_ratio": lambda: max(one.low, min(p / math.exp(row["old"][t]), high)),
        "tapered": lambda: 1.0 if positive else min(p / math.exp(row["behavior"][t]), 1.0),
        "positive": lambda: float(positive),
        "negative": lambda: float(not positive),
    }
    return weights[one.kind]()


def point_loss(  # noqa: C901  (a table of shapes)
    kernel: Any, row: Row, i: int, t: int, policy: Policy, frozen: Sequence[Sequence[float]]
) -> float:
    c = policy["c"][i]
    below = {**row, "current": frozen[i], "one": [0.0] * len(c)}[kernel.denominator]
    ratio = math.exp(c[t]) / math.exp(below[t])
    advantage = 1.0 if kernel.advantage == "one" else row["advantage"][t]
    if kernel.level != "token":  # geometric: the |y|-th root of the product of ratios, arXiv 2507.18071
        shared = [s for s, on in enumerate(row["mask"]) if on]
        if kernel.level == "part":
            shared = [s for s in shared if row["part"][s] == row["part"][t]]
        logs = [c[s] - below[s] for s in shared]
        if kernel.log_clip is not None:
            logs = [gmpo_held(x, row["advantage"][s], kernel.log_clip) for x, s in zip(logs, shared, strict=True)]
        ratio = math.prod(math.exp(x) for x in logs) ** (1 if kernel.level == "sequence" else 1 / len(logs))
    match kernel.shape.kind:
        case "identity":
            return -ratio * advantage
        case "log":  # against itself: negative log-likelihood
            return -advantage * (c[t] if kernel.denominator == "current" else math.log(ratio))
        case "clip":
            return ppo_clip(ratio, advantage, kernel.shape.low, kernel.shape.high, kernel.shape.dual)
        case "saturate":
            return luffy(ratio, advantage, kernel.shape.gamma)
        case "box_cox":  # arXiv 2510.00526: (1 - p^alpha) / alpha
            alpha = kernel.shape.alpha
            return -advantage * (math.log(ratio) if alpha == 0 else (ratio**alpha - 1) / alpha)
        case "parabola":
            return -advantage * (ratio - ratio**2 / 2)
        case "soft_gate":  # arXiv 2511.20347
            tau = kernel.shape.tau_positive if advantage > 0 else kernel.shape.tau_negative
            return -advantage * 4 / (tau * (1 + math.exp(-tau * (ratio - 1))))
    raise AssertionError(kernel.shape.kind)


def div_loss(kernel: Any, row: Row, i: int, t: int, policy: Policy, frozen: Sequence[Sequence[float]]) -> float:
    if kernel.form == "entropy":
        return -float(policy["entropy"][i][t])
    c = policy["c"][i][t]
    if kernel.form in ("k1", "k2", "k3", "rk3"):
        target = row[kernel.target][t]
        k1 = math.log(math.exp(c) / math.exp(target))
        ratio = math.exp(c) / math.exp(row["behavior"][t])
        return {"k1": k1, "k2": k2(c, target), "k3": k3(c, target), "rk3": ratio * k3(c, target)}[kernel.form]
    ours, theirs = ("topk", "teacher_topk") if kernel.target == "teacher" else ("reference_topk", "reference_topk")
    student = buckets(policy[ours][i][t], kernel.temperature, kernel.tail)
    teacher = buckets(row[theirs][t], kernel.temperature, kernel.tail)
    return jsd(teacher, student, {"forward": 0, "reverse": 1}.get(kernel.form, kernel.beta))


def set_term(term: Any, rows: Sequence[Row], policy: Policy, mine: Sequence[int]) -> float:
    """DPO (arXiv 2305.18290), SLiC and IPO (2310.12036): mean over the pairs of each set, summed over sets."""
    kernel, total = term.kernel, 0.0
    if kernel.link in ("kto", "bce"):
        return unary(kernel, rows, policy, mine)
    if kernel.link.startswith("aot"):
        return transported(kernel, rows, policy, mine)
    for name in {rows[i]["set"] for i in mine}:
        chosen = [i for i in mine if rows[i]["set"] == name and rows[i]["label"] == 1]
        rejected = [i for i in mine if rows[i]["set"] == name and rows[i]["label"] == 0]
        losses = [
            pair_weight(kernel, rows, policy, (a, b))
            * set_oracles.pair_loss(
                kernel,
                *(sequence_score(kernel, rows[i], policy["c"][i], shortest(rows, mine, name)) for i in (a, b)),
                kernel.margin + (rows[a]["margin"] if kernel.row_margin else 0.0),
            )
            for a in chosen
            for b in rejected
        ]
        total += sum(losses) / len(losses)
    return total


def shortest(rows: Sequence[Row], mine: Sequence[int], name: int) -> int:
    return min(sum(rows[i]["mask"]) for i in mine if rows[i]["set"] == name)


def sequence_score(kernel: Any, row: Row, c: Sequence[float], shared: int) -> float:
    """Log-ratio of a response; LD-DPO (arXiv 2409.06411) discounts what lies past the shorter one's length."""
    trained = [t for t, on in enumerate(row["mask"]) if on]
    total = 0.0
    for place, t in enumerate(trained):
        discount = 1.0 if place < shared else kernel.tail
        total += discount * (c[t] - (row["reference"][t] if kernel.reference else 0.0))
    total = set_oracles.f_dpo(kernel, total)
    return total / len(trained) if kernel.aggregate == "mean" else total


def pair_weight(kernel: Any, rows: Sequence[Row], policy: Policy, pair: Sequence[int]) -> float:
    """WPO (arXiv 2406.11827): how likely the policy is to write both, over how alike two of its draws are."""
    weight = 1.0
    for i in pair if kernel.weighted else ():
        trained = [t for t, on in enumerate(rows[i]["mask"]) if on]
        frozen, collision = constant(policy, "c")[i], constant(policy, "collision")[i]
        logs = [frozen[t] - math.log(collision[t]) for t in trained]
        weight *= math.exp(sum(logs) / len(logs))
    return weight


def unary(kernel: Any, rows: Sequence[Row], policy: Policy, mine: Sequence[int]) -> float:
    """KTO (arXiv 2402.01306, equation 7) with its baseline from the rows without a label, or cross-entropy."""
    score = {i: sequence_score(kernel, rows[i], policy["c"][i], 0 if kernel.tail < 1 else 99) for i in mine}
    frozen = constant(policy, "c")
    others = [i for i in mine if math.isnan(rows[i]["label"])]
    known = [i for i in mine if i not in others]
    if kernel.link == "bce":
        return sum(set_oracles.cross_entropy(kernel.beta * score[i] - kernel.margin, rows[i]["label"]) for i in known)
    z = max(sum(sequence_score(kernel, rows[i], frozen[i], 99) for i in others) / len(others), 0.0)  # eq. 8
    return sum(set_oracles.kto(kernel, score[i], rows[i]["label"], z) for i in known)


def transported(kernel: Any, rows: Sequence[Row], policy: Policy, mine: Sequence[int]) -> float:
    """AOT (arXiv 2406.05882): both sides sorted before they are compared. Sets are pairs."""
    labelled = {(rows[i]["set"], rows[i]["label"]): i for i in mine}
    pairs = [(labelled[name, 1], labelled[name, 0]) for name in sorted({rows[i]["set"] for i in mine})]

    def total(i: int, values: Sequence[float]) -> float:
        return sum(values[t] for t, on in enumerate(rows[i]["mask"]) if on)

    c, ref = policy["c"], [row["reference"] for row in rows]
    if kernel.link == "aot":
        left = sorted(total(a, c[a]) - total(b, c[b]) for a, b in pairs)
        right = sorted(total(a, ref[a]) - total(b, ref[b]) for a, b in pairs)
    else:
        left = sorted(total(a, c[a]) - total(a, ref[a]) for a, _ in pairs)
        right = sorted(total(b, c[b]) - total(b, ref[b]) for _, b in pairs)
    return sum(set_oracles.logistic(kernel, kernel.beta * (x - y)) for x, y in zip(left, right, strict=True))


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
                values.append(objective(strands, rows, {**policy, "c": moved, "frozen_c": frozen}, frozen))
            g[t] = -(values[0] - values[1]) / (2 * step)
        out.append(g)
    return out
