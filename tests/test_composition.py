"""Compositions in one line, as the papers' rows of the catalogue would be written; and the shelf that lists them."""

import io

import pytest
from rich.console import Console

from orchestrator import recipes, shelf
from orchestrator.composition import composition, with_defaults
from orchestrator.controls import Mixture
from orchestrator.recipes.schema import Refresh
from policies.bad_input import BadInput
from policies.config import Clip, Div, GroupCredit, Log, Only, Point, Reduce, Set, TeacherGap, TokenWeight
from tests.compositions import IMITATE, PLAIN, critic, idle, recipe, strand


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("sft", "S[demonstration x1] → C[1] → point(current, log) / token"),
        ("dft", "S[demonstration x1] → C[1] → point(current, log) · probability / token"),
        ("dpo", "S[preference 64/step] → set(logistic, beta 0.1) / sequence"),
        ("gspo", "S[rollout x8] → C[reward - mean, over std] → point(old, geometric, clip 0.0003/0.0004) / sequence"),
        (
            "luffy",
            "S[rollout x7] → C[reward - mean, scope all] → (point(old, identity) / length 8192 + div(entropy) / token "
            "×0.001) + S[demonstration x1] → C[reward - mean, scope all] → point(one, saturate 0.1) / length 8192",
        ),
    ],
)
def test_a_recipe_in_one_line(name, line):
    assert composition(with_defaults(recipes.file(name))) == line


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (recipe(strand(reduce=Reduce(kind="batch_length", length=9))), "/ batch_length 9"),
        (recipe(strand(only=Only(origins=("learner",), part=1))), " @ learner part 1 / "),
        (recipe(strand(coefficient=-0.5)), " ×-0.5"),
        (
            recipe(strand(kernel=Point(log_clip=0.4, shape=Clip(dual=3)))),
            "point(old, log_clip 0.4, clip 0.2/0.2, dual 3)",
        ),
        (recipe(strand(kernel=Point(advantage="one"))), "S[rollout x4] → point(old, clip 0.2/0.2, A one)"),
        (
            recipe(strand(kernel=PLAIN, weights=(TokenWeight(kind="entropy", power=-1),))),
            "point(current, log) · entropy power -1",
        ),
        (
            recipe(strand(kernel=Set(link="hinge", beta=2, margin=0.5, aggregate="mean"))),
            "set(hinge, beta 2, mean, margin 0.5)",
        ),
        (recipe(strand(kernel=Div(form="jsd", target="teacher", support="full"))), "div(jsd 0.5, teacher, full)"),
        (
            recipe(strand(kernel=Div(form="forward", temperature=2, tail="raw"))),
            "div(forward, reference, top 32 raw, temperature 2)",
        ),
        (recipe(strand(credit=GroupCredit(baseline="zero", batch="whiten", kl=0.1))), "C[reward, whitened, - 0.1 k1]"),
        (recipe(strand(credit=TeacherGap(extrapolation=1.25))), "C[base + 1.25 (teacher - base) - behavior]"),
        (recipe(strand(source={"select": {"kind": "best", "keep": 1}})), "S[rollout x4, best 1]"),
        (recipe(strand(), idle("g", 1, temperature=0)), " + S[rollout x1, greedy]"),
        (recipe(strand(), strand("c", source={"parent": "s", "turn": "Again."})), "S[rollout x4, after s]"),
        (recipe(strand(producer="replay", source={"refill": "best"})), "S[replay x4, best of 16]"),
        (
            recipe(strand(credit=IMITATE), learners=(critic(),)),
            " ; critic: set(value, beta 0.1, head, token) / token @ s",
        ),
        (
            recipe(strand(), teacher="self", refresh=Refresh(kind="every", every=5)),
            " ; teacher self again every 5 steps",
        ),
        (recipe(strand(), refresh=Refresh(kind="every", every=5)), " ; reference again every 5 steps"),
        (recipe(strand(), restart=True), " ; restart"),
        (
            recipe(strand("a"), strand("b"), controls=(Mixture(strand="a", against="b"),)),
            " ; mixture(strand a, against b, warmup 0, decay 200, peak 0.9, floor 0.05)",
        ),
    ],
)
def test_what_a_composition_says(made, said):
    assert said in composition(made)


def test_a_co_learner_that_reads_a_strand_without_a_term_of_it_names_it():
    reward = critic("a", role="reward", name="judge")
    beside = reward.strands[0].model_copy(update={"name": "b", "terms": ()})
    judged = recipe(
        strand("a"), idle("b"), learners=(reward.model_copy(update={"strands": (*reward.strands, beside)}),)
    )
    assert composition(judged).endswith(" ; judge (reward): set(value, beta 0.1, head, token) / token @ a, b")


def test_a_composition_tells_recipes_apart():
    lines = {
        composition(recipe(strand(kernel=Point(denominator=one, shape=Log())))) for one in ("old", "one", "current")
    }
    assert len(lines) == 3


def test_the_shelf_is_chosen_from_by_label():
    every = {file.name for file in shelf.chosen()}
    assert every == set(recipes.names())
    mixed = {file.name for file in shelf.chosen(provenance="mixed")}
    taught = {file.name for file in shelf.chosen(interface="teacher")}
    assert {"luffy", "chord"} <= mixed
    assert {"on_policy_distillation", "gkd"} <= taught
    assert {file.name for file in shelf.chosen(provenance="mixed", interface="teacher")} == mixed & taught
    by_role = [{file.name for file in shelf.chosen(role=one)} for one in ("expansion", "reshaping", "consolidation")]
    assert set().union(*by_role) == every
    assert "sft" not in by_role[2]


@pytest.mark.parametrize(
    ("label", "value", "nearest"),
    [("provenance", "mixd", "mixed"), ("interface", "teachers", "teacher"), ("role", "expand", "expansion")],
)
def test_an_unknown_label_is_told_with_those_there_are(label, value, nearest):
    with pytest.raises(BadInput, match=f"--{label}: no such label.*{nearest}"):
        shelf.chosen(**{label: value})


def test_the_list_fits_a_hundred_columns_and_leaves_nothing_out():
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(shelf.listing(shelf.chosen()))
    said = drawn.getvalue()
    assert max(len(line) for line in said.splitlines()) <= 100
    flat = "".join(said.split())
    for file in shelf.chosen():
        assert file.name in said
        assert file.citation.arxiv in said
    assert "…" not in flat


def test_the_document_has_all_of_a_recipe():
    found = shelf.document(recipes.file("luffy"))
    assert {"name", "labels", "citation", "parameters", "notes", "strands", "controls", "composition"} <= set(found)
    assert found["composition"] == composition(recipes.load("luffy"))
