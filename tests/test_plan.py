"""The plan: who supplies what, and which rule says what of which composition."""

import pytest

from orchestrator.config import Pipeline, Stage
from orchestrator.legality import judge
from orchestrator.load import resolve
from orchestrator.plan import needs, plan
from orchestrator.recipes import Citation, Labels, Recipe
from policies.config import (
    Div,
    GroupCredit,
    Identity,
    Point,
    Reduce,
    Set,
    Source,
    Strand,
    TeacherGap,
    Term,
    TokenWeight,
)


def pipeline(tmp_path, **stage):
    stage = {"name": "only", "recipe": {"kind": "grpo"}, "steps": 3} | stage
    return resolve(Pipeline.model_validate({"name": "x", "stages": [stage]}), tmp_path)


def only(tmp_path, **stage):
    (found,) = plan(pipeline(tmp_path, **stage)).stages
    return found


def views(tmp_path, **stage):
    return {view.name: view for view in only(tmp_path, **stage).views}


def recipe(*strands, controls=()):
    return Recipe(
        name="made-up",
        summary="",
        citation=Citation(paper="", arxiv=""),
        labels=Labels(provenance="on", interface=(), role=()),
        parameters={},
        strands=strands,
        controls=controls,
    )


def strand(name="s", producer="rollout", count=4, credit=None, **term):
    term = {"name": "t", "kernel": Point()} | term
    source = Source(producer=producer, per_prompt=count)
    return Strand(name=name, source=source, credit=credit or GroupCredit(), terms=(Term(**term),))


def verdicts(*strands, **stage):
    config = Stage.model_validate({"name": "x", "recipe": {"kind": "grpo"}, "steps": 1} | stage)
    return {(found.level, found.rule, found.where) for found in judge(config, recipe(*strands))}


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


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (strand(kernel=Point(denominator="current")), {"rewards"}),
        (strand(kernel=Point(denominator="one")), {"rewards"}),
        (strand(weights=(TokenWeight(kind="masked_importance"),)), {"rewards", "old_logps", "behavior_logps"}),
        (strand(kernel=Set()), {"rewards", "reference_logps"}),
        (strand(kernel=Set(reference=False)), {"rewards"}),
        (strand(kernel=Div(form="reverse", target="teacher")), {"rewards", "teacher_topk"}),
        (strand(kernel=Div(form="k2", target="teacher")), {"rewards", "teacher_logps"}),
        (strand(kernel=Div(form="entropy", target="uniform")), {"rewards"}),
        (strand(credit=TeacherGap(), kernel=Point(denominator="one")), {"teacher_logps", "behavior_logps"}),
    ],
)
def test_needs_of_a_strand(made, expected):
    assert needs(made) == expected


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("strands", "stage", "expected"),
    [
        ([strand(producer="demonstration", kernel=Point(denominator="behavior"))], {}, ("error", "V1", "s.t")),
        (
            [strand(producer="demonstration", weights=(TokenWeight(kind="truncated_importance"),))],
            {},
            ("error", "V1", "s.t"),
        ),
        ([strand(producer="demonstration", kernel=Point(denominator="one"))], {}, ("declared", "V1", "s.t")),
        ([strand(producer="demonstration", kernel=Point(denominator="current"))], {}, ("declared", "V1", "s.t")),
        ([strand()], {"max_staleness": 2}, ("declared", "V1", "s.t")),
        ([strand(count=1)], {}, ("error", "V3", "s")),
        ([strand(count=1, credit=GroupCredit(lone="reward"))], {}, ("declared", "V3", "s")),
        ([strand(kernel=Div(form="k3"))], {}, ("warning", "V5", "s.t")),
        ([strand(kernel=Div(form="reverse", target="teacher"))], {"max_staleness": 1}, ("error", "V5", "s.t")),
        ([strand(kernel=Point(level="geometric"))], {}, ("error", "V6", "s.t")),
        ([strand(reduce=Reduce(kind="length", length=9))], {}, ("declared", "V6", "s.t")),
        ([strand("a"), strand("b", producer="demonstration")], {}, ("error", "V9", "b")),
        (
            [strand(kernel=Point(denominator="behavior"), weights=(TokenWeight(kind="masked_importance"),))],
            {},
            ("error", "V10", "s.t"),
        ),
        (
            [strand(producer="demonstration", kernel=Div(form="reverse", target="teacher"))],
            {},
            ("warning", "V11", "s.t"),
        ),
        (
            [strand(kernel=Point(denominator="one", shape=Identity()), weights=(TokenWeight(kind="probability"),))],
            {},
            ("error", "V14", "s.t"),
        ),
        ([strand()], {"sampling": {"temperature": 0.7}}, ("warning", "V1", "")),
        ([strand()], {"sampling": {"top_p": 0.9}}, ("warning", "V1", "")),
    ],
)
def test_a_rule_speaks_where_it_applies(strands, stage, expected):
    assert expected in verdicts(*strands, **stage)


def test_rules_are_silent_where_they_do_not_apply():
    assert verdicts(strand(reduce=Reduce(kind="sequence"))) == {("declared", "V3", "")}
    mixed = GroupCredit(scope="all")
    found = verdicts(
        strand("a", credit=mixed), strand("b", producer="demonstration", credit=mixed, kernel=Point(denominator="one"))
    )
    assert {level for level, _, _ in found} == {"declared"}
    assert ("declared", "V9", "") in found


@pytest.mark.parametrize("kind", ["sft", "grpo", "luffy", "chord", "on_policy_distillation"])
def test_our_own_recipes_are_legal(tmp_path, kind):
    teacher = {"teacher": "t"} if kind == "on_policy_distillation" else {}
    assert only(tmp_path, recipe={"kind": kind, **teacher}).legal
