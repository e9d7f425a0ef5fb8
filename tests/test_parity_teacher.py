"""A teacher's word on own rollouts, to loss, gradient and g: TRL's losses where it has them, else the papers'."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator import recipes
from orchestrator.companions import examples_for
from policies.example import Example
from policies.objective import evaluate_logps
from policies.slots import PolicyView
from policies.trajectory import ScoreEntry, Trajectory
from tests import paper_oracles as paper
from tests import trl_oracles as trl
from tests.mixed_cases import SEEDS, TEACHER, follows, mixed, of, plan, separable, small
from tests.paper_mixed import own_rows
from tests.paper_parts import centred, k3, off_rows, on_rows, slots
from tests.parity_case import Case, Floats
from tests.recipe_bridge import Found, agrees, apply, batch_of, own, trajectory, views
from tests.rl_cases import drawn, has_g, holds, of_rows, recorded

Parameters = dict[str, Any]
WHOLE = 7
"""The vocabulary of a small case: a top-k of it is everything."""


def heard(name: str, case: Case, k: int = WHOLE, strand_B: list[int] | None = None, **parameters: Any) -> Found:
    """The recipe where the teacher's k likeliest tokens are known."""
    return apply(name, case, strand_B, columns={"k": k}, **parameters)


def level(seed: int) -> Case:
    """Rows of one length, where a mean over rows of means is the mean over tokens."""
    case = own(small(seed))
    return replace(case, mask_BT=np.ones_like(case.mask_BT))


# ---------------------------------------------------------------- sampled tokens


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("name", ["opd", "on_policy_distillation"])
def test_sampled_distillation_is_the_cookbooks(name: str, scale: float, seed: int) -> None:
    case = drawn(seed)
    said = apply(name, case, scale=scale, **TEACHER)
    teacher_BT = recorded(case.teacher_BT)
    holds(said, lambda c: paper.teacher.opd(case, c, scale=scale, teacher_BT=teacher_BT), case)
    has_g(said, scale * paper.coefficients.opd(case) * paper.coefficients.share(case))


@pytest.mark.parametrize("seed", SEEDS)
def test_sampled_distillation_where_policy_and_sampler_are_one_is_trls(seed: int) -> None:
    """TRL's IW-OPD without its weight: the loss is another surrogate (-A c for -A r), the gradient is the same."""
    case = drawn(seed)
    case = replace(case, behavior_BT=case.logps_BT)
    want = trl.iw_opd(case, gamma=0.0)
    said = apply("opd", case, **TEACHER)
    scale = np.abs(want.gradient_BTV).max()
    np.testing.assert_allclose(said.gradient_BTV, want.gradient_BTV, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("extrapolation", "cap"), [(1.25, 5.0), (2.0, 1.2), (1.0, 5.0)])
def test_exopd_is_the_papers_with_the_samplers_gap(extrapolation: float, cap: float, seed: int) -> None:
    case = drawn(seed)
    said = apply("exopd", case, extrapolation=extrapolation, cap=cap, **TEACHER)
    options = {"extrapolation": extrapolation, "sampler": "old", "gap": "behavior", "cap": cap}
    holds(said, lambda c: paper.teacher.exopd(case, c, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_exopd_is_the_papers_letter_where_the_sampler_is_the_learner(seed: int) -> None:
    case = drawn(seed)
    case = replace(case, old_BT=case.behavior_BT)
    said = apply("exopd", case, **TEACHER)
    holds(said, lambda c: paper.teacher.exopd(case, c, sampler="old"), case)


MERGED: dict[str, tuple[Parameters, Parameters]] = {
    "defaults": ({}, {}),
    "with the outcome": ({"outcome": 0.7}, {"outcome": 0.7}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MERGED)
def test_each_prompts_teacher_judges_its_rollouts(name: str, seed: int) -> None:
    """Two specialists: the first group's is the teacher, the second's is the reference."""
    parameters, options = MERGED[name]
    case = drawn(seed)
    other_B = np.arange(10) >= 5
    logits_BTV = np.where(other_B[:, None, None], case.reference_logits_BTV, case.teacher_logits_BTV)
    taught = replace(case, teacher_logits_BTV=logits_BTV)
    said = apply("multi_teacher_opd", taught, teachers={"a": "x", "*": "y"}, **parameters)
    specialists = [recorded(case.teacher_BT), recorded(case.reference_BT)]
    family = [int(one) for one in other_B]
    holds(said, lambda c: paper.teacher.multi_teacher_opd(case, c, specialists, family, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_merging_with_icepop_drops_tokens_where_learner_and_sampler_part(seed: int) -> None:
    case = drawn(seed)
    said = apply("multi_teacher_opd", case, teachers={"*": "y"}, correction="icepop", correction_cap=1.3)

    def loss(c: Floats) -> float:
        def token(i: int, t: int) -> float:
            weight = math.exp(case.old_BT[i, t] - case.behavior_BT[i, t])
            gap = recorded(case.teacher_BT)[i, t] - case.behavior_BT[i, t]
            return -(weight if 1 / 1.3 <= weight <= 1.3 else 0.0) * math.exp(c[i, t] - case.old_BT[i, t]) * gap

        return paper.reduced(case, token)

    holds(said, loss, case)
    assert not said.coefficient_BT[case.mask_BT].all(), "some tokens are dropped"


# ---------------------------------------------------------------- distributions

FORMS = {"forward": 0.0, "reverse": 1.0, "jsd": 0.3}
"""And the beta with which GKD's divergence is each."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tail", ["bucket", "renormalise", "raw"])
@pytest.mark.parametrize("form", FORMS)
def test_distillation_over_a_top_k_is_the_papers(form: str, tail: str, seed: int) -> None:
    case, beta = own(small(seed)), FORMS[form]
    assert separable(case, 3), "whose top-k it is matters"
    said = heard("on_policy_distillation", case, 3, form=form, beta=beta, top_k=3, tail=tail, scale=0.4, **TEACHER)
    options = {"beta": beta, "support": "teacher", "k": 3, "tail": tail}
    follows(said, lambda logits: 0.4 * paper.teacher.divergence(case, logits, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
def test_forward_distillation_over_a_top_k_is_trls(tail: str, seed: int) -> None:
    case = own(small(seed))
    want = trl.divergence(case, beta=0.0, top_k=3, tail=tail == "bucket")
    said = heard("on_policy_distillation", case, 3, form="forward", top_k=3, tail=tail, **TEACHER)
    agrees(said, want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_top_k_of_everything_is_trls_whole_vocabulary(form: str, seed: int) -> None:
    case = own(small(seed))
    want = trl.gkd(case, beta=FORMS[form])
    said = heard("on_policy_distillation", case, form=form, beta=FORMS[form], **TEACHER)
    agrees(said, want.loss, want.gradient_BTV, case)


# ---------------------------------------------------------------- GKD


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_gkds_two_kinds_of_step_are_trls(beta: float, seed: int) -> None:
    case = small(seed)
    recipe = recipes.load("gkd", **TEACHER)
    plans = [plan(recipe, step, seed=seed) for step in range(12)]
    by_kind = {next(iter(one.rest)): one for one in plans}
    assert by_kind.keys() == {"rollouts", "demonstrations"}, "both kinds of step are drawn"
    for resting, rows in (("demonstrations", on_rows(case)), ("rollouts", off_rows(case))):
        factors = by_kind[resting].coefficients
        said = apply("gkd", case, of(case), coefficients=factors, beta=beta, support="full", **part(WHOLE))
        want = trl.gkd(of_rows(case, rows), beta=beta)
        gradient_BTV = np.zeros_like(case.logits_BTV)
        gradient_BTV[rows] = want.gradient_BTV
        agrees(said, want.loss, gradient_BTV, case)


def part(k: int) -> dict[str, Any]:
    """A teacher, and columns of its k likeliest tokens."""
    return {"columns": {"k": k}, **TEACHER}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_gkd_by_default_compares_the_teachers_top_k_and_a_bucket(beta: float, seed: int) -> None:
    case = own(small(seed))
    said = apply("gkd", case, beta=beta, top_k=3, **part(3))
    options = {"beta": beta, "support": "teacher", "k": 3}
    follows(said, lambda logits: paper.teacher.divergence(case, logits, **options), case)


@pytest.mark.parametrize(("share", "drawn_first"), [(0.0, 0), (1.0, 40)])
def test_gkds_coin_is_lambda(share: float, drawn_first: int) -> None:
    certain, fair = recipes.load("gkd", on_policy=share, **TEACHER), recipes.load("gkd", **TEACHER)
    rests = [plan(certain, step).rest for step in range(40)]
    assert sum(rest == {"demonstrations"} for rest in rests) == drawn_first
    halves = [plan(fair, step).rest for step in range(400)]
    assert abs(sum(rest == {"demonstrations"} for rest in halves) - 200) < 40


# ---------------------------------------------------------------- oneself as the teacher


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", FORMS)
def test_opsd_is_trls(form: str, seed: int) -> None:
    case = own(small(seed))
    want = trl.gkd(case, beta=FORMS[form])
    agrees(heard("opsd", case, form=form, beta=FORMS[form]), want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("seed", SEEDS)
def test_opsds_defaults_and_its_top_k_are_the_papers(seed: int) -> None:
    case = own(small(seed))
    follows(heard("opsd", case), lambda logits: paper.teacher.opsd(case, logits), case)
    said = heard("opsd", case, 3, support="top_k", top_k=3)
    follows(said, lambda logits: paper.teacher.divergence(case, logits, support="teacher", k=3), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cap", [2.0, 1.05])
@pytest.mark.parametrize("form", FORMS)
def test_sdpo_is_trls(form: str, cap: float, seed: int) -> None:
    """TRL takes the mean over rows of means and the policy's own top-k: rows of one length, and everything."""
    case = level(seed)
    want = trl.sdpo(case, alpha=FORMS[form], top_k=WHOLE, clip=cap)
    agrees(heard("sdpo", case, form=form, beta=FORMS[form], cap=cap), want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["forward", "jsd", "reverse"])
def test_sdpo_over_a_top_k_is_the_papers(form: str, seed: int) -> None:
    case, alpha = own(small(seed)), {**FORMS, "jsd": 0.5}[form]
    said = heard("sdpo", case, 3, form=form, top_k=3)
    options = {"alpha": alpha, "k": 3, "support": "teacher", "clip": 2.0, "reduce": "token"}
    follows(said, lambda logits: paper.teacher.sdpo(case, logits, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [3, WHOLE])
def test_opcd_is_the_papers(k: int, seed: int) -> None:
    case = own(small(seed))
    said = heard("opcd", case, k, **({} if k == WHOLE else {"top_k": k}))
    follows(said, lambda logits: paper.teacher.opcd(case, logits, k=k, support="teacher"), case)


# ---------------------------------------------------------------- MiniLLM

MINILLM: dict[str, tuple[Parameters, Parameters, float]] = {
    "defaults": ({}, {}, 1.0),
    "narrow, halved": ({"clip": 0.05, "scale": 0.5}, {"low": 0.05, "high": 0.05}, 0.5),
    "more language": ({"language": 3.0}, {"language": 3.0}, 1.0),
}


def later_gaps(case: Case, scale: float) -> Floats:
    """Each token's mean gap from itself on, of what records hold."""
    teacher_BT = recorded(case.teacher_BT)
    return recorded(paper.teacher.minillm_advantages(case, scale=scale, whiten=False, teacher_BT=teacher_BT))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MINILLM)
def test_minillm_is_the_papers_three_parts(name: str, seed: int) -> None:
    parameters, options, scale = MINILLM[name]
    case = small(seed)
    a_BT = later_gaps(case, scale)
    said = heard("minillm", case, strand_B=of(case), **parameters, **TEACHER)
    follows(said, lambda logits: paper.teacher.minillm(case, logits, advantages=a_BT, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_minillms_long_part_has_the_papers_g(seed: int) -> None:
    case = drawn(seed)
    a_BT = later_gaps(case, 1.0)
    said = apply("minillm", case, single=0.0, language=0.0, **TEACHER)
    assert len(recipes.load("minillm", language=0.0, **TEACHER).strands) == 1
    holds(said, lambda c: paper.reward.ppo(case, c, a_BT), case)


# ---------------------------------------------------------------- GAD


def judged(case: Case, verdicts_B: Floats) -> list[Trajectory]:
    """The discriminator's scores are the rewards."""
    return [
        trajectory(case, i, scores=(ScoreEntry("reward", float(value), scorer="discriminator"),))
        for i, value in enumerate(verdicts_B)
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kl", [0.001, 0.2, 0.0])
def test_gad_is_grpo_on_the_discriminators_scores(kl: float, seed: int) -> None:
    case = mixed(seed)
    verdicts_B = recorded(np.random.default_rng(seed).normal(size=10))
    said = apply("gad", case, of(case), rows=judged(case, verdicts_B), kl=kl)
    mine = on_rows(case)
    a_B = recorded(centred(replace(case, rewards_B=verdicts_B), own_rows(case), 1e-4))

    def loss(c: Floats) -> float:
        gain = paper.reward.ppo(case, c, a_B, reduce="sequence", rows=mine)
        return gain + kl * paper.reduced(case, lambda i, t: k3(c[i, t], case.reference_BT[i, t]), "sequence", mine)

    holds(said, loss, case)
    assert not said.coefficient_BT[case.off_B].any(), "the teacher's responses do not train the policy"


@pytest.mark.parametrize("seed", SEEDS)
def test_gad_without_the_teachers_rows_is_the_papers(seed: int) -> None:
    case = drawn(seed)
    verdicts_B = recorded(np.random.default_rng(seed + 7).normal(size=10))
    said = apply("gad", case, rows=judged(case, verdicts_B), kl=0.0)
    holds(said, lambda c: paper.teacher.gad(case, c, list(verdicts_B)), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_gads_discriminator_is_the_papers(seed: int) -> None:
    """Each rollout against its group's teacher, by the head's output at a response's last token."""
    case = mixed(seed)
    recipe = recipes.load("gad")
    (learner,) = recipe.learners
    rows = [trajectory(case, i) for i in range(10)]
    examples = [
        Example(trajectory=one, strand=int(case.off_B[i]), advantages=np.zeros(len(one.tokens), np.float32))
        for i, one in enumerate(rows)
    ]
    seen = examples_for(learner, recipe.strands, examples)
    told = {one.trajectory.id: one for one in seen}
    sets = [told[one.id].trajectory.preference for one in rows]
    assert all(one is not None for one in sets)
    names = [one.set_id for one in sets if one]
    columns = {
        "set_B": np.array([sorted(set(names)).index(name) for name in names]),
        "label_B": np.array([one.label for one in sets if one]),
        "margin_B": np.full(10, np.nan),
    }
    strand_B = [told[one.id].strand for one in rows]
    batch = batch_of(case, strand_B, np.zeros(case.mask_BT.shape), **columns)
    values_BT = np.random.default_rng(seed).normal(size=case.mask_BT.shape)
    live = torch.from_numpy(values_BT.copy()).requires_grad_()
    found = evaluate_logps(learner.strands, batch, PolicyView(live, scalar=True))
    (gradient,) = torch.autograd.grad(found.loss, [live])

    def loss(values: Floats) -> float:
        last = [float(values[i, slots(case, i)[-1]]) for i in range(10)]
        pairs = [(last[4 + 5 * (i // 5)], last[i]) for i in on_rows(case)]
        return paper.teacher.gad_discriminator([real for real, _ in pairs], [mine for _, mine in pairs])

    assert float(found.loss.detach()) == pytest.approx(loss(values_BT), rel=1e-6)
    want_BT = paper.slope(loss, values_BT, case.mask_BT)
    np.testing.assert_allclose(gradient.numpy(), want_BT, rtol=1e-6, atol=1e-6 * np.abs(want_BT).max())


def test_a_views_gap_is_what_the_teacher_said_of_the_row() -> None:
    """The bridge gives each row its own views: exchanged rows would be another loss."""
    case = drawn(0)
    for i in (0, 3):
        size = int(case.mask_BT[i].sum())
        np.testing.assert_array_equal(views(case, i).teacher_logps, case.teacher_BT[i, :size].astype(np.float32))
