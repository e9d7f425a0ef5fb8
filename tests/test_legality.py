"""Rules over ratios, weights, groups and credit: each refuses one composition, and leaves its neighbour alone."""

import pytest

from orchestrator import recipes
from orchestrator.composition import with_defaults
from orchestrator.controls import ZeroVariance
from policies.config import (
    BoxCox,
    Gae,
    GroupCredit,
    Identity,
    Log,
    Only,
    Parabola,
    PartCredit,
    Point,
    ProcessCredit,
    Reduce,
    Saturate,
    SoftGate,
    TeacherGap,
    TokenWeight,
    TurnCredit,
)
from tests.compositions import (
    BEHAVIOR,
    IMITATE,
    OLD,
    ONE,
    PLAIN,
    SCOPED,
    critic,
    div,
    findings,
    given,
    idle,
    keys,
    prepared,
    recipe,
    strand,
    told,
    weight,
)

MEAN = Reduce(kind="sequence")


def weights_of(*kinds):
    return tuple(TokenWeight(kind=kind) for kind in kinds)


# ---------------------------------------------------------------- V1

NEEDS = "needs the probability with which each token was sampled"


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (given(kernel=BEHAVIOR), given(kernel=OLD)),
        (given(kernel=OLD, weights=weight("truncated_importance")), given(kernel=OLD, weights=weight("probability"))),
        (given(kernel=PLAIN, weights=weight("masked_importance")), given(kernel=PLAIN)),
        (given(kernel=PLAIN, weights=weight("tapered")), given(kernel=PLAIN, weights=weight("positive"))),
        (given(kernel=div("rk3", "reference")), given(kernel=div("forward", "reference"))),
        (strand(producer="labelled", credit=IMITATE, kernel=BEHAVIOR), strand(producer="replay", kernel=BEHAVIOR)),
        (strand(producer="preference", credit=IMITATE, kernel=BEHAVIOR), strand(producer="teacher", kernel=BEHAVIOR)),
        (given(kernel=BEHAVIOR, source=prepared("nobody")), given(kernel=BEHAVIOR, source=prepared("learner"))),
        (
            given(kernel=BEHAVIOR, source=prepared("teacher", "demonstration")),
            given(kernel=BEHAVIOR, source=prepared("teacher")),
        ),
    ],
)
def test_a_ratio_against_the_sampler_needs_what_it_recorded(refused, left):
    text, fix = told(recipe(refused), "V1", "s.t")
    assert NEEDS in text
    assert "divide by" in fix
    assert ("error", "V1", "s.t") not in keys(recipe(left))


@pytest.mark.parametrize(
    "credit", [TeacherGap(), GroupCredit(kl=0.1), Gae(kl=0.1), PartCredit(kl=0.1)], ids=lambda credit: credit.kind
)
def test_a_credit_that_reads_the_sampler_needs_what_it_recorded(credit):
    text, fix = told(recipe(given().model_copy(update={"credit": credit})), "V1", "s")
    assert "sampler's" in text
    assert "rollout" in fix
    assert ("error", "V1", "s") not in keys(recipe(strand(credit=credit)))


def test_hint_tokens_were_not_sampled():
    hinted = {"prefix": True, "hint_trained": True}
    assert "hint's tokens" in told(recipe(strand(source=hinted, kernel=BEHAVIOR)), "V1", "s.t")[0]
    for left in (
        strand(source=hinted, kernel=BEHAVIOR, only=Only(origins=("learner",))),
        strand(source={"prefix": True}, kernel=BEHAVIOR),
        strand(source=hinted, kernel=OLD),
    ):
        assert ("error", "V1", "s.t") not in keys(recipe(left))


@pytest.mark.parametrize(
    ("made", "lag", "words"),
    [
        (given(kernel=PLAIN), 0, "plain likelihood"),
        (given(kernel=ONE), 0, "taken as 1"),
        (given(kernel=OLD), 0, "stands in"),
        (strand(producer="replay", kernel=OLD), 0, "stands in"),
        (strand(kernel=OLD), 2, "up to 2 versions old"),
        (strand(kernel=PLAIN), 2, "no ratio at all"),
    ],
)
def test_what_a_denominator_leaves_out_is_declared(made, lag, words):
    said = [
        one.text for one in findings(recipe(made), max_staleness=lag) if (one.level, one.rule) == ("declared", "V1")
    ]
    assert any(words in text for text in said)


def test_a_fresh_or_corrected_ratio_leaves_nothing_out():
    assert not [one for one in findings(recipe(strand())) if one.rule == "V1"]
    corrected = strand(weights=weight("truncated_importance"))
    assert not [one for one in findings(recipe(corrected), max_staleness=3) if one.rule == "V1"]


@pytest.mark.parametrize("sampling", [{"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}])
def test_what_is_sampled_is_what_is_trained(sampling):
    assert ("warning", "V1", "") in keys(recipe(strand()), sampling=sampling)
    assert ("warning", "V1", "") not in keys(recipe(strand()), sampling={"top_p": 1.0, "temperature": 1.0})
    assert ("warning", "V1", "") not in keys(recipe(given(kernel=PLAIN)), sampling=sampling)


def test_a_clip_that_never_acts_is_plain_likelihood():
    said = {one.fix for one in findings(recipe(given(kernel=OLD))) if one.where == "s.t"}
    assert "set updates to 2 or more" in said
    assert "set updates to 2 or more" not in {one.fix for one in findings(recipe(given(kernel=OLD)), updates=2)}


def test_a_trained_strand_is_drawn_as_it_is_trained():
    cold = {"temperature": 0.5}
    assert ("warning", "V1", "s") in keys(recipe(strand(source=cold)))
    assert ("warning", "V1", "s") not in keys(recipe(strand("a"), idle(temperature=0)))


# ---------------------------------------------------------------- V3, V9


@pytest.mark.parametrize(
    ("credit", "more"),
    [
        (GroupCredit(baseline="mean"), {}),
        (GroupCredit(baseline="leave_one_out"), {}),
        (GroupCredit(baseline="length_mean"), {}),
        (PartCredit(kl=0), {}),
        (TurnCredit(), {"source": {"turn": "again", "parent": "p"}}),
        (ProcessCredit(outcome=1.0), {}),
        (TeacherGap(outcome=1.0), {}),
    ],
    ids=lambda one: getattr(one, "kind", ""),
)
def test_a_group_of_one_has_nobody_to_be_compared_with(credit, more):
    text, fix = told(recipe(strand(count=1, credit=credit, **more)), "V3", "s")
    assert "nobody to compare it with" in text
    assert "2 or more" in fix
    assert ("error", "V3", "s") not in keys(recipe(strand(count=2, credit=credit, **more)))


def test_lone_rewards_and_absent_baselines_need_no_group():
    assert ("declared", "V3", "s") in keys(recipe(strand(count=1, credit=GroupCredit(lone="reward"))))
    for credit in (GroupCredit(baseline="zero"), ProcessCredit(), IMITATE):
        assert not {one for one in keys(recipe(strand(count=1, credit=credit))) if one[2] == "s"}


def test_per_step_draws_groups_of_one():
    alone = {"per_step": 8}
    assert "per_step" in told(recipe(strand(count=0, source=alone)), "V3", "s")[0]
    assert ("error", "V3", "s") not in keys(recipe(strand(count=0, source=alone, credit=IMITATE)))


def test_a_scope_of_own_rollouts_counts_these_alone():
    own = GroupCredit(scope="on_policy")
    taught = strand("d", "demonstration", credit=own, kernel=ONE)
    assert ("error", "V3", "s") in keys(recipe(strand(count=1, credit=own), taught))
    assert ("error", "V3", "s") not in keys(recipe(strand(count=2, credit=own), taught))


def test_what_becomes_of_equal_rewards_is_declared():
    (kept,) = [one.text for one in findings(recipe(strand())) if one.rule == "V3"]
    dropping = recipe(strand(), controls=(ZeroVariance(action="redraw"),))
    (dropped,) = [one.text for one in findings(dropping) if one.rule == "V3"]
    assert "are kept" in kept
    assert "never train" in dropped


def test_a_mixed_group_says_whose_rewards_count():
    taught = strand("d", "demonstration", credit=IMITATE, kernel=PLAIN, count=1)
    text, fix = told(recipe(strand(), taught), "V9", "s")
    assert "mixes who wrote it" in text
    assert "credit.scope" in fix
    assert ("error", "V9", "s") not in keys(recipe(strand(credit=SCOPED), taught))
    assert ("error", "V9", "s") not in keys(recipe(strand(), strand("t")))
    assert ("declared", "V9", "") in keys(recipe(strand(credit=SCOPED), taught))


def test_a_greedy_baseline_needs_a_greedy_response():
    greedy = GroupCredit(baseline="greedy")
    assert "greedy response" in told(recipe(strand(count=1, credit=greedy)), "V3", "s")[0]
    assert ("error", "V3", "s") not in keys(recipe(strand(count=1, credit=greedy), idle("g", 1, temperature=0)))


def test_children_that_nobody_bears_are_refused():
    worth = GroupCredit(value="children")
    assert "parent" in told(recipe(strand(credit=worth)), "lineage", "s")[1]
    child = idle("c", parent="s", behavior="{{ parent }}")
    assert ("error", "lineage", "s") not in keys(recipe(strand(credit=worth), child))


def test_gae_needs_a_critic_of_its_strand():
    text, fix = told(recipe(strand(credit=Gae())), "views", "s")
    assert "no critic" in text
    assert "critic" in fix
    assert ("error", "views", "s") in keys(recipe(strand(credit=Gae()), strand("b"), learners=(critic("b"),)))
    assert ("error", "views", "s") not in keys(recipe(strand(credit=Gae()), learners=(critic(),)))
    assert ("warning", "views", "critic") in keys(recipe(strand(), learners=(critic(),)))


# ---------------------------------------------------------------- V6, V10, V14


@pytest.mark.parametrize("level", ["geometric", "sequence"])
def test_a_responses_ratio_is_averaged_over_responses(level):
    text, fix = told(recipe(strand(kernel=Point(level=level))), "V6", "s.t")
    assert level in text
    assert fix == "reduce by sequence"
    assert ("error", "V6", "s.t") not in keys(recipe(strand(kernel=Point(level=level), reduce=MEAN)))


def test_a_parts_ratio_says_what_its_mean_is_over():
    parts = {"credit": PartCredit(kl=0), "kernel": Point(level="part")}
    assert ("declared", "V6", "s.t") in keys(recipe(strand(**parts)))
    assert ("declared", "V6", "s.t") not in keys(recipe(strand(**parts, reduce=MEAN)))


def test_a_soft_gate_is_averaged_over_responses():
    gated = Point(shape=SoftGate())
    assert ("error", "V6", "s.t") in keys(recipe(strand(kernel=gated)))
    assert ("error", "V6", "s.t") not in keys(recipe(strand(kernel=gated, reduce=MEAN)))


def test_constant_normalisers_say_whether_the_number_of_responses_is_included():
    def said(kind):
        made = recipe(strand(reduce=Reduce(kind=kind, length=9)))
        return [one.text for one in findings(made) if (one.level, one.rule) == ("declared", "V6")]

    assert "no 1/B" in said("length")[0]
    assert "1/B is included" in said("batch_length")[0]
    assert not [one for one in findings(recipe(strand(reduce=MEAN))) if one.rule == "V6"]


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ((BEHAVIOR, "truncated_importance"), (OLD, "truncated_importance")),
        ((BEHAVIOR, "masked_importance"), (OLD, "masked_importance")),
        ((BEHAVIOR, "tapered"), (PLAIN, "tapered")),
        ((OLD, "tapered"), (PLAIN, "tapered")),
        ((PLAIN, "tapered", "truncated_importance"), (PLAIN, "tapered", "probability")),
        ((OLD, "clipped_ratio"), (PLAIN, "clipped_ratio")),
        ((BEHAVIOR, "clipped_ratio"), (PLAIN, "clipped_ratio")),
        ((div("rk3", "reference"), "truncated_importance"), (div("k2", "reference"), "truncated_importance")),
    ],
)
def test_no_factor_counts_twice(refused, left):
    text, fix = told(recipe(strand(kernel=refused[0], weights=weights_of(*refused[1:]))), "V10", "s.t")
    assert refused[1] in text
    assert "drop the weight" in fix
    assert ("error", "V10", "s.t") not in keys(recipe(strand(kernel=left[0], weights=weights_of(*left[1:]))))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (Identity(), "probability"),
        (Identity(), "chord_phi"),
        (BoxCox(alpha=1), "probability"),
        (Parabola(), "chord_phi"),
        (Parabola(), "probability"),
    ],
)
def test_a_shape_over_one_is_not_weighed_by_its_own_coefficient(shape, kind):
    text, fix = told(recipe(strand(kernel=Point(denominator="one", shape=shape), weights=weight(kind))), "V14", "s.t")
    assert "squares" in text
    assert "shape log" in fix
    for kernel in (Point(denominator="one", shape=Saturate()), Point(denominator="one", shape=Log()), PLAIN):
        assert ("error", "V14", "s.t") not in keys(recipe(strand(kernel=kernel, weights=weight(kind))))


@pytest.mark.parametrize("name", recipes.names())
def test_our_own_recipes_are_legal_at_their_defaults(name):
    errors = [one for one in findings(with_defaults(recipes.file(name)), prompts_per_step=8) if one.level == "error"]
    assert errors == []
