"""What a strand keeps of a group: by reward, by verdict, or as a pair; what is unknown never wins."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import select as select_module
from policies.config import Select
from policies.select import choose
from policies.trajectory import Preference, ScoreEntry, Trajectory
from tests.select_cases import CASES, agrees, judged
from tests.test_trajectory import trajectory


@pytest.mark.parametrize("name", CASES)
def test_the_choice_is_the_one_stated(name: str) -> None:
    agrees(select_module, CASES[name])


def test_best_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"select\.keep: best needs to know how many it keeps"):
        choose(Select(kind="best"), [judged(1.0, True)])


def test_each_that_stays_behind_has_its_reason() -> None:
    group = [judged(1.0, True), judged(math.nan, None), judged(0.5, False), judged(0.9, True), trajectory(2)]
    best = choose(Select(kind="best", keep=1), group).reasons
    assert best == {
        1: "no verdict: timeout",
        2: "beyond the 1 kept of a group",
        3: "beyond the 1 kept of a group",
        4: "no verdict: unscored",
    }
    assert choose(Select(kind="passed"), group).reasons == {
        1: "no verdict: timeout",
        2: "failed",
        4: "no verdict: unscored",
    }
    assert choose(Select(kind="above", threshold=0.5), group).reasons[2] == "reward 0.5 is not above 0.5"


def test_a_group_without_a_pair_says_why() -> None:
    even = choose(Select(kind="pair"), [judged(0.5, True), judged(0.5, False)])
    assert even.kept == ()
    assert even.preferences == {}
    assert set(even.reasons.values()) == {"no pair: the rewards differ by 0, not by more than 0"}
    lone = choose(Select(kind="pair"), [judged(1.0, True), judged(math.nan, None)])
    assert lone.reasons == dict.fromkeys((0, 1), "no pair: 1 of 2 responses have a known reward")
    passed = choose(Select(kind="pair", by="passed"), [judged(1.0, True), judged(math.nan, None)])
    assert passed.reasons == dict.fromkeys((0, 1), "no pair: 1 of 2 responses passed, 0 failed")


def test_a_pair_is_named_by_its_group_and_states_its_margin() -> None:
    group = [judged(0.25, False), judged(0.5, False), judged(1.0, True)]
    found = choose(Select(kind="pair"), group)
    assert found.preferences == {2: Preference("g1", 1.0, 0.75), 0: Preference("g1", 0.0, 0.75)}
    assert found.reasons == {1: "neither side of the group's pair"}
    loose = choose(
        Select(kind="pair"), [judged(1.0, True, group_id="", id="a"), judged(0.0, False, group_id="", id="b")]
    )
    assert {one.set_id for one in loose.preferences.values()} == {"a"}


def test_a_pair_by_verdict_does_not_ask_what_the_reward_is() -> None:
    """A longer answer that passed may have the lower reward."""
    group = [judged(0.9, False), judged(0.2, True)]
    found = choose(Select(kind="pair", by="passed"), group).preferences
    assert (found[1].label, found[0].label) == (1.0, 0.0)
    assert found[1].margin == pytest.approx(-0.7)


entries = st.lists(
    st.one_of(
        st.just(ScoreEntry("reward", math.nan, status="timeout")),
        st.builds(ScoreEntry, st.just("reward"), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()),
    ),
    max_size=6,
)
kinds = st.sampled_from(["all", "best", "passed", "above", "pair"])


@given(entries, kinds, st.integers(1, 3))
def test_everyone_is_kept_or_has_a_reason_and_the_unknown_are_not_chosen(
    scores: list[ScoreEntry], kind: str, keep: int
) -> None:
    group: list[Trajectory] = [trajectory(2, scores=(score,)) for score in scores]
    found = choose(Select(kind=kind, keep=keep), group)  # type: ignore[arg-type]
    assert sorted([*found.kept, *found.reasons]) == list(range(len(group)))
    assert list(found.kept) == sorted(found.kept)
    assert len(found.kept) <= (2 if kind == "pair" else keep)
    if kind != "all":
        assert all(scores[index].status == "ok" for index in found.kept)
    assert set(found.preferences) == (set(found.kept) if kind == "pair" else set())


@given(entries, st.integers(1, 3))
def test_nobody_left_behind_is_better_than_the_best(scores: list[ScoreEntry], keep: int) -> None:
    found = choose(Select(kind="best", keep=keep), [trajectory(2, scores=(score,)) for score in scores])
    left = [scores[i].value for i in found.reasons if scores[i].status == "ok"]
    assert not found.kept or max(left, default=-math.inf) <= min(scores[i].value for i in found.kept)
