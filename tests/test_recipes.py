"""Recipes load by name; their strands are those of the papers, written out here by hand."""

import pytest
from pydantic import ValidationError

from orchestrator import recipes
from orchestrator.controls import Mixture, ZeroVariance
from policies.bad_input import BadInput
from policies.config import Clip, Div, GroupCredit, Identity, Log, Point, Reduce, Saturate, Source, TeacherGap

PARAMETERS = {"on_policy_distillation": {"teacher": "some/folder"}}


def terms(recipe, strand):
    (found,) = [one for one in recipe.strands if one.name == strand]
    return {term.name: term for term in found.terms}, found


def test_names_are_the_files():
    assert recipes.names() == ("chord", "grpo", "luffy", "on_policy_distillation", "sft")


@pytest.mark.parametrize("name", recipes.names())
def test_a_label_of_provenance_says_what_the_sources_are(name):
    recipe = recipes.load(name, **PARAMETERS.get(name, {}))
    producers = {strand.source.producer for strand in recipe.strands}
    expected = "on" if producers == {"rollout"} else "mixed" if "rollout" in producers else "off"
    assert recipe.labels.provenance == expected


@pytest.mark.parametrize("name", recipes.names())
def test_a_label_of_interface_says_what_the_credit_reads(name):
    recipe = recipes.load(name, **PARAMETERS.get(name, {}))
    read = {"constant": "token_targets", "group": "reward", "teacher_gap": "teacher"}
    assert set(recipe.labels.interface) == {read[strand.credit.kind] for strand in recipe.strands}


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_cites_a_paper_and_its_file_bears_its_name(name):
    file = recipes.file(name)
    assert file.name == name
    assert len(file.citation.arxiv) == 10
    assert all(parameter.doc for parameter in file.parameters.values())


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
    recipe = recipes.load("on_policy_distillation", teacher="some/folder")
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
