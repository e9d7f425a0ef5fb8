"""Whom a step's prompts are for: shares by recount, whoever rests, and how choosers compose."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.controls import (
    Alternate,
    Anneal,
    Bernoulli,
    Bottleneck,
    Buffer,
    Curriculum,
    Gate,
    Mixture,
    Moment,
    Place,
    Scope,
    Shares,
    StartWhen,
    candidates,
    initial,
    plan_step,
)
from orchestrator.controls.chance import shuffled
from orchestrator.controls.shares import Around, allot

STRANDS = ("rl", "sft", "replay")
HALF = Shares(shares={"rl": 0.5, "sft": 0.5})
BROKEN = (20, 1, 3, 20, 5)
"""Weights for which the simple rule, to whom most is owed, errs by more than a prompt."""
THIRDS = Shares(shares={"rl": 0.5, "sft": 0.3, "replay": 0.2})


def plan(*controls, step=0, states=None, strands=STRANDS, count=8, pool=64, seed=0, facts=None):
    """Each step draws the next prompts of `pool`, around and around."""
    many = count * max(candidates(controls), 1)
    scope = Scope(100, strands, count, lambda at: [f"p{(at * many + number) % pool}" for number in range(many)])
    return plan_step(controls, states or [initial(one) for one in controls], step, facts or {}, seed, scope)


def names(places):
    """How many places each set of strands has."""
    return Counter("+".join(sorted(place.only)) for place in places)


def dealt(control, counts, rests=(), seed=0, strands=()):
    """The places of step after step, `counts` of them, the state going through JSON; `rests` go around."""
    state = initial(control)
    for step, count in enumerate(counts):
        away = rests[step % len(rests)] if rests else ()
        around = Around(strands or tuple(control.shares), away)
        open_ = [Place(f"p{number}") for number in range(count)]
        state, places, reason = allot(control, state, Moment(step, 100, {}, seed), open_, around)
        state = json.loads(json.dumps(state))
        assert [place.prompt for place in places] == [place.prompt for place in open_]
        yield places, reason


# ---------------------------------------------------------------- shares


def shares_of(weights):
    return Shares(shares={f"s{at}": weight / sum(weights) for at, weight in enumerate(weights)})


def worst_debt(control, order):
    """The farthest that a strand is from its share of all so far, after any of them."""
    had, worst = Counter(), 0.0
    for total, name in enumerate(order, 1):
        had[name] += 1
        worst = max(worst, *(abs(share * total - had[one]) for one, share in control.shares.items()))
    return worst


weights_st = st.lists(st.integers(1, 60), min_size=2, max_size=7)
counts_st = st.lists(st.integers(0, 9), max_size=40)


@settings(deadline=None)
@given(weights_st, counts_st, st.integers(0, 9))
def test_after_any_step_each_strand_has_its_share_of_all_prompts_to_within_one(weights, counts, seed):
    control, had, total = shares_of(weights), Counter(), 0
    bound = 1 - 1 / (2 * len(weights) - 2)
    for places, _ in dealt(control, counts, seed=seed):
        had.update(name for place in places for name in place.only)
        total += len(places)
        for name, share in control.shares.items():
            assert abs(share * total - had[name]) <= bound + 1e-9


@settings(deadline=None)
@given(weights_st)
def test_the_bound_holds_prompt_by_prompt(weights):
    control = shares_of(weights)
    order = [next(iter(places[0].only)) for places, _ in dealt(control, [1] * 120)]
    assert worst_debt(control, order) <= 1 - 1 / (2 * len(weights) - 2) + 1e-9


def test_giving_to_whom_most_is_owed_would_break_the_bound():
    control, had, order = shares_of(BROKEN), Counter(), []
    for total in range(1, sum(BROKEN) + 1):
        most = max(control.shares, key=lambda name: control.shares[name] * total - had[name])
        had[most] += 1
        order.append(most)
    assert worst_debt(control, order) > 1


@settings(deadline=None)
@given(weights_st, counts_st, st.lists(st.sets(st.integers(0, 6), max_size=4), min_size=1, max_size=3))
def test_a_resting_strands_part_is_the_others_in_proportion(weights, counts, resting):
    control = shares_of(weights)
    rests = [{f"s{at}" for at in away if at < len(weights)} for away in resting]
    had, totals = {}, Counter()
    for step, (places, reason) in enumerate(dealt(control, counts, rests)):
        awake = {name: share for name, share in control.shares.items() if name not in rests[step % len(rests)]}
        if not awake:
            assert all(not place.only for place in places)
            continue
        among = tuple(awake)
        given_ = had.setdefault(among, Counter())
        given_.update(name for place in places for name in place.only)
        totals[among] += len(places)
        assert set(given_) <= set(awake), "nothing goes to a strand that rests"
        assert given_.total() == totals[among], "no place is lost"
        for name, share in awake.items():
            assert abs(share / sum(awake.values()) * totals[among] - given_[name]) < 1
            assert (name in reason) is bool(places)


def test_a_strand_that_nobody_shares_out_is_asked_for_every_prompt():
    found = plan(HALF)
    assert names(found.places) == {"replay+rl": 4, "replay+sft": 4}
    assert found.reasons == ("of 8 prompts 4 to rl, 4 to sft",)
    assert names(plan(HALF, strands=("rl", "sft")).places) == {"rl": 4, "sft": 4}


def test_a_share_of_nothing_is_nobodys():
    found = plan(Shares(shares={"rl": 1.0, "sft": 0.0}), strands=("rl", "sft"))
    assert names(found.places) == {"rl": 8}
    assert "sft" not in found.reasons[0]


def test_places_that_have_their_strands_are_left_alone():
    places = [Place("a", frozenset({"x"})), Place("b"), Place("c", frozenset({"y"})), Place("d")]
    _, after, reason = allot(HALF, initial(HALF), Moment(0, 1, {}, 0), places, Around(("rl", "sft"), ()))
    assert after[0] == places[0] and after[2] == places[2]
    assert {after[1].only, after[3].only} == {frozenset({"rl"}), frozenset({"sft"})}
    assert reason == "of 2 prompts 1 to rl, 1 to sft"
    state, none, reason = allot(HALF, initial(HALF), Moment(0, 1, {}, 0), places[:1], Around(("rl",), ()))
    assert (state, none, reason) == (initial(HALF), tuple(places[:1]), "no prompt is left to share out")


@pytest.mark.parametrize(
    ("other", "state", "step", "given_", "told"),
    [
        (Alternate(strand="sft", against="rl"), {}, 1, {"rl": 6, "replay": 2}, "sft has none"),
        (Mixture(strand="sft", against="rl", warmup=9), {}, 0, {"rl": 6, "replay": 2}, "sft has none"),
        (Bernoulli(strand="sft", against="rl", probability=1.0), {}, 0, {"sft": 5, "replay": 3}, "rl has none"),
        (StartWhen(strand="replay"), {"since": None, "value": None}, 0, {"rl": 5, "sft": 3}, "replay has none"),
        (StartWhen(strand="replay"), {"since": 1, "value": 0.5}, 2, {"rl": 4, "sft": 2, "replay": 2}, ""),
        (Anneal(strand="rl", over=5), {}, 5, {"sft": 5, "replay": 3}, "rl has none: what it would have had is"),
        (Buffer(watch="rl", strand="sft", size=2), {"waiting": ["a"]}, 0, {"rl": 6, "replay": 2}, "sft has none"),
        (Buffer(watch="rl", strand="sft", size=2), {"waiting": ["a", "b"]}, 0, {"replay": 8}, "rl, sft have none"),
        (Gate(strand="rl", otherwise="sft"), {}, 0, {"rl": 4, "sft": 2, "replay": 2}, ""),
    ],
)
def test_no_place_goes_to_a_strand_that_rests_or_has_prompts_of_its_own(other, state, step, given_, told):
    for controls, states in (((other, THIRDS), (state, initial(THIRDS))), ((THIRDS, other), (initial(THIRDS), state))):
        found = plan(*controls, states=states, step=step)
        assert names(found.places) == given_
        reason = next(word for kind, word in found.words if kind == "shares")
        assert told in reason and bool(told) is ("none" in reason)


def test_where_all_of_them_rest_the_prompts_are_the_others():
    found = plan(HALF, Anneal(strand="rl", over=1), Anneal(strand="sft", over=1), step=1)
    assert names(found.places) == {"": 8}
    assert found.reasons[0] == "none of rl, sft is there for 8 prompts: they are the others'"
    assert found.states[0] == initial(HALF)


def test_which_of_a_steps_prompts_are_whose_is_the_seeds_and_follows_no_pattern():
    steps, count = 2000, 6
    control = Shares(shares={"rl": 0.5, "sft": 0.5})

    def drawn(seed):
        return np.array(
            [["rl" in place.only for place in places] for places, _ in dealt(control, [count] * steps, seed=seed)]
        )

    found = drawn(1)
    assert np.array_equal(found, drawn(1)) and not np.array_equal(found, drawn(2))
    assert (found.sum(axis=1) == count / 2).all()
    spread = 4 * 0.5 / math.sqrt(steps)
    np.testing.assert_allclose(found.mean(axis=0), 0.5, atol=spread)  # a place is anybody's
    agree = np.array(
        [[np.mean(found[:, a] == found[:, b]) for a in range(b)] + [0.4] * (count - b) for b in range(count)]
    )
    np.testing.assert_allclose(agree, 0.4, atol=spread)  # two places agree as two of 6 drawn without putting back
    np.testing.assert_allclose(np.mean(found[1:] == found[:-1]), 0.5, atol=spread)  # nor does a step tell the next


def test_a_shuffle_is_a_permutation_and_every_one_is_as_likely():
    assert shuffled(0, 1, "a") == [] and sorted(shuffled(1000, 1, "a")) == list(range(1000))
    assert shuffled(9, 1, "a", 2) == shuffled(9, 1, "a", 2) != shuffled(9, 1, "a", 3)
    met = Counter(tuple(shuffled(3, seed, "b")) for seed in range(6000))
    assert len(met) == 6 and max(abs(times - 1000) for times in met.values()) < 4 * math.sqrt(6000 * 5 / 36)


# ---------------------------------------------------------------- together


def test_a_curriculum_and_shares_compose_with_a_firing_buffer_and_with_each_other():
    controls = (THIRDS, Curriculum(watch="rl"), Buffer(watch="rl", strand="sft", size=1))
    known = {"prompts": {f"p{number}": [2.0, 4.0, 0] for number in range(0, 64, 2)}}
    states = [initial(THIRDS), known, {"waiting": ["p1", "p2"]}]
    found = plan(*controls, states=states, step=1)
    assert found.only_prompts == {"sft": ("p1",)} and found.rest == {"rl"}
    assert names(found.places) == {"replay": 8}
    assert sum(place.prompt in known["prompts"] for place in found.places) == 6, "two are looked at"
    later = plan(*controls, states=[initial(THIRDS), known, {"waiting": []}], step=2)
    assert names(later.places) == {"rl": 6, "replay": 2}
    assert [kind for kind, word in later.words if word] == ["shares", "curriculum", "buffer"]


@pytest.mark.parametrize(
    ("controls", "factor"),
    [
        ((), 0),
        ((HALF,), 1),
        ((Curriculum(watch="rl", candidates=3), HALF), 3),
        ((Bottleneck(reinforce="rl", imports="sft", candidates=2), Curriculum(watch="rl", candidates=5)), 5),
        ((Gate(strand="rl", otherwise="sft"),), 0),
    ],
)
def test_so_many_candidates_are_drawn_as_the_hungriest_control_asks_for(controls, factor):
    assert candidates(controls) == factor
    assert (plan(*controls).places is None) is (factor == 0)
