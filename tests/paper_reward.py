"""Rewards on the policy's samples: advantages and surrogates (methods: 3.7-3.9, 5.1, 5.2), written from the papers."""

import math
from collections.abc import Callable

import numpy as np

from tests.paper_parts import (
    Rows,
    centred,
    clamp,
    clipped,
    deviation,
    everybody,
    groups,
    k3,
    mean,
    off_rows,
    on_rows,
    reduced,
    saturated,
    slots,
)
from tests.parity_case import Case, Floats

# ---------------------------------------------------------------- advantages [B] of case.rewards_B


def maxrl_advantages(case: Case) -> Floats:
    """5.1 MaxRL: (R - mean) / mean of the group; 0 where the mean is not positive."""
    out = centred(case)
    for group in groups(case):
        average = mean([float(case.rewards_B[i]) for i in group])
        out[group] = out[group] / average if average > 0 else 0.0
    return out


def opo_advantages(case: Case) -> Floats:
    """OPO (arXiv 2505.23585, eq. 9): the baseline weighs rewards by response length."""
    out = np.zeros(len(case.rewards_B))
    for group in groups(case):
        lengths = [len(slots(case, i)) for i in group]
        baseline = sum(n * case.rewards_B[i] for n, i in zip(lengths, group, strict=True)) / sum(lengths)
        for i in group:
            out[i] = case.rewards_B[i] - baseline
    return out


def gpg_advantages(case: Case) -> Floats:
    """GPG (arXiv 2504.02546): alpha (R - mean), alpha = groups / groups with two rewards that differ."""
    out, informative = centred(case), 0
    for group in groups(case):
        informative += len({float(case.rewards_B[i]) for i in group}) > 1
    return out * (case.rewards_B.size / case.group_size) / informative


def remax_advantages(case: Case, greedy_B: np.ndarray) -> Floats:
    """ReMax (arXiv 2310.10505): R - R of the group's greedy response; the greedy response itself gets 0."""
    out = np.zeros(len(case.rewards_B))
    for group in groups(case):
        (greedy,) = [i for i in group if greedy_B[i]]
        for i in group:
            out[i] = case.rewards_B[i] - case.rewards_B[greedy]
    return out


def reinforce_pp_advantages(case: Case, *, kl: float = 0.01, whiten: bool = True, eps: float = 0.0) -> Floats:
    """REINFORCE++ (arXiv 2501.03262): A_t = R - kl sum over s >= t of (old - ref), whitened over all tokens.

    [B, T]. The penalty reads `old`, the sampling policy in the training engine; std has ddof 1.
    """
    out = np.zeros(case.mask_BT.shape)
    for i in everybody(case):
        own = slots(case, i)
        for t in own:
            out[i, t] = case.rewards_B[i] - kl * sum(case.old_BT[i, s] - case.reference_BT[i, s] for s in own if s >= t)
    if not whiten:
        return out
    return whitened(case, out, eps)


def whitened(case: Case, values_BT: Floats, eps: float = 0.0) -> Floats:
    """(x - mean) / (std + eps) over the step's trained tokens; ddof 1."""
    every = [float(values_BT[i, t]) for i in everybody(case) for t in slots(case, i)]
    return np.where(case.mask_BT, (values_BT - mean(every)) / (deviation(every) + eps), 0.0)


def gae(
    case: Case, values_BT: Floats, *, kl: float = 0.05, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Floats, Floats]:
    """Advantages and returns [B, T] (arXiv 1506.02438, eq. 16): token rewards -kl (old - ref), R on the last token."""
    advantages, returns = np.zeros(values_BT.shape), np.zeros(values_BT.shape)
    for i in everybody(case):
        own = slots(case, i)
        for place, t in enumerate(own):
            total = 0.0
            for ahead, s in enumerate(own[place:]):
                last = s == own[-1]
                reward = -kl * (case.old_BT[i, s] - case.reference_BT[i, s]) + (case.rewards_B[i] if last else 0.0)
                delta = reward + (0.0 if last else gamma * values_BT[i, s + 1]) - values_BT[i, s]
                total += (gamma * lam) ** ahead * delta
            advantages[i, t], returns[i, t] = total, total + values_BT[i, t]
    return advantages, returns


# ---------------------------------------------------------------- surrogates


def spread(case: Case, advantages: Floats | None) -> Callable[[int, int], float]:
    """Advantages [B] or [B, T] at a token; case.advantages_B by default."""
    values = case.advantages_B if advantages is None else advantages
    return lambda i, t: float(values[i] if values.ndim == 1 else values[i, t])


def ppo(
    case: Case,
    c: Floats,
    advantages: Floats | None = None,
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
    reduce: str = "token",
    rows: Rows | None = None,
    length: int = 9,
) -> float:
    """5.2: the clipped surrogate against old. Also GRPO's (reduce sequence), DAPO's (token, high .28), Dr.GRPO's
    (batch_length), REINFORCE++'s."""
    a = spread(case, advantages)
    return reduced(
        case,
        lambda i, t: clipped(math.exp(c[i, t] - case.old_BT[i, t]), a(i, t), low, high, dual),
        reduce,
        rows,
        length,
    )


def dr_grpo(case: Case, c: Floats, *, low: float = 0.2, high: float = 0.2, length: int = 9) -> float:
    """Dr.GRPO (arXiv 2503.20783): A = R - mean, / (rows x length)."""
    return ppo(case, c, centred(case), low=low, high=high, reduce="batch_length", length=length)


def unclipped(
    case: Case,
    c: Floats,
    advantages: Floats | None = None,
    *,
    reduce: str = "token",
    rows: Rows | None = None,
    length: int = 9,
) -> float:
    """-A exp(c - old): LUFFY's, HPT's and ReLIFT's on-policy part."""
    a = spread(case, advantages)
    return reduced(case, lambda i, t: -a(i, t) * math.exp(c[i, t] - case.old_BT[i, t]), reduce, rows, length)


def reinforce(
    case: Case, c: Floats, advantages: Floats | None = None, *, reduce: str = "token", rows: Rows | None = None
) -> float:
    """-A c: GPG's, OPO's, ReMax's, MaxRL's pure likelihood gradient; RAFT's with A = 1[best]."""
    a = spread(case, advantages)
    return reduced(case, lambda i, t: -a(i, t) * c[i, t], reduce, rows)


def gspo(case: Case, c: Floats, *, low: float = 3e-4, high: float = 4e-4) -> float:
    """GSPO (arXiv 2507.18071, eq. 5): s = exp(mean(c - old)); mean over rows of the clipped surrogate."""
    total = 0.0
    for i in everybody(case):
        s = math.exp(mean([c[i, t] - case.old_BT[i, t] for t in slots(case, i)]))
        total += clipped(s, float(case.advantages_B[i]), low, high)
    return total / len(case.mask_BT)


def gmpo(case: Case, c: Floats, *, bound: float = 0.4) -> float:
    """GMPO (arXiv 2507.20673): each token's log-ratio is held at +-bound in A's direction, then the geometric mean."""
    total = 0.0
    for i in everybody(case):
        a, held = float(case.advantages_B[i]), []
        for t in slots(case, i):
            x = c[i, t] - case.old_BT[i, t]
            held.append(min(x, bound) if a > 0 else max(x, -bound))
        total += -a * math.exp(mean(held))
    return total / len(case.mask_BT)


def cispo(case: Case, c: Floats, *, low: float = 0.2, high: float = 0.2, reduce: str = "token") -> float:
    """CISPO (arXiv 2506.13585), verl's: -sg(clip(r, 1 - low, 1 + high)) A c. TRL's `high` is absolute, without low."""

    def loss(i: int, t: int) -> float:
        weight = clamp(math.exp(case.logps_BT[i, t] - case.old_BT[i, t]), 1 - low, 1 + high)
        return -weight * case.advantages_B[i] * c[i, t]

    return reduced(case, loss, reduce)


def sapo(case: Case, c: Floats, *, positive: float = 1.0, negative: float = 1.05, reduce: str = "sequence") -> float:
    """SAPO (arXiv 2511.20347): -sigmoid(tau (r - 1)) 4 / tau A, tau by A's sign."""

    def loss(i: int, t: int) -> float:
        a = float(case.advantages_B[i])
        tau = positive if a > 0 else negative
        return -4 / tau / (1 + math.exp(-tau * (math.exp(c[i, t] - case.old_BT[i, t]) - 1))) * a

    return reduced(case, loss, reduce)


def topr(case: Case, c: Floats, *, threshold: float = 0.0, level: str = "token", reduce: str = "token") -> float:
    """TOPR (arXiv 2503.14286): -sg(alpha) A c, alpha = 1 where A > threshold, else clip(exp(c - behavior), 0, 1).

    `level="sequence"` takes the ratio of whole responses, as the paper does.
    """

    def loss(i: int, t: int) -> float:
        a = float(case.advantages_B[i])
        steps = [t] if level == "token" else slots(case, i)
        ratio = math.exp(sum(case.logps_BT[i, s] - case.behavior_BT[i, s] for s in steps))
        return -(1.0 if a > threshold else min(ratio, 1.0)) * a * c[i, t]

    return reduced(case, loss, reduce)


def opmd(case: Case, c: Floats, *, tau: float = 1.0, reduce: str = "token") -> float:
    """OPMD (arXiv 2505.17826): -A c / (1 + tau)."""
    return reduced(case, lambda i, t: -case.advantages_B[i] * c[i, t] / (1 + tau), reduce)


def repo(
    case: Case,
    c: Floats,
    advantages: Floats | None = None,
    *,
    replay: float = 1.0,
    beta: float = 0.0,
    low: float = 0.2,
    high: float = 0.2,
    split: bool = False,
    reduce: str = "sequence",
    eps: float = 1e-4,
) -> float:
    """RePO (arXiv 2506.09340): L_on + replay L_off, each over its own rows; k3 to the reference on the on-policy rows.

    Both read the recorded log-probabilities of the generating step (`old`). Advantages are the group's z-scores, over
    all its rows (mixed), or over the row's own kind alone (split: at least two of a kind in each group), where none are
    given.
    """

    def kind(i: int) -> Callable[[list[int]], list[int]]:
        return lambda group: [j for j in group if not split or case.off_B[j] == case.off_B[i]]

    own = np.array([centred(case, kind(i), eps)[i] for i in everybody(case)])
    a = own if advantages is None else advantages
    total = ppo(case, c, a, low=low, high=high, reduce=reduce, rows=on_rows(case))
    total += replay * ppo(case, c, a, low=low, high=high, reduce=reduce, rows=off_rows(case))
    if beta:
        total += beta * reduced(case, lambda i, t: k3(c[i, t], case.reference_BT[i, t]), reduce, on_rows(case))
    return total


def exgrpo(
    case: Case, c: Floats, advantages: Floats | None = None, *, gamma: float = 0.1, reduce: str = "length"
) -> float:
    """ExGRPO (arXiv 2510.02245): rollouts -A exp(c - old), replayed -A f(exp(c - behavior)), f(r) = r / (r + .1)."""
    a = spread(case, advantages)
    replayed = reduced(
        case,
        lambda i, t: -a(i, t) * saturated(math.exp(c[i, t] - case.behavior_BT[i, t]), gamma),
        reduce,
        off_rows(case),
    )
    return unclipped(case, c, advantages, reduce=reduce, rows=on_rows(case)) + replayed


# ---------------------------------------------------------------- the critic


def value_loss(case: Case, values: Floats, old: Floats, targets: Floats, *, clip: float | None = 0.2) -> float:
    """PPO's critic (InstructGPT's code): half the larger squared error, of v and of v held within old +- clip."""

    def loss(i: int, t: int) -> float:
        v, wanted = values[i, t], targets[i, t]
        error = (v - wanted) ** 2
        if clip is not None:
            error = max(error, (clamp(v, old[i, t] - clip, old[i, t] + clip) - wanted) ** 2)
        return 0.5 * error

    return reduced(case, loss, "token")
