"""Pitfalls of the field (methods: 16) that belong to preferences and to weights by probability: shown, and avoided."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from trl.experimental.cpo import CPOConfig

from orchestrator import recipes
from orchestrator.composition import composition
from policies.batch import TrajectoryBatch
from policies.config import Point, Reduce, Set, Strand, TokenWeight
from policies.logprobs import token_logprobs
from policies.objective import evaluate_logps
from policies.slots import PolicyView
from tests import paper_coefficients as closed
from tests import trl_oracles as trl
from tests.compositions import IMITATE, PLAIN, findings, given, prepared, recipe, strand, weight
from tests.parity_case import Case, Floats, at, log_softmax
from tests.recipe_bridge import agrees, apply, own, pairs
from tests.rl_cases import SEEDS, drawn


def pulls(name: str | tuple[Strand, ...], case: Case, **parameters: Any) -> Floats:
    """g of a recipe on pairs."""
    return apply(name, case, columns=pairs(case), **parameters).coefficient_BT


def level(case: Case) -> Case:
    """Every response of the same length."""
    return replace(case, mask_BT=np.ones_like(case.mask_BT))


def proportional(left: Floats, right: Floats) -> bool:
    """Whether one is the other times a number."""
    factor = float((left * right).sum() / (right * right).sum())
    return bool(np.abs(left - factor * right).max() <= 1e-6 * np.abs(left).max())


# ---------------------------------------------------------------- 8


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_08_a_beta_for_sums_is_none_for_means(seed: int) -> None:
    """Libraries disagree on IPO: TRL's DPOTrainer averages, its online trainer sums; each recipe says which it is."""
    case = drawn(seed)
    mean, total = (
        apply(name, case, columns=pairs(case), **more) for name, more in (("dpo", {"loss": "ipo"}), ("ipo_md", {}))
    )
    for said, want in ((mean, trl.dpo(case, "ipo")), (total, trl.online_dpo(case, "ipo"))):
        agrees(said, want.loss, want.gradient_BTV, case)
    assert not proportional(mean.coefficient_BT, total.coefficient_BT)
    texts = [composition(one) for one in (recipes.load("dpo", loss="ipo"), recipes.load("ipo_md"))]
    assert ["mean" in text for text in texts] == [True, False]


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_08_betas_translate_by_the_length_and_only_where_there_is_but_one(seed: int) -> None:
    """(delta / L - 1 / 2 beta)^2 is the square of sums at beta / L, over L^2; for ragged responses no beta is."""
    even, ragged = level(drawn(seed)), drawn(seed)
    length = even.mask_BT.shape[1]
    mean = pulls("dpo", even, loss="ipo", beta=0.7)
    np.testing.assert_allclose(mean * length**2, pulls("ipo_md", even, beta=0.7 / length), rtol=1e-9)
    logistic = pulls("simpo", even, beta=0.7 * length, ratio=0.0), pulls("cpo", even, beta=0.7, nll=0.0)
    np.testing.assert_allclose(*logistic, rtol=1e-9)
    means = pulls("dpo", ragged, loss="ipo", beta=0.7)
    assert not any(
        proportional(means, pulls("ipo_md", ragged, beta=0.7 / length))
        for length in np.linspace(0.5, ragged.mask_BT.shape[1], 40)
    )


def test_pitfall_08_the_aggregate_is_part_of_the_score_and_no_reducer_changes_it() -> None:
    case = drawn(0)
    for name, parameters in (("dpo", {"loss": "ipo"}), ("ipo_md", {}), ("simpo", {})):
        want = pulls(name, case, **parameters)
        for reduce in ("token", "sequence", "sequence_sum"):
            (one,) = recipes.load(name, **parameters).strands
            (term,) = one.terms
            other = term.model_copy(update={"reduce": Reduce(kind=reduce)})
            np.testing.assert_array_equal(pulls((one.model_copy(update={"terms": (other,)}),), case), want)


# ---------------------------------------------------------------- 9


def trls_default(name: str) -> float:
    """What TRL's CPOConfig takes where nobody says otherwise."""
    (found,) = [one.default for one in fields(CPOConfig) if one.name == name]
    assert isinstance(found, float)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_09_trls_defaults_make_another_method_of_simpo(seed: int) -> None:
    """loss_type simpo alone imitates the chosen response besides, and has a margin of half a nat."""
    case = drawn(seed)
    alpha, gamma = trls_default("cpo_alpha"), trls_default("simpo_gamma")
    assert (alpha, gamma) == (1.0, 0.5)
    ours = apply("simpo", case, columns=pairs(case))
    silent = trl.cpo(case, "simpo", beta=2.5, alpha=alpha, gamma=gamma)
    assert np.abs(silent.gradient_BTV - ours.gradient_BTV).max() > 0.1 * np.abs(ours.gradient_BTV).max()
    told = trl.cpo(case, "simpo", beta=2.5, alpha=0.0, gamma=2.5 * 0.55)
    agrees(ours, told.loss, told.gradient_BTV, case)
    (term,) = recipes.load("simpo").strands[0].terms
    assert isinstance(term.kernel, Set), "no likelihood term"


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_09_the_ratio_is_not_trls_gamma(seed: int) -> None:
    """TRL's gamma is the margin itself, the authors state its share of beta: the one for the other is another loss."""
    case = drawn(seed)
    ours = apply("simpo", case, columns=pairs(case), ratio=0.55)
    mistaken = trl.cpo(case, "simpo", beta=2.5, alpha=0.0, gamma=0.55)
    assert abs(mistaken.loss - ours.loss) > 0.01
    want = closed.simpo(case, beta=2.5, margin=1.375) / (len(case.mask_BT) // 2)
    np.testing.assert_allclose(ours.coefficient_BT, want, atol=1e-9)


# ---------------------------------------------------------------- 20


def test_pitfall_20_weights_of_a_bf16_model_are_taken_in_fp32() -> None:
    """From bf16 logits: a softmax in bf16 is off by a hundredth, and DFT would pull by it."""
    torch.manual_seed(0)
    hidden_NH, head_VH = torch.randn(48, 16).bfloat16(), torch.randn(997, 16).bfloat16()
    tokens_N = torch.randint(0, 997, (48,))
    found = token_logprobs(hidden_NH, head_VH, tokens_N)
    assert found.logps_N.dtype == torch.float32
    logits_NV = hidden_NH @ head_VH.T
    assert logits_NV.dtype == torch.bfloat16
    want_N = np.exp(log_softmax(logits_NV.double().numpy()))[np.arange(48), tokens_N]
    batch = TrajectoryBatch(tokens_N[None], torch.ones(1, 48, dtype=torch.bool), advantages_BT=torch.ones(1, 48))
    said = evaluate_logps(recipes.load("dft").strands, batch, PolicyView(found.logps_N[None]))
    g_N = said.coefficient_BT[0]
    assert g_N.dtype == torch.float32
    np.testing.assert_allclose(g_N.double().numpy() * 48, want_N, rtol=1e-5)
    narrow_N = logits_NV.softmax(-1)[torch.arange(48), tokens_N].double().numpy()
    assert np.abs(narrow_N / want_N - 1).max() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_20_the_weight_is_the_probability_at_temperature_1_of_the_token_itself(seed: int) -> None:
    case = own(drawn(seed))
    g_BT = apply("dft", case).coefficient_BT
    tokens = int(case.mask_BT.sum())
    p_BT = np.exp(case.logps_BT) * case.mask_BT
    np.testing.assert_allclose(g_BT * tokens, p_BT, rtol=1e-9)
    warm = np.exp(at(case.logits_BTV / 0.7, case.tokens_BT))
    assert not np.allclose(g_BT * tokens, warm * case.mask_BT, rtol=1e-2)


def warned(where: str, *strands: Strand, **stage: Any) -> list[str]:
    """Texts of the warnings of rule V1 at a place."""
    found = findings(recipe(*strands), **stage)
    return [one.text for one in found if (one.level, one.rule, one.where) == ("warning", "V1", where)]


def test_pitfall_20_sampling_at_another_temperature_than_1_is_warned_of() -> None:
    """What is sampled is then not what is trained: the sampler's log-probabilities are of another distribution."""
    (text,) = warned("", strand(weights=weight("probability")), sampling={"temperature": 0.7})
    assert "at temperature 0.7 and trained on at 1" in text
    (text,) = warned("s", strand(source={"temperature": 0.7}))
    assert "at temperature 0.7 and trained on at 1" in text
    assert warned("", strand(), sampling={"temperature": 1.0}) == []
    own_words = given(kernel=PLAIN, weights=weight("probability"), source=prepared("learner"))
    (text,) = warned("", own_words, sampling={"temperature": 0.7})
    assert "temperature 0.7" in text
    assert warned("", given(kernel=PLAIN, weights=weight("probability")), sampling={"temperature": 0.7}) == []


@pytest.mark.parametrize("name", ["dft", "asft", "mind_the_gap"])
def test_pitfall_20_recipes_weigh_by_probability_and_by_no_power_of_it(name: str) -> None:
    (one,) = recipes.load(name, **({"weighted": True} if name == "mind_the_gap" else {})).strands
    assert one.terms[0].weights == (TokenWeight(kind="probability", power=1.0),)
    assert one.credit == IMITATE
    assert isinstance(one.terms[0].kernel, Point)
