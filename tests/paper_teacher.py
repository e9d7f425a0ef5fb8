"""Teacher transfer, off-policy and on-policy (methods: 4, 8, 11.1), written from the papers.

Losses over distributions are of the policy's logits [B, T, V]; sampled-token losses are of `c` [B, T].
"""

import math
from collections.abc import Sequence

import numpy as np

from tests.paper_imitation import sft
from tests.paper_parts import (
    Rows,
    centred,
    deviation,
    everybody,
    groups,
    jsd,
    likeliest,
    logps_of,
    mean,
    off_rows,
    reduced,
    slots,
    supported,
    tempered,
)
from tests.paper_reward import ppo, whitened
from tests.parity_case import Case, Floats

# ---------------------------------------------------------------- distributions


def divergence(
    case: Case,
    logits: Floats,
    *,
    beta: float = 0.5,
    support: str = "full",
    k: int = 4,
    tail: str = "bucket",
    temperature: float = 1.0,
    reduce: str = "token",
    rows: Rows | None = None,
    target: str = "teacher",
) -> float:
    """JSD_beta(teacher, policy) of each token: beta 0 KL(teacher || policy), 1 KL(policy || teacher) (GKD's ends).

    `support`: full, or the k likeliest tokens of the `teacher` or of the `student` (as the case's logits have them);
    `tail` bucket, renormalise or raw. The temperature tempers the buckets of a top-k, or the logits of the whole.
    """
    theirs = case.teacher_logits_BTV if target == "teacher" else case.reference_logits_BTV

    def loss(i: int, t: int) -> float:
        if support == "full":
            return jsd(tempered(theirs[i, t], temperature), tempered(logits[i, t], temperature), beta)
        keep = likeliest((theirs if support == "teacher" else case.logits_BTV)[i, t], k)
        teacher, student = (supported(tempered(one[i, t]), keep, tail) for one in (theirs, logits))
        if temperature != 1.0:
            teacher, student = (_powered(one, temperature) for one in (teacher, student))
        return jsd(teacher, student, beta)

    return reduced(case, loss, reduce, rows)


def _powered(p: Sequence[float], temperature: float) -> list[float]:
    raised = [x ** (1 / temperature) for x in p]
    return [x / sum(raised) for x in raised]


def gkd(case: Case, logits: Floats, *, beta: float = 0.5, reduce: str = "token", rows: Rows | None = None) -> float:
    """8.2 (arXiv 2306.13649): the whole vocabulary; `rows` are the policy's or the data's, as the step's coin fell."""
    return divergence(case, logits, beta=beta, reduce=reduce, rows=rows)


def opsd(case: Case, logits: Floats, *, beta: float = 0.5, reduce: str = "token") -> float:
    """8.5 (arXiv 2601.18734): JSD with the same network that reads the solution; case.teacher_logits are its own."""
    return divergence(case, logits, beta=beta, reduce=reduce)


def opsdc(case: Case, logits: Floats, *, reduce: str = "token") -> float:
    """8.9 (arXiv 2603.05433): KL(policy || policy told to be concise)."""
    return divergence(case, logits, beta=1.0, reduce=reduce)


def sdpo(
    case: Case,
    logits: Floats,
    *,
    alpha: float = 0.5,
    k: int = 4,
    support: str = "student",
    clip: float | None = None,
    reduce: str = "sequence",
) -> float:
    """8.6 (arXiv 2601.20802): top-k, tail bucket; alpha 0 forward, 1 reverse, else JSD; x min(exp(c - old), clip)."""
    weights = np.ones(case.mask_BT.shape)
    if clip is not None:
        weights = np.minimum(np.exp(case.logps_BT - case.old_BT), clip)

    def loss(i: int, t: int) -> float:
        keep = likeliest((case.logits_BTV if support == "student" else case.teacher_logits_BTV)[i, t], k)
        teacher, student = (supported(tempered(one[i, t]), keep, "bucket") for one in (case.teacher_logits_BTV, logits))
        return float(weights[i, t]) * jsd(teacher, student, alpha)

    return reduced(case, loss, reduce)


def opcd(case: Case, logits: Floats, *, k: int = 256, support: str = "student", reduce: str = "token") -> float:
    """8.7 (arXiv 2602.12275): KL(policy(.|x) || teacher(.|context, x)) on a top-k, everything where k covers V."""
    whole = k >= logits.shape[-1]
    return divergence(case, logits, beta=1.0, support="full" if whole else support, k=k, reduce=reduce)


def logit_distillation(
    case: Case,
    logits: Floats,
    *,
    temperature: float = 2.0,
    soft: float = 1.0,
    hard: float = 0.0,
    beta: float = 0.0,
    reduce: str = "token",
) -> float:
    """4.1 (arXiv 1503.02531): soft x tau^2 x KL(teacher || policy) at tau, + hard x NLL (soft a, hard 1 - a)."""
    total = soft * temperature**2 * divergence(case, logits, beta=beta, temperature=temperature, reduce=reduce)
    return total + hard * sft(case, logps_of(case, logits), reduce=reduce)


def context_distillation(case: Case, logits: Floats, *, reduce: str = "token") -> float:
    """4.3 (arXiv 2209.15189): KL(policy that reads the context || policy without), at the former's own samples."""
    return divergence(case, logits, beta=0.0, reduce=reduce)


# ---------------------------------------------------------------- sampled tokens


def opd(case: Case, c: Floats, *, scale: float = 1.0, teacher_BT: Floats | None = None, reduce: str = "token") -> float:
    """8.1: -exp(c - behavior) A, A = scale x (teacher - behavior), detached and unclipped; tinker sums over tokens."""
    teacher = case.teacher_BT if teacher_BT is None else teacher_BT

    def loss(i: int, t: int) -> float:
        a = scale * (teacher[i, t] - case.behavior_BT[i, t])
        return -math.exp(c[i, t] - case.behavior_BT[i, t]) * a

    return reduced(case, loss, reduce)


def multi_teacher_opd(
    case: Case,
    c: Floats,
    teachers: Sequence[Floats],
    of_row: Sequence[int],
    *,
    outcome: float = 0.0,
    reduce: str = "token",
) -> float:
    """11.1 (GLM-5, MiMo): a row's teacher is its domain's; A = teacher - behavior + outcome x (R - mean)."""
    rewards = centred(case)

    def loss(i: int, t: int) -> float:
        a = teachers[of_row[i]][i, t] - case.behavior_BT[i, t] + outcome * rewards[i]
        return -math.exp(c[i, t] - case.behavior_BT[i, t]) * a

    return reduced(case, loss, reduce)


def exopd(
    case: Case,
    c: Floats,
    *,
    extrapolation: float = 1.25,
    sampler: str = "behavior",
    gap: str = "",
    cap: float | None = None,
    reduce: str = "token",
) -> float:
    """8.8 (arXiv 2602.12125): A = extrapolation (teacher - base) - (sampler - base), base the reference; -r A.

    `sampler`: the policy whose log-probabilities both the ratio and A read, `behavior` or `old` (the paper); `gap` is
    another one for A alone. `cap` truncates the weight exp(old - behavior) of each token (the paper's 5).
    """
    views = {"behavior": case.behavior_BT, "old": case.old_BT}
    below, sampled = views[sampler], views[gap or sampler]

    def loss(i: int, t: int) -> float:
        base = case.reference_BT[i, t]
        a = extrapolation * (case.teacher_BT[i, t] - base) - (sampled[i, t] - base)
        weight = 1.0 if cap is None else min(math.exp(case.old_BT[i, t] - case.behavior_BT[i, t]), cap)
        return -weight * math.exp(c[i, t] - below[i, t]) * a

    return reduced(case, loss, reduce)


def minillm_advantages(
    case: Case, *, scale: float = 0.5, own: bool = True, whiten: bool = True, teacher_BT: Floats | None = None
) -> Floats:
    """8.3 (arXiv 2306.08543, eq. 4 and 6) [B, T]: the mean over s >= t of scale x (teacher - behavior), whitened.

    `own=False` starts at s = t + 1, as where the single-step part bears the token's own gap; 0 on the last token.
    """
    teacher, out = case.teacher_BT if teacher_BT is None else teacher_BT, np.zeros(case.mask_BT.shape)
    for i in everybody(case):
        trained = slots(case, i)
        for t in trained:
            later = [s for s in trained if s > t or (own and s == t)]
            gaps = [scale * (teacher[i, s] - case.behavior_BT[i, s]) for s in later]
            out[i, t] = mean(gaps) if gaps else 0.0
    return whitened(case, out) if whiten else out


def minillm(
    case: Case,
    logits: Floats,
    *,
    low: float = 0.2,
    high: float = 0.2,
    language: float = 1.0,
    advantages: Floats | None = None,
    reduce: str = "token",
) -> float:
    """8.3 without teacher-mixed sampling: PPO clip on the long part, + the single step's exact KL(policy || teacher),
    + language x NLL of pretraining text (here the demonstration rows; the other two read the rollouts)."""
    a = minillm_advantages(case) if advantages is None else advantages
    on = [i for i in everybody(case) if not case.off_B[i]]
    c = logps_of(case, logits)
    total = ppo(case, c, a, low=low, high=high, reduce=reduce, rows=on)
    total += divergence(case, logits, beta=1.0, reduce=reduce, rows=on)
    return total + language * sft(case, c, reduce=reduce, rows=off_rows(case))


def gad_discriminator(real: Sequence[float], own: Sequence[float]) -> float:
    """8.4 (arXiv 2511.10643): mean of -log sigmoid(D(x, teacher's) - D(x, policy's))."""
    return mean([math.log(1 + math.exp(-(a - b))) for a, b in zip(real, own, strict=True)])


def gad(
    case: Case, c: Floats, verdicts: Sequence[float], *, low: float = 0.2, high: float = 0.2, eps: float = 1e-4
) -> float:
    """8.4: GRPO where the reward is the discriminator's score of the response."""
    a = np.zeros(len(verdicts))
    for group in groups(case):
        own = [verdicts[i] for i in group]
        for i in group:
            a[i] = (verdicts[i] - mean(own)) / (deviation(own) + eps)
    return ppo(case, c, a, low=low, high=high, reduce="sequence")
