"""Fidelity to a teacher, against distributions whose divergence is known."""

import numpy as np
import pytest

from orchestrator.probes import fidelity
from orchestrator.probes.snapshot import Float64, Scored, Who

LEARNER, TEACHER = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.6, 0.1])
"""Next-token distributions that depend on nothing: their divergence is known."""


def scored(tokens: np.ndarray, name: str, writer: Who, model: Who, by: Float64, steps: tuple[int, ...] = ()) -> Scored:
    best = np.full(len(tokens), int(by.argmax()), np.int32)
    logps = np.log(by)
    return Scored(
        f"{name}/{writer}",
        name,
        "",
        writer,
        model,
        tokens.astype(np.int32),
        logps[tokens].astype(np.float32),
        best,
        np.full(len(tokens), logps.max(), np.float32),
        steps,
    )


def rollouts(draws: np.random.Generator, count: int = 200, teacher: Float64 = TEACHER) -> list[Scored]:
    rows = []
    for at in range(count):
        tokens = draws.choice(3, 12, p=LEARNER)
        rows.append(scored(tokens, f"p{at}", "after", "after", LEARNER, (4, 12)))
        rows.append(scored(tokens, f"p{at}", "after", "teacher", teacher, (4, 12)))
    return rows


def test_divergence_and_agreement_with_a_teacher_are_those_of_the_distributions() -> None:
    found = fidelity.document(rollouts(np.random.default_rng(10)), confidence=0.95)
    assert found is not None
    exact = float(np.sum(LEARNER * np.log(LEARNER / TEACHER)))
    assert found["kl"]["low"] < exact < found["kl"]["high"] < 2 * exact
    assert found["agreement"]["value"] == 0  # the likeliest tokens are 0 and 1
    likely = float(np.sum(LEARNER * TEACHER))
    assert found["teacher_probability"]["low"] < likely < found["teacher_probability"]["high"]
    assert (found["responses"], found["tokens"]) == (200, 2400)
    assert found["before"] is None and found["change"] is None
    assert [(one["step"], one["tokens"]) for one in found["steps"]] == [(0, 800), (1, 1600)]


def test_a_policy_that_is_its_teacher_agrees_everywhere() -> None:
    found = fidelity.document(rollouts(np.random.default_rng(11), teacher=LEARNER), confidence=0.95)
    assert found is not None
    assert found["agreement"]["value"] == 1 and found["agreement"]["low"] > 0.9
    assert found["kl"]["value"] == pytest.approx(0, abs=1e-6)


def test_the_change_towards_the_teacher_is_paired_by_prompt() -> None:
    draws = np.random.default_rng(12)
    rows = rollouts(draws, teacher=LEARNER)
    for at in range(200):
        tokens = draws.choice(3, 12, p=TEACHER)
        rows += [
            scored(tokens, f"p{at}", "before", "before", TEACHER),
            scored(tokens, f"p{at}", "before", "teacher", LEARNER),
        ]
    found = fidelity.document(rows, confidence=0.95)
    assert found is not None and found["before"]["agreement"]["value"] == 0
    assert found["change"]["agreement"]["value"] == 1 and found["change"]["kl"]["high"] < 0


def test_without_a_teacher_there_is_no_fidelity_and_unknown_tokens_count_for_nothing() -> None:
    rows = rollouts(np.random.default_rng(13), count=3)
    assert fidelity.document([one for one in rows if one.model == "after"], confidence=0.95) is None
    blind = [
        Scored(
            one.id,
            one.prompt,
            one.family,
            one.writer,
            one.model,
            one.tokens,
            np.where(np.arange(12) < 6, np.nan, one.logps).astype(np.float32),
            np.where(np.arange(12) < 6, -1, one.best_ids).astype(np.int32),
            one.best_logps,
        )
        for one in rows
    ]
    found = fidelity.document(blind, confidence=0.95)
    assert found is not None and found["tokens"] == 18 and found["steps"] == []
