"""What the parity tests of reward methods share: cases that survive float32 records, and losses that oracles lack."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from policies.trajectory import Producer, ScoreEntry, Trajectory
from tests import paper_oracles as paper
from tests.paper_parts import clipped, mean, slots
from tests.parity_case import Case, Floats, through_softmax
from tests.recipe_bridge import Found, agrees, own, trajectory
from tests.trl_setting import Answer

SEEDS = (0, 1)
Scored = Callable[[Floats], float]
"""The policy's log-probabilities [B, T] to the loss."""


def drawn(seed: int, *, rows: int = 10, group: int = 5, **options: Any) -> Case:
    """The learner's own rows. Even seeds: rewards 0 and 1; odd ones: eighths. The sampler's view is float32's.

    Groups of five: TRL holds its correction n / (n - 1) in float32, where 5 / 4 is exact.
    """
    case = paper.random_case(seed, rows=rows, group=group, **options)
    rewards_B = case.rewards_B
    if seed % 2:
        rewards_B = np.random.default_rng(seed).permutation(rows * 2)[:rows] / 8
    return replace(own(case), rewards_B=rewards_B, behavior_BT=recorded(case.behavior_BT))


def replayed(seed: int) -> Case:
    """`drawn`, where the last two of each five rows are past rollouts (`off_B`)."""
    return replace(drawn(seed), off_B=np.arange(10) % 5 >= 3)


def past(case: Case, row: int, **fields: Any) -> Trajectory:
    """A row as a replayed record where `off_B` says so, with the sampler's recorded log-probabilities."""
    producer = {"producer": Producer.REPLAY} if case.off_B[row] else {}
    return trajectory(own(case), row, **producer, **fields)


def by_sampler(case: Case) -> Case:
    """The case in which `old` is the sampler's: what penalties off the reward read."""
    return replace(case, old_BT=case.behavior_BT)


def given(case: Case, advantages_B: Floats) -> Case:
    """The case with these advantages, as a record holds them: in float32.

    Advantages of a group cancel in the loss, so that a last bit of theirs is no last bit of the loss.
    """
    return replace(case, advantages_B=recorded(advantages_B))


def recorded(values: Floats) -> Floats:
    """As a record holds them: float32."""
    return values.astype(np.float32).astype(float)


def of_rows(case: Case, rows: Sequence[int]) -> Case:
    """These rows alone, for losses of a strand that knows no other."""
    values = {one.name: getattr(case, one.name) for one in fields(case)}
    return replace(case, **{name: value[list(rows)] for name, value in values.items() if isinstance(value, np.ndarray)})


def holds(said: Found, loss: Scored, case: Case) -> None:
    """Loss, gradient through the logits and g are those of the papers' loss."""
    g_BT = paper.g_of(loss, case)
    agrees(said, loss(case.logps_BT), paper.through_softmax(g_BT, case), case)
    has_g(said, g_BT)


def is_trls(said: Found, want: Answer, case: Case) -> None:
    """Loss, gradient, and g: what it does to the logits through the softmax is TRL's gradient."""
    agrees(said, want.loss, want.gradient_BTV, case)
    scale = float(np.abs(want.gradient_BTV).max())
    through_BTV = through_softmax(said.coefficient_BT, case)
    np.testing.assert_allclose(through_BTV, want.gradient_BTV, rtol=1e-6, atol=1e-6 * scale)


def has_g(said: Found, g_BT: Floats) -> None:
    """`coefficient_BT` to 1e-6 relative."""
    scale = float(np.abs(g_BT).max())
    assert scale > 0, "a g of 0 everywhere proves nothing"
    np.testing.assert_allclose(said.coefficient_BT, g_BT, rtol=1e-6, atol=1e-6 * scale)


# ---------------------------------------------------------------- corrections (methods: 5.3)


def correction(case: Case, kind: str, level: str, cap: float) -> Floats:
    """[B, T] of exp(old - behavior): truncated: min(w, cap); icepop: w inside [1/cap, cap], else 0; masked: 1 inside.

    token: each token's w; sequence: their product; geometric: its root by the length.
    """
    out = np.ones(case.mask_BT.shape)
    for i in range(len(out)):
        gaps = [case.old_BT[i, t] - case.behavior_BT[i, t] for t in slots(case, i)]
        for t, gap in zip(slots(case, i), gaps, strict=True):
            w = math.exp({"token": gap, "sequence": sum(gaps), "geometric": mean(gaps)}[level])
            inside = 1 / cap <= w <= cap
            out[i, t] = {"truncated": min(w, cap), "icepop": w if inside else 0.0, "masked": float(inside)}[kind]
    return out


def corrected(case: Case, c: Floats, w_BT: Floats, *, reduce: str = "sequence", high: float = 0.2) -> float:
    """-sg(w) min(r A, clip(r) A) with case.advantages_B."""

    def loss(i: int, t: int) -> float:
        ratio = math.exp(c[i, t] - case.old_BT[i, t])
        return w_BT[i, t] * clipped(ratio, float(case.advantages_B[i]), 0.2, high)

    return paper.reduced(case, loss, reduce)


# ---------------------------------------------------------------- steps


def steps(case: Case, seed: int) -> tuple[np.ndarray, list[list[float]]]:
    """Which step each token is of, and a score in quarters for each step: one to three runs of tokens in a row."""
    rng = np.random.default_rng(seed)
    steps_BT, scores = np.full(case.mask_BT.shape, -1), []
    for i in range(len(steps_BT)):
        count = min(1 + i % 3, len(slots(case, i)))
        for step, tokens in enumerate(np.array_split(slots(case, i), count)):
            steps_BT[i, tokens] = step
        scores.append([float(x) / 4 for x in rng.integers(-4, 5, count)])
    return steps_BT, scores


def scored(case: Case, steps_BT: np.ndarray, scores: Sequence[Sequence[float]], name: str = "step") -> list[Trajectory]:
    """The rows as records with their steps' scores beside the reward."""
    records = []
    for i, own_scores in enumerate(scores):
        entries = [ScoreEntry("reward", float(case.rewards_B[i]), None)]
        for step, score in enumerate(own_scores):
            (at,) = np.nonzero(steps_BT[i] == step)
            entries.append(ScoreEntry(name, score, start=int(at[0]), end=int(at[-1]) + 1))
        records.append(trajectory(case, i, scores=tuple(entries)))
    return records
