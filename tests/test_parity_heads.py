"""Recipes of scalar heads, reward models and step labels, to loss and gradient: TRL's trainer, else the papers'."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator import recipes
from policies.config import Set
from policies.objective import evaluate_logps
from policies.slots import PolicyView
from tests import paper_oracles as paper
from tests import paper_preference as preference
from tests import trl_oracles as trl
from tests.paper_parts import slots
from tests.parity_case import Case, Floats
from tests.recipe_bridge import batch_of, pairs
from tests.rl_cases import SEEDS, drawn

Parameters = dict[str, Any]


def headed(name: str, case: Case, values_BT: Floats, *, columns: Parameters, **parameters: Any) -> tuple[float, Floats]:
    """The recipe's loss of a head's outputs, and its gradient by them; g is the gradient, turned about."""
    recipe = recipes.load(name, **parameters)
    assert recipe.head == "scalar"
    live = torch.from_numpy(values_BT.copy()).requires_grad_()
    batch = batch_of(case, [0] * len(case.mask_BT), np.ones(case.mask_BT.shape), **columns)
    said = evaluate_logps(recipe.strands, batch, PolicyView(live, scalar=True))
    (gradient,) = torch.autograd.grad(said.loss, [live])
    np.testing.assert_allclose(-said.coefficient_BT.numpy(), gradient.numpy(), rtol=1e-12)
    return float(said.loss.detach()), gradient.numpy()


def heads(seed: int) -> tuple[Case, Floats, list[int]]:
    """A case, a head's outputs, and each row's last token."""
    case = drawn(seed)
    values_BT = np.random.default_rng(seed).normal(size=case.mask_BT.shape)
    return case, values_BT, [slots(case, i)[-1] for i in range(len(case.mask_BT))]


def slopes(loss: Callable[[Floats], float], values_BT: Floats, case: Case, said: tuple[float, Floats]) -> None:
    """Loss and gradient are the oracle's, 0 where it reads nothing."""
    want_BT = paper.slope(loss, values_BT, case.mask_BT)
    assert said[0] == pytest.approx(loss(values_BT), rel=1e-6)
    np.testing.assert_allclose(said[1], want_BT, rtol=1e-6, atol=1e-6 * np.abs(want_BT).max())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row_margin", [False, True])
def test_reward_model_training_is_trls(row_margin: bool, seed: int) -> None:
    case, values_BT, last = heads(seed)
    rows, margins = np.arange(len(last)), np.linspace(0.2, 1.5, len(last) // 2)
    columns = {**pairs(case), "margin_B": np.concatenate([margins, margins])}
    said = headed("reward_model_training", case, values_BT, columns=columns, row_margin=row_margin)
    loss, slope_B = trl.reward(values_BT[rows, last], margins if row_margin else None)
    want_BT = np.zeros_like(values_BT)
    want_BT[rows, last] = slope_B
    assert said[0] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(said[1], want_BT, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_orm_training_is_binary_cross_entropy_at_the_last_token(seed: int) -> None:
    case, values_BT, last = heads(seed)
    labels = case.labels_B.astype(float)
    said = headed("orm_training", case, values_BT, columns={"label_B": labels})

    def loss(values: Floats) -> float:
        return preference.outcome_bce([float(values[i, t]) for i, t in enumerate(last)], list(labels))

    slopes(loss, values_BT, case, said)


@pytest.mark.parametrize("seed", SEEDS)
def test_prm_training_is_binary_cross_entropy_at_each_step(seed: int) -> None:
    """Hard labels and shares alike; a token without a label is asked nothing."""
    case, values_BT, _ = heads(seed)
    rng = np.random.default_rng(seed + 3)
    targets_BT = np.where(rng.random(values_BT.shape) < 0.5, np.nan, rng.choice([0.0, 1.0, 0.25], values_BT.shape))
    said = headed("prm_training", case, values_BT, columns={"targets_BT": targets_BT})
    slopes(lambda values: paper.process.step_bce(case, values, targets_BT), values_BT, case, said)


def test_recipes_of_heads_ask_for_one() -> None:
    for name in ("reward_model_training", "orm_training", "prm_training"):
        kernels = [term.kernel for strand in recipes.load(name).strands for term in strand.terms]
        assert all(isinstance(one, Set) and one.score == "head" and not one.reference for one in kernels)
