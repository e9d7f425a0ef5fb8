"""Scalar heads: a critic's values, step labels, reward models and discriminators against other people's formulas."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from policies.batch import TrajectoryBatch
from policies.config import Log, Point, Reduce, Set, Source, Strand, Term, TokenWeight
from policies.objective import evaluate_logps
from policies.slots import PolicyView
from tests import paper_oracles as paper
from tests import trl_oracles as trl
from tests.parity_case import Case

VALUE = Set(link="value", score="head", unit="token", reference=False, clip=0.2)


def strand(kernel: Set) -> Strand:
    term = Term(name="t", kernel=kernel, reduce=Reduce(kind="token"))
    return Strand(name="s", source=Source(producer="labelled", per_step=1), terms=(term,))


def batch_of(case: Case, **columns: Any) -> TrajectoryBatch:
    ready = {name: torch.from_numpy(np.asarray(value)) for name, value in columns.items()}
    return TrajectoryBatch(torch.from_numpy(case.tokens_BT), torch.from_numpy(case.mask_BT), **ready)


def evaluated(kernel: Set, batch: TrajectoryBatch, values_BT: Any, **options: Any) -> tuple[float, np.ndarray]:
    """Loss, and its gradient by the head's outputs."""
    values = torch.from_numpy(values_BT.copy()).requires_grad_()
    said = evaluate_logps([strand(kernel)], batch, PolicyView(values, scalar=True), **options)
    (gradient,) = torch.autograd.grad(said.loss, [values])
    np.testing.assert_allclose(-said.coefficient_BT.numpy(), gradient.numpy())
    return float(said.loss.detach()), gradient.numpy()


def values_and_targets(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=case.mask_BT.shape)
    return values, values + 0.3 * rng.normal(size=values.shape), rng.normal(size=values.shape)


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_critic_is_ppos(seed: int, clip: float | None) -> None:
    case = paper.random_case(seed)
    values, old, targets = values_and_targets(case, seed)
    batch = batch_of(case, old_values_BT=old, targets_BT=targets)
    loss, gradient = evaluated(VALUE.model_copy(update={"clip": clip}), batch, values)

    def want(moved: Any) -> float:
        return paper.reward.value_loss(case, moved, old, targets, clip=clip)

    np.testing.assert_allclose(loss, want(values), rtol=1e-9)
    np.testing.assert_allclose(gradient, paper.slope(want, values, case.mask_BT), rtol=1e-5, atol=1e-8)
    assert clip is None or abs(loss - paper.reward.value_loss(case, values, old, targets, clip=None)) > 1e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_step_labels_are_read_where_they_stand(seed: int) -> None:
    case = paper.random_case(seed)
    values, _, targets = values_and_targets(case, seed)
    labels = np.where(targets > 0.4, np.nan, (targets > 0).astype(float))
    kernel = Set(link="bce", beta=1.0, score="head", unit="token", reference=False)
    loss, gradient = evaluated(kernel, batch_of(case, targets_BT=labels), values)

    def want(moved: Any) -> float:
        return paper.process.step_bce(case, moved, labels)

    np.testing.assert_allclose(loss, want(values), rtol=1e-9)
    np.testing.assert_allclose(gradient, paper.slope(want, values, case.mask_BT), rtol=1e-5, atol=1e-8)
    assert not gradient[np.isnan(labels)].any()


def test_regression_is_the_mean_square_error() -> None:
    case = paper.random_case(0)
    values, _, targets = values_and_targets(case, 0)
    kernel = Set(link="regression", score="head", unit="token", reference=False)
    loss, _ = evaluated(kernel, batch_of(case, targets_BT=targets), values)
    np.testing.assert_allclose(loss, np.mean((values - targets)[case.mask_BT] ** 2))


@pytest.mark.parametrize("margin", [False, True])
def test_a_reward_model_is_trls(margin: bool) -> None:
    case = paper.random_case(3)
    values, _, _ = values_and_targets(case, 3)
    half, last = len(values) // 2, case.mask_BT.sum(1) - 1
    margins = np.linspace(0.1, 0.5, half)
    columns = {
        "set_B": np.concatenate([np.arange(half)] * 2),
        "label_B": np.repeat([1.0, 0.0], half),
        "margin_B": np.concatenate([margins, margins]),
    }
    kernel = Set(beta=1.0, score="head", reference=False, row_margin=margin)
    loss, gradient = evaluated(kernel, batch_of(case, **columns), values)
    rows = np.arange(len(values))
    want, slope_B = trl.reward(values[rows, last], margins if margin else None)
    np.testing.assert_allclose(loss, want, rtol=1e-9)
    np.testing.assert_allclose(gradient[rows, last], slope_B, rtol=1e-7, atol=1e-12)
    elsewhere = np.ones_like(values, bool)
    elsewhere[rows, last] = False
    assert not gradient[elsewhere].any()


def test_an_outcome_model_is_binary_cross_entropy_of_its_last_output() -> None:
    case = paper.random_case(3)
    values, _, _ = values_and_targets(case, 3)
    labels = case.labels_B.astype(float)
    kernel = Set(link="bce", beta=1.0, score="head", reference=False)
    loss, _ = evaluated(kernel, batch_of(case, label_B=labels), values)
    scores = torch.from_numpy(values[np.arange(len(values)), case.mask_BT.sum(1) - 1])
    want = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.from_numpy(labels))
    np.testing.assert_allclose(loss, float(want))


def test_two_micro_batches_of_a_critic_are_one() -> None:
    case = paper.random_case(1)
    values, old, targets = values_and_targets(case, 1)
    batch = batch_of(case, old_values_BT=old, targets_BT=targets)
    whole, gradient = evaluated(VALUE, batch, values)
    count = (float(case.mask_BT.sum()),)
    parts = []
    for here in ([0, 3], [1, 2, 4, 5]):
        part = replace(
            batch,
            **{name: getattr(batch, name)[here] for name in ("tokens_BT", "mask_BT", "old_values_BT", "targets_BT")},
        )
        loss, own = evaluated(VALUE, part, values[here], normalisers=(count,))
        np.testing.assert_allclose(own, gradient[here])
        parts.append(loss)
    np.testing.assert_allclose(sum(parts), whole)


@pytest.mark.parametrize(
    ("kernel", "columns", "message"),
    [
        (VALUE, {"targets_BT": np.zeros((6, 7))}, "link value reads old_values_BT, which is missing; recompute"),
        (VALUE, {}, "link value reads targets_BT, which is missing; give each example targets"),
        (Set(link="kto"), {"label_B": np.ones(6)}, "reads reference_logps_BT"),
    ],
)
def test_a_view_that_is_missing_is_named(kernel: Set, columns: dict[str, Any], message: str) -> None:
    case = paper.random_case(0)
    with pytest.raises(ValueError, match=message):
        evaluated(kernel, batch_of(case, **columns), np.zeros_like(case.old_BT))


def test_a_language_model_has_no_head_to_score_with() -> None:
    case = paper.random_case(0)
    batch = batch_of(case, targets_BT=np.zeros_like(case.old_BT))
    with pytest.raises(ValueError, match="unit token needs a model with a scalar head"):
        evaluate_logps([strand(VALUE)], batch, PolicyView(torch.zeros(6, 7, dtype=torch.float64)))


def test_kto_without_a_baseline_row_is_refused() -> None:
    case = paper.random_case(0)
    batch = batch_of(case, label_B=np.ones(6), reference_logps_BT=case.reference_BT)
    with pytest.raises(
        ValueError, match="mean log-ratio of mismatched responses over the whole step, which is unknown"
    ):
        evaluate_logps([strand(Set(link="kto"))], batch, PolicyView(torch.from_numpy(case.logps_BT)))


def test_the_highest_entropies_are_a_share_of_the_whole_step() -> None:
    """The threshold is the step's: micro-batches take unlike numbers of tokens, together exactly the share."""
    case = paper.random_case(2)
    kernel = Point(denominator="current", shape=Log(), advantage="one")
    weights = (TokenWeight(kind="top_entropy", share=0.25),)
    term = Term(name="t", kernel=kernel, weights=weights)
    one = Strand(name="s", source=Source(producer="rollout", per_prompt=1), terms=(term,))
    view = PolicyView(torch.from_numpy(case.logps_BT), entropy_BT=torch.from_numpy(case.entropy_BT))
    said = evaluate_logps([one], batch_of(case), view)
    kept = said.coefficient_BT.numpy() != 0
    tokens = int(case.mask_BT.sum())
    assert kept.sum() == round(0.25 * tokens)
    assert case.entropy_BT[kept].min() > case.entropy_BT[case.mask_BT & ~kept].max()
