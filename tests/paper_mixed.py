"""Imitation and reward in one step, and guided rollouts (methods: 7.2, 9, 10), written from the papers.

case.off_B are demonstrations (or refinements, hinted answers): the last row of each group. Advantages are taken from
case.rewards_B inside. `c` moves; entropies, gates and weights are the case's.
"""

import math
from collections.abc import Callable

import numpy as np

from tests.paper_imitation import mifo, sft
from tests.paper_parts import (
    centred,
    clipped,
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
from tests.paper_reward import ppo, unclipped
from tests.parity_case import Case, Floats


def own_rows(case: Case) -> Callable[[list[int]], list[int]]:
    """Group statistics over the policy's own rollouts."""
    return lambda group: [i for i in group if not case.off_B[i]]


def luffy(case: Case, c: Floats, *, gamma: float = 0.1, reduce: str = "length", own: bool = False) -> float:
    """9.1 (arXiv 2504.14945): A = R - mean over rollouts and demonstration; -A exp(c - old) on, -A p / (p + gamma) off.

    / length, without rows. `own` takes the mean over the rollouts alone (the repository's grpo_split).
    """
    a = centred(case, own_rows(case)) if own else centred(case)
    on = unclipped(case, c, a, reduce=reduce, rows=on_rows(case))
    return on + reduced(case, lambda i, t: -a[i] * saturated(math.exp(c[i, t]), gamma), reduce, off_rows(case))


def critique_grpo(case: Case, c: Floats, *, gamma: float = 0.1, reduce: str = "length") -> float:
    """7.2 (arXiv 2506.03106): LUFFY's loss; its off-policy rows are refinements, under the plain prompt."""
    return luffy(case, c, gamma=gamma, reduce=reduce)


def hpt(
    case: Case, c: Floats, *, gate: int = 0, coefficient: float = 1.0, reduce: str = "length", imitated: str = "length"
) -> float:
    """9.2 (arXiv 2509.04419): per group, SFT on its demonstration where at most `gate` rollouts are right, else
    -A exp(c - old) on its rollouts, A = R - mean of these; each part over its own rows.

    `imitated` reduces the SFT part: the code's is the mean over its tokens, beside a sum over a length.
    """
    a = centred(case, own_rows(case))
    imitate, explore = hpt_routes(case, gate)
    imitation = sft(case, c, reduce=imitated, rows=imitate)
    return coefficient * imitation + unclipped(case, c, a, reduce=reduce, rows=explore)


def hpt_routes(case: Case, gate: int = 0) -> tuple[list[int], list[int]]:
    """Rows that are imitated, and rollouts that are reinforced."""
    imitate, explore = [], []
    for group in groups(case):
        mine = [i for i in group if not case.off_B[i]]
        right = sum(case.rewards_B[i] > 0.5 for i in mine)
        if right <= gate:
            imitate += [i for i in group if case.off_B[i]]
        else:
            explore += mine
    return imitate, explore


def srft(
    case: Case,
    c: Floats,
    *,
    sft_weight: float = 0.5,
    self_weight: float = 0.1,
    sign: float = -1.0,
    level: str = "token",
    together: bool = False,
    reduce: str = "sequence",
    eps: float = 1e-4,
) -> float:
    """9.3 (arXiv 2506.19767): demonstrations -.5 sg(e^-H) c - A p; rollouts -.1 sg(e^H) c where R > 0, + c elsewhere.

    A: z-score over rollouts and demonstration. `level="row"` reads a row's mean entropy (UPT's port). Each of the four
    parts is over its own rows; `together` takes right and wrong rollouts over all rollouts, as one expectation of
    R log p and as UPT's port. `sign` 1 is the authors' code as it is told of: imitation by e^H.
    """
    a = centred(case, eps=eps)
    right = [i for i in on_rows(case) if case.rewards_B[i] > 0]
    wrong = [i for i in on_rows(case) if case.rewards_B[i] <= 0]

    def h(i: int, t: int) -> float:
        return (
            float(case.entropy_BT[i, t]) if level == "token" else mean([case.entropy_BT[i, s] for s in slots(case, i)])
        )

    total = reduced(case, lambda i, t: -sft_weight * math.exp(sign * h(i, t)) * c[i, t], reduce, off_rows(case))
    total += reduced(case, lambda i, t: -a[i] * math.exp(c[i, t]), reduce, off_rows(case))

    def own(i: int, t: int) -> float:
        return (-self_weight * math.exp(h(i, t)) if i in right else 1.0) * c[i, t]

    if together:
        return total + reduced(case, own, reduce, on_rows(case))
    return total + reduced(case, own, reduce, right) + reduced(case, own, reduce, wrong)


def chord(
    case: Case,
    c: Floats,
    *,
    mu: float = 0.1,
    phi: bool = True,
    reduce: str = "token",
    low: float = 0.2,
    high: float = 0.2,
    eps: float = 1e-4,
) -> float:
    """9.4 (arXiv 2508.11408): (1 - mu) GRPO on rollouts + mu SFT on demonstrations, x sg(p (1 - p)) with phi."""
    a = centred(case, own_rows(case), eps)

    def imitated(i: int, t: int) -> float:
        p = math.exp(case.logps_BT[i, t])
        return -(p * (1 - p) if phi else 1.0) * c[i, t]

    reinforced = ppo(case, c, a, low=low, high=high, reduce=reduce, rows=on_rows(case))
    return (1 - mu) * reinforced + mu * reduced(case, imitated, reduce, off_rows(case))


def chord_mu(step: int, *, warmup: int = 200, decay: int = 400, start: float = 0.5, end: float = 0.02) -> float:
    """9.4: mu of a step: linear warm-up to `start`, then half a cosine down to `end` over `decay` steps."""
    if step < warmup:
        return start * step / warmup
    done = min((step - warmup) / decay, 1.0)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * done))


def relift(case: Case, c: Floats, *, imitate: bool, reduce: str = "length") -> float:
    """9.5 (arXiv 2506.07527): an SFT step on the buffered demonstrations, or -A exp(c - old) on the rollouts."""
    if imitate:
        return sft(case, c, rows=off_rows(case))
    return unclipped(case, c, centred(case, own_rows(case)), reduce=reduce, rows=on_rows(case))


def mifo_step(case: Case, c: Floats, *, share: float = 0.2) -> float:
    """9.8: the imitation step, on the demonstrations' tokens of highest entropy."""
    return mifo(case, c, share=share, rows=off_rows(case))


def hints(case: Case, tokens: int = 1) -> np.ndarray:
    """bool [B, T]: each row's first trained tokens are the hint, where there are more than these."""
    out = np.zeros(case.mask_BT.shape, bool)
    for i in everybody(case):
        own = slots(case, i)
        out[i, own[:tokens] if len(own) > tokens else []] = True
    return out


def uft(
    case: Case,
    c: Floats,
    hint_BT: np.ndarray,
    *,
    nll: float = 0.001,
    beta: float = 0.001,
    low: float = 0.2,
    high: float = 0.2,
) -> float:
    """9.6 (arXiv 2505.16984): PPO clip and beta k3 on responses, nll x NLL on hints; each over its own tokens."""
    policy = kl = imitation = 0.0
    responses = hinted = 0
    for i in everybody(case):
        for t in slots(case, i):
            if hint_BT[i, t]:
                imitation, hinted = imitation - c[i, t], hinted + 1
                continue
            responses += 1
            policy += clipped(math.exp(c[i, t] - case.old_BT[i, t]), float(case.advantages_B[i]), low, high)
            kl += k3(c[i, t], case.reference_BT[i, t])
    return (policy + beta * kl) / responses + nll * imitation / max(hinted, 1)


def grao(case: Case, c: Floats, *, beta: float = 1.0, lam: float = 0.5, eps: float = 1e-4) -> float:
    """9.7 (arXiv 2508.07750), minus what it maximises, mean over groups of G rollouts o_i and a demonstration y:

    (1/G) sum A_i mean c(o_i) + beta A_y mean c(y) + (lam/G) sum A_i (mean c(o_i) - mean c(y)); A z-scores over all.
    """
    a, gain = centred(case, eps=eps), 0.0
    for group in groups(case):
        rollouts, (demonstration,) = [i for i in group if not case.off_B[i]], [i for i in group if case.off_B[i]]
        likelihood = {i: mean([c[i, t] for t in slots(case, i)]) for i in group}
        for i in rollouts:
            gain += a[i] * likelihood[i] / len(rollouts)
            gain += lam * a[i] * (likelihood[i] - likelihood[demonstration]) / len(rollouts)
        gain += beta * a[demonstration] * likelihood[demonstration]
    return -gain / (len(everybody(case)) / case.group_size)


def guided(
    case: Case,
    c: Floats,
    *,
    nll: float = 0.0,
    low: float = 0.2,
    high: float = 0.28,
    beta: float = 0.0,
    own: bool = False,
    reduce: str = "sequence",
    imitated: str = "sequence",
    advantages: Floats | None = None,
    eps: float = 1e-4,
) -> float:
    """10 (SAGE, Scaf-GRPO, RuscaRL, TemplateRL, ExPO): GRPO on every row, hinted or not, + beta k3; + nll x NLL of the
    hinted rows, over these by `imitated` (ExPO on GRPO). `own`: the hinted rows only imitate and are in no group."""
    rows = on_rows(case) if own else everybody(case)
    compared = centred(case, own_rows(case), eps) if own else centred(case, eps=eps)
    a = compared if advantages is None else advantages
    total = ppo(case, c, a, low=low, high=high, reduce=reduce, rows=rows)
    total += beta * reduced(case, lambda i, t: k3(c[i, t], case.reference_BT[i, t]), reduce, rows)
    return total + nll * sft(case, c, reduce=imitated, rows=off_rows(case))
