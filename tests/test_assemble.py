"""From scored groups to examples: who trains, under which views, as part of what, and who is left out and why."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator.assemble import Assembled, assemble
from orchestrator.marks import parts, targets
from orchestrator.records import Group, Member
from orchestrator.spans import in_tokens
from orchestrator.views import EVERYBODY, Models, top_k
from policies.config import ConstantCredit, Div, GroupCredit, Point, Set, Source, Strand, TeacherGap, Term, TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Origin, Preference, Sampling, ScoreEntry, Trajectory
from tests.fakes import FakeFrozen, trajectory

POINT = Term(name="t", kernel=Point())


def strand(name: str, *kernels: Any, credit: Any = None, **source: Any) -> Strand:
    terms = tuple(Term(name=f"t{at}", kernel=one) for at, one in enumerate(kernels))
    base = Source.model_validate({"producer": "rollout", "per_prompt": 2, **source})
    return Strand(name=name, source=base, credit=credit or GroupCredit(), terms=terms)


def made(
    strands: Sequence[Strand], members: Sequence[Member], models: Models | None = None, **families: str
) -> Assembled:
    groups = [Group("g", tuple(members))]
    return asyncio.run(assemble(strands, groups, models or Models(), families))


def rollout(name: str, value: float, **fields: Any) -> Trajectory:
    return trajectory(name, reward=value, group_id="g", **fields)


def test_who_only_serves_the_statistics_does_not_train() -> None:
    greedy = rollout("greedy", 1.0, sampling=Sampling(temperature=0.0))
    strands = (strand("own", Point(), credit=GroupCredit(baseline="greedy")), strand("greedy", temperature=0))
    done = made(strands, [Member(rollout("own", 0.0), 0), Member(greedy, 1)])
    assert [one.trajectory.id for one in done.examples] == ["own"]
    assert [one.trajectory.id for one in done.aside] == ["greedy"] and done.dropped == ()
    np.testing.assert_array_equal(done.examples[0].advantages, np.full(4, -1.0, np.float32))


def test_those_not_chosen_served_the_statistics_and_say_why_they_stay_behind() -> None:
    own = strand("own", Point(), select={"kind": "best", "keep": 1})
    done = made([own], [Member(rollout(f"t{at}", at / 4), 0) for at in range(5)])
    assert [one.trajectory.id for one in done.examples] == ["t4"]
    np.testing.assert_allclose(done.examples[0].advantages, 0.5)
    assert {one.reason for one in done.dropped} == {"beyond the 1 kept of a group"} and len(done.dropped) == 4


def test_pairs_of_two_strands_in_one_group_are_two_sets() -> None:
    pair = Set()
    strands = [strand(name, pair, credit=ConstantCredit(), select={"kind": "pair"}) for name in ("a", "b")]
    members = [Member(rollout(f"{index}-{at}", float(at)), index) for index in range(2) for at in range(2)]
    done = made(strands, members, Models(reference=FakeFrozen()))
    sets = {one.trajectory.preference.set_id for one in done.examples if one.trajectory.preference}
    assert len(done.examples) == 4 and sets == {"g/a", "g/b"} == {one.unit for one in done.examples}


def test_a_cut_response_serves_the_statistics_and_its_tokens_do_not_train() -> None:
    own = strand("own", Point(), credit=GroupCredit(truncated="mask"))
    cut = rollout("cut", 0.0, finish_reason=FinishReason.LENGTH)
    done = made([own], [Member(cut, 0), Member(rollout("whole", 1.0), 0)])
    masks = {one.trajectory.id: bool(one.trajectory.train_mask.any()) for one in done.examples}
    assert masks == {"cut": False, "whole": True}
    np.testing.assert_allclose(done.examples[1].advantages, 0.5)


def test_each_model_sees_its_own_context_and_families_have_their_teachers() -> None:
    seen = {name: np.array([9, number], np.int32) for number, name in enumerate(("train", "teacher"))}
    own = strand("own", Div(form="k3"), credit=TeacherGap())
    contexts = {"train_context": seen["train"], "teacher_context": seen["teacher"]}
    members = [Member(rollout(f"t{at}", 1.0, prompt_id=f"p{at}", **contexts), 0) for at in range(3)]
    reference, sums, rest = FakeFrozen(), FakeFrozen(), FakeFrozen()
    done = made([own], members, Models(reference, {"sums": sums, EVERYBODY: rest}), p1="sums", p2="words")
    assert set(reference.contexts) == {(9, 0)} and len(reference.contexts) == 3
    assert sums.contexts == [(9, 1)] and rest.contexts == [(9, 1)] * 2
    assert all(one.teacher_logps is not None and one.reference_logps is not None for one in done.examples)


def test_the_widest_divergence_sets_the_top_k_and_the_whole_vocabulary_asks_for_states() -> None:
    strands = [
        strand("a", Div(form="forward", target="teacher", top_k=5)),
        strand("b", Div(form="jsd", target="teacher", top_k=9)),
    ]
    assert (top_k(strands, "teacher"), top_k(strands, "reference")) == (9, 0)
    teacher = FakeFrozen()
    members = [Member(rollout(f"t{at}", float(at)), at) for at in range(2)]
    done = made(strands, members, Models(None, {EVERYBODY: teacher}))
    assert teacher.top_k == [9] and all(one.teacher_topk_ids.shape == (4, 9) for one in done.examples)  # type: ignore[union-attr]
    whole = strand("c", Div(form="forward", support="full"))
    (one,) = made([whole], [Member(rollout("t", 1.0), 0)], Models(FakeFrozen())).examples
    assert one.reference_hidden is not None and one.reference_hidden.shape == (4, 3)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ValueError, match="reads the reference"):
        made([strand("own", Div())], [Member(rollout("t", 1.0), 0)])


def test_an_empty_response_is_dropped_with_its_reason() -> None:
    empty = rollout("t", 1.0, length=0, finish_reason=FinishReason.ERROR)
    assert [(one.id, one.reason) for one in made([strand("own", Point())], [Member(empty, 0)]).dropped] == [
        ("t", "no tokens: error")
    ]


def test_mismatched_rows_take_the_next_rows_response_under_their_own_context() -> None:
    rows = strand("rows", Set(link="kto"), credit=ConstantCredit(), producer="labelled")
    given = [
        trajectory(
            f"t{at}",
            2 + at,
            train_context=np.array([at], np.int32),
            origin_of=Origin.DEMONSTRATION,
            preference=Preference("", float(at % 2)),
        )
        for at in range(3)
    ]
    done = made([rows], [Member(one, 0) for one in given], Models(FakeFrozen()))
    extra = done.examples[3:]
    assert [(one.trajectory.train_context[0], len(one.trajectory.tokens)) for one in extra] == [(0, 3), (1, 4), (2, 2)]
    for one in extra:
        assert one.trajectory.preference is not None and np.isnan(one.trajectory.preference.label)
        assert one.trajectory.preference.set_id == "" and one.reference_logps is not None
    alone = made([rows], [Member(given[0], 0)], Models(FakeFrozen()))
    assert len(alone.examples) == 1, "one row has nobody to be mismatched with"


def test_a_link_that_ranks_the_whole_step_is_one_unit() -> None:
    aot = strand("own", Set(link="aot"), credit=ConstantCredit(), producer="preference")
    given = [trajectory(f"t{at}", preference=Preference(f"s{at // 2}", float(at % 2))) for at in range(4)]
    done = made([aot], [Member(one, 0) for one in given], Models(FakeFrozen()))
    assert {one.unit for one in done.examples} == {"strand own"}


# ---------------------------------------------------------------- marks


def test_parts_follow_spans_or_the_environments_words() -> None:
    scores = (ScoreEntry("step", 1.0, start=3, end=5), ScoreEntry("step", 0.0, start=0, end=2))
    assert parts(trajectory("t", 6, scores=scores)).tolist() == [0, 0, -1, 1, 1, -1]  # type: ignore[union-attr]
    origin = np.array([0, 0, 4, 0, 4, 4, 0], np.int8)
    two = trajectory("t", 7)
    turned = replace(
        two,
        origin=origin,
        token_version=np.where(origin == 0, 0, -1).astype(np.int32),
        train_mask=origin == 0,
    )
    assert parts(turned).tolist() == [0, 0, -1, 1, -1, -1, 2]  # type: ignore[union-attr]
    assert parts(two) is None


def test_a_label_stands_on_the_last_token_of_what_it_judges() -> None:
    asked = strand("own", Set(link="bce", score="head", unit="token", reference=False), credit=ConstantCredit())
    scores = (ScoreEntry("step", 1.0, start=0, end=2), ScoreEntry("step", 0.0, start=2, end=5))
    np.testing.assert_array_equal(targets(asked, trajectory("t", 5, scores=scores)), [np.nan, 1, np.nan, np.nan, 0])
    whole = trajectory("t", 3, preference=Preference("", 1.0))
    np.testing.assert_array_equal(targets(asked, whole), [np.nan, np.nan, 1])
    assert targets(strand("own", Point()), whole) is None


def test_spans_of_characters_become_spans_of_tokens(tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = Tokenizer.load(materialise(TinyModel(preset="arithmetic-small"), tmp_path_factory.mktemp("model")))
    tokens = tokenizer.response("12;3#4")
    one = trajectory("t", len(tokens), tokens=tokens, text="12;3#4")
    said = [ScoreEntry("reward", 1.0), ScoreEntry("step", 1.0, start=0, end=3), ScoreEntry("step", 0.0, start=3, end=6)]
    moved = in_tokens(one, said, tokenizer)
    assert [(entry.start, entry.end) for entry in moved] == [(None, None), (0, 3), (3, 6)]
    before = np.array([5, 6, 7], np.int32)  # an earlier turn and what the environment said
    origin = np.concatenate([[0, 4, 4], one.origin]).astype(np.int8)
    later = trajectory("t", 3 + len(tokens), tokens=np.concatenate([before, tokens]), text="12;3#4")
    later = replace(
        later, origin=origin, train_mask=origin == 0, token_version=np.where(origin == 0, 0, -1).astype(np.int32)
    )
    assert [(entry.start, entry.end) for entry in in_tokens(later, said, tokenizer)[1:]] == [(3, 6), (6, 9)]
    with pytest.raises(ValueError, match="no tokenizer"):
        in_tokens(one, said, None)
