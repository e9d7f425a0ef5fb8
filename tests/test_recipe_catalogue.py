"""The catalogue: every method of the issue's list is there, says what it is, and loads whatever it is asked for."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import recipes
from orchestrator.config import Stage
from orchestrator.legality import judge
from teachers.contexts import check_template

FAMILIES = {
    "imitation": [
        "sft", "dft", "asft", "psft", "beyond_log_likelihood", "sdft", "grape", "s3ft", "steerlm", "mind_the_gap",
    ],
    "preferences": [
        "dpo", "kto", "orpo", "cpo", "simpo", "gpo", "iterative_rpo", "online_dpo", "ipo_md", "xpo",
    ],
    "filtering": ["raft", "star", "rest", "rest_em", "superfiltering", "repo", "exgrpo", "topr", "opmd"],
    "given teachers": ["logit_distillation", "sequence_distillation", "context_distillation", "step_by_step"],
    "rewards": [
        "ppo", "reinforce_pp", "rloo", "remax", "grpo", "dr_grpo", "dapo", "gspo", "gmpo", "cispo", "sapo", "maxrl",
        "opo", "gpg",
    ],
    "process": ["prm_training", "orm_training", "reward_model_training", "math_shepherd", "pav", "step_credit"],
    "refinement": ["critique_grpo", "s2r", "score", "scop", "constitutional_ai"],
    "teachers on rollouts": [
        "on_policy_distillation", "opd", "gkd", "minillm", "gad", "opsd", "sdpo", "opcd", "exopd", "multi_teacher_opd",
    ],
    "interleaved": ["luffy", "hpt", "srft", "chord", "relift", "uft", "grao", "mifo"],
    "guided": ["sage", "scaf_grpo", "ruscarl", "template_rl", "expo", "hint_prefix"],
    "scheduled": ["mix", "alternate", "curriculum_grpo", "bottleneck"],
}  # fmt: skip
"""The catalogue of methods, and the schedules that are our own."""

LABELS = {
    (
        "off",
        "token_targets",
    ): "sft dft asft psft beyond_log_likelihood sdft grape s3ft steerlm mind_the_gap superfiltering",
    ("off", "preferences"): "dpo kto simpo gpo reward_model_training",
    ("off", "token_targets preferences"): "orpo cpo",
    ("on", "preferences"): "iterative_rpo online_dpo ipo_md",
    ("mixed", "preferences"): "xpo",
    ("off", "reward"): "raft star rest rest_em orm_training",
    ("mixed", "reward"): "repo exgrpo topr opmd luffy grao",
    ("off", "teacher token_targets"): "logit_distillation",
    ("off", "teacher"): "sequence_distillation context_distillation",
    ("off", "token_targets teacher"): "step_by_step",
    (
        "on",
        "reward",
    ): "ppo reinforce_pp rloo remax grpo dr_grpo dapo gspo gmpo cispo sapo maxrl opo gpg score sage scaf_grpo "
    "ruscarl template_rl hint_prefix curriculum_grpo",
    ("off", "process"): "prm_training",
    ("on", "process"): "math_shepherd step_credit s2r",
    ("on", "process reward"): "pav",
    ("mixed", "reward process"): "critique_grpo",
    ("mixed", "process token_targets"): "constitutional_ai",
    ("on", "reward process"): "scop",
    ("on", "teacher"): "on_policy_distillation opd opsd opcd exopd multi_teacher_opd",
    ("mixed", "teacher"): "gkd",
    ("mixed", "teacher token_targets"): "minillm",
    ("on", "teacher reward"): "gad sdpo",
    ("mixed", "reward token_targets"): "hpt chord relift uft mifo expo mix alternate bottleneck",
    ("mixed", "token_targets reward"): "srft",
}
"""(provenance, interfaces) -> recipes, from the survey's families (arXiv 2604.07941, tables 3, 4 and 6)."""

KEPT_BATCHES = {"raft"}
"""Own samples of this very step, which the survey counts as off-policy once they are kept and filtered."""
OWN_UNDER_HELP = {"constitutional_ai", "critique_grpo", "expo", "uft"}
"""The learner's tokens under another context, or after a hint that trains: from outside, for the plain prompt."""

ALL_VERIFIED = {"sft", "psft", "simpo", "sapo", "luffy", "on_policy_distillation"}
"""Recipes of which every detail and default was read; all others say in `notes` what was not, or what is ours."""

REQUIRED = {"teacher": "some/folder", "teachers": {"*": "some/folder"}}


def load(name: str, **chosen: Any) -> recipes.Recipe:
    """The recipe with its defaults, what it requires, and what is chosen."""
    required = {key: REQUIRED[key] for key, one in recipes.file(name).parameters.items() if one.required}
    return recipes.load(name, **{**required, **chosen})


def texts(node: Any) -> Iterator[str]:
    """Every text of a recipe file's composed part."""
    match node:
        case str():
            yield node
        case dict():
            for value in node.values():
                yield from texts(value)
        case list() | tuple():
            for value in node:
                yield from texts(value)


def named(text: str) -> set[str]:
    """Parameters that `$name` or `$(arithmetic)` reads."""
    if text.startswith("$("):
        return {node.id for node in ast.walk(ast.parse(text[2:-1].strip(), mode="eval")) if isinstance(node, ast.Name)}
    return {text[1:]} if text.startswith("$") else set()


def every_choice() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each parameter of each recipe at each value that it may choose from."""
    for name in recipes.names():
        for key, one in recipes.file(name).parameters.items():
            options: tuple[Any, ...] = one.choices or ((True, False) if one.type == "bool" else ())
            yield from ((name, {key: option}) for option in options)


# ---------------------------------------------------------------- the catalogue


def test_the_recipes_are_the_catalogues():
    listed = [name for family in FAMILIES.values() for name in family]
    assert sorted(listed) == list(recipes.names())
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is(name):
    file = recipes.file(name)
    assert file.name == name
    assert re.fullmatch(r"[A-Z][^.]*\.", file.summary), "one sentence"
    assert len(file.summary) <= 100
    assert re.fullmatch(r"\d{4}\.\d{5}", file.citation.arxiv.zfill(10))
    assert file.citation.paper
    assert file.labels.role
    assert all(parameter.doc for parameter in file.parameters.values())
    assert all(note.strip().endswith((".", ")")) for note in file.notes)


def test_what_is_not_verified_is_said():
    assert {name for name in recipes.names() if not recipes.file(name).notes} == ALL_VERIFIED


def test_the_labels_are_the_surveys():
    expected = {
        name: (provenance, interfaces.split())
        for (provenance, interfaces), members in LABELS.items()
        for name in members.split()
    }
    labels = {name: recipes.file(name).labels for name in recipes.names()}
    assert {name: (one.provenance, list(one.interface)) for name, one in labels.items()} == expected


@pytest.mark.parametrize("name", recipes.names())
def test_a_label_of_provenance_says_whose_tokens_train(name):
    recipe = load(name)
    joined = {strand.source.select.join for strand in recipe.strands}
    trained = [strand for strand in recipe.strands if strand.terms or strand.name in joined]
    fresh = {strand.source.producer == "rollout" for strand in trained}
    by_tokens = "mixed" if len(fresh) == 2 else "on" if fresh == {True} else "off"
    expected = "off" if name in KEPT_BATCHES else "mixed" if name in OWN_UNDER_HELP else by_tokens
    assert recipe.labels.provenance == expected


@pytest.mark.parametrize("name", recipes.names())
def test_every_parameter_is_used_and_every_name_is_a_parameter(name):
    file = recipes.file(name)
    read = {key for text in texts(file.model_dump(include=recipes.COMPOSED)) for key in named(text)}
    assert read == set(file.parameters)


@pytest.mark.parametrize(("name", "chosen"), [*every_choice()], ids=str)
def test_every_choice_loads(name, chosen):
    recipe = load(name, **chosen)
    assert recipe.parameters.items() >= chosen.items()
    assert recipes.load(name, **recipe.parameters) == recipe


@pytest.mark.parametrize("name", recipes.names())
def test_no_recipes_defaults_are_illegal(name):
    recipe = load(name)
    required = {key: value for key, value in recipe.parameters.items() if key in REQUIRED}
    stage = Stage.model_validate({"name": "stage", "recipe": {"kind": name, **required}, "steps": 10})
    assert [verdict for verdict in judge(stage, recipe) if verdict.level == "error"] == []


@pytest.mark.parametrize("name", recipes.names())
def test_templates_read_what_there_is(name):
    for strand in load(name).strands:
        source = strand.source
        attempts = source.prepare.attempts if source.prepare else ()
        for template in (source.behavior, source.train, source.teacher, source.turn, *attempts):
            assert check_template(template) == [], strand.name
