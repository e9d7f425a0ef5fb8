"""Rules over teachers, references and moving rewards: each refuses one composition, and leaves its neighbour alone."""

from pathlib import Path

import pytest

from orchestrator.legality import Surroundings
from orchestrator.legality.divergences import fingerprint
from orchestrator.recipes.schema import Refresh
from policies.config import (
    GroupCredit,
    TeacherGap,
    TinyModel,
)
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from tests.compositions import (
    IMITATE,
    PLAIN,
    SCOPED,
    critic,
    div,
    findings,
    given,
    keys,
    prepared,
    recipe,
    strand,
    told,
    weight,
)

# ---------------------------------------------------------------- V2


SELF = {"teacher": "self"}
PRIVILEGED = {"teacher": "{{ prompt }} {{ demonstration }}"}
LIVE = Refresh(kind="every", every=1)
REWARDED = strand("r", credit=SCOPED)


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (
            recipe(strand(kernel=div()), refresh=LIVE, **SELF),
            recipe(strand(kernel=div(), source=PRIVILEGED), refresh=LIVE, **SELF),
        ),
        (recipe(strand(kernel=div()), **SELF), recipe(strand(kernel=div(), source=PRIVILEGED), **SELF)),
        (
            recipe(REWARDED, strand(kernel=div()), refresh=LIVE, **SELF),
            recipe(REWARDED, strand(kernel=div()), refresh=Refresh(kind="every", every=5), **SELF),
        ),
        (
            recipe(REWARDED, strand(kernel=div("k2", "reference")), refresh=LIVE),
            recipe(REWARDED, strand(kernel=div("k2", "reference"))),
        ),
        (recipe(strand(kernel=div("k2", "reference"))), recipe(REWARDED, strand(kernel=div("k2", "reference")))),
    ],
)
def test_a_target_that_is_the_policy_itself_is_refused(refused, left):
    text, fix = told(refused, "V2", "s.t")
    assert "the divergence" in text and "0" in text
    assert fix
    assert ("error", "V2", "s.t") not in keys(left)


def test_a_gap_to_oneself_is_refused_and_one_under_other_eyes_is_not():
    assert "stays 0" in told(recipe(strand(credit=TeacherGap()), **SELF), "V2", "s")[0]
    assert ("error", "V2", "s") not in keys(recipe(strand(credit=TeacherGap(), source=PRIVILEGED), **SELF))
    assert ("error", "V2", "s") not in keys(recipe(strand(credit=TeacherGap(outcome=1.0)), **SELF))


def test_a_penalty_against_oneself_is_refused():
    def penalised(refresh):
        return keys(recipe(strand(credit=GroupCredit(kl=0.1)), refresh=refresh))

    assert ("error", "V2", "s") in penalised(LIVE)
    assert ("error", "V2", "s") not in penalised(Refresh(kind="fixed"))
    assert ("error", "V2", "s") not in penalised(Refresh(kind="average"))


def test_a_teacher_that_began_as_the_policy_is_declared_an_anchor():
    assert ("declared", "V2", "s.t") in keys(recipe(REWARDED, strand(kernel=div()), **SELF))
    assert ("declared", "V2", "s.t") not in keys(recipe(REWARDED, strand(kernel=div()), teacher="t"))


def test_a_kept_context_is_the_one_that_the_loss_sees():
    shown = {"behavior": "{{ prompt }}!", "context_shift": "keep", "teacher": "{{ prompt }}!"}
    assert ("error", "V2", "s.t") in keys(recipe(strand(kernel=div(), source=shown), **SELF))
    assert ("error", "V2", "s.t") not in keys(recipe(strand(kernel=div(), source={**shown, "teacher": ""}), **SELF))


def test_the_models_own_folder_is_itself_in_the_first_stage_alone(tmp_path):
    made = recipe(strand(credit=TeacherGap()), teacher=str(tmp_path / "x" / ".." / "m"))
    first = Surroundings(first=True, model=str(tmp_path / "m"))
    assert ("error", "V2", "s") in keys(made, first)
    assert ("error", "V2", "s") not in keys(made, Surroundings(first=False, model=str(tmp_path / "m")))
    assert ("error", "V2", "s") not in keys(made, Surroundings(first=True, model=str(tmp_path / "other")))


# ---------------------------------------------------------------- V5, V8, V11


def test_k1_is_no_loss():
    text, fix = told(recipe(strand(kernel=div("k1", "reference"))), "V5", "s.t")
    assert "0 in expectation" in text
    assert "credit.kl" in fix
    assert ("error", "V5", "s.t") not in keys(recipe(strand(kernel=div("k2", "reference"))))


def test_k3_says_whose_gradient_it_has():
    said = [one.text for one in findings(recipe(strand(kernel=div("k3", "reference")))) if one.rule == "V5"]
    assert said == ["k3 as a loss: its gradient is that of the forward KL, KL(reference || policy)"]
    assert ("warning", "V5", "s.t") not in keys(recipe(strand(kernel=div("rk3", "reference"))))


@pytest.mark.parametrize("form", ["reverse", "k2"])
def test_a_reverse_divergence_on_stale_data_needs_a_ratio(form):
    stale = recipe(strand(kernel=div(form)), teacher="t")
    assert "importance weight" in told(stale, "V5", "s.t", max_staleness=1)[0]
    assert ("error", "V5", "s.t") in keys(recipe(strand(producer="replay", kernel=div(form)), teacher="t"))
    weighed = recipe(strand(kernel=div(form), weights=weight("truncated_importance")), teacher="t")
    assert ("error", "V5", "s.t") not in keys(weighed, max_staleness=1)
    assert ("error", "V5", "s.t") not in keys(stale)
    assert ("error", "V5", "s.t") not in keys(recipe(strand(kernel=div("forward")), teacher="t"), max_staleness=1)


@pytest.mark.parametrize("form", ["reverse", "k2", "k3"])
@pytest.mark.parametrize("producer", ["demonstration", "teacher"])
def test_a_reverse_divergence_on_what_another_wrote_is_doubted(form, producer):
    made = recipe(strand(producer=producer, credit=IMITATE, kernel=div(form)), teacher="t")
    assert ("warning", "V11", "s.t") in keys(made)
    forward = recipe(strand(producer=producer, credit=IMITATE, kernel=div("forward")), teacher="t")
    assert ("warning", "V11", "s.t") not in keys(forward)
    assert ("warning", "V11", "s.t") not in keys(recipe(strand(kernel=div(form)), teacher="t"))


def test_a_tail_that_biases_says_so():
    def said(tail):
        return keys(recipe(strand(kernel=div("forward", tail=tail)), teacher="t"))

    assert ("warning", "V8", "s.t") in said("raw")
    assert ("declared", "V8", "s.t") in said("renormalise")
    assert not {one for one in said("bucket") if one[1] == "V8"}


def test_the_whole_vocabulary_needs_hidden_states():
    made = recipe(strand(kernel=div("forward", support="full")), teacher="t")
    text, fix = told(made, "V8", "s.t", Surroundings(frozen_engine="vllm"))
    assert "hidden states" in text
    assert "resources.frozen.engine: torch" in fix
    assert ("error", "V8", "s.t") not in keys(made, Surroundings(frozen_engine="torch"))


def folder(at: Path, text: str) -> str:
    at.mkdir()
    (at / "tokenizer.json").write_text(text)
    return str(at)


def test_a_teacher_shares_the_tokenizer(tmp_path):
    model, same, other = (folder(tmp_path / name, text) for name, text in [("m", "{}"), ("s", "{}"), ("o", "{ }")])
    around = Surroundings(model=model, files=True)
    text, fix = told(recipe(strand(credit=TeacherGap()), teacher=other), "V8", "", around)
    assert "other texts" in text
    assert "kind: model" in fix
    assert ("error", "V8", "") not in keys(recipe(strand(credit=TeacherGap()), teacher=same), around)
    assert ("error", "V8", "") in keys(recipe(strand(credit=TeacherGap()), teachers={"*": same, "a": other}), around)
    elsewhere = Surroundings(model=model, files=False)
    assert ("error", "V8", "") not in keys(recipe(strand(credit=TeacherGap()), teacher=other), elsewhere)


def test_the_fingerprint_is_the_tokenizers_own(tmp_path):
    made = materialise(TinyModel(), tmp_path / "tiny")
    assert fingerprint(str(made)) == Tokenizer.load(made).fingerprint


@pytest.mark.parametrize(
    "made",
    [
        strand(credit=TeacherGap()),
        strand(kernel=div("forward")),
        strand(producer="teacher", credit=IMITATE),
        given(kernel=PLAIN, source=prepared("teacher")),
    ],
)
def test_a_teacher_that_is_read_is_named(made):
    text, fix = told(recipe(made), "views", "s")
    assert "names no teacher" in text
    assert "folder" in fix
    assert ("error", "views", "s") not in keys(recipe(made, teacher="t"))


def test_uniform_is_the_target_of_the_entropy_alone():
    assert ("error", "views", "s.t") in keys(recipe(strand(kernel=div("k2", "uniform"))))
    assert ("error", "views", "s.t") not in keys(recipe(strand(kernel=div("entropy", "uniform"))))


# ---------------------------------------------------------------- V15 and the stage


def test_a_moving_reward_is_not_replayed():
    judge_of_rollouts = critic("a", role="reward", name="judge", link="logistic", unit="sequence")
    replayed = strand("b", "replay", credit=SCOPED)
    text, fix = told(recipe(strand("a", credit=SCOPED), replayed, learners=(judge_of_rollouts,)), "V15", "b")
    assert "cannot be replayed" in text
    assert "verifier" in fix
    imitated = strand("b", "replay", credit=IMITATE)
    assert ("error", "V15", "b") not in keys(recipe(strand("a"), imitated, learners=(judge_of_rollouts,)))
    assert ("error", "V15", "b") not in keys(recipe(strand("a", credit=SCOPED), replayed))
    assert ("declared", "V15", "") in keys(recipe(strand("a"), learners=(judge_of_rollouts,)), max_staleness=1)


def test_an_averaged_teacher_is_not_replayed():
    replayed = strand("b", "replay", credit=TeacherGap(), source=PRIVILEGED)
    assert ("error", "V15", "b") in keys(recipe(replayed, refresh=Refresh(kind="average"), **SELF))
    assert ("error", "V15", "b") not in keys(recipe(replayed, **SELF))


def test_a_restart_of_the_first_stage_is_said_to_do_nothing():
    assert ("declared", "views", "") in keys(recipe(strand(), restart=True), Surroundings(first=True))
    assert ("declared", "views", "") not in keys(recipe(strand(), restart=True))


def test_a_co_learner_reads_strands_that_are_there():
    assert ("error", "views", "critic") in keys(recipe(strand(), learners=(critic("z"),)))
    assert ("error", "views", "critic") not in keys(recipe(strand(), learners=(critic("s"),)))


def test_the_best_of_none_is_refused():
    assert ("error", "views", "s") in keys(recipe(strand(source={"select": {"kind": "best"}})))
    assert ("warning", "views", "s") in keys(recipe(strand(source={"select": {"kind": "best", "keep": 4}})))
    assert not {one for one in keys(recipe(strand(source={"select": {"kind": "best", "keep": 1}}))) if one[2] == "s"}
