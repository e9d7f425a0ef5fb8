"""Controls before a step against closed forms: coins, buffers, hints, and how they compose."""

import json
import math
from typing import get_args

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
    Constant,
    Control,
    Curriculum,
    Freeze,
    Gate,
    GroupStats,
    Hint,
    Ladder,
    MemberStats,
    Mixture,
    Moment,
    Prefix,
    Scaffold,
    Scope,
    Shares,
    StartWhen,
    ZeroVariance,
    decide,
    initial,
    plan_step,
    route_group,
    segments_for,
    share_for,
    strands_of,
)

CHORD = Mixture(strand="sft", against="rl", warmup=10, decay=40, peak=0.9, floor=0.05)
RELIFT = Buffer(watch="rl", strand="sft", size=3)
UFT = Prefix(strand="rl", over=300, segments=5)
SCOPE = Scope(steps=100, strands=("rl", "sft"))
CHOICE = SCOPE._replace(prompts=4, draw=lambda step: [f"p{(step + number) % 30}" for number in range(16)])
"""With prompts to choose from."""
EVERY = (
    Constant(strand="sft", coefficient=0.5),
    CHORD,
    Bernoulli(strand="sft", against="rl"),
    ZeroVariance(action="redraw"),
    Gate(strand="rl", otherwise="sft"),
    RELIFT,
    Ladder(strand="rl"),
    UFT,
    Prefix(strand="rl", schedule="bisect"),
    Scaffold(strand="rl"),
    StartWhen(strand="sft"),
    Freeze(strand="sft"),
    Anneal(strand="sft"),
    Anneal(strand="sft", curve="cosine"),
    Alternate(strand="sft", against="rl", steps=2, against_steps=3),
    Shares(shares={"rl": 0.7, "sft": 0.3}),
    Curriculum(watch="rl"),
    Bottleneck(reinforce="rl", imports="sft"),
)
SILENT_BEFORE = {"zero_variance", "gate", "ladder", "freeze", "shares", "curriculum", "bottleneck"}
"""Kinds without a word of their own before a step; the last three are heard where prompts are chosen."""


def at(step, facts=None, seed=0, steps=100):
    return Moment(step, steps, facts or {}, seed)


def said(control, step, **rest):
    return decide(control, initial(control), at(step, **rest))


def plan(*controls, step=0, states=None, facts=None, seed=0, scope=SCOPE):
    return plan_step(controls, states or [initial(control) for control in controls], step, facts or {}, seed, scope)


# ---------------------------------------------------------------- who rests


@pytest.mark.parametrize(
    ("control", "step", "resting"),
    [
        (Constant(strand="sft", coefficient=0.0), 5, "sft"),
        (CHORD, 0, "sft"),
        (Mixture(strand="sft", against="rl", warmup=0, decay=0, peak=1, floor=1), 0, "rl"),
        (Anneal(strand="sft", end=0.0, over=10), 10, "sft"),
        (Bernoulli(strand="sft", against="rl", probability=1.0), 3, "rl"),
        (Bernoulli(strand="sft", against="rl", probability=0.0), 3, "sft"),
        (StartWhen(strand="sft"), 0, "sft"),
        (RELIFT, 0, "sft"),
    ],
)
def test_a_strand_without_weight_rests_and_the_reason_says_so(control, step, resting):
    found = plan(control, step=step)
    assert found.rest == {resting}
    assert found.coefficients[resting] == 0.0
    assert f"{resting} rests" in found.reasons[0]


def test_a_step_without_any_strand_says_so():
    found = plan(Constant(strand="sft", coefficient=0), Constant(strand="rl", coefficient=0))
    assert found.rest == {"rl", "sft"}
    assert found.reasons[-1] == "every strand rests: the step trains nothing"


def test_the_coin_is_the_seeds_and_falls_as_often_as_it_should():
    control = Bernoulli(strand="sft", against="rl", probability=0.3)
    wins = [plan(control, step=step, seed=7).rest == {"rl"} for step in range(4000)]
    assert np.mean(wins) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 4000))
    assert wins == [plan(control, step=step, seed=7).rest == {"rl"} for step in range(4000)]
    assert wins != [plan(control, step=step, seed=8).rest == {"rl"} for step in range(4000)]


def test_a_strand_starts_when_a_fact_first_reaches_its_mark_and_never_stops():
    control = StartWhen(strand="replay", fact="accuracy", at_least=0.35)
    state, resting, reasons = initial(control), [], []
    for step, value in enumerate([None, math.nan, 0.34, 0.35, 0.1, math.nan]):
        found = decide(control, state, at(step, {} if value is None else {"accuracy": value}))
        state = json.loads(json.dumps(found.state))
        resting.append(found.coefficients == {"replay": 0.0})
        reasons.append(found.reason)
    assert resting == [True, True, True, False, False, False]
    assert "not known" in reasons[0] and "not known" in reasons[1]
    assert reasons[2] == "replay rests: accuracy 0.34 is below 0.35"
    assert reasons[5] == "replay trains since step 3, when accuracy was 0.35"


def test_a_freeze_holds_in_steps_that_train_its_strand_alone():
    freeze = Freeze(strand="sft", share=0.5)
    waiting = [{"waiting": ["a", "b", "c"]}, {}]
    assert plan(RELIFT, freeze).freeze is None
    alone = plan(RELIFT, freeze, states=waiting)
    assert alone.freeze == freeze
    assert "sft trains alone" in alone.reasons[-1]
    third = Scope(100, ("rl", "sft", "replay"))
    assert plan(RELIFT, freeze, states=waiting, scope=third).freeze is None, "replay trains too"


# ---------------------------------------------------------------- composition


def test_controls_compose_by_product():
    controls = (Constant(strand="sft", coefficient=0.5), CHORD, ZeroVariance())
    found = plan(*controls, step=10)
    assert found.coefficients == pytest.approx({"sft": 0.45, "rl": 0.1})
    assert len(found.reasons) == 2
    assert json.loads(json.dumps(found.states)) == [{}, {"mu": 0.9}, {"kept": 0, "dropped": 0, "redrawn": 0}]


def test_a_prefix_and_a_scaffold_of_one_strand_both_hold():
    both = (Prefix(strand="rl", schedule="fixed", high=0.6), Scaffold(strand="rl"))
    for controls in (both, both[::-1]):
        hint = plan(*controls).hints["rl"]
        assert segments_for(hint, "p", 0) == 3
        assert share_for(hint, 0, 8) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("control", EVERY, ids=lambda control: control.kind)
def test_every_control_starts_from_json_names_its_strands_and_speaks_or_is_silent(control):
    state = initial(control)
    assert json.loads(json.dumps(state)) == state
    assert set(strands_of(control)) <= {"rl", "sft"}
    found = said(control, 3)
    assert set(found.coefficients) | set(found.hints) | set(found.only_prompts) <= set(strands_of(control))
    assert bool(found.reason) == (control.kind not in SILENT_BEFORE)


def test_every_kind_of_control_is_tested_here():
    kinds = {one.model_fields["kind"].default for one in get_args(get_args(Control)[0])}
    assert {control.kind for control in EVERY} == kinds


controls_st = st.lists(st.sampled_from(EVERY), max_size=6)
facts_st = st.dictionaries(st.sampled_from(["accuracy", "reward_mean"]), st.floats(0, 1) | st.just(math.nan))


@settings(deadline=None)
@given(controls_st, st.integers(0, 99), facts_st, st.integers(0, 2**31), st.integers(0, 5))
def test_a_plan_is_a_pure_function_of_json(controls, step, facts, seed, waiting):
    states = [
        {"waiting": [f"p{index}" for index in range(waiting)]} if control.kind == "buffer" else initial(control)
        for control in controls
    ]
    written = json.dumps(states)
    first = plan_step(controls, states, step, facts, seed, CHOICE)
    assert json.dumps(states) == written, "states are not changed in place"
    assert plan_step(controls, json.loads(written), step, dict(facts), seed, CHOICE) == first
    assert json.loads(json.dumps(first.states)) == list(first.states)
    assert first.rest == {strand for strand, factor in first.coefficients.items() if factor == 0}
    assert not first.rest & first.only_prompts.keys(), "prompts that were taken out are trained on"


# ---------------------------------------------------------------- the buffer


def failed(prompt):
    return GroupStats(prompt, prompt, tuple(MemberStats("rl", 0.0, False) for _ in range(2)))


prompts_st = st.lists(st.lists(st.integers(0, 30), max_size=7), max_size=20)


@given(prompts_st, st.integers(1, 6), st.booleans())
def test_the_buffer_fires_exactly_when_full_and_neither_loses_nor_doubles_a_prompt(steps, size, rests):
    control = Buffer(watch="rl", strand="sft", size=size)
    hold = StartWhen(strand="sft", at_least=0.5)
    controls = (control, hold) if rests else (control,)
    states, waiting = [initial(one) for one in controls], []
    for step, failures in enumerate(steps):
        fact = {"accuracy": 1.0 if step >= 5 else 0.0}
        found = plan_step(controls, states, step, fact, 0, SCOPE)
        fires = len(waiting) >= size and (not rests or step >= 5)
        assert found.only_prompts == ({"sft": tuple(waiting[:size])} if fires else {})
        assert found.rest == ({"rl"} if fires else {"sft"})
        waiting = waiting[size:] if fires else waiting
        states = json.loads(json.dumps(found.states))
        for prompt in [] if fires else failures:
            states, _ = route_group(controls, states, failed(f"p{prompt}"))
            waiting = waiting if f"p{prompt}" in waiting else [*waiting, f"p{prompt}"]
        assert states[0]["waiting"] == waiting


def test_two_buffers_of_one_strand_take_turns():
    other = Buffer(watch="search", strand="sft", size=1)
    states = [{"waiting": ["a", "b", "c"]}, {"waiting": ["z"]}]
    first = plan(RELIFT, other, states=states)
    assert (first.only_prompts, first.rest) == ({"sft": ("a", "b", "c")}, {"rl"})
    assert "another buffer's" in first.reasons[1]
    second = plan(RELIFT, other, states=first.states)
    assert (second.only_prompts, second.rest) == ({"sft": ("z",)}, {"search"})


def test_a_buffer_does_not_rest_the_strand_that_another_trains():
    chained = Buffer(watch="sft", strand="third", size=1)
    states = [{"waiting": ["a", "b", "c"]}, {"waiting": ["z"]}]
    found = plan(RELIFT, chained, states=states)
    assert found.rest == {"rl", "third"}
    assert found.states[1] == {"waiting": ["z"]}
    assert found.reasons[1] == "third rests: 1 prompts wait, 1 make a step; this step has another use"


def test_a_buffer_keeps_its_prompts_where_another_lets_its_strand_rest():
    opposite = Buffer(watch="third", strand="rl", size=1)
    states = [{"waiting": ["a", "b", "c"]}, {"waiting": ["z"]}]
    found = plan(RELIFT, opposite, states=states)
    assert (found.only_prompts, found.rest) == ({"sft": ("a", "b", "c")}, {"rl"})
    assert found.states[1] == {"waiting": ["z"]}


# ---------------------------------------------------------------- hints


def hint_at(control, step, **rest):
    return said(control, step, **rest).hints[control.strand]


@pytest.mark.parametrize("step", [0, 75, 150, 250, 299])
def test_the_binomial_parts_follow_the_cosine_in_mean_and_in_variance(step):
    q = 0.05 + 0.5 * 0.9 * (1 + math.cos(math.pi * step / 300))
    drawn = np.array([segments_for(hint_at(UFT, step), f"p{index}", seed=1) for index in range(4000)])
    spread = 5 * q * (1 - q)
    assert drawn.mean() == pytest.approx(5 * q, abs=4 * math.sqrt(spread / 4000))
    assert drawn.var() == pytest.approx(spread, rel=0.2)
    assert set(drawn) <= set(range(6))


def test_past_the_schedule_nothing_is_shown():
    assert {segments_for(hint_at(UFT, 300), f"p{index}", 1) for index in range(50)} == {0}
    assert "past the 300 steps" in said(UFT, 300).reason


def test_the_parts_depend_on_seed_step_and_prompt_and_on_nothing_else():
    def drawn(step, seed):
        return [segments_for(hint_at(UFT, step), f"p{index}", seed) for index in range(100)]

    assert drawn(150, 1) == drawn(150, 1)
    assert drawn(150, 1) != drawn(150, 2)
    level = Prefix(strand="rl", low=0.5, high=0.5)
    first, second = (
        [segments_for(hint_at(level, step), f"p{index}", 1) for index in range(100)] for step in (150, 151)
    )
    assert first != second, "another step, another draw, though the share is the same"


@pytest.mark.parametrize(("high", "parts"), [(0.0, 0), (0.5, 2), (0.6, 3), (0.95, 4), (1.0, 5)])
def test_a_fixed_prefix_is_a_share_in_whole_parts_and_never_more(high, parts):
    control = Prefix(strand="rl", schedule="fixed", high=high)
    assert segments_for(hint_at(control, 9999), "p", 0) == parts
    assert f"{parts} of 5 parts" in said(control, 0).reason


def test_a_bisected_prefix_is_the_prompts_own():
    control = Prefix(strand="rl", schedule="bisect")
    hint = decide(control, {"prompts": {"hard": [3, 1]}}, at(0)).hints["rl"]
    assert (segments_for(hint, "hard", 0), segments_for(hint, "other", 0)) == (3, 0)


@pytest.mark.parametrize("step", [0, 10, 20, 21, 25, 99])
@pytest.mark.parametrize("count", [2, 8])
def test_the_scaffold_falls_with_rank_and_with_progress(step, count):
    hint = hint_at(Scaffold(strand="rl"), step)
    found = [share_for(hint, index, count) for index in range(count)]
    left = 1 / (1 + math.exp(125 * (step / 100 - 0.2)))
    np.testing.assert_allclose(found, (count - 1 - np.arange(count)) / (count - 1) * left, rtol=1e-12)


def test_a_lone_response_sees_what_a_first_one_sees_and_a_steep_scaffold_does_not_overflow():
    assert share_for(hint_at(Scaffold(strand="rl"), 20), 0, 1) == pytest.approx(0.5)
    assert share_for(hint_at(Scaffold(strand="rl", steepness=1e6), 99), 0, 8) == 0.0
    assert share_for(Hint(), 0, 8) == 0.0 and segments_for(Hint(), "p", 0) == 0
