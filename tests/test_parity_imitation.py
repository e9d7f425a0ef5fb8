"""Recipes over given text to loss, gradient and g: TRL where it has the loss, else the papers' formulas."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator import recipes
from tests import paper_coefficients as closed
from tests import paper_oracles as paper
from tests import trl_oracles as trl
from tests.mixed_cases import SEEDS, TEACHER, follows, separable, small
from tests.paper_parts import slots
from tests.parity_case import Case, Floats
from tests.recipe_bridge import Found, agrees, apply, own
from tests.rl_cases import drawn, has_g, holds, is_trls, of_rows

Parameters = dict[str, Any]
WHOLE = 7
"""The vocabulary of a small case: a top-k of it is everything."""


def given(case: Case) -> Case:
    """The case with every row a demonstration: nobody knows who sampled it."""
    return replace(case, off_B=np.ones_like(case.off_B))


# ---------------------------------------------------------------- likelihood, weighed

PLAIN = {
    "sft": {},
    "steerlm": {},
    "sdft": {},
    "grape": {},
    "s3ft": {},
    "mind_the_gap": {},
    "star": {},
    "rest": {},
    "rest_em": {},
    "superfiltering": {},
    "context_distillation": {},
    "sequence_distillation": TEACHER,
    "raft": {},
}
"""Methods whose loss is plain likelihood, and whose rows the next file picks."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PLAIN)
def test_what_is_imitated_is_imitated_as_trl_does(name: str, seed: int) -> None:
    case = given(drawn(seed))
    said = apply(name, case, **PLAIN[name])
    is_trls(said, trl.sft(case), case)
    has_g(said, closed.sft(case) * closed.share(case))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "parameters"), [("dft", {}), ("mind_the_gap", {"weighted": True})])
def test_probability_weighs_the_likelihood_as_trl_does(name: str, parameters: Parameters, seed: int) -> None:
    case = given(drawn(seed))
    said = apply(name, case, **parameters)
    is_trls(said, trl.sft(case, "dft"), case)
    has_g(said, closed.dft(case) * closed.share(case))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.28), (0.05, 0.1), (1.0, 3.0)])
def test_psft_is_the_papers(low: float, high: float, seed: int) -> None:
    """The old policy is not the current one: the upper clip bites, the lower never does."""
    case = given(drawn(seed))
    said = apply("psft", case, low=low, high=high)
    holds(said, lambda c: paper.imitation.psft(case, c, low=low, high=high), case)
    ratio_BT = np.exp(case.logps_BT - case.old_BT)
    held_BT = (ratio_BT > 1 + high) & case.mask_BT
    assert held_BT.any() == (high < 3)
    assert not said.coefficient_BT[held_BT].any()
    assert (said.coefficient_BT[(ratio_BT < 1 - low) & case.mask_BT] > 0).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 4.0])
def test_beyond_log_likelihood_is_the_papers(alpha: float, seed: int) -> None:
    case = given(drawn(seed))
    said = apply("beyond_log_likelihood", case, alpha=alpha)
    holds(said, lambda c: paper.imitation.beyond_log_likelihood(case, c, alpha=alpha), case)
    has_g(said, np.exp(alpha * case.logps_BT) * case.mask_BT * closed.share(case))
    if alpha == 0:
        is_trls(said, trl.sft(case), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("low", "high"), [(0.05, 1.0), (0.0, 0.1), (0.03, 0.12)])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_beyond_log_likelihoods_windows_are_the_papers(alpha: float, low: float, high: float, seed: int) -> None:
    case = given(drawn(seed))
    said = apply("beyond_log_likelihood", case, alpha=alpha, low=low, high=high)
    p_BT = np.exp(case.logps_BT)
    inside_BT = (p_BT >= low) & (p_BT <= high) & case.mask_BT
    assert 0 < inside_BT.sum() < case.mask_BT.sum()
    np.testing.assert_array_equal(said.coefficient_BT != 0, inside_BT)

    def loss(c: Floats) -> float:
        if alpha == 0:
            return paper.imitation.thresholded(case, c, low=low, high=high)
        return paper.reduced(case, lambda i, t: float(inside_BT[i, t]) * (1 - math.exp(c[i, t])), "token")

    holds(said, loss, case)


# ---------------------------------------------------------------- ASFT


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kl", [0.05, 1.0])
def test_asft_is_the_codes(kl: float, seed: int) -> None:
    """KL(reference || policy) over the whole vocabulary."""
    case = given(small(seed))
    said = apply("asft", case, kl=kl, columns={"k": WHOLE})
    follows(said, lambda logits: paper.imitation.asft(case, logits, coefficient=kl), case)
    has_g(said, closed.dft(case) * closed.share(case))


def anchored(case: Case, kl: float, **options: Any) -> Callable[[Floats], float]:
    """DFT's loss of logits, and kl x a divergence from the reference."""

    def loss(logits: Floats) -> float:
        anchor = paper.teacher.divergence(case, logits, target="reference", **options)
        return paper.imitation.asft(case, logits, coefficient=0.0) + kl * anchor

    return loss


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("anchor", "beta"), [("forward", 0.0), ("reverse", 1.0)])
def test_asfts_choices_are_the_formulas(anchor: str, beta: float, seed: int) -> None:
    case = given(small(seed))
    said = apply("asft", case, kl=0.5, anchor=anchor, columns={"k": WHOLE})
    follows(said, anchored(case, 0.5, beta=beta), case)
    said = apply("asft", case, kl=0.5, anchor=anchor, support="top_k", columns={"k": 3})
    follows(said, anchored(case, 0.5, beta=beta, support="teacher", k=3), case)


# ---------------------------------------------------------------- logit distillation

FORMS = {"forward": 0.0, "jsd": 0.3, "reverse": 1.0}
"""As the weight of the teacher in GKD's divergence."""


def distilled(case: Case, k: int = WHOLE, **parameters: Any) -> Found:
    return apply("logit_distillation", case, columns={"k": k}, **TEACHER, **parameters)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("support", ["full", "top_k"])
@pytest.mark.parametrize("form", FORMS)
def test_logit_distillation_over_everything_is_trls(form: str, support: str, seed: int) -> None:
    case = given(small(seed))
    said = distilled(case, form=form, beta=FORMS[form], support=support)
    want = trl.gkd(case, beta=FORMS[form])
    agrees(said, want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("support", ["full", "top_k"])
@pytest.mark.parametrize("form", FORMS)
def test_a_temperature_is_trls_times_its_square(form: str, support: str, seed: int) -> None:
    case = given(small(seed))
    said = distilled(case, form=form, beta=FORMS[form], support=support, temperature=2.5)
    want = trl.divergence(case, beta=FORMS[form], temperature=2.5)
    agrees(said, 2.5**2 * want.loss, 2.5**2 * want.gradient_BTV, case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (2.0, 0.7), (4.0, 0.1)])
def test_logit_distillation_is_hintons(temperature: float, weight: float, seed: int) -> None:
    case = given(small(seed))
    said = distilled(case, support="full", temperature=temperature, weight=weight)
    options = {"temperature": temperature, "soft": weight, "hard": 1 - weight}
    follows(said, lambda logits: paper.teacher.logit_distillation(case, logits, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("tail", ["bucket", "renormalise", "raw"])
@pytest.mark.parametrize("form", FORMS)
def test_a_top_k_of_the_teacher_is_the_formula(form: str, tail: str, temperature: float, seed: int) -> None:
    """Softened, the k tokens and their bucket are powers of themselves, made whole again: a raw sum too."""
    case = given(small(seed))
    assert separable(case, 3)
    said = distilled(case, 3, form=form, beta=FORMS[form], top_k=3, tail=tail, temperature=temperature, weight=0.8)

    def loss(logits: Floats) -> float:
        options = {"support": "teacher", "k": 3, "tail": tail, "temperature": temperature}
        soft = paper.teacher.divergence(case, logits, beta=FORMS[form], **options)
        hard = paper.imitation.sft(case, paper.at(logits, case.tokens_BT))
        return 0.8 * temperature**2 * soft + 0.2 * hard

    follows(said, loss, case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
def test_a_forward_top_k_is_trls(tail: str, seed: int) -> None:
    case = given(small(seed))
    want = trl.divergence(case, beta=0.0, top_k=3, tail=tail == "bucket")
    agrees(distilled(case, 3, top_k=3, tail=tail), want.loss, want.gradient_BTV, case)


# ---------------------------------------------------------------- two tasks


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_step_by_step_is_label_and_rationale_each_by_its_own_tokens(weight: float, seed: int) -> None:
    case = given(drawn(seed))
    labels, rationales = [0, 3, 4, 9], [1, 2, 5, 6, 7, 8]
    strand_B = [int(i in rationales) for i in range(10)]
    said = apply("step_by_step", case, strand_B, weight=weight, **TEACHER)
    parts = [(labels, 1.0), (rationales, weight)]
    gradient_BTV, loss, g_BT = np.zeros_like(case.logits_BTV), 0.0, np.zeros(case.mask_BT.shape)
    for rows, factor in parts:
        want = trl.sft(of_rows(case, rows))
        gradient_BTV[rows] = factor * want.gradient_BTV
        loss += factor * want.loss
        g_BT += factor * closed.share(case, "token", rows)
    is_trls(said, trl.Answer(loss, gradient_BTV), case)
    has_g(said, g_BT)
    assert sum(len(slots(case, i)) for i in labels) != sum(len(slots(case, i)) for i in rationales)


def test_the_answer_is_not_a_rollout_but_reads_the_same() -> None:
    """Likelihood asks nobody who wrote the tokens."""
    case = drawn(0)
    np.testing.assert_array_equal(apply("sft", own(case)).coefficient_BT, apply("sft", given(case)).coefficient_BT)
    assert {one.source.producer for one in recipes.load("sft").strands} == {"demonstration"}
