"""Every objective against numpy oracles: the loss, the coefficient g, and the gradient through the logits."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from policies import objective
from policies.batch import TrajectoryBatch
from policies.config import (
    Clip,
    Div,
    Identity,
    Point,
    Saturate,
)
from policies.gradient_mass import mass_by_origin
from tests.loss_cases import (
    COLUMNS,
    LENGTHS,
    RECIPES,
    VOCABULARY,
    agree,
    case,
    logits_agree,
    packed,
    padded,
    parts_agree,
    policy_of,
    strand,
    term,
)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("recipe", RECIPES)
def test_loss_and_coefficient_equal_the_oracle(recipe: str, seed: int) -> None:
    agree(objective, recipe, seed)


@pytest.mark.parametrize("recipe", RECIPES)
def test_gradient_through_the_logits_equals_finite_differences_of_the_oracle(recipe: str) -> None:
    logits_agree(objective, recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_packed_equals_padded_and_rows_in_any_order(recipe: str) -> None:
    rows, values = case(recipe)
    logits = torch.from_numpy(values)
    one = objective.evaluate(RECIPES[recipe], padded(rows), logits)
    batch, row = packed(rows, logits)
    two = objective.evaluate(RECIPES[recipe], batch, row)
    order = [4, 2, 0, 5, 1, 3]
    three = objective.evaluate(RECIPES[recipe], padded([rows[i] for i in order]), logits[order])
    torch.testing.assert_close(two.loss, one.loss)
    torch.testing.assert_close(three.loss, one.loss)
    flat = torch.cat([line[:size] for line, size in zip(one.coefficient_BT, LENGTHS, strict=True)])
    torch.testing.assert_close(two.coefficient_BT[0], flat)
    for name, facts in one.by_strand.items():
        assert facts == pytest.approx(two.by_strand[name], nan_ok=True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_micro_batches_equal_one_batch(recipe: str) -> None:
    parts_agree(objective, recipe)


@pytest.mark.parametrize("shape", [Identity(), Clip(), Clip(dual=3.0)])
@pytest.mark.parametrize("denominator", ["old", "behavior", "current"])
@pytest.mark.parametrize("level", ["token", "geometric"])
def test_on_policy_gradient_is_minus_the_advantage(shape: Any, denominator: Any, level: Any) -> None:
    """At ratio 1 no clip acts: d loss / d logp = -A. True of every correct surrogate."""
    rows, values = case("ppo", noise=0.0)
    one = strand("a", term(Point(denominator=denominator, shape=shape, level=level), reduce="length"))
    found = objective.evaluate([one], padded(rows), torch.from_numpy(values))
    batch = padded(rows)
    assert batch.advantages_BT is not None
    torch.testing.assert_close(found.coefficient_BT, batch.advantages_BT * batch.mask_BT / 9)


def test_saturation_peaks_at_gamma() -> None:
    """LUFFY's coefficient is gamma p / (p + gamma)^2: a quarter at p = gamma, for any gamma."""
    for gamma in (0.1, 0.4):
        logits = torch.tensor([[[math.log(gamma), math.log(1 - gamma)]]], dtype=torch.float64)
        batch = TrajectoryBatch(
            torch.zeros(1, 1, dtype=torch.int64),
            torch.ones(1, 1, dtype=torch.bool),
            advantages_BT=torch.ones(1, 1).double(),
        )
        one = strand("a", term(Point(denominator="one", shape=Saturate(gamma=gamma))))
        assert float(objective.evaluate([one], batch, logits).coefficient_BT) == pytest.approx(0.25)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_empty_strand_is_exactly_zero_and_has_a_graph(recipe: str) -> None:
    rows, values = case(recipe)
    for row in rows:
        row["mask"] = [False] * len(row["mask"])
    logits = torch.from_numpy(values).requires_grad_()
    # not even the views have to be there
    bare = replace(padded(rows), **{name: None for name in COLUMNS if name not in ("tokens_BT", "mask_BT")})
    for batch in (padded(rows), bare):
        found = objective.evaluate(RECIPES[recipe], batch, logits)
        (gradient,) = torch.autograd.grad(found.loss, [logits])
        assert float(found.loss.detach()) == 0.0
        assert not gradient.any()
        assert not found.coefficient_BT.any()
        assert all(
            facts["tokens"] == facts["gradient_mass"] == facts["loss"] == 0 for facts in found.by_strand.values()
        )


def test_old_is_current_only_when_told() -> None:
    rows, values = case("ppo")
    batch = replace(padded(rows), old_logps_BT=None)
    with pytest.raises(
        ValueError, match=r"strand 'a': denominator old reads old_logps_BT, which is missing; .*old_is_current"
    ):
        objective.evaluate(RECIPES["ppo"], batch, torch.from_numpy(values))
    found = objective.evaluate(RECIPES["ppo"], batch, torch.from_numpy(values), old_is_current=True)
    trained = batch.mask_BT.sum()
    assert batch.advantages_BT is not None
    torch.testing.assert_close(found.coefficient_BT, batch.advantages_BT * batch.mask_BT / trained)
    assert found.by_strand["a"]["ratio_mean"] == 1.0


@pytest.mark.parametrize(
    ("recipe", "reader"), [("importance", "denominator behavior"), ("tis", "weight truncated_importance")]
)
def test_unknown_behavior_is_an_error_not_a_zero(recipe: str, reader: str) -> None:
    rows, values = case(recipe)
    rows[2]["behavior"][:] = np.nan
    trained, unknown = sum(sum(row["mask"]) for row in rows), sum(rows[2]["mask"])
    message = (
        rf"'a': {reader} reads behavior_logps_BT, unknown \(NaN\) on {unknown} of {trained} trained tokens; .*demonstr"
    )
    with pytest.raises(ValueError, match=message):
        objective.evaluate(RECIPES[recipe], padded(rows), torch.from_numpy(values))
    rows[2]["mask"] = [False] * LENGTHS[2]  # nobody reads what is not trained
    objective.evaluate(RECIPES[recipe], padded(rows), torch.from_numpy(values))


def test_a_set_whose_partner_is_elsewhere_is_refused() -> None:
    rows, values = case("dpo")
    with pytest.raises(ValueError, match=r"strand 'a': 2 trajectories have no partner in this batch"):
        objective.evaluate(RECIPES["dpo"], padded([rows[0], rows[3], rows[5]]), torch.from_numpy(values[[0, 3, 5]]))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            Div(form="forward", target="reference"),
            "reads reference_topk_logps_BTK, which is missing; ask the reference",
        ),
        (Div(form="forward", support="full"), "reads the reference's distributions, which are missing; bring"),
        (Div(form="jsd", target="uniform"), "has no target uniform"),
        (Div(form="k3", target="uniform"), "takes target reference or teacher"),
        (Div(form="k3", temperature=2.0), "temperature 1"),
    ],
)
def test_divergences_that_nothing_can_compute_are_refused(kernel: Div, message: str) -> None:
    rows, values = case("ppo")
    batch = replace(padded(rows), reference_topk_ids_BTK=None, reference_topk_logps_BTK=None)
    with pytest.raises(ValueError, match=message):
        objective.evaluate([strand("a", term(kernel))], batch, torch.from_numpy(values))


def test_coefficients_scale_strands_by_name_and_unknown_names_are_refused() -> None:
    rows, values = case("luffy")
    recipe, batch, logits = RECIPES["luffy"], padded(rows), torch.from_numpy(values)
    plain = objective.evaluate(recipe, batch, logits)
    scaled = objective.evaluate(recipe, batch, logits, coefficients={"b": 3.0})
    factor = torch.where(batch.strand_B == 1, 3.0, 1.0)[:, None]
    torch.testing.assert_close(scaled.coefficient_BT, plain.coefficient_BT * factor)
    with pytest.raises(ValueError, match=r"coefficients for \['c'\]: no such strand; the strands are \['a', 'b'\]"):
        objective.evaluate(recipe, batch, logits, coefficients={"c": 1.0})


def test_strands_without_strand_index_or_with_one_name_are_refused() -> None:
    rows, values = case("luffy")
    with pytest.raises(ValueError, match="strand_B is None"):
        objective.evaluate(RECIPES["luffy"], replace(padded(rows), strand_B=None), torch.from_numpy(values))
    with pytest.raises(ValueError, match="share a name"):
        objective.evaluate([RECIPES["ppo"][0]] * 2, padded(rows), torch.from_numpy(values))


def test_facts_are_what_they_say() -> None:
    rows, values = case("ppo")
    found = objective.evaluate(RECIPES["ppo"], padded(rows), torch.from_numpy(values))
    c = policy_of(rows, values)["c"]
    on = [(i, t) for i, row in enumerate(rows) for t in range(LENGTHS[i]) if row["mask"][t]]
    ratio = [math.exp(c[i][t] - rows[i]["old"][t]) for i, t in on]
    weight = [math.exp(c[i][t] - rows[i]["behavior"][t]) for i, t in on]
    signed = [rows[i]["advantage"][t] for i, t in on]
    cut = [(a > 0 and r > 1.28) or (a < 0 and r < 0.8) for a, r in zip(signed, ratio, strict=True)]
    facts = found.by_strand["a"]
    assert facts["tokens"] == len(on)
    assert facts["sequences"] == len(LENGTHS)
    assert facts["loss"] == pytest.approx(float(found.loss))
    assert facts["gradient_mass"] == pytest.approx(float(found.coefficient_BT.abs().sum()))
    assert facts["ratio_mean"] == pytest.approx(np.mean(ratio))
    assert facts["ratio_max"] == pytest.approx(max(ratio))
    assert facts["clip_share"] == pytest.approx(np.mean(cut))
    assert 0 < facts["clip_share"] < 1
    assert facts["kl_behavior"] == pytest.approx(np.mean([rows[i]["behavior"][t] - c[i][t] for i, t in on]))
    assert facts["ess"] == pytest.approx(sum(weight) ** 2 / sum(w * w for w in weight) / len(on))
    sft = objective.evaluate(RECIPES["sft"], padded(rows), torch.from_numpy(values)).by_strand["a"]
    assert math.isnan(sft["ratio_mean"])
    assert math.isnan(sft["clip_share"])


def test_gradient_mass_is_parted_by_who_wrote_the_token() -> None:
    g = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    origin = torch.tensor([[0, 0, 1, -1]], dtype=torch.int8)
    found = mass_by_origin(g, origin)
    assert (found["learner"], found["demonstration"], found["teacher"]) == (3.0, 3.0, 0.0)


def test_evaluating_without_a_graph_gives_g_all_the_same() -> None:
    rows, values = case("grpo")
    with torch.no_grad():
        quiet = objective.evaluate(RECIPES["grpo"], padded(rows), torch.from_numpy(values))
    loud = objective.evaluate(RECIPES["grpo"], padded(rows), torch.from_numpy(values).requires_grad_())
    torch.testing.assert_close(quiet.coefficient_BT, loud.coefficient_BT)
    assert not quiet.loss.requires_grad
    assert loud.loss.requires_grad


# ---------------------------------------------------------------- other people's code


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
def test_jsd_over_the_whole_vocabulary_is_trls(beta: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 6, VOCABULARY, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.zeros(1, 6, dtype=torch.int64)
    want = GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=beta, reduction="batchmean")
    everything = torch.arange(VOCABULARY).expand(1, 6, VOCABULARY)
    batch = TrajectoryBatch(
        labels,
        torch.ones(1, 6, dtype=torch.bool),
        teacher_topk_ids_BTK=everything,
        teacher_topk_logps_BTK=teacher.log_softmax(-1),
    )
    kernel = Div(form="jsd", target="teacher", beta=beta)
    torch.testing.assert_close(objective.evaluate([strand("a", term(kernel))], batch, student).loss, want)


def test_the_tail_bucket_never_exceeds_the_whole_divergence() -> None:
    """Data processing: merging tokens into one bucket cannot raise a KL divergence."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 6, VOCABULARY, generator=generator, dtype=torch.float64) for _ in range(2))
    found = []
    for k in (1, 4, 9, VOCABULARY):
        top = teacher.log_softmax(-1).topk(k)
        batch = TrajectoryBatch(
            torch.zeros(1, 6, dtype=torch.int64),
            torch.ones(1, 6, dtype=torch.bool),
            teacher_topk_ids_BTK=top.indices,
            teacher_topk_logps_BTK=top.values,
        )
        kernel = Div(form="forward", target="teacher")
        found.append(float(objective.evaluate([strand("a", term(kernel))], batch, student).loss))
    assert found == sorted(found)
