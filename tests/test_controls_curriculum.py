"""Curriculum by solve rate: which prompts it chooses, by an ordering in plain words, and what it counts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.controls import (
    Curriculum,
    GroupStats,
    MemberStats,
    Moment,
    Scope,
    initial,
    plan_step,
    route_group,
    route_groups,
)
from orchestrator.controls.curriculum import choose

T, F, U = True, False, None


# ---------------------------------------------------------------- curricula

SEEN = {
    "never": [0.0, 4.0, 5],
    "seldom": [1.0, 7.0, 4],
    "half": [4.0, 8.0, 3],
    "often": [6.0, 8.0, 9],
    "always": [8.0, 8.0, 7],
    "nearly": [7.0, 8.0, 6],
}
"""Prompt -> passed, seen, step of the last look; the means are 0.1, 0.19, 0.5, 0.72, 0.94, 0.83."""


def chosen(control, drawn, count, step=0, seed=0, known=SEEN):
    state = {"prompts": known}
    after, places, reason = choose(control, state, Moment(step, 100, {}, seed), drawn, count)
    assert after == state and all(place.only == frozenset() for place in places)
    return [place.prompt for place in places], reason


@pytest.mark.parametrize(
    ("explore", "count", "expected"),
    [
        (0.0, 2, {"half", "often"}),
        (0.0, 4, {"half", "often", "new", "newer"}),
        (0.0, 5, {"half", "often", "new", "newer", "seldom"}),
        (0.0, 6, {"half", "often", "new", "newer", "seldom", "nearly"}),
        (0.0, 7, {"half", "often", "new", "newer", "seldom", "nearly", "never"}),
        (0.5, 4, {"new", "newer", "half", "often"}),
        (1.0, 3, {"new", "newer", "never"}),
        (1.0, 4, {"new", "newer", "never", "seldom"}),
        (1.0, 5, {"new", "newer", "never", "seldom", "half"}),
        (1.0, 99, {*SEEN, "new", "newer"}),
    ],
)
def test_the_band_comes_first_then_the_unseen_then_the_nearest(explore, count, expected):
    control = Curriculum(watch="rl", explore=explore)
    for drawn in ([*SEEN, "new", "newer"], ["newer", *reversed(SEEN), "new", "new", "half"]):
        found, _ = chosen(control, drawn, count)
        assert set(found) == expected and len(found) == len(expected)


def test_one_verdict_says_less_than_many():
    known = {"once": [0.0, 1.0, 1], "often": [0.0, 8.0, 1]}
    found, _ = chosen(Curriculum(watch="rl", explore=0.0), ["often", "new", "once"], 3, known=known)
    assert found == ["once", "new", "often"], "Jeffreys' means are 1/4 and 1/18"


def test_a_curriculum_says_how_many_it_chose_as_what():
    _, reason = chosen(Curriculum(watch="rl", explore=0.2), [*SEEN, "new", "newer"], 5)
    assert reason == (
        "1 least looked at (1 for the first time), 2 solved at 0.2 to 0.8, 1 unseen, 1 outside it, of 8 candidates, "
        "2 of them unseen"
    )


entry_st = st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0, 4.0, 8.0]), st.integers(0, 9))
known_st = st.dictionaries(st.integers(0, 30).map(lambda n: f"p{n}"), entry_st, max_size=20)


@settings(deadline=None)
@given(known_st, st.lists(st.integers(0, 30), max_size=30), st.integers(0, 12), st.floats(0, 1), st.integers(0, 50))
def test_nobody_left_out_was_nearer_and_nobody_was_less_looked_at_than_the_explored(known, drawn, count, explore, step):
    known = {prompt: [rate * seen, seen, last if seen else -1] for prompt, (rate, seen, last) in known.items()}
    control = Curriculum(watch="rl", low=0.3, high=0.6, explore=explore)
    pool = {f"p{number}" for number in drawn}
    found, _ = chosen(control, [f"p{number}" for number in drawn], count, step, known=known)
    assert len(set(found)) == len(found) == min(count, len(pool)) and set(found) <= pool

    def sight(prompt):
        return known.get(prompt, [0.0, 0.0, -1])[1:]

    def rank(prompt):
        passed, seen, _ = known.get(prompt, [0.0, 0.0, -1])
        mean = (passed + 0.5) / (seen + 1)
        return (2, max(0.3 - mean, mean - 0.6)) if seen and not 0.3 <= mean <= 0.6 else (0 if seen else 1, 0.0)

    looks = math.floor(explore * count * (step + 1)) - math.floor(explore * count * step)
    explored, nearest, left = found[:looks], found[looks:], pool - set(found)
    assert all(sight(one) <= sight(other) for one in explored for other in pool - set(explored))
    assert all(rank(one) <= rank(other) for one in nearest for other in left)


@given(st.floats(0, 1), st.integers(1, 5))
def test_exploration_keeps_its_share_however_small_the_steps(explore, count):
    drawn = [*SEEN, *(f"new{number}" for number in range(9))]
    known = {**SEEN, **{prompt: [2.0, 4.0, 1] for prompt in ("in1", "in2", "in3", "in4", "in5")}}
    control = Curriculum(watch="rl", explore=explore)
    looked = 0
    for step in range(40):
        found, _ = chosen(control, [*drawn, "in1", "in2", "in3", "in4", "in5"], count, step, known=known)
        looked += sum(prompt.startswith("new") for prompt in found)  # the band has enough for all other places
        assert abs(looked - explore * count * (step + 1)) <= 1


def test_equals_are_told_apart_by_the_seed_and_change_from_step_to_step():
    drawn = [f"p{number}" for number in range(400)]
    control = Curriculum(watch="rl")

    def first(step, seed, known):
        return chosen(control, drawn, 100, step, seed, known)[0]

    for known in ({}, {prompt: [2.0, 4.0, 1] for prompt in drawn}):
        assert first(0, 1, known) == first(0, 1, known)
        assert 5 < len(set(first(0, 1, known)) & set(first(0, 2, known))) < 60
        assert 5 < len(set(first(0, 1, known)) & set(first(1, 1, known))) < 60


# ---------------------------------------------------------------- what a curriculum counts


def rollouts(*verdicts, strand="rl"):
    return tuple(MemberStats(strand, math.nan, verdict) for verdict in verdicts)


def group(*verdicts, prompt="p", **more):
    return GroupStats(f"g-{prompt}", prompt, rollouts(*verdicts), **more)


@pytest.mark.parametrize(
    ("stats", "entry"),
    [
        (group(T, F, F, F), [0.8 * 2 + 1, 0.8 * 5 + 4, 7]),
        (group(T, U, U), [0.8 * 2 + 1, 0.8 * 5 + 1, 7]),
        (group(U, U), [2.0, 5.0, 3]),
        (GroupStats("g", "p", rollouts(T, T, strand="sft")), [2.0, 5.0, 3]),
        (group(T, T, segments=2), [2.0, 5.0, 3]),
        (group(T, T, segments=0), [0.8 * 2 + 2, 0.8 * 5 + 2, 7]),
        (group(T, T, level=2, first=rollouts(F, F, F)), [0.8 * 2, 0.8 * 5 + 3, 7]),
        (group(T, T, level=1, first=rollouts(U)), [2.0, 5.0, 3]),
    ],
)
def test_verdicts_on_the_bare_prompt_count_and_older_ones_weigh_less(stats, entry):
    states, found = route_group([Curriculum(watch="rl")], [{"prompts": {"p": [2.0, 5.0, 3]}}], stats, 7)
    assert states == ({"prompts": {"p": pytest.approx(entry)}},)
    assert found.verdict == "keep" and not found.reasons and not found.without


def test_what_is_kept_is_bounded_by_the_prompts_and_by_the_decay():
    control, states = Curriculum(watch="rl", decay=0.5), [{"prompts": {}}]
    for step in range(200):
        states, _ = route_groups([control], states, [group(T, F, prompt=f"p{number}") for number in range(5)], step)
    assert set(states[0]["prompts"]) == {f"p{number}" for number in range(5)}
    assert states[0]["prompts"]["p0"] == [pytest.approx(2.0), pytest.approx(4.0), 199]


def test_prompts_that_are_solved_now_and_then_come_to_fill_the_steps():
    rates = {f"p{number}": number % 3 / 2 for number in range(60)}  # never, half of the time, always
    control, chance = Curriculum(watch="rl"), np.random.default_rng(0)
    states, shown = [initial(control)], []
    for step in range(40):
        scope = Scope(100, ("rl",), 8, lambda at: [f"p{(at * 32 + number) % 60}" for number in range(32)])
        found = plan_step([control], states, step, {}, 0, scope)
        shown.append([rates[place.prompt] for place in found.places])
        stats = [
            group(*(chance.random(8) < rates[place.prompt]).tolist(), prompt=place.prompt) for place in found.places
        ]
        states, _ = route_groups([control], found.states, stats, step)
    assert np.mean(np.array(shown[:3]) == 0.5) < 0.6
    assert np.mean(np.array(shown[-20:]) == 0.5) >= 0.75, "all but the explored quarter"
