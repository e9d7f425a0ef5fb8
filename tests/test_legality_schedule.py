"""Schedules that can starve: refused with the first step at fault, and the neighbour is left alone."""

import itertools
import random

import pytest

from orchestrator import recipes
from orchestrator.asking import seed_for
from orchestrator.controls import GroupStats, MemberStats, Scope, initial, plan_step, route_groups
from orchestrator.controls.config import (
    Alternate,
    Anneal,
    Bernoulli,
    Buffer,
    Constant,
    Mixture,
    StartWhen,
    ZeroVariance,
)
from orchestrator.controls.prompt_config import Bottleneck, Shares
from orchestrator.legality import Surroundings
from orchestrator.legality.timeline import timeline
from tests.compositions import IMITATE, PLAIN, SCOPED, findings, idle, strand
from tests.rule_cases import FIRST, D, P, R, of, refused


def starved(strands, *controls, **more):
    """The step that the one error names."""
    where, text, fix = refused("schedule", strands, *controls, **more)
    assert not where
    assert fix
    words = text.split()
    assert words[0] == "step" and words[2:4] == ["trains", "nothing:"]
    return int(words[1])


# ---------------------------------------------------------------- schedules that starve


@pytest.mark.parametrize(
    ("controls", "strands", "step"),
    [
        ((Constant(strand="r", coefficient=0),), (R,), 0),
        ((Anneal(strand="r", over=20),), (R,), 20),
        ((Anneal(strand="r", over=20, curve="cosine"),), (R,), 20),
        ((Anneal(strand="r", start=0, end=1),), (R,), 0),
        ((Alternate(strand="r", against="d", steps=3), Constant(strand="d", coefficient=0)), (R, D), 3),
        ((Alternate(strand="r", against="d", steps=2), Anneal(strand="d", over=7)), (R, D), 8),
        ((Mixture(strand="d", against="r", decay=10, floor=0), Alternate(strand="r", against="d")), (R, D), 11),
        ((Mixture(strand="d", against="r", warmup=4, peak=1), Constant(strand="d", coefficient=0)), (R, D), 4),
        ((Alternate(strand="d", against="r"), StartWhen(strand="d")), (R, D), 0),
        ((Alternate(strand="d", against="r"), Buffer(watch="r", strand="d", size=8)), (R, D), 0),
        ((Alternate(strand="r", against="d"), Buffer(watch="r", strand="d", size=8)), (R, D), 1),
        ((Bernoulli(strand="d", against="r", probability=1), Constant(strand="d", coefficient=0)), (R, D), 0),
        ((Bottleneck(reinforce="r", imports="d"), Alternate(strand="d", against="r")), (R, D), 0),
        ((Shares(shares={"r": 1, "d": 0}), Constant(strand="r", coefficient=0)), (R, idle("d")), 0),
    ],
)
def test_a_schedule_that_starves_is_refused_with_its_first_step(controls, strands, step):
    assert starved(strands, *controls) == step


@pytest.mark.parametrize(
    ("controls", "strands"),
    [
        ((Constant(strand="r", coefficient=0.1),), (R,)),
        ((Anneal(strand="r", over=50),), (R,)),
        ((Anneal(strand="r", over=20, end=0.1),), (R,)),
        ((Anneal(strand="r", over=20),), (R, D)),
        ((Alternate(strand="r", against="d", steps=3),), (R, D)),
        ((Alternate(strand="r", against="d", steps=2), Anneal(strand="d", over=70)), (R, D)),
        ((Mixture(strand="d", against="r", peak=1, floor=0, warmup=4, decay=10),), (R, D)),
        ((Bernoulli(strand="d", against="r"),), (R, D)),
        ((Bernoulli(strand="d", against="r", probability=0), Constant(strand="d", coefficient=0)), (R, D)),
        ((StartWhen(strand="d"),), (R, D)),
        ((Buffer(watch="r", strand="d", size=8),), (R, D)),
        ((Bottleneck(reinforce="r", imports="d"),), (R, D)),
        ((Shares(shares={"r": 0.5, "d": 0.5}), Alternate(strand="d", against="r")), (R, D)),
    ],
)
def test_a_schedule_that_always_trains_something_is_left_alone(controls, strands):
    assert not [one for one in of("schedule", strands, *controls) if one[0] == "error" or "nothing" in one[2]]


def test_the_reasons_are_those_that_the_ledger_would_give():
    _, text, fix = refused("schedule", (R,), Anneal(strand="r", over=20))
    assert "r rests, as its coefficient is 0" in text
    assert "it ends at 0" in text
    assert "end the stage after 20 steps" in fix


def test_what_waits_for_verdicts_may_starve_and_is_doubted_with_its_step():
    """A buffer of 8 with 4 prompts a step cannot fill before step 2; from there on it is the verdicts' to say."""
    turns = Alternate(strand="r", against="d", steps=3)
    (found,) = of("schedule", (R, D), turns, Buffer(watch="r", strand="d", size=8))
    assert found[0] == "warning"
    assert "step 3 may train nothing" in found[2]
    assert "d waits for 8 prompts that failed" in found[2]
    assert starved((R, D), turns, Buffer(watch="r", strand="d", size=13)) == 3
    assert not of("schedule", (R, D), Buffer(watch="r", strand="d", size=8))


def test_one_fact_that_nobody_gives_never_starts_a_strand():
    two = strand("e", "demonstration", credit=IMITATE, kernel=PLAIN)
    where, text, fix = refused("schedule", (D, two), StartWhen(strand="d"))
    assert where == "d"
    assert "no other strand gives it" in text
    assert fix
    assert not of("schedule", (D, two), StartWhen(strand="d", fact="loss"))
    assert not of("schedule", (R, D), StartWhen(strand="d"))


def test_accuracy_is_of_responses_that_are_judged():
    copied = strand("r", credit=IMITATE, kernel=PLAIN)
    assert "no other strand gives it" in refused("schedule", (copied, D), StartWhen(strand="d"))[1]
    assert not of("schedule", (copied, D), StartWhen(strand="d", fact="response_length_mean", at_least=9))
    judged = strand("j", "reference", credit=SCOPED)  # of the same group, which is judged whole
    assert not of("schedule", (copied, D, judged), StartWhen(strand="d"))


def test_prompts_drawn_in_place_of_others_fill_a_buffer_sooner():
    again = ZeroVariance(action="redraw", rounds=2)
    buffer = Buffer(watch="r", strand="d", size=24)
    assert "until step 6" in of("schedule", (R, D), buffer, steps=3)[0][2]
    assert not of("schedule", (R, D), buffer, again, steps=3)
    assert "until step 2" in of("schedule", (R, D), buffer, again, steps=2)[0][2]


def test_one_whose_giver_rests_for_ever_never_starts():
    quiet = Constant(strand="r", coefficient=0)
    two = strand("e", "demonstration", credit=IMITATE, kernel=PLAIN)
    said = [one for one in of("schedule", (R, D, two), StartWhen(strand="d"), quiet) if one[0] == "error"]
    assert [one[1] for one in said] == ["d"]
    assert "r never trains" in said[0][2]
    assert not [one for one in of("schedule", (R, D, two), StartWhen(strand="d")) if one[0] == "error"]


def test_two_strands_that_wait_for_each_other_wait_for_ever():
    both = (StartWhen(strand="r", fact="loss"), StartWhen(strand="d", fact="loss"))
    said = [one for one in of("schedule", (R, D), *both) if one[0] == "error"]
    assert {one[1] for one in said} == {"", "r", "d"}
    assert not [one for one in of("schedule", (R, D), both[0]) if one[0] == "error"]


def test_a_chain_of_waits_is_counted_out():
    """r waits for d to train, e for r's verdicts: e cannot start before step 2, and is listed first."""
    last = strand("e", "demonstration", credit=IMITATE, kernel=PLAIN)
    chain = (StartWhen(strand="e"), StartWhen(strand="r", fact="loss"))
    (found,) = of("schedule", (R, D, last), *chain, steps=2)
    assert found[:2] == ("warning", "e")
    assert "until step 2" in found[2]
    assert not of("schedule", (R, D, last), *chain, steps=3)


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (StartWhen(strand="d", fact="acuracy"), "did you mean 'accuracy'?"),
        (StartWhen(strand="d", fact="groups"), "the facts are"),
        (StartWhen(strand="d", at_least=35), "1 or less"),
    ],
)
def test_a_fact_that_no_step_tells_is_refused(control, words):
    where, text, fix = refused("schedule", (R, D), control)
    assert where == "d"
    assert "never starts" in text
    assert words in fix


def test_replay_has_nothing_before_something_was_written():
    turns = (Alternate(strand="p", against="r"),)
    assert starved((R, P), *turns, around=FIRST) == 0
    assert not of("schedule", (R, P), *turns)
    assert not of("schedule", (R, P), Alternate(strand="r", against="p"), around=FIRST)
    where, text, _ = refused("schedule", (D, P), around=FIRST)
    assert where == "p"
    assert "no other strand gives it" in text
    told = strand("p", "replay", credit=IMITATE, kernel=PLAIN, source={"past": {"producers": ("demonstration",)}})
    assert not of("schedule", (D, told), around=FIRST)
    assert not of("schedule", (R, told), around=Surroundings(past=frozenset({"demonstration"})))
    assert refused("schedule", (R, told), around=Surroundings(past=frozenset({"rollout"})))[0] == "p"


def test_a_strand_that_follows_one_that_rests_rests_too():
    child = strand("c", credit=SCOPED, source={"parent": "r", "behavior": "{{ parent }}", "context_shift": "keep"})
    assert starved((R, child), Constant(strand="r", coefficient=0)) == 0
    assert not [one for one in of("schedule", (R, child), Constant(strand="c", coefficient=0)) if one[0] == "error"]


@pytest.mark.parametrize(
    ("controls", "steps", "where"),
    [
        ((Alternate(strand="d", against="r", steps=10),), 10, "r"),
        ((Buffer(watch="r", strand="d", size=40),), 10, "d"),
        ((StartWhen(strand="d"),), 1, "d"),
        ((Shares(shares={"r": 1.0, "d": 0.0}),), 10, "d"),
    ],
)
def test_a_strand_that_never_trains_is_doubted(controls, steps, where):
    (found,) = of("schedule", (R, D), *controls, steps=steps)
    assert found[:2] == ("warning", where)
    assert "never trains" in found[2]
    more = (Shares(shares={"r": 0.5, "d": 0.5}),) if isinstance(controls[0], Shares) else controls
    assert not of("schedule", (R, D), *more, steps=steps + 1)


def test_what_is_found_is_what_trying_every_step_finds():
    """An independent oracle: `plan_step` at every step of random compositions."""
    dice = random.Random(4)
    names = ("a", "b", "c")
    strands = tuple(strand(name, credit=SCOPED) for name in names)
    hits = 0
    for _ in range(400):
        controls = tuple(_control(dice, names) for _ in range(dice.randint(1, 4)))
        steps, seed = dice.randint(1, 60), dice.randint(0, 9)
        scope = Scope(steps, names)
        states = tuple(initial(one) for one in controls)
        tried = (plan_step(controls, states, at, {}, seed_for(seed, "x"), scope).rest for at in range(steps))
        expected = next((at for at, rest in enumerate(tried) if rest == frozenset(names)), None)
        said = of("schedule", strands, *controls, steps=steps, around=Surroundings(seed=seed))
        errors = [one[2] for one in said if one[0] == "error"]
        hits += expected is not None
        assert bool(errors) == (expected is not None), controls
        assert expected is None or errors[0].startswith(f"step {expected} trains nothing"), (controls, errors)
    assert 40 < hits < 360


def test_a_co_learner_that_trains_alone_to_the_end_is_doubted():
    alone = [one for one in findings(recipes.load("gad", warmup=30), steps=30) if one.rule == "schedule"]
    assert [(one.level, one.where) for one in alone] == [("warning", "discriminator")]
    assert not [one for one in findings(recipes.load("gad", warmup=30), steps=31) if one.rule == "schedule"]


def test_any_stretch_is_searched_for_any_rest():
    """The same oracle for what is asked of a timeline beside starving: who trains, who alone rests, within bounds."""
    dice = random.Random(5)
    names = ("a", "b", "c")
    found = 0
    for _ in range(600):
        made = timeline(tuple(_control(dice, names) for _ in range(dice.randint(1, 4))), 60, dice.randint(0, 9))
        start, stop = sorted(dice.sample(range(61), 2))
        start = dice.choice([0, start])
        one, some = dice.choice(names), frozenset(dice.sample(names, dice.randint(0, 3)))
        for fits in (lambda rest, one=one: one not in rest, lambda rest, some=some: rest == some):
            expected = next((at for at in range(start, stop) if fits(made.rest(at))), None)
            assert made.first(fits, start, stop) == expected, made
            assert made.first(fits, start, stop, doubt=True) == expected, made
            found += expected is not None
    assert 200 < found < 1000


def test_what_waits_for_verdicts_starves_in_the_worlds_that_are_told():
    """An oracle that plays the stage: with no fact and no failure ever, and with the dice's. What is refused starves in
    all of them, what is doubted in the first, what is left alone in none."""
    dice = random.Random(7)
    names = ("a", "b", "c")
    told = {"error": 0, "warning": 0, "": 0}
    for trial in range(300):
        few = names[: 2 + trial % 2]
        waits = [_waiting(dice, few) for _ in range(dice.randint(1, 2))]
        controls = (*(_control(dice, few) for _ in range(dice.randint(1, 2))), *waits)
        steps = dice.randint(1, 25)
        said = of("schedule", [strand(name, credit=SCOPED) for name in few], *controls, steps=steps)
        found = {one[0]: int(one[2].split()[1]) for one in said if "nothing" in one[2]}
        bleak = _played(controls, few, steps, None)
        assert min(found.values(), default=None) == min(bleak, default=None), controls
        for _ in range(5):
            empty = _played(controls, few, steps, dice)
            assert found.get("error") is None or found["error"] in empty, controls
            assert found or not empty, controls
        assert len(set(found.values())) == len(found), "one step is told once"
        told[min(found, default="")] += 1
    assert min(told.values()) > 20, told


def _played(controls, names, steps, dice):
    """The steps at which all rest, in a stage of 4 prompts a step where the dice say what passes and what facts are."""
    states, facts, empty = tuple(initial(one) for one in controls), {}, set()
    for at in range(steps):
        plan = plan_step(controls, states, at, facts, seed_for(0, "x"), Scope(steps, names))
        awake = [name for name in names if name not in plan.rest]
        members = [
            tuple(MemberStats(name, 0.0, not (dice and dice.random() < 0.8)) for name in awake) for _ in range(4)
        ]
        groups = [GroupStats(f"{at}-{k}", f"p{at}-{k}", own) for k, own in enumerate(members) if own]
        states, _ = route_groups(controls, plan.states, groups, at)
        facts = {"share_learner": dice.random()} if dice and awake else {}
        empty |= set() if awake else {at}
    return empty


def _waiting(dice, names):
    first, second = dice.sample(names, 2)
    if dice.random() < 0.5:
        return Buffer(watch=first, strand=second, size=dice.randint(1, 30))
    return StartWhen(strand=first, fact="share_learner", at_least=0.3)


def _control(dice, names):
    first, second = dice.sample(names, 2)
    ends = [0.0, 0.5, 1.0]
    match dice.randrange(5):
        case 0:
            return Constant(strand=first, coefficient=dice.choice(ends))
        case 1:
            shape = {"warmup": dice.randint(0, 9), "decay": dice.randint(0, 30)}
            return Mixture(strand=first, against=second, peak=dice.choice(ends), floor=dice.choice(ends), **shape)
        case 2:
            return Bernoulli(strand=first, against=second, probability=dice.choice([0.0, 0.1, 0.5, 1.0]))
        case 3:
            turns = {"steps": dice.randint(1, 9), "against_steps": dice.randint(1, 9)}
            return Alternate(strand=first, against=second, **turns)
        case _:
            shape = {"over": dice.randint(1, 30), "curve": dice.choice(["linear", "cosine"])}
            return Anneal(strand=first, start=dice.choice(ends), end=dice.choice(ends), **shape)


def test_a_long_stage_costs_no_more_tries_than_a_short_one():
    """Of a hundred million steps few are tried: no predicate is asked more than some thousand times."""
    controls = (
        Mixture(strand="a", against="b", decay=90_000_000, floor=0),
        Alternate(strand="b", against="c", steps=7, against_steps=12),
        Anneal(strand="c", over=99_999_999),
    )
    asked = itertools.count()

    def all_rest(rest):
        next(asked)
        return rest == {"a", "b", "c"}

    made = timeline(controls, 100_000_000, 0)
    found = made.first(all_rest, 0, 100_000_000)
    assert next(asked) < 1000
    assert found is not None
    assert made.rest(found) == {"a", "b", "c"}
    assert not any(made.rest(at) == {"a", "b", "c"} for at in (*range(found - 40, found), 89_999_999, 90_000_000))
    assert made.first(lambda rest: len(rest) > 3, 0, 100_000_000) is None


def test_a_coin_that_hardly_ever_falls_is_no_proof():
    """Of a million coins not one may fall for r: what was not tried is not called impossible, nor starving."""
    coin = Bernoulli(strand="r", against="d", probability=1e-9)
    assert not of("schedule", (R, D, P), coin, steps=1_000_000, around=FIRST)
    said = of("schedule", (R, D, P), coin, Constant(strand="r", coefficient=0), steps=1_000_000, around=FIRST)
    assert {(one[0], one[1]) for one in said} == {("error", "p"), ("warning", "r")}
