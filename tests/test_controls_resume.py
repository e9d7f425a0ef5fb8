"""States that were written and read go on as if nothing had happened; order and batches of groups change nothing."""

import json
import math
import random
from dataclasses import replace
from typing import get_args

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
    Place,
    Prefix,
    Scaffold,
    Scope,
    Shares,
    StartWhen,
    ZeroVariance,
    candidates,
    initial,
    plan_step,
    route_group,
    route_groups,
    segments_for,
)

STRANDS = ("rl", "sft", "replay")
PROMPTS, EACH, STEPS = 30, 5, 12
"""There are, a step has, a stage has."""

BOTTLENECK = Bottleneck(reinforce="rl", imports="sft", replay="replay", recheck=3, look=2, candidates=2)
SHARES = Shares(shares={"rl": 0.55, "sft": 0.25, "replay": 0.2})
EVERY = (
    Constant(strand="sft", coefficient=0.5),
    Mixture(strand="sft", against="rl", warmup=2, decay=6),
    Bernoulli(strand="sft", against="rl"),
    Alternate(strand="sft", against="rl", steps=2, against_steps=1),
    ZeroVariance(action="redraw", rounds=1),
    Gate(strand="rl", otherwise="sft"),
    Buffer(watch="rl", strand="sft", size=4),
    Ladder(strand="rl", levels=2),
    Prefix(strand="rl", over=8),
    Prefix(strand="rl", schedule="bisect"),
    Scaffold(strand="rl", steepness=5),
    StartWhen(strand="replay", at_least=0.5),
    Freeze(strand="sft"),
    Anneal(strand="replay", over=6, curve="cosine"),
    SHARES,
    Curriculum(watch="rl", candidates=2),
    BOTTLENECK,
)
SETS = (
    (Mixture(strand="sft", against="rl", warmup=2, decay=6), Buffer(watch="rl", strand="sft", size=3), SHARES),
    (SHARES, Curriculum(watch="rl", candidates=3), Gate(strand="rl", otherwise="sft"), ZeroVariance(action="drop")),
    (BOTTLENECK, Ladder(strand="rl", levels=2), ZeroVariance(action="redraw"), StartWhen(strand="replay")),
    (Buffer(watch="rl", strand="sft", size=3), Buffer(watch="rl", strand="replay", size=5), Freeze(strand="sft")),
    (Prefix(strand="rl", schedule="bisect"), Ladder(strand="rl"), Curriculum(watch="rl"), SHARES),
)


def test_every_kind_is_here():
    kinds = {one.model_fields["kind"].default for one in get_args(get_args(Control)[0])}
    assert {control.kind for control in EVERY} == kinds


def read_back(states):
    """As a checkpoint gives them back."""
    return json.loads(json.dumps(states))


def draw(chance, strand, count):
    """Responses as chance has them: passed, failed, or without a verdict."""
    verdicts = [chance.choice([True, False, False, None]) for _ in range(count)]
    return tuple(MemberStats(strand, math.nan if one is None else float(one), one) for one in verdicts)


def scored(plan, places, step, seed):
    """The step's groups as a collector would have them; what chance gives depends on the group's name alone."""
    for at, place in enumerate(places):
        chance = random.Random(f"{seed}/{step}/{at}")
        asked = [one for one in STRANDS if one not in plan.rest and (not place.only or one in place.only)]
        members = [one for strand in asked for one in draw(chance, strand, 3 if strand == "rl" else 1)]
        reach, hint = chance.choice([math.nan, 0.01, 0.5]), plan.hints.get("rl", Hint())
        segments = segments_for(hint, place.prompt, seed) if hint.prefix else None
        yield GroupStats(f"g{at}", place.prompt, tuple(members), reach=reach, segments=segments)


def climbed(controls, states, group, step, seed):
    """Route a group, drawing it again as long as a ladder asks for that."""
    states, words = route_group(controls, states, group, step)
    while words.ladder.hint_level:
        level = words.ladder.hint_level
        members = draw(random.Random(f"{seed}/{step}/{group.id}/{level}"), words.ladder.hint_strand, 3)
        again = replace(group, members=members, level=level, first=group.first or group.members)
        states, words = route_group(controls, states, again, step)
    return states, words


def decisions(controls, seed, treat):
    """All that is decided in a stage of twelve steps; `treat` has the states in its hands after each."""
    many = EACH * max(candidates(controls), 1)

    def drawn(step):
        return [f"p{number}" for number in random.Random(seed * 1000 + step).sample(range(PROMPTS), many)]

    states, told = [initial(control) for control in controls], []
    for step in range(STEPS):
        facts = {"accuracy": random.Random(f"{seed}/{step}").random()} if step else {}
        plan = plan_step(controls, states, step, facts, seed, Scope(STEPS, STRANDS, EACH, drawn))
        places = plan.places if plan.places is not None else [Place(one) for one in drawn(step)[:EACH]]
        states, told_ = plan.states, [plan._replace(states=(), hints=repr(plan.hints))]
        for group in scored(plan, places, step, seed):
            states, words = climbed(controls, states, group, step, seed)
            told_.append(words)
        told.append(told_)
        states = treat(step, states)
    return told, read_back(states)


CONTROLS = [pytest.param((one,), id=one.kind) for one in EVERY] + [
    pytest.param(one, id="+".join(each.kind for each in one)) for one in SETS
]


@pytest.mark.parametrize("controls", CONTROLS)
@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 11), min_size=1))
def test_states_that_were_written_and_read_go_on_as_those_that_were_not(controls, seed, cuts):
    written = decisions(controls, seed, lambda step, states: read_back(states) if step in cuts else states)
    assert written == decisions(controls, seed, lambda step, states: states)


def remembers(control):
    """Whether what it decides hangs on its state; a schedule's hangs on the step alone."""
    kinds = ("buffer", "prefix", "start_when", "shares", "curriculum", "bottleneck")
    return control.kind in kinds and getattr(control, "schedule", "bisect") == "bisect"


@pytest.mark.parametrize("controls", [one for one in CONTROLS if any(map(remembers, one.values[0]))])
def test_states_that_were_lost_do_not(controls):
    """So that the test above can fail."""

    def lose(step, states):
        return [initial(control) for control in controls] if step == 5 else states

    assert any(decisions(controls, seed, lose)[0] != decisions(controls, seed, lambda _, s: s)[0] for seed in range(9))


# ---------------------------------------------------------------- order


NO_QUEUE = tuple(control for control in EVERY if not isinstance(control, Buffer))
"""A buffer is a queue: who comes first waits first."""
verdicts_st = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=4)
stats_st = st.lists(st.tuples(verdicts_st, st.booleans(), st.sampled_from([math.nan, 0.01, 0.9])), max_size=10)


def groups_of(drawn):
    for at, (verdicts, given_, reach) in enumerate(drawn):
        mine = [MemberStats("rl", math.nan if one is None else float(one), one) for one in verdicts]
        others = [MemberStats("sft", passed=bool(at % 2), compared=False)] if given_ else []
        yield GroupStats(f"g{at}", f"p{at}", (*mine, *others), reach=reach)


@settings(deadline=None)
@given(stats_st, st.randoms(use_true_random=False), st.integers(0, 10))
def test_groups_of_different_prompts_may_come_in_any_order_and_in_any_batches(drawn, chance, cut):
    groups = list(groups_of(drawn))
    before, _ = route_groups(NO_QUEUE, [initial(one) for one in NO_QUEUE], groups[: len(groups) // 2], 0)
    states, words = route_groups(NO_QUEUE, before, groups, 3)
    mixed = chance.sample(groups, len(groups))
    first, early = route_groups(NO_QUEUE, before, mixed[:cut], 3)
    second, late = route_groups(NO_QUEUE, first, mixed[cut:], 3)
    assert second == states
    found = {group.id: word for group, word in zip(mixed, (*early, *late), strict=True)}
    assert found == {group.id: word for group, word in zip(groups, words, strict=True)}
