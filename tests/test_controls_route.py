"""Controls after a group is scored: gates, buffers, ladders, bisection, and groups without a difference."""

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.controls import (
    Bottleneck,
    Buffer,
    Curriculum,
    Gate,
    GroupStats,
    Ladder,
    MemberStats,
    Mixture,
    Prefix,
    ZeroVariance,
    initial,
    route_group,
    route_groups,
)
from orchestrator.controls.group import count

T, F, U = True, False, None
HPT = Gate(strand="rl", otherwise="sft")
DEMONSTRATION = MemberStats("sft", compared=False)


def rollouts(*verdicts):
    return tuple(MemberStats("rl", math.nan if verdict is None else float(verdict), verdict) for verdict in verdicts)


def group(*verdicts, others=(), prompt="p", **more):
    return GroupStats(f"g-{prompt}", prompt, (*rollouts(*verdicts), *others), **more)


def routed(control, stats, state=None):
    """(state, routing) of one control alone."""
    (after,), found = route_group([control], [initial(control) if state is None else state], stats)
    return after, found.each[0]


# ---------------------------------------------------------------- groups without a difference


@pytest.mark.parametrize(
    ("rewards", "dropped", "told"),
    [
        ((1.0, 1.0, 1.0), True, "all 3 rewards are 1"),
        ((0.0, 1.0), False, ""),
        ((0.3, 0.1 + 0.2), True, "all 2 rewards are 0.3"),
        ((1.0, math.nan, 1.0), True, "1 more are unknown"),
        ((0.0, math.nan, 1.0), False, ""),
        ((math.nan, math.nan), True, "none of 2 rewards is known"),
        ((1.0,), True, "nothing to compare"),
    ],
)
def test_a_group_without_a_difference_goes_where_the_action_says(rewards, dropped, told):
    stats = GroupStats("g", "p", tuple(MemberStats("rl", reward) for reward in rewards))
    state, found = routed(ZeroVariance(action="drop"), stats, {"kept": 2, "dropped": 5})
    assert (found.verdict == "drop") is dropped
    assert told in found.reason and not found.redraw
    assert state == ({"kept": 2, "dropped": 6} if dropped else {"kept": 3, "dropped": 5})
    _, kept = routed(ZeroVariance(action="keep"), stats, {})
    assert kept.verdict == "keep"
    assert told in kept.reason


@pytest.mark.parametrize(
    ("round", "redraw", "state"),
    [
        (0, True, {"kept": 0, "dropped": 0, "redrawn": 1}),
        (1, True, {"kept": 0, "dropped": 0, "redrawn": 1}),
        (2, False, {"kept": 0, "dropped": 1, "redrawn": 0}),
    ],
)
def test_a_prompt_is_drawn_again_until_the_rounds_are_over(round, redraw, state):
    after, found = routed(ZeroVariance(action="redraw", rounds=2), group(F, F, round=round))
    assert (found.verdict, found.redraw, after) == ("drop", redraw, state)
    assert ("2 other prompts were drawn before" in found.reason) is (not redraw)
    _, kept = routed(ZeroVariance(action="redraw", rounds=2), group(F, T, round=round))
    assert (kept.verdict, kept.redraw, kept.reason) == ("keep", False, "")


def test_imitation_is_not_judged_by_its_missing_rewards():
    state, found = routed(ZeroVariance(action="drop"), GroupStats("g", "p", (DEMONSTRATION,)))
    assert found.verdict == "keep" and state == initial(ZeroVariance())
    _, mixed = routed(ZeroVariance(action="drop"), group(F, F, others=(DEMONSTRATION,)))
    assert mixed.reason == "dropped: all 2 rewards are 0"


# ---------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("verdicts", "at_most", "leaves", "told"),
    [
        ((F, F, F), 0, "rl", "0 of 3 of rl's responses passed, the gate is at 0"),
        ((F, T, F), 0, "sft", "1 of 3 of rl's responses passed, the gate is at 0"),
        ((F, T, F), 1, "rl", "1 of 3 of rl's responses passed, the gate is at 1"),
        ((T, T, F), 1, "sft", "2 of 3 of rl's responses passed, the gate is at 1"),
        ((F, U, F), 0, "rl", "0 of 2 of rl's responses passed (1 more without a verdict)"),
        ((T, U), 1, "rl", "1 of 1 of rl's responses passed (1 more without a verdict)"),
        ((U, U), 0, "sft", "none of rl's 2 responses has a verdict"),
    ],
)
def test_the_gate_sends_one_of_two_strands_away(verdicts, at_most, leaves, told):
    control = Gate(strand="rl", otherwise="sft", at_most=at_most)
    _, found = routed(control, group(*verdicts, others=(DEMONSTRATION,)))
    assert found.without == {leaves} and found.verdict == "keep"
    assert told in found.reason and f"{leaves} leaves" in found.reason


def test_the_gate_never_empties_a_group():
    _, alone = routed(HPT, group(F, F))
    assert not alone.without and "nothing of sft's" in alone.reason
    _, passed = routed(HPT, group(T, F))
    assert not passed.without and passed.reason == ""
    _, given_alone = routed(HPT, GroupStats("g", "p", (DEMONSTRATION,)))
    assert not given_alone.without and given_alone.reason == ""


def test_a_gate_goes_before_the_judgement_of_what_is_left():
    stats = group(F, F, others=(DEMONSTRATION,))
    for controls in itertools.permutations((HPT, ZeroVariance(action="drop"))):
        _, found = route_group(controls, [initial(control) for control in controls], stats)
        assert (found.verdict, found.without) == ("keep", {"rl"}), "the demonstration trains"
        assert len(found.reasons) == 1


# ---------------------------------------------------------------- buffers


@pytest.mark.parametrize(
    ("verdicts", "at_most", "waits", "told"),
    [
        ((F, F), 0, True, "p waits, 2 of 128: 0 of 2 of rl's responses passed"),
        ((F, T), 0, False, ""),
        ((F, T), 1, True, "p waits, 2 of 128: 1 of 2 of rl's responses passed"),
        ((F, U), 0, True, "p waits, 2 of 128: 0 of 1 of rl's responses passed (1 more without a verdict)"),
        ((U, U), 0, False, "p does not wait: none of rl's 2 responses has a verdict"),
        ((), 0, False, ""),
    ],
)
def test_a_prompt_that_fails_waits(verdicts, at_most, waits, told):
    control = Buffer(watch="rl", strand="sft", at_most=at_most)
    state, found = routed(control, group(*verdicts, others=(DEMONSTRATION,)), {"waiting": ["q"]})
    assert state == {"waiting": ["q", "p"] if waits else ["q"]}
    assert found.reason == told
    assert (found.verdict, found.without) == ("keep", frozenset()), "nobody leaves the group"


def test_a_prompt_waits_once():
    state, found = routed(Buffer(watch="rl", strand="sft"), group(F), {"waiting": ["p", "q"]})
    assert state == {"waiting": ["p", "q"]} and "waits already" in found.reason


def test_a_redrawn_prompt_is_remembered_all_the_same():
    controls = (ZeroVariance(action="redraw"), Buffer(watch="rl", strand="sft"))
    states, found = route_group(controls, [initial(control) for control in controls], group(F, F))
    assert found.verdict == "drop" and found.redraw
    assert states[1] == {"waiting": ["p"]}


# ---------------------------------------------------------------- ladders


def climbed(control, draws, others=(), others_controls=()):
    """Call the ladder as a collector does, `draws[level]` being what the level gives; the last word and the calls."""
    controls = (control, *others_controls)
    states = [initial(one) for one in controls]
    first = (*rollouts(*draws[0]), *others)
    asked, level, words = [], 0, None
    while level < len(draws):
        members = (*rollouts(*draws[level]), *others)
        stats = GroupStats("g", "p", members, level=level, first=first if level else ())
        states, words = route_group(controls, states, stats)
        if not words.ladder.hint_level:
            break
        assert words.ladder.hint_strand == control.strand
        asked.append((words.ladder.hint_level, words.ladder.hint_share))
        level = words.ladder.hint_level
    return states, words, asked


@pytest.mark.parametrize(
    ("draws", "asked", "replace"),
    [
        ([(F, T)], [], ""),
        ([(F, F), (F, T)], [0.25], "all"),
        ([(F, F), (F, F), (T, T)], [0.25, 0.5], "all"),
        ([(F, F), (F, F), (F, F), (F, F)], [0.25, 0.5, 0.75], "none"),
        ([(U, U)], [], ""),
        ([(F, U), (U, U)], [0.25], "none"),
        ([(F, U), (U, T)], [0.25], "all"),
    ],
)
def test_a_failed_group_is_asked_again_until_one_passes(draws, asked, replace):
    _, found, calls = climbed(Ladder(strand="rl"), draws)
    assert calls == list(enumerate(asked, start=1))
    assert found.ladder.replace == replace
    assert bool(found.reasons) == (draws != [(F, T)])


def test_the_last_level_may_be_the_whole_demonstration():
    _, _, calls = climbed(Ladder(strand="rl", levels=2, full=True), [(F,), (F,), (F,)])
    assert calls == [(1, 0.5), (2, 1.0)]


def test_one_hinted_success_takes_one_failures_place():
    given = MemberStats("sft", 0.0, False)
    stats = GroupStats("g", "p", (given, *rollouts(F, T, T)), level=2, first=(given, *rollouts(U, F, F)))
    judge = ZeroVariance(action="drop")
    ladder = Ladder(strand="rl", replace="one")
    states, found = route_group((ladder, judge), (initial(ladder), initial(judge)), stats)
    assert found.ladder.replace == "one"
    assert found.ladder.swap == (2, 2), "the first failure of the first group, the first success of the hinted one"
    assert found.verdict == "keep" and states[1]["kept"] == 1


def test_a_ladder_climbed_in_vain_leaves_the_first_group_to_the_others():
    first = tuple(MemberStats("rl", reward, False) for reward in (0.0, 0.2))
    stats = GroupStats("g", "p", rollouts(F, F), level=3, first=first)
    controls = (Ladder(strand="rl"), ZeroVariance(action="drop"))
    _, found = route_group(controls, [initial(control) for control in controls], stats)
    assert found.ladder.replace == "none"
    assert found.verdict == "keep", "the rewards of the first group differ"


def test_while_a_ladder_asks_the_others_wait_and_then_see_what_came_of_it():
    others = (ZeroVariance(action="drop"), Buffer(watch="rl", strand="sft"), HPT)
    untouched = [initial(control) for control in others]
    states, found, _ = climbed(Ladder(strand="rl", levels=2), [(F, F), (F, T)], (DEMONSTRATION,), others)
    assert list(states[1:]) == [{"kept": 1, "dropped": 0, "redrawn": 0}, *untouched[1:]]
    assert found.without == {"sft"} and found.verdict == "keep"
    states, found, _ = climbed(Ladder(strand="rl", levels=2), [(F, F)] * 3, (), others[:2])
    assert list(states[1:]) == [{"kept": 0, "dropped": 1, "redrawn": 0}, {"waiting": ["p"]}], "once, not once a level"
    asking = route_group((*others, Ladder(strand="rl")), [*untouched, {}], group(F, F))
    assert list(asking[0]) == [*untouched, {}]
    assert len(asking[1].reasons) == 1 and asking[1].verdict == "keep" and not asking[1].without


def test_a_group_without_the_ladders_strand_is_none_of_its_business():
    _, found = routed(Ladder(strand="rl"), GroupStats("g", "p", (MemberStats("sft", 0.0, False),)))
    assert found.hint_level == 0 and found.reason == ""


def test_a_group_climbs_the_first_ladder_that_knows_its_strand():
    ladders = (Ladder(strand="other"), Ladder(strand="rl", levels=1), Ladder(strand="rl", levels=9))
    stats = GroupStats("g", "p", rollouts(F), level=1, first=rollouts(F))
    _, found = route_group(ladders, [{}, {}, {}], stats)
    assert [word.replace for word in found.each] == ["", "none", ""]
    assert [word.hint_level for word in found.each] == [0, 0, 0]


def test_a_hinted_group_without_its_first_drawing_is_refused():
    with pytest.raises(ValueError, match=r"group g-p: at hint level 1 `first` must hold"):
        group(F, level=1)


# ---------------------------------------------------------------- bisection


def bisected(needed, draws, segments=8, state=None):
    """Parts asked for at each draw of a prompt whose responses pass from `needed` parts on."""
    control = Prefix(strand="rl", schedule="bisect", segments=segments, low=0, high=1)
    state = initial(control) if state is None else state
    asked = []
    for _ in range(draws):
        at = state["prompts"].get("p", [0])[0]
        asked.append(at)
        state, _ = routed(control, group(*[at >= needed] * 3, segments=at), state)
        state = json.loads(json.dumps(state))
    return asked, state


@pytest.mark.parametrize("needed", range(1, 9))
def test_bisection_finds_the_shortest_prefix_that_passes_and_stays_beside_it(needed):
    asked, _ = bisected(needed, 12)
    assert asked[0] == 0
    assert set(asked[-4:]) == {needed - 1, needed}


def test_bisection_halves_the_way():
    assert bisected(7, 5)[0] == [0, 4, 6, 7, 6]
    assert bisected(1, 5)[0] == [0, 4, 2, 1, 0]


def test_a_prompt_that_passes_alone_is_forgotten():
    assert bisected(0, 3) == ([0, 0, 0], {"prompts": {}})
    assert bisected(0, 3, state={"prompts": {"p": [1, 1], "q": [2, 1]}}) == ([1, 0, 0], {"prompts": {"q": [2, 1]}})


@pytest.mark.parametrize(
    ("stats", "told"),
    [
        (group(T, F, segments=2), ""),
        (group(U, U, segments=2), "none of rl's 2 responses has a verdict"),
        (group(F, F, segments=1), "it had 1 parts then and has 2 since"),
        (GroupStats("g", "p", (DEMONSTRATION,)), ""),
    ],
)
def test_a_prefix_stays_where_nothing_says_that_it_should_move(stats, told):
    control, state = Prefix(strand="rl", schedule="bisect"), {"prompts": {"p": [2, 1]}}
    after, found = routed(control, stats, state)
    assert after == state and told in found.reason


def test_bisection_keeps_to_its_bounds():
    control = Prefix(strand="rl", schedule="bisect", segments=5, low=0.2, high=0.95)
    state = initial(control)
    for _ in range(9):
        state, _ = routed(control, group(F), state)
    assert state["prompts"]["p"][0] == 4, "never the whole demonstration"
    for _ in range(4):
        state, _ = routed(control, group(T), state)
    assert state["prompts"] == {}, "one part is the least: all pass from it"


def test_a_changed_group_is_counted_anew():
    stats = group(F, F, others=(DEMONSTRATION,))
    assert (count(stats, "rl").failed, count(stats, "rl").failed, count(stats, "sft").unknown) == (2, 2, 1)
    assert count(replace(stats, members=rollouts(T)), "rl").passed == 1
    assert stats == group(F, F, others=(DEMONSTRATION,)), "what was counted is no part of what a group is"


# ---------------------------------------------------------------- many groups

CONTROLS = (
    Mixture(strand="sft", against="rl"),
    Curriculum(watch="rl"),
    Buffer(watch="rl", strand="sft", size=4),
    Bottleneck(reinforce="rl", imports="sft"),
    Prefix(strand="rl", schedule="bisect"),
    ZeroVariance(action="drop"),
    HPT,
)
verdicts_st = st.lists(st.sampled_from([T, F, U]), min_size=1, max_size=4)
groups_st = st.lists(st.tuples(st.integers(0, 9), verdicts_st, st.booleans()), max_size=12)


@settings(deadline=None)
@given(groups_st, st.permutations(range(len(CONTROLS))))
def test_routing_is_pure_one_by_one_or_together_and_in_any_order_of_controls(drawn, order):
    groups = [group(*v, prompt=f"p{i}", others=(DEMONSTRATION,) if given else ()) for i, v, given in drawn]
    states = [initial(control) for control in CONTROLS]
    written = json.dumps(states)
    together, words = route_groups(CONTROLS, states, groups)
    assert json.dumps(states) == written, "states are not changed in place"
    one_by_one, singly = states, []
    for stats in groups:
        one_by_one, found = route_group(CONTROLS, json.loads(json.dumps(one_by_one)), stats)
        singly.append(found)
    assert list(one_by_one) == list(together) and tuple(singly) == words
    assert json.loads(json.dumps(together)) == list(together)
    shuffled, otherwise = route_groups([CONTROLS[i] for i in order], [states[i] for i in order], groups)
    assert list(shuffled) == [together[i] for i in order]
    assert [(one.verdict, one.without) for one in otherwise] == [(one.verdict, one.without) for one in words]


def test_four_thousand_groups_are_routed_in_order():
    groups = [group(*[F] * 8, prompt=f"p{index}") for index in range(4096)]
    states, words = route_groups(CONTROLS, [initial(control) for control in CONTROLS], groups)
    _, curriculum, buffer, bottleneck, prefix, judge, _ = states
    assert buffer["waiting"] == [f"p{index}" for index in range(4096)] and judge["dropped"] == 4096
    assert len(curriculum["prompts"]) == len(bottleneck["prompts"]) == len(prefix["prompts"]) == 4096
    assert [word.verdict for word in words] == ["drop"] * 4096
