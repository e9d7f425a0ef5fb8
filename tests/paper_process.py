"""Credit by step, part and turn (methods: 6, 7), written from the papers. A part is a run of a row's trained tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from tests.paper_parts import centred, clipped, deviation, everybody, groups, k3, mean, reduced, slots
from tests.paper_reward import ppo
from tests.parity_case import Case, Floats

Parts = np.ndarray
"""int [B, T]: which part a token is of; -1 on padding."""


def halves(case: Case) -> Parts:
    """Two parts for each row: the first half of its tokens and the rest; a row of one token is all part 0."""
    out = np.full(case.mask_BT.shape, -1)
    for i in everybody(case):
        own = slots(case, i)
        for place, t in enumerate(own):
            out[i, t] = int(place >= (len(own) + 1) // 2)
    return out


# ---------------------------------------------------------------- steps


def monte_carlo(outcomes: Sequence[Sequence[float]], kind: str = "soft") -> list[float]:
    """Math-Shepherd (arXiv 2312.08935): a step's score: soft: mean of its completions; hard: 1 if any is right."""
    return [float(max(one) > 0) if kind == "hard" else mean(list(one)) for one in outcomes]


def process_advantages(
    case: Case,
    steps_BT: Parts,
    scores: Sequence[Sequence[float]],
    *,
    spread: str = "suffix_sum",
    normalise: bool = True,
    outcome: float = 0.0,
    scale: float = 1.0,
    eps: float = 1e-4,
) -> Floats:
    """Process credit [B, T] (DeepSeekMath, arXiv 2402.03300, section 4.1.3): scores[i][s] of step s of row i.

    normalise: (score - mean) / (std + eps) over all steps of the group, ddof 1. suffix_sum: a token bears its own step
    and the later ones; step: its own; min: the row's worst. + outcome x (R - mean of the group).
    """
    out, outcomes = np.zeros(case.mask_BT.shape), centred(case)
    for group in groups(case):
        every = [score for i in group for score in scores[i]]
        for i in group:
            own = [(x - mean(every)) / (deviation(every) + eps) if normalise else x for x in scores[i]]
            for t in slots(case, i):
                step = int(steps_BT[i, t])
                worth = {"suffix_sum": sum(own[step:]), "step": own[step], "min": min(own)}[spread]
                out[i, t] = scale * worth + outcome * outcomes[i]
    return out


def pav_advantages(case: Case, steps_BT: Parts, values: Sequence[Sequence[float]], *, alpha: float = 3.0) -> Floats:
    """PAV (arXiv 2410.08146): R - group mean, + alpha x the prover's advantage of the token's step.

    values[i] are the prover's success rates before step 0, after step 0, ...: A of step h is values[h + 1] - values[h].
    """
    gains = [[after - before for before, after in pairwise(one)] for one in values]
    return process_advantages(case, steps_BT, gains, spread="step", normalise=False, outcome=1.0, scale=alpha)


# ---------------------------------------------------------------- parts (S2R)


def s2r_advantages(case: Case, parts_BT: Parts, correct: Sequence[Sequence[float]], *, kl: float = 0.0) -> Floats:
    """S2R (arXiv 2502.12853), process level [B, T]: a part's value less the mean value of the group's parts that have
    as many correct parts before them, less kl x the part's mean of (old - ref), which no baseline sees (the code)."""
    before = {(i, k): sum(one > 0.5 for one in correct[i][:k]) for i in everybody(case) for k in range(len(correct[i]))}
    out = np.zeros(case.mask_BT.shape)
    for group in groups(case):
        for i in group:
            for t in slots(case, i):
                part = int(parts_BT[i, t])
                alike = [correct[j][k] for j, k in before if j in group and before[j, k] == before[i, part]]
                gaps = [case.old_BT[i, s] - case.reference_BT[i, s] for s in slots(case, i) if parts_BT[i, s] == part]
                out[i, t] = correct[i][part] - mean(alike) - kl * mean(gaps)
    return out


def s2r(
    case: Case,
    c: Floats,
    parts_BT: Parts,
    advantages_BT: Floats,
    *,
    low: float = 0.2,
    high: float = 0.2,
    reduce: str = "part",
) -> float:
    """7.3: the clipped surrogate where a token's ratio is exp(mean over its part of (c - old)).

    `part` (the code): mean over rows of the mean over their parts, whatever these are long; else a reducer of tokens.
    """
    ratios: Mapping[tuple[int, int], float] = {
        (i, part): math.exp(mean([c[i, t] - case.old_BT[i, t] for t in slots(case, i) if parts_BT[i, t] == part]))
        for i in everybody(case)
        for part in {int(parts_BT[i, t]) for t in slots(case, i)}
    }

    def loss(i: int, t: int) -> float:
        return clipped(ratios[i, int(parts_BT[i, t])], float(advantages_BT[i, t]), low, high)

    if reduce != "part":
        return reduced(case, loss, reduce)
    rows = []
    for i in everybody(case):
        first = {int(parts_BT[i, t]): t for t in reversed(slots(case, i))}
        rows.append(mean([loss(i, t) for t in first.values()]))
    return mean(rows)


# ---------------------------------------------------------------- turns (SCoRe, SCOP)


def score_advantages(
    case: Case,
    turns_BT: Parts,
    rewards: Sequence[tuple[float, float]],
    *,
    stage: int,
    bonus: float = 10.0,
    baseline: str = "mean",
) -> Floats:
    """SCoRe (arXiv 2409.12917) [B, T]. Stage 1: turn 2 earns r2, turn 1 nothing. Stage 2: turn 1 earns r1, turn 2
    r2 + bonus (r2 - r1). `mean` takes off the group's mean for the same turn."""
    worth = [(0.0, b) if stage == 1 else (a, b + bonus * (b - a)) for a, b in rewards]
    out = np.zeros(case.mask_BT.shape)
    for group in groups(case):
        for i in group:
            for t in slots(case, i):
                turn = int(turns_BT[i, t])
                out[i, t] = worth[i][turn] - (mean([worth[j][turn] for j in group]) if baseline == "mean" else 0.0)
    return out


def score(
    case: Case,
    c: Floats,
    turns_BT: Parts,
    advantages_BT: Floats,
    *,
    stage: int,
    beta: float | None = None,
    form: str = "k2",
    reduce: str = "token",
) -> float:
    """7.4: -A c, + beta x KL(policy || ref): on the first turn in stage 1 (beta .1), on both in stage 2 (.01).

    `form`: k2 (its gradient is the reverse KL's on the policy's samples) or k3. The KL is over the tokens it reads.
    `sequence_sum` is the formula: an expectation over responses of r log p(y), and of the log-ratio of whole turns.
    """
    weight = {1: 0.1, 2: 0.01}[stage] if beta is None else beta
    gain = reduced(case, lambda i, t: -advantages_BT[i, t] * c[i, t], reduce)
    read = replace(case, mask_BT=case.mask_BT & ((turns_BT == 0) | (stage == 2)))
    measure = k3 if form == "k3" else lambda x, y: (x - y) ** 2 / 2
    penalty = reduced(read, lambda i, t: measure(c[i, t], case.reference_BT[i, t]), reduce)
    return gain + weight * penalty


def scop_rewards(
    rewards: Sequence[float], children: Sequence[Sequence[float]], hallucinated: Sequence[bool] = ()
) -> list[float]:
    """SCOP (ACL 2025 long.865): a critique is worth the mean reward of the corrections after it; -1 for a hallucinated
    one; a row without children keeps its own reward."""
    out = [mean(list(kids)) if kids else float(own) for own, kids in zip(rewards, children, strict=True)]
    return [-1.0 if bad else x for x, bad in zip(out, hallucinated or [False] * len(out), strict=True)]


def scop(case: Case, c: Floats, rewards: Sequence[float], *, eps: float = 1e-4) -> float:
    """7.6: GRPO on reasoning and critique, with these rewards."""
    a = np.zeros(len(rewards))
    for group in groups(case):
        own = [rewards[i] for i in group]
        for i in group:
            a[i] = (rewards[i] - mean(own)) / (deviation(own) + eps)
    return ppo(case, c, a, reduce="sequence")


# ---------------------------------------------------------------- heads


def step_bce(case: Case, scores_BT: Floats, targets_BT: Floats) -> float:
    """6.1 (arXiv 2305.20050): mean binary cross-entropy at the steps' last tokens (targets are NaN elsewhere)."""
    losses = []
    for i in everybody(case):
        for t in slots(case, i):
            if not math.isnan(targets_BT[i, t]):
                p = 1 / (1 + math.exp(-scores_BT[i, t]))
                losses.append(-(targets_BT[i, t] * math.log(p) + (1 - targets_BT[i, t]) * math.log(1 - p)))
    return mean(losses)
