"""Recipes load by name; their strands are those of the papers, written out here by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from orchestrator import recipes
from orchestrator.controls import Mixture, ZeroVariance
from policies.bad_input import BadInput
from policies.config import (
    Clip,
    ConstantCredit,
    Div,
    GroupCredit,
    Identity,
    Log,
    Point,
    Reduce,
    Saturate,
    Select,
    Set,
    Source,
    TeacherGap,
)
from policies.credit_group import group_advantages
from tests.test_recipe_catalogue import load


def terms(recipe, strand):
    (found,) = [one for one in recipe.strands if one.name == strand]
    return {term.name: term for term in found.terms}, found


def test_sft_is_likelihood_per_token():
    found, strand = terms(recipes.load("sft"), "demonstrations")
    assert strand.source == Source(producer="demonstration", per_prompt=1)
    assert found["imitation"].kernel == Point(denominator="current", shape=Log())
    assert found["imitation"].reduce == Reduce(kind="token")


def test_grpo_is_the_papers_equation():
    found, strand = terms(recipes.load("grpo"), "rollouts")
    assert strand.source == Source(producer="rollout", per_prompt=8)
    assert (strand.credit.baseline, strand.credit.scale) == ("mean", "std")
    assert found["surrogate"].kernel == Point(denominator="old", shape=Clip(low=0.2, high=0.2))
    assert found["surrogate"].reduce == Reduce(kind="sequence")


def test_grpo_asks_for_a_reference_only_when_it_pays_for_one():
    without, _ = terms(recipes.load("grpo"), "rollouts")
    with_penalty, _ = terms(recipes.load("grpo", kl=0.04), "rollouts")
    assert set(without) == {"surrogate"}
    assert with_penalty["kl"].kernel == Div(form="k3", target="reference")
    assert with_penalty["kl"].coefficient == 0.04


def test_luffy_puts_seven_rollouts_and_a_demonstration_into_one_group():
    recipe = recipes.load("luffy")
    on, on_strand = terms(recipe, "on")
    off, off_strand = terms(recipe, "off")
    assert (on_strand.source.per_prompt, off_strand.source.per_prompt) == (7, 1)
    for strand in (on_strand, off_strand):
        assert isinstance(strand.credit, GroupCredit)
        assert (strand.credit.baseline, strand.credit.scale, strand.credit.scope) == ("mean", "none", "all")
    assert on["surrogate"].kernel == Point(denominator="old", shape=Identity())
    assert off["shaped"].kernel == Point(denominator="one", shape=Saturate(gamma=0.1))
    assert on["surrogate"].reduce == off["shaped"].reduce == Reduce(kind="length", length=8192)
    assert (on["entropy"].kernel.form, on["entropy"].coefficient) == ("entropy", 0.001)


def test_chord_mixes_with_one_schedule_and_weighs_tokens_only_when_asked():
    recipe = recipes.load("chord")
    assert recipe.controls == (
        Mixture(strand="demonstrations", against="rollouts", warmup=0, decay=200, peak=0.9, floor=0.05),
    )
    plain, _ = terms(recipe, "demonstrations")
    weighed, _ = terms(recipes.load("chord", phi=True), "demonstrations")
    assert plain["imitation"].weights == ()
    assert [weight.kind for weight in weighed["imitation"].weights] == ["chord_phi"]


def test_on_policy_distillation_divides_by_the_sampler_and_names_its_teacher():
    recipe = load("on_policy_distillation")
    found, strand = terms(recipe, "rollouts")
    assert recipe.teacher == "some/folder"
    assert strand.credit == TeacherGap(scale=1.0)
    assert found["gap"].kernel == Point(denominator="behavior", shape=Identity())


def test_overrides_reach_the_strands_and_the_resolved_parameters():
    recipe = recipes.load("luffy", rollouts=3, gamma=0.5, entropy=0)
    on, on_strand = terms(recipe, "on")
    off, _ = terms(recipe, "off")
    assert on_strand.source.per_prompt == 3
    assert off["shaped"].kernel.shape.gamma == 0.5
    assert "entropy" not in on
    assert recipe.parameters == {"rollouts": 3, "demonstrations": 1, "gamma": 0.5, "length": 8192, "entropy": 0.0}
    assert recipes.load("luffy", **recipe.parameters) == recipe


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("grpo", {"rollouts": 1}),
        ("grpo", {"rollout": 4}),
        ("grpo", {"clip": 0}),
        ("grpo", {"zero_variance": "swap"}),
        ("chord", {"peak": 1.5}),
        ("on_policy_distillation", {}),
    ],
)
def test_illegal_parameters_are_refused(name, overrides):
    with pytest.raises(ValidationError):
        recipes.load(name, **overrides)


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'grpo'"):
        recipes.load("gropo")


def test_a_control_can_be_dropped_into_data():
    assert recipes.load("grpo", zero_variance="drop").controls == (ZeroVariance(action="drop"),)


# ---------------------------------------------------------------- families


def test_a_strand_named_twice_is_one_of_two_cases():
    sampled, _ = terms(load("on_policy_distillation"), "rollouts")
    whole, strand = terms(load("on_policy_distillation", form="reverse", top_k=7), "rollouts")
    assert set(sampled) == {"gap"}
    assert whole["divergence"].kernel == Div(form="reverse", target="teacher", top_k=7)
    assert strand.credit == ConstantCredit()


def test_dpos_losses_are_links():
    links = {
        loss: terms(recipes.load("dpo", loss=loss), "pairs")[0]["preference"].kernel
        for loss in recipes.file("dpo").parameters["loss"].choices
    }
    assert links.pop("sigmoid") == Set(link="logistic", beta=0.1)
    assert links.pop("ipo") == Set(link="square", beta=0.1, aggregate="mean")
    assert links == {loss: Set(link=loss, beta=0.1) for loss in links}


@pytest.mark.parametrize(("name", "key"), [("dpo", "nll"), ("cpo", "nll"), ("orpo", None), ("iterative_rpo", "nll")])
def test_a_likelihood_beside_a_preference_reads_chosen_tokens_alone(name, key):
    recipe = load(name, **({key: 0.5} if key else {}))
    (likelihood,) = [term for term in recipe.strands[0].terms if isinstance(term.kernel, Point)]
    assert likelihood.kernel == Point(denominator="current", shape=Log())
    assert likelihood.only.label == "chosen"


def test_simpos_margin_is_stated_as_a_share_of_beta():
    kernel = terms(recipes.load("simpo", beta=2.0, ratio=0.8), "pairs")[0]["preference"].kernel
    assert kernel == Set(link="logistic", beta=2.0, margin=1.6, aggregate="mean", reference=False)


@pytest.mark.parametrize(
    ("correction", "weights"),
    [
        ("none", []),
        ("truncated", [("truncated_importance", True)]),
        ("masked", [("masked_importance", False)]),
        ("icepop", [("masked_importance", True)]),
    ],
)
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo", "ppo", "cispo"])
def test_a_correction_is_one_weight(name, correction, weights):
    surrogate = load(name, correction=correction, correction_level="geometric", correction_cap=3.0).strands[0].terms[0]
    own = [one for one in surrogate.weights if one.kind.endswith("importance")]
    assert [(one.kind, one.keep_ratio) for one in own] == weights
    assert all((one.level, one.cap) == ("geometric", 3.0) for one in own)


def test_an_option_that_is_off_is_absent():
    shape = {dual: load("grpo", dual=dual).strands[0].terms[0].kernel.shape for dual in (0, 3)}
    assert shape == {0: Clip(), 3: Clip(dual=3.0)}
    credit = {rule: load("dapo", overlong=rule).strands[0].credit for rule in ("punish", "mask", "count")}
    assert {rule: (one.overlong is not None, one.truncated) for rule, one in credit.items()} == {
        "punish": (True, "count"),
        "mask": (False, "mask"),
        "count": (False, "count"),
    }


@pytest.mark.parametrize(
    ("name", "reduce"),
    [
        ("grpo", "sequence"), ("dapo", "token"), ("dr_grpo", "batch_length"), ("gspo", "sequence"),
        ("gmpo", "sequence"), ("sapo", "sequence"), ("luffy", "length"), ("critique_grpo", "length"),
        ("grao", "sequence"), ("remax", "sequence_sum"),
    ],
)  # fmt: skip
def test_the_normaliser_is_the_papers(name, reduce):
    assert load(name).strands[0].terms[0].reduce.kind == reduce


@pytest.mark.parametrize("name", ["repo", "exgrpo", "luffy", "grao", "srft", "critique_grpo", "topr", "opmd"])
def test_parts_of_different_provenance_never_share_a_normaliser(name):
    trained = [strand for strand in load(name).strands if strand.terms]
    assert len({(strand.source.producer, bool(strand.source.parent)) for strand in trained}) == len(trained) == 2


@pytest.mark.parametrize("seed", range(5))
def test_grao_is_the_papers_three_parts(seed):
    rng = np.random.default_rng(seed)
    size, beta, lam = 6, 0.3, 0.7
    rewards, likelihood = rng.normal(size=size + 1), rng.normal(size=size + 1)
    recipe = recipes.load("grao", rollouts=size, beta=beta, lam=lam)
    on, off = recipe.strands
    a = group_advantages(on.credit, rewards, np.ones(size + 1, bool))
    composed = on.terms[0].coefficient * np.mean(a[:size] * likelihood[:size]) + off.terms[0].coefficient * (
        a[size] * likelihood[size]
    )
    contrast = lam * np.mean(a[:size] * (likelihood[:size] - likelihood[size]))
    papers = np.mean(a[:size] * likelihood[:size]) + beta * a[size] * likelihood[size] + contrast
    assert on.credit == off.credit
    np.testing.assert_allclose(composed, papers, rtol=1e-9)


def test_scores_stages_differ_in_what_is_earned_and_held():
    one, first = terms(recipes.load("score", stage="one"), "second")
    two, second = terms(recipes.load("score", stage="two"), "second")
    assert (first.credit.bonus, first.credit.first) == (0.0, 0.0)
    assert (second.credit.bonus, second.credit.first) == (10.0, 1.0)
    assert set(one) == {"likelihood", "first_kl"}
    assert set(two) == {"likelihood", "kl"}
    assert (one["first_kl"].only.part, one["first_kl"].coefficient) == (0, 0.1)


def test_ufts_terms_read_their_own_tokens():
    found, strand = terms(recipes.load("uft"), "rollouts")
    assert {name: term.only.origins for name, term in found.items()} == {
        "surrogate": ("learner",),
        "kl": ("learner",),
        "hint": ("hint",),
    }
    assert strand.source.hint_trained
    assert (found["hint"].kernel.advantage, found["surrogate"].kernel.advantage) == ("one", "credit")


def test_a_critic_and_a_discriminator_learn_beside_the_policy():
    (critic,) = recipes.load("ppo").learners
    (discriminator,) = recipes.load("gad").learners
    assert (critic.role, critic.strands[0].terms[0].kernel.link) == ("critic", "value")
    assert critic.strands[0].credit == recipes.load("ppo").strands[0].credit
    assert (discriminator.role, [strand.name for strand in discriminator.strands]) == (
        "reward",
        ["rollouts", "teachers"],
    )


@pytest.mark.parametrize("name", ["prm_training", "orm_training", "reward_model_training"])
def test_a_reward_models_head_is_scalar_and_its_score_is_not_scaled(name):
    recipe = load(name)
    (term,) = recipe.strands[0].terms
    assert recipe.head == "scalar"
    assert (term.kernel.score, term.kernel.beta, term.kernel.reference) == ("head", 1.0, False)


def test_responses_are_selected_after_they_have_served():
    assert load("raft", keep=2).strands[0].source.select == Select(kind="best", keep=2)
    assert load("online_dpo").strands[0].source.select == Select(kind="pair")
    assert load("iterative_rpo").strands[0].source.select == Select(kind="pair", by="passed")
    rollouts, greedy = load("remax").strands
    assert (greedy.terms, greedy.source.temperature, rollouts.source.temperature) == ((), 0.0, None)


def test_star_and_rest_em_start_again_from_the_first_weights():
    assert load("star").restart
    assert load("rest_em").restart
    assert not load("rest").restart
    assert not load("star", restart=False).restart
