"""Rules over contexts, lineage, labels, heads and controls: each refuses one composition, and leaves its neighbour."""

import pytest

from orchestrator.controls import ZeroVariance
from orchestrator.controls.config import (
    Bernoulli,
    Buffer,
    Constant,
    Freeze,
    Gate,
    Ladder,
    Mixture,
    Prefix,
    Scaffold,
    StartWhen,
)
from orchestrator.legality import Surroundings
from policies.config import Div, Gae, Only, PartCredit, Point, ProcessCredit, Set, TurnCredit
from tests.compositions import (
    BEHAVIOR,
    IMITATE,
    OLD,
    PLAIN,
    SCOPED,
    critic,
    findings,
    given,
    idle,
    keys,
    recipe,
    strand,
    told,
    weight,
)

HINTED = "{{ prompt }}\n{{ hint }}"
REVISED = "{{ prompt }}\n{{ parent }}"
NONE = Surroundings(demonstrations=False)


def hinted(shift=None, **term):
    return strand(source={"behavior": "Think. {{ prompt }}", "context_shift": shift}, **term)


def declared(made, rule, where, **stage):
    return [
        one.text for one in findings(made, **stage) if (one.level, one.rule, one.where) == ("declared", rule, where)
    ]


# ---------------------------------------------------------------- V4, V12


def test_a_shift_of_context_is_named():
    text, fix = told(recipe(hinted()), "V4", "s")
    assert "another context than the writer saw" in text
    assert "keep, recompute or importance" in fix
    for shift in ("keep", "recompute"):
        assert ("error", "V4", "s") not in keys(recipe(hinted(shift)))
    assert ("error", "V4", "s") not in keys(recipe(idle(behavior="Think. {{ prompt }}")))
    same = {"behavior": "Think. {{ prompt }}", "train": "Think. {{ prompt }}"}
    assert ("error", "V4", "s") not in keys(recipe(strand(source=same)))


def test_what_a_shift_means_is_declared():
    assert "hinted task" in declared(recipe(hinted("keep")), "V4", "s")[0]
    assert "ignored" in declared(recipe(hinted("recompute")), "V4", "s")[0]


def test_importance_divides_by_what_the_writer_gave():
    text, fix = told(recipe(hinted("importance", kernel=OLD)), "V4", "s.t")
    assert "leaves the shift out" in text
    assert "denominator: behavior" in fix
    for term in ({"kernel": BEHAVIOR}, {"kernel": OLD, "weights": weight("truncated_importance")}):
        assert ("error", "V4", "s.t") not in keys(recipe(hinted("importance", **term)))
        assert ("error", "V4", "s.t") in keys(recipe(hinted("recompute", **term)))


def test_a_shift_without_two_contexts_is_doubted():
    assert ("warning", "V4", "s") in keys(recipe(strand(source={"context_shift": "keep"})))
    assert ("warning", "V4", "s") not in keys(recipe(hinted("keep")))


def test_data_are_written_already():
    assert ("warning", "V4", "s") in keys(recipe(given(kernel=PLAIN, source={"behavior": "Think. {{ prompt }}"})))
    loss = recipe(given(kernel=PLAIN, source={"train": "Think. {{ prompt }}"}))
    assert ("warning", "V4", "s") not in keys(loss)
    assert declared(loss, "V4", "s")
    attempts = {"prepare": {"attempts": ("", HINTED)}}
    assert declared(recipe(given(kernel=PLAIN, source=attempts)), "V4", "s")


def test_probes_ask_the_plain_prompt():
    assert "plain prompt" in declared(recipe(hinted("keep")), "V12", "")[0]
    assert declared(recipe(strand(source={"prefix": True}), controls=(Prefix(strand="s"),)), "V12", "")
    assert not declared(recipe(strand()), "V12", "")


# ---------------------------------------------------------------- templates and lineage


@pytest.mark.parametrize(
    ("source", "around", "words"),
    [
        ({"behavior": "{{ promt }}", "context_shift": "keep"}, None, "no such variable"),
        ({"behavior": "{{ prompt", "context_shift": "keep"}, None, "not a jinja2 template"),
        ({"behavior": REVISED, "context_shift": "keep"}, None, "no parent"),
        ({"behavior": "{{ reason }}", "context_shift": "keep"}, None, "no parent"),
        ({"teacher": "{{ demonstration }}"}, NONE, "no demonstrations"),
        ({"prefix": True}, NONE, "the pipeline has none"),
        ({"turn": "Again."}, None, "has no parent"),
    ],
)
def test_a_template_reads_what_there_is(source, around, words):
    said = [one for one in findings(recipe(strand(source=source)), around) if one.rule == "lineage"]
    assert any(one.level == "error" and words in one.text and one.fix for one in said)


@pytest.mark.parametrize(
    "source",
    [
        {"behavior": "{{ prompt }}", "context_shift": "keep"},
        {"teacher": "{{ demonstration }}"},
        {"teacher": "{{ prompt }} {{ reason }}"},
        {"behavior": REVISED, "context_shift": "keep", "parent": "first"},
        {"turn": "Again.", "parent": "first"},
    ],
)
def test_what_is_there_may_be_read(source):
    assert not [one for one in findings(recipe(idle("first"), strand(source=source))) if one.rule == "lineage"]


def test_a_sibling_needs_a_group():
    shown = {"teacher": "{{ sibling }}"}
    assert ("error", "lineage", "s") in keys(recipe(strand(count=1, source=shown, credit=IMITATE)))
    assert ("error", "lineage", "s") not in keys(recipe(strand(count=2, source=shown, credit=IMITATE)))


def test_a_hint_that_no_control_sets_is_doubted():
    made = strand(source={"behavior": HINTED, "context_shift": "keep"})
    assert ("warning", "lineage", "s") in keys(recipe(made))
    assert ("warning", "lineage", "s") not in keys(recipe(made, controls=(Ladder(strand="s"),)))


def child(name, parent, **source):
    return strand(name, source={"parent": parent, "behavior": REVISED, "context_shift": "keep", **source})


def test_parents_exist_and_come_first():
    text, fix = told(recipe(strand("a"), child("s", "b")), "lineage", "s")
    assert "names no strand (got 'b')" in text
    assert "name one of a" in fix
    assert "its own ancestor" in told(recipe(child("a", "b"), child("b", "a")), "lineage", "a")[0]
    assert not [one for one in keys(recipe(strand("a"), child("s", "a"))) if one[1] == "lineage"]


def test_a_child_is_written_now_and_sees_its_parent():
    assert "writes nothing" in told(recipe(strand("a"), child("s", "a", producer="replay")), "lineage", "s")[0]
    blind = child("s", "a", behavior="Again: {{ prompt }}")
    assert "is not shown it" in told(recipe(strand("a"), blind), "lineage", "s")[0]


def test_parts_need_something_that_parts():
    turn = {"source": {"turn": "Again.", "parent": "a"}}
    for term in ({"only": Only(part=1)}, {"kernel": Point(level="part")}):
        assert "in parts" in told(recipe(strand("a"), strand(**term)), "lineage", "s.t")[0]
        assert ("error", "lineage", "s.t") not in keys(recipe(strand("a"), strand(**term, **turn)))
        for credit in (ProcessCredit(), PartCredit()):
            assert ("error", "lineage", "s.t") not in keys(recipe(strand(credit=credit, **term)))


def test_turns_are_credited_where_there_are_turns():
    assert ("error", "lineage", "s") in keys(recipe(strand(credit=TurnCredit())))
    turn = {"turn": "Again.", "parent": "a"}
    assert ("error", "lineage", "s") not in keys(recipe(strand("a"), strand(credit=TurnCredit(), source=turn)))


# ---------------------------------------------------------------- V13 and heads


def pairs(**kernel):
    return strand(producer="preference", count=0, source={"per_step": 8}, credit=IMITATE, kernel=Set(**kernel))


def rows(count=8, **kernel):
    return strand(producer="labelled", count=0, source={"per_step": count}, credit=IMITATE, kernel=Set(**kernel))


SELECTED = {"select": {"kind": "pair"}}


def test_pairs_come_from_preferences_or_a_selection():
    for made in (strand(kernel=Set()), given(kernel=Set()), rows(link="logistic")):
        text, fix = told(recipe(made), "V13", "s.t")
        assert "pairs" in text
        assert "producer preference" in fix
    for made in (pairs(), strand(kernel=Set(), source=SELECTED)):
        assert ("error", "V13", "s.t") not in keys(recipe(made))


def test_unary_links_need_labels():
    assert "reads a label" in told(recipe(strand(kernel=Set(link="kto"))), "V13", "s.t")[0]
    for made in (rows(link="kto"), pairs(link="kto"), strand(kernel=Set(link="kto"), source=SELECTED)):
        assert ("error", "V13", "s.t") not in keys(recipe(made))


def test_kto_needs_two_rows():
    assert "one row" in told(recipe(rows(1, link="kto")), "V13", "s.t")[0]
    assert ("error", "V13", "s.t") not in keys(recipe(rows(2, link="kto")))


def test_a_label_is_read_where_there_is_one():
    chosen = Only(label="chosen")
    assert ("error", "V13", "s.t") in keys(recipe(strand(kernel=PLAIN, only=chosen)))
    assert ("error", "V13", "s.t") not in keys(recipe(strand(kernel=PLAIN, only=chosen, source=SELECTED)))


def test_selected_pairs_are_told_apart():
    assert "train alike" in told(recipe(strand(kernel=PLAIN, source=SELECTED)), "V13", "s")[0]
    assert "set per_prompt" in told(recipe(strand(count=1, kernel=Set(), source=SELECTED)), "V13", "s")[1]
    assert ("error", "V13", "s") not in keys(recipe(strand(kernel=Set(), source=SELECTED)))
    only_judged = critic(role="reward", link="logistic", unit="sequence")
    kept_for_a_judge = strand(kernel=PLAIN, source=SELECTED)
    assert ("error", "V13", "s") not in keys(recipe(kept_for_a_judge, learners=(only_judged,)))


def test_a_pair_may_be_made_across_two_strands():
    joined = strand(count=1, kernel=Set(), source={"select": {"kind": "pair", "join": "other"}})
    assert not [one for one in findings(recipe(joined, idle("other", 1))) if one.level == "error"]
    assert "no such strand" in told(recipe(joined), "lineage", "s")[0]
    assert "has terms" in told(recipe(joined, strand("other")), "lineage", "s")[0]


def test_options_that_a_link_does_not_read_are_told():
    warned = ("warning", "V13", "s.t")
    for link, options in (
        ("hinge", {"smoothing": 0.1}),
        ("aot", {"divergence": "forward_kl"}),
        ("aot", {"weighted": True}),
        ("aot_unpaired", {"weighted": True}),
    ):
        assert warned in keys(recipe(pairs(link=link, **options)))
        assert warned not in keys(recipe(pairs(link="logistic", **options)))
        assert warned not in keys(recipe(pairs(link=link)))


def test_exo_needs_a_doubt():
    assert "smoothing" in told(recipe(pairs(link="exo")), "V13", "s.t")[1]
    assert ("error", "V13", "s.t") not in keys(recipe(pairs(link="exo", smoothing=0.1)))


def test_a_value_is_fitted_to_returns():
    value = critic()
    assert ("error", "V13", "critic/s.v") in keys(recipe(strand(), learners=(value,)))
    assert ("error", "V13", "critic/s.v") not in keys(recipe(strand(credit=Gae()), learners=(value,)))


def test_step_targets_come_from_labels_or_step_scores():
    step = {"link": "bce", "score": "head", "unit": "token", "reference": False}
    assert ("error", "V13", "s.t") in keys(recipe(strand(kernel=Set(**step)), head="scalar"))
    assert ("error", "V13", "s.t") not in keys(recipe(rows(**step), head="scalar"))
    scored = recipe(strand(credit=ProcessCredit(), kernel=Set(**step)), head="scalar")
    assert ("error", "V13", "s.t") not in keys(scored)


def test_heads_fit_kernels():
    reward = pairs(score="head", reference=False)
    assert "language head" in told(recipe(reward), "heads", "s.t")[0]
    assert ("error", "heads", "s.t") not in keys(recipe(reward, head="scalar"))
    for kernel in (PLAIN, Div(form="k2")):
        assert "one number" in told(recipe(strand(kernel=kernel), head="scalar"), "heads", "s.t")[0]
    assert ("error", "heads", "s.t") in keys(recipe(pairs(), head="scalar"))
    assert "score: head" in told(recipe(strand(kernel=Set(link="value", unit="token"))), "heads", "s.t")[1]
    assert ("error", "heads", "s.t") not in keys(recipe(rows(link="bce")))


# ---------------------------------------------------------------- controls


LOOK = {"behavior": HINTED, "context_shift": "keep"}
CRITERIA = {"behavior": "{{ prompt }} {{ criteria }}", "context_shift": "keep"}
ROLLOUTS, GIVEN = strand("r", credit=SCOPED), strand("d", "demonstration", credit=IMITATE, kernel=PLAIN)
PREFIXED = given(name="d", kernel=PLAIN, source={"prefix": True})
DRAWN = strand("d", "demonstration", 0, credit=IMITATE, kernel=PLAIN, source={"per_step": 8})


@pytest.mark.parametrize(
    ("control", "strands", "words"),
    [
        (Constant(strand="x"), (ROLLOUTS,), "names no strand (got 'x')"),
        (Gate(strand="r", otherwise="x"), (ROLLOUTS,), "names no strand (got 'x')"),
        (Mixture(strand="r", against="r"), (ROLLOUTS,), "names one twice"),
        (Bernoulli(strand="r", against="r"), (ROLLOUTS,), "names one twice"),
        (Gate(strand="r", otherwise="r"), (ROLLOUTS,), "names one twice"),
        (Gate(strand="d", otherwise="r"), (ROLLOUTS, GIVEN), "is no attempt"),
        (Gate(strand="r", otherwise="d"), (ROLLOUTS, DRAWN), "on prompts of its own"),
        (Buffer(watch="d", strand="r"), (ROLLOUTS, GIVEN), "is no attempt"),
        (Buffer(watch="r", strand="d"), (ROLLOUTS, DRAWN), "on prompts of its own"),
        (Gate(strand="p", otherwise="r"), (ROLLOUTS, strand("p", count=0, source={"per_step": 8})), "own"),
        (ZeroVariance(action="drop"), (GIVEN,), "no strand of a group has any"),
        (Ladder(strand="d"), (ROLLOUTS, GIVEN), "is no attempt"),
        (
            Prefix(strand="d", schedule="bisect"),
            (given(name="d", kernel=PLAIN, source={"prefix": True}),),
            "is no attempt",
        ),
        (Ladder(strand="r"), (ROLLOUTS,), "does not show it"),
        (Prefix(strand="r"), (ROLLOUTS,), "starts from nothing"),
        (Scaffold(strand="r"), (ROLLOUTS,), "does not read them"),
        (StartWhen(strand="r"), (ROLLOUTS,), "no other strand trains"),
        (Freeze(strand="r"), (ROLLOUTS, idle("i")), "no other strand trains"),
    ],
)
def test_a_control_has_what_it_decides_about(control, strands, words):
    said = [one for one in findings(recipe(*strands, controls=(control,))) if one.rule == "controls"]
    assert any(one.level == "error" and words in one.text and one.fix for one in said)


@pytest.mark.parametrize(
    ("control", "strands"),
    [
        (Constant(strand="r"), (ROLLOUTS,)),
        (Mixture(strand="d", against="r"), (ROLLOUTS, DRAWN)),
        (Bernoulli(strand="d", against="r"), (ROLLOUTS, GIVEN)),
        (Gate(strand="r", otherwise="d"), (ROLLOUTS, GIVEN)),
        (Buffer(watch="r", strand="d"), (ROLLOUTS, GIVEN)),
        (ZeroVariance(action="drop"), (ROLLOUTS,)),
        (ZeroVariance(action="keep"), (GIVEN,)),
        (Ladder(strand="r"), (strand("r", source=LOOK),)),
        (Prefix(strand="r", schedule="bisect"), (strand("r", source={"prefix": True}),)),
        (Scaffold(strand="r"), (strand("r", source=CRITERIA),)),
        (StartWhen(strand="d"), (ROLLOUTS, GIVEN)),
        (Freeze(strand="d"), (ROLLOUTS, GIVEN)),
    ],
)
def test_a_control_that_has_it_is_left_alone(control, strands):
    assert not [one for one in findings(recipe(*strands, controls=(control,))) if one.rule == "controls"]


@pytest.mark.parametrize(
    ("control", "source"),
    [(Ladder(strand="s"), LOOK), (Prefix(strand="s"), {"prefix": True})],
    ids=["ladder", "prefix"],
)
def test_hints_are_cut_from_demonstrations(control, source):
    made = recipe(strand(source=source), controls=(control,))
    assert "has none" in told(made, "controls", "s", NONE)[0]
    assert ("error", "controls", "s") not in keys(made)


def test_a_prefix_is_as_long_as_a_control_says():
    made = strand(source={"prefix": True})
    assert "{kind: prefix, strand: s}" in told(recipe(made), "controls", "s")[1]
    assert ("error", "controls", "s") not in keys(recipe(made, controls=(Prefix(strand="s"),)))


def test_aot_with_one_pair_is_doubted():
    one = strand(producer="preference", count=0, source={"per_step": 1}, credit=IMITATE, kernel=Set(link="aot"))
    assert ("warning", "V13", "s.t") in keys(recipe(one))
    assert ("warning", "V13", "s.t") not in keys(recipe(pairs(link="aot")))
