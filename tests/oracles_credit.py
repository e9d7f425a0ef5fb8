"""Advantage estimators in slow plain Python, written from the papers. Nothing here knows the code under test.

A response is its list of tokens; `mask` says which are trained (1) and which an environment wrote (0).
"""

import math
import statistics
from collections.abc import Sequence

Numbers = Sequence[float]
Mask = Sequence[int]


# ---------------------------------------------------------------- one number a response


def grpo(rewards: Numbers, eps: float) -> list[float]:
    """arXiv 2402.03300, section 4.1.2, with the unbiased deviation."""
    return [(r - statistics.mean(rewards)) / (statistics.stdev(rewards) + eps) for r in rewards]


def dr_grpo(rewards: Numbers) -> list[float]:
    """arXiv 2503.20783: the mean is taken off, nothing is divided."""
    return [r - statistics.mean(rewards) for r in rewards]


def rloo(rewards: Numbers) -> list[float]:
    """arXiv 2402.14740 in its other form: n / (n - 1) x (R - mean)."""
    n = len(rewards)
    return [n / (n - 1) * (r - statistics.mean(rewards)) for r in rewards]


def opo(rewards: Numbers, lengths: Numbers) -> list[float]:
    """arXiv 2505.23585: the baseline weighs each reward by its response's length."""
    baseline = sum(n * r for n, r in zip(lengths, rewards, strict=True)) / sum(lengths)
    return [r - baseline for r in rewards]


def remax(rewards: Numbers, greedy: float) -> list[float]:
    """arXiv 2310.10505."""
    return [r - greedy for r in rewards]


def maxrl(rewards: Numbers) -> list[float]:
    """(R - mean) / mean, 0 if the mean is not positive."""
    mean = statistics.mean(rewards)
    return [(r - mean) / mean if mean > 0 else 0.0 for r in rewards]


def dapo_overlong(length: int, most: int, cache: int) -> float:
    """arXiv 2503.14476, equation 13."""
    if length <= most - cache:
        return 0.0
    if length <= most:
        return ((most - cache) - length) / cache
    return -1.0


def gpg(groups: Sequence[Numbers]) -> list[list[float]]:
    """arXiv 2504.02546: alpha (R - mean), alpha = groups / groups that say something."""
    centred = [dr_grpo(rewards) for rewards in groups]
    telling = sum(1 for group in centred if any(a != 0 for a in group))
    return [[len(groups) / telling * a for a in group] for group in centred]


# ---------------------------------------------------------------- KL in the reward


def k1(behavior: Numbers, reference: Numbers, mask: Mask) -> list[float]:
    return [b - r if m else 0.0 for b, r, m in zip(behavior, reference, mask, strict=True)]


def penalised(reward: float, kl: float, behavior: Numbers, reference: Numbers, mask: Mask) -> float:
    """RLOO as TRL has it: the response's reward less beta x its summed log-ratio."""
    return reward - kl * sum(k1(behavior, reference, mask))


def reinforce_pp(reward: float, kl: float, behavior: Numbers, reference: Numbers, mask: Mask) -> list[float]:
    """arXiv 2501.03262: A_t = R - beta sum_{s >= t} KL(s)."""
    gaps = k1(behavior, reference, mask)
    return [reward - kl * sum(gaps[s] for s in range(t, len(gaps))) for t in range(len(gaps))]


def whiten(rows: Sequence[Numbers], masks: Sequence[Mask]) -> list[list[float]]:
    """(A - mean) / sqrt(variance + 1e-8) over the trained tokens, variance unbiased, as verl's masked_whiten."""
    flat = [a for row, mask in zip(rows, masks, strict=True) for a, m in zip(row, mask, strict=True) if m]
    mean, variance = statistics.mean(flat), statistics.variance(flat)
    return [[(a - mean) / math.sqrt(variance + 1e-8) for a in row] for row in rows]


# ---------------------------------------------------------------- a critic


def gae(rewards: Numbers, values: Numbers, mask: Mask, gamma: float, lam: float) -> tuple[list[float], list[float]]:
    """Advantages and returns backwards, as verl does: an observation passes on what came after it."""
    later_value = last = 0.0
    out = [0.0] * len(rewards)
    for t in reversed(range(len(rewards))):
        difference = rewards[t] + gamma * later_value - values[t]
        found = difference + gamma * lam * last
        later_value = values[t] * mask[t] + (1 - mask[t]) * later_value
        last = found * mask[t] + (1 - mask[t]) * last
        out[t] = last
    return out, [a + v for a, v in zip(out, values, strict=True)]


def gae_sum(rewards: Numbers, values: Numbers, gamma: float, lam: float) -> list[float]:
    """arXiv 1506.02438, equation 16: sum over l of (gamma lam)^l x the TD error l tokens on."""
    n = len(rewards)
    after = [*values[1:], 0.0]
    errors = [rewards[t] + gamma * after[t] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** step * errors[t + step] for step in range(n - t)) for t in range(n)]


def ppo_rewards(reward: float, kl: float, behavior: Numbers, reference: Numbers, mask: Mask) -> list[float]:
    """The penalty on each token, the outcome on the last one."""
    out = [-kl * gap for gap in k1(behavior, reference, mask)]
    out[max(t for t, m in enumerate(mask) if m)] += reward
    return out


# ---------------------------------------------------------------- a teacher


def exopd(behavior: float, teacher: float, base: float, lam: float) -> float:
    """arXiv 2602.12125: -[(mu - base) - lambda (T - base)]."""
    return -((behavior - base) - lam * (teacher - base))


def minillm(gaps: Numbers, mask: Mask) -> list[float]:
    """arXiv 2306.08543, length-normalised: the mean gap from here to the end."""
    out = []
    for t in range(len(gaps)):
        left = [gaps[s] for s in range(t, len(gaps)) if mask[s]]
        out.append(sum(left) / len(left) if left else 0.0)
    return out


# ---------------------------------------------------------------- steps, turns, parts


def process_supervision(steps: Sequence[Sequence[tuple[int, float]]], sizes: Sequence[int]) -> list[list[float]]:
    """arXiv 2402.03300, section 4.1.3; a step is (index of its last token, reward). No eps."""
    flat = [score for response in steps for _, score in response]
    mean, deviation = statistics.mean(flat), statistics.stdev(flat)
    return [
        [sum((score - mean) / deviation for last, score in response if last >= t) for t in range(size)]
        for response, size in zip(steps, sizes, strict=True)
    ]


def worst_step(steps: Sequence[float], size: int) -> list[float]:
    worst = sorted(steps)[0]
    return [worst for _ in range(size)]


def pav(outcomes: Numbers, steps: Sequence[Numbers], alpha: float) -> list[list[float]]:
    """arXiv 2410.08146: the outcome's advantage plus alpha x the step's progress, one number a step."""
    return [
        [advantage + alpha * progress for progress in response]
        for advantage, response in zip(dr_grpo(outcomes), steps, strict=True)
    ]


def score_turns(first: float, second: float, bonus: float) -> tuple[float, float]:
    """arXiv 2409.12917, section 5.2: turn 1 earns r1; turn 2 earns r2 + alpha (r2 - r1)."""
    return first, second + bonus * (second - first)


def s2r(parts: Sequence[Sequence[tuple[float, bool]]]) -> list[list[float]]:
    """arXiv 2502.12853: value less the mean of the parts that have as many correct ones before them."""
    bins: dict[int, list[float]] = {}
    for response in parts:
        correct = 0
        for value, right in response:
            bins.setdefault(correct, []).append(value)
            correct += right
    out = []
    for response in parts:
        correct, row = 0, []
        for value, right in response:
            row.append(value - statistics.mean(bins[correct]))
            correct += right
        out.append(row)
    return out
