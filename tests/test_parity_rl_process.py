"""Step scores to gradient: Math-Shepherd, PAV and process supervision against the papers' formulas."""

from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from tests import paper_oracles as paper
from tests.paper_parts import k3
from tests.parity_case import Case, Floats
from tests.recipe_bridge import apply
from tests.rl_cases import SEEDS, drawn, holds, recorded, scored, steps

Parameters = dict[str, Any]


def surrogate(case: Case, c: Floats, a_BT: Floats, *, low: float = 0.2, kl: float = 0.0, **how: Any) -> float:
    """PPO's, and k3 to the reference beside it."""
    loss = paper.reward.ppo(case, c, recorded(a_BT), low=low, high=low, **how)
    return loss + kl * paper.reduced(case, lambda i, t: k3(c[i, t], case.reference_BT[i, t]), how["reduce"])


# ---------------------------------------------------------------- steps of any scorer

STEPS: dict[str, tuple[Parameters, Parameters, Parameters]] = {
    "defaults": ({}, {}, {}),
    "its own step": ({"spread": "step"}, {"spread": "step"}, {}),
    "the worst step": ({"spread": "min"}, {"spread": "min"}, {}),
    "not normalised": ({"normalise": "none"}, {"normalise": False}, {}),
    "halved, with the outcome": ({"scale": 0.5, "outcome": 2.0}, {"scale": 0.5, "outcome": 2.0}, {}),
    "worst step, raw, with the outcome": (
        {"spread": "min", "normalise": "none", "outcome": 1.0},
        {"spread": "min", "normalise": False, "outcome": 1.0},
        {},
    ),
    "narrow, kl": ({"clip": 0.05, "kl": 0.04}, {}, {"low": 0.05, "kl": 0.04}),
}
"""The recipe's parameters, the credit oracle's, the loss's."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", STEPS)
def test_step_credit_is_the_papers(name: str, seed: int) -> None:
    parameters, credit, loss = STEPS[name]
    case = drawn(seed)
    steps_BT, scores = steps(case, seed)
    a_BT = paper.process.process_advantages(case, steps_BT, scores, **credit)
    said = apply("step_credit", case, rows=scored(case, steps_BT, scores), **parameters)
    holds(said, lambda c: surrogate(case, c, a_BT, reduce="sequence", **loss), case)


def test_step_credit_reads_the_scores_of_the_name_it_is_given() -> None:
    case = drawn(0)
    steps_BT, scores = steps(case, 0)
    rows = scored(case, steps_BT, scores, name="lean")
    a_BT = paper.process.process_advantages(case, steps_BT, scores)
    holds(
        apply("step_credit", case, rows=rows, score="lean"),
        lambda c: surrogate(case, c, a_BT, reduce="sequence"),
        case,
    )
    assert not apply("step_credit", case, rows=rows).coefficient_BT.any(), "nobody scored `step`: nothing trains"


# ---------------------------------------------------------------- Math-Shepherd


def completions(scores: list[list[float]], seed: int) -> list[list[list[float]]]:
    """Eight completions from each step, right or wrong."""
    rng = np.random.default_rng(seed)
    return [[[float(x) for x in rng.integers(0, 5, 8) == 0] for _ in own] for own in scores]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("spread", ["suffix_sum", "step", "min"])
def test_math_shepherd_is_the_papers(spread: str, kind: str, seed: int) -> None:
    case = drawn(seed)
    steps_BT, shape = steps(case, seed)
    scores = [paper.process.monte_carlo(own, kind) for own in completions(shape, seed)]
    a_BT = paper.process.process_advantages(case, steps_BT, scores, spread=spread)
    said = apply("math_shepherd", case, rows=scored(case, steps_BT, scores), spread=spread, kl=0.1)
    holds(said, lambda c: surrogate(case, c, a_BT, reduce="sequence", kl=0.1), case)


# ---------------------------------------------------------------- PAV


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("alpha", "outcome"), [(3.0, 1.0), (5.0, 1.0), (1.0, 0.0)])
def test_pav_is_the_papers(alpha: float, outcome: float, seed: int) -> None:
    case = drawn(seed)
    steps_BT, gains = steps(case, seed)
    values = [list(accumulate(own, initial=0.5)) for own in gains]
    if outcome:
        a_BT = paper.process.pav_advantages(case, steps_BT, values, alpha=alpha)
    else:
        a_BT = paper.process.process_advantages(case, steps_BT, gains, spread="step", normalise=False, scale=alpha)
    said = apply("pav", case, rows=scored(case, steps_BT, gains), alpha=alpha, outcome=outcome)
    holds(said, lambda c: surrogate(case, c, a_BT, reduce="token"), case)
