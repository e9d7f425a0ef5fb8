"""The plan: what each strand needs, who supplies it, and how it is told."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from orchestrator import recipes
from orchestrator.composition import with_defaults
from orchestrator.config import Pipeline
from orchestrator.legality import Verdict
from orchestrator.load import resolve
from orchestrator.plan import needs, plan
from orchestrator.plan_text import show
from policies.config import Gae, GroupCredit, PartCredit, Point, ProcessCredit, Set, TeacherGap, TurnCredit
from tests.compositions import IMITATE, PLAIN, div, given, strand, weight


def pipeline(tmp_path, **stage):
    stage = {"name": "only", "recipe": {"kind": "grpo"}, "steps": 3} | stage
    return resolve(Pipeline.model_validate({"name": "x", "stages": [stage]}), tmp_path)


def only(tmp_path, **stage):
    (found,) = plan(pipeline(tmp_path, **stage)).stages
    return found


def views(tmp_path, **stage):
    return {view.name: view for view in only(tmp_path, **stage).views}


# ---------------------------------------------------------------- views


def test_sft_needs_demonstrations_and_nothing_else(tmp_path):
    assert set(views(tmp_path, recipe={"kind": "sft"})) == {"demonstrations"}


def test_grpo_needs_rollouts_and_rewards_and_skips_the_old_policy_at_one_update(tmp_path):
    found = views(tmp_path)
    assert set(found) == {"rollouts", "rewards", "old_logps"}
    assert "skipped" in found["old_logps"].note
    assert "skipped" not in views(tmp_path, updates=2)["old_logps"].note


def test_a_kl_penalty_needs_the_frozen_reference(tmp_path):
    assert "frozen" in views(tmp_path, recipe={"kind": "grpo", "kl": 0.01})["reference_logps"].supplier


def test_luffy_needs_both_sources_and_scores_both(tmp_path):
    found = only(tmp_path, recipe={"kind": "luffy"}, prompts_per_step=10)
    assert {view.name for view in found.views} == {"rollouts", "demonstrations", "rewards", "old_logps"}
    assert found.trajectories == 80
    assert found.shares == pytest.approx({"rollout": 0.875, "demonstration": 0.125})


def test_distillation_needs_the_teacher_and_the_samplers_probabilities(tmp_path):
    found = views(tmp_path, recipe={"kind": "on_policy_distillation", "teacher": "t"})
    assert set(found) == {"rollouts", "behavior_logps", "teacher_logps"}
    assert found["teacher_logps"].note == str(tmp_path / "t")


REWARDS = {"rewards"}
SAMPLER = {"behavior_logps"}
STEP = {"step_scores", "rewards"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (strand(kernel=Point(denominator="current")), REWARDS),
        (strand(kernel=Point(denominator="one")), REWARDS),
        (strand(kernel=Point(denominator="old")), REWARDS | {"old_logps"}),
        (strand(kernel=Point(denominator="behavior")), REWARDS | SAMPLER),
        (strand(kernel=PLAIN, credit=IMITATE), set()),
        (strand(kernel=PLAIN, weights=weight("masked_importance")), REWARDS | SAMPLER | {"old_logps"}),
        (strand(kernel=PLAIN, weights=weight("truncated_importance")), REWARDS | SAMPLER | {"old_logps"}),
        (strand(kernel=PLAIN, weights=weight("tapered")), REWARDS | SAMPLER),
        (strand(kernel=PLAIN, weights=weight("clipped_ratio")), REWARDS | {"old_logps"}),
        (strand(kernel=PLAIN, weights=weight("top_entropy")), REWARDS | {"old_entropy", "statistics"}),
        (strand(kernel=PLAIN, weights=weight("chord_phi")), REWARDS),
        (given(kernel=Set()), {"reference_logps"}),
        (given(kernel=Set(reference=False)), set()),
        (given(kernel=Set(score="head")), set()),
        (given(kernel=Set(link="kto")), {"reference_logps", "old_logps", "statistics"}),
        (given(kernel=Set(link="value", score="head", clip=0.2)), {"targets", "old_values"}),
        (given(kernel=Set(link="value", score="head")), {"targets"}),
        (given(kernel=Set(link="bce", score="head", unit="token")), {"targets"}),
        (given(kernel=div("reverse", "teacher")), {"teacher_topk"}),
        (given(kernel=div("jsd", "teacher", support="full")), {"teacher_hidden"}),
        (given(kernel=div("forward", "reference")), {"reference_topk"}),
        (given(kernel=div("forward", "reference", support="full")), {"reference_hidden"}),
        (given(kernel=div("k2", "teacher")), {"teacher_logps"}),
        (given(kernel=div("k3", "reference")), {"reference_logps"}),
        (given(kernel=div("rk3", "reference")), SAMPLER | {"reference_logps"}),
        (given(kernel=div("entropy", "uniform")), set()),
        (strand(kernel=PLAIN, credit=TeacherGap()), SAMPLER | {"teacher_logps"}),
        (strand(kernel=PLAIN, credit=TeacherGap(extrapolation=1.25)), SAMPLER | {"teacher_logps", "reference_logps"}),
        (strand(kernel=PLAIN, credit=TeacherGap(outcome=1)), SAMPLER | {"teacher_logps", "rewards"}),
        (strand(kernel=PLAIN, credit=GroupCredit(kl=0.1)), REWARDS | SAMPLER | {"reference_logps"}),
        (strand(kernel=PLAIN, credit=Gae(kl=0)), REWARDS | {"values"}),
        (strand(kernel=PLAIN, credit=ProcessCredit()), STEP),
        (strand(kernel=PLAIN, credit=TurnCredit()), STEP),
        (strand(kernel=PLAIN, credit=PartCredit()), STEP | SAMPLER | {"reference_logps"}),
        (given(kernel=PLAIN, source={"select": {"kind": "passed"}}), REWARDS),
        (given(kernel=PLAIN, source={"prepare": {"keep": "passed"}}), REWARDS),
        (given(kernel=PLAIN, source={"prepare": {"keep": "all"}}), set()),
        (given(kernel=PLAIN, source={"teacher": "{{ sibling }}"}), REWARDS),
        (given(kernel=PLAIN, source={"behavior": "{{ demonstration }}"}), {"demonstration_text"}),
        (given(kernel=PLAIN, source={"behavior": "Reason with a sibling."}), set()),
        (given(kernel=PLAIN, source={"parent": "a"}), {"parent_text"}),
        (strand(producer="preference", credit=IMITATE, kernel=Set(reference=False)), {"preferences"}),
        (strand(producer="labelled", credit=IMITATE, kernel=Set(reference=False)), {"labels"}),
    ],
)
def test_needs_of_a_strand(made, expected):
    assert needs(made) == expected


# ---------------------------------------------------------------- who supplies what


def test_a_critic_gives_values_and_reads_its_own_old_ones(tmp_path):
    found = only(tmp_path, recipe={"kind": "ppo"}, updates=2)
    given_by = {view.name: view.supplier for view in found.views}
    assert given_by["values"] == "co-learner critic"
    assert {"old_values", "targets", "reference_logps", "behavior_logps"} <= set(given_by)
    assert [learner.name for learner in found.learners] == ["critic"]


def test_a_discriminator_gives_the_rewards_of_its_recipe(tmp_path):
    assert views(tmp_path, recipe={"kind": "gad"})["rewards"].supplier == "co-learner discriminator"


def test_a_teacher_that_is_oneself_says_whose_weights_it_has(tmp_path):
    averaged = views(tmp_path, recipe={"kind": "sdpo"})["teacher_topk"]
    assert averaged.note == "self, the stage's first weights, averaged with the policy at 0.05"
    assert "again" not in views(tmp_path, recipe={"kind": "opcd"})["teacher_topk"].note


def test_a_statistic_of_the_step_is_taken_before_its_one_update(tmp_path):
    found = views(tmp_path, recipe={"kind": "kto"})
    assert "skipped" not in found["old_logps"].note
    assert "every rank" in found["statistics"].note


def test_a_control_that_counts_passes_asks_for_verdicts(tmp_path):
    assert "rewards" in views(tmp_path, recipe={"kind": "sage"})
    assert "demonstrations" in views(tmp_path, recipe={"kind": "sage"})


def test_the_document_holds_all_of_the_plan(tmp_path):
    (stage,) = plan(pipeline(tmp_path, recipe={"kind": "ppo"})).document()["stages"]
    assert stage["strands"][0]["credit"]["kind"] == "gae"
    assert stage["learners"][0]["strands"][0]["terms"][0]["kernel"]["link"] == "value"
    assert stage["composition"].startswith("S[rollout")
    assert json.loads(json.dumps(stage)) == stage


def test_a_refused_stage_is_not_legal(tmp_path):
    found = only(tmp_path, recipe={"kind": "on_policy_distillation", "teacher": "t"})
    assert found.legal
    error = Verdict("error", "V1", "s", "text")
    assert not dataclasses.replace(found, verdicts=(*found.verdicts, error)).legal


# ---------------------------------------------------------------- in words


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_told(tmp_path, name):
    file = recipes.file(name)
    chosen = {"kind": name, **with_defaults(file).parameters}
    drawn = io.StringIO()
    show(plan(pipeline(tmp_path, recipe=chosen)), Console(file=drawn, width=1000))
    said = drawn.getvalue()
    for own in with_defaults(file).strands:
        assert f"strand {own.name}" in said
        assert all(f"{term.name}: " in said for term in own.terms)
    assert all(note in said for note in file.notes)


def test_the_plan_names_whoever_judges_and_answers(tmp_path):
    content = {
        "name": "x",
        "stages": [{"name": "only", "recipe": {"kind": "grpo"}, "steps": 3}],
        "verifier": {"kind": "rubric", "parts": [{"kind": "answer"}, {"kind": "reward_model", "path": "/models/rm"}]},
        "held_out_verifier": {"kind": "reward_model", "path": "/models/rm"},
        "environment": {"kind": "tools", "turns": 3},
        "resources": {"judge": {"replicas": 2}},
    }
    found = plan(resolve(Pipeline.model_validate(content), tmp_path)).actors
    assert found["scorer"] == "1 x rubric (answer, reward_model)"
    assert found["held-out"].startswith("1 x reward_model")
    assert found["judge"] == "2 x reward:/models/rm, CPU"
    assert found["environment"] == "1 x tools, at most 3 turns"
