"""Accounts: every response has one fate, counted once; tokens are the records'; decisions keep their facts."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from orchestrator.accounting import NOBODY, by_origin, funnel, staleness
from orchestrator.assemble import Assembled, assemble
from orchestrator.collect import ROUNDS, Collector, Recipe
from orchestrator.config import RecipeChoice, Stage
from orchestrator.controls import Control, Place, Scope, StepPlan, initial, plan_step
from orchestrator.controls.bottleneck import Entry
from orchestrator.controls.config import Anneal, Bottleneck, Buffer, Gate, Ladder, Mixture, Prefix, ZeroVariance
from orchestrator.decided import classes, decision_row, in_short, places
from orchestrator.loop import RunState
from orchestrator.records import Collected, Dropped
from orchestrator.views import Models
from policies.config import ConstantCredit, GroupCredit, Point, Select, Source, Strand, Term
from policies.example import Example
from policies.trajectory import Origin, Trajectory
from tests.fakes import FakeSampler, FakeScorer, prompt, trajectory
from tests.test_loop import World as Loop

PROMPTS = tuple(prompt(f"p{at}") for at in range(6))
TERM = Term(name="t", kernel=Point())


class Shelf:
    """One demonstration for each prompt."""

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        return None if index else trajectory(f"d-{prompt_id}", prompt_id=prompt_id, origin_of=Origin.DEMONSTRATION)

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        return [trajectory(f"d{draw}", prompt_id=f"p{draw}", origin_of=Origin.DEMONSTRATION) for draw in range(count)]


@dataclass
class Speechless:
    """A sampler that has nothing to say to the requests in `silent`."""

    silent: frozenset[str] = frozenset()
    sampler: FakeSampler = field(default_factory=lambda: FakeSampler(version=0))

    async def generate(self, requests: Sequence[Any]) -> list[Trajectory]:
        written = await self.sampler.generate(requests)
        return [trajectory(one.id, 0, prompt_id=one.prompt_id) if one.id in self.silent else one for one in written]


@dataclass
class World:
    """A step over fakes, from the plan to what would train."""

    strands: tuple[Strand, ...]
    controls: tuple[Control, ...] = ()
    passes: tuple[str, ...] | None = None
    unknown: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    longest: int = 0
    sampler: Speechless = field(default_factory=Speechless)

    def step(self) -> tuple[Collected, Assembled]:
        """What was collected and what trains, every drop with it, as the loop has them."""
        self.sampler.silent = self.silent
        by_id = {one.id: one for one in PROMPTS}
        scorer = FakeScorer(self.unknown, self.passes)
        collector = Collector(self.sampler, scorer, PROMPTS, by_id, Shelf(), 3, longest=self.longest)
        stage = Stage(name="a", recipe=RecipeChoice(kind="grpo"), steps=4, prompts_per_step=2)
        scope = Scope(4, tuple(one.name for one in self.strands))
        plan = plan_step(self.controls, [initial(one) for one in self.controls], 0, {}, 3, scope)
        collected = asyncio.run(collector.collect(Recipe(stage, self.strands, self.controls), 0, plan))
        made = asyncio.run(assemble(self.strands, collected.groups, Models()))
        return collected, replace(made, dropped=(*collected.dropped, *made.dropped))


def strand(name: str, terms: tuple[Term, ...] = (TERM,), credit: Any = None, **source: Any) -> Strand:
    return Strand(
        name=name,
        source=Source(**{"producer": "rollout", "per_prompt": 2, **source}),
        credit=credit or GroupCredit(),
        terms=terms,
    )


OWN = strand("own")
BOOK = strand("book", producer="demonstration", per_prompt=1, credit=ConstantCredit())
FIRST = "a/000000/0000/own-0"

WORLDS: dict[str, tuple[World, int, int, int, dict[str, int]]] = {
    "as they come": (World((OWN, BOOK)), 4, 2, 6, {}),
    "drawn elsewhere, twice in vain": (
        World((OWN,), (ZeroVariance(action="redraw", rounds=2),), ("0001/own-0",)), 8, 0, 2, {"control": 6},
    ),
    "the hinted take the failed ones' place": (
        World((OWN,), (Ladder(strand="own", levels=2),), ("0000/own-1-hint2", "0001")), 8, 0, 4, {"control": 4},
    ),
    "one hinted takes one's place": (
        World((OWN,), (Ladder(strand="own", levels=2, replace="one"),), ("own-1-hint1",)), 8, 0, 4, {"control": 4},
    ),
    "hints in vain": (World((OWN,), (Ladder(strand="own", levels=1),), ()), 8, 0, 4, {"control": 4}),
    "hinted in vain, then dropped": (
        World((OWN,), (Ladder(strand="own", levels=1), ZeroVariance(action="drop")), ()), 8, 0, 0, {"control": 8},
    ),
    "hints without an end": (
        World((OWN, BOOK), (Ladder(strand="own", levels=100),), ()), 4 * ROUNDS, 2, 0, {"control": 4 * ROUNDS + 2},
    ),
    "a gate": (World((OWN, BOOK), (Gate(strand="own", otherwise="book"),), ("0001/own-0",)), 4, 2, 3, {"control": 3}),
    "a gate and a judge": (
        World((OWN, BOOK), (Gate(strand="own", otherwise="book"), ZeroVariance(action="drop")), ("0001",)),
        4, 2, 1, {"control": 5},
    ),
    "no verdict": (World((OWN,), unknown=frozenset({FIRST})), 4, 0, 3, {"no_verdict": 1}),
    "nothing said": (World((OWN,), silent=frozenset({FIRST})), 4, 0, 3, {"no_tokens": 1}),
    "the best of each": (World((strand("own", select=Select(kind="best", keep=1)),)), 4, 0, 2, {"select": 2}),
    "no verdict to choose by": (
        World((strand("own", select=Select(kind="passed")),), passes=(), unknown=frozenset({FIRST})),
        4, 0, 0, {"no_verdict": 1, "select": 3},
    ),
    "too long": (World((OWN,), longest=6), 4, 0, 0, {"context": 4}),
    "nothing to follow": (
        World((OWN, strand("then", per_prompt=1, parent="own", parent_is="failed")), passes=("own",)), 4, 0, 4, {},
    ),
}  # fmt: skip
"""What happens -> the world, and how many are written, given, trained, and dropped by cause."""


@pytest.mark.parametrize("name", WORLDS)
def test_every_response_has_one_fate(name: str) -> None:
    world, written, given, trained, dropped = WORLDS[name]
    collected, made = world.step()
    asked = [one.id for one in world.sampler.sampler.asked]
    lent = [one.id for one in collected.seen if one.id not in asked]
    fates = [one.trajectory.id for one in (*made.examples, *made.aside)]
    fates += [lost for one in made.dropped for lost in one.lost]
    assert Counter(fates) == Counter([*asked, *lent]), "each once, whoever wrote it"
    found = funnel(world.strands, collected, made, trains=True)
    assert (found["written"], found["given"], found["trained"]) == (written, given, trained)
    assert found["dropped"] == dropped and found["unaccounted"] == 0
    assert NOBODY not in found["by_strand"]
    assert sum(found["scored"].values()) == written + given
    assert len(asked) == written and len(lent) == given


def test_a_drop_that_nobody_told_leaves_the_balance_open() -> None:
    collected, made = World((OWN,), passes=(), controls=(ZeroVariance(action="drop"),)).step()
    silent = replace(made, dropped=made.dropped[1:])
    assert funnel((OWN,), collected, silent, trains=True)["unaccounted"] == 2, "a group's two members"
    twice = replace(made, dropped=(*made.dropped, Dropped(FIRST, "again")))
    assert funnel((OWN,), collected, twice, trains=True)["unaccounted"] == -1
    stranger = replace(made, dropped=(*made.dropped, Dropped("stranger", "from nowhere")))
    assert funnel((OWN,), collected, stranger, trains=True)["by_strand"][NOBODY]["dropped"] == {"control": 1}


def test_who_only_serves_others_stands_aside_and_so_do_all_where_the_policy_rests() -> None:
    quiet = strand("quiet", terms=(), per_prompt=1)
    collected, made = World((OWN, quiet)).step()
    found = funnel((OWN, quiet), collected, made, trains=True)
    assert (found["trained"], found["aside"], found["unaccounted"]) == (4, 2, 0)
    assert found["by_strand"]["quiet"]["aside"] == 2 and found["by_strand"]["own"]["trained"] == 4
    resting = funnel((OWN, quiet), collected, made, trains=False)
    assert (resting["trained"], resting["aside"], resting["unaccounted"]) == (0, 6, 0)


def test_verdicts_are_counted_by_status_and_the_kept_by_what_controls_did() -> None:
    world = World((OWN, BOOK), (Gate(strand="own", otherwise="book"),), ("0001/own-0",), frozenset({FIRST}))
    collected, made = world.step()
    assert funnel(world.strands, collected, made, trains=True)["scored"] == {"ok": 5, "timeout": 1}
    assert collected.verdicts == {"kept": 2, "without own": 1, "without book": 1}
    unread = strand("own", credit=ConstantCredit())
    assert funnel((unread,), *World((unread,)).step(), trains=True)["scored"] == {"none": 4}


@pytest.mark.parametrize(
    ("world", "told"),
    [
        ("drawn elsewhere, twice in vain", {"kept": 1, "redrawn": 2, "dropped": 1}),
        ("the hinted take the failed ones' place", {"kept": 2, "hinted": 2, "swapped": 1}),
        ("one hinted takes one's place", {"kept": 2, "hinted": 2, "swapped": 2}),
        ("hints in vain", {"kept": 2, "hinted": 2}),
        ("hinted in vain, then dropped", {"hinted": 2, "dropped": 2}),
    ],
)
def test_what_controls_did_is_counted_by_group(world: str, told: dict[str, int]) -> None:
    assert WORLDS[world][0].step()[0].verdicts == told


# ---------------------------------------------------------------- tokens


def example(name: str, origins: Sequence[int], versions: Sequence[int], mask: Sequence[int], group: str) -> Example:
    one = trajectory(
        name,
        len(origins),
        version=next((one for one in versions if one >= 0), -1),
        group_id=group,
        origin=np.array(origins, np.int8),
        token_version=np.array(versions, np.int32),
        train_mask=np.array(mask, np.bool_),
    )
    return Example(one, 0, np.zeros(len(origins), np.float32))


L, D, H = (int(one) for one in (Origin.LEARNER, Origin.DEMONSTRATION, Origin.HINT))
MIXED = [
    example("one", [H, L, L, L], [-1, 4, 4, 5], [0, 1, 1, 1], "g"),
    example("two", [D, D], [-1, -1], [1, 1], "g"),
    example("three", [L, L], [2, 2], [1, 0], "h"),
    example("four", [H, L], [-1, 5], [1, 1], ""),
    example("five", [L], [5], [1], ""),
]


def test_tokens_and_groups_are_those_that_train_by_who_wrote_them() -> None:
    found = by_origin(MIXED, {"learner": {"loss": 0.5, "tokens": 99.0, "gradient_mass": 3.0}})
    assert found == {
        "learner": {"loss": 0.5, "gradient_mass": 3.0, "tokens": 6, "groups": 4},
        "demonstration": {"tokens": 2, "groups": 1},
        "hint": {"tokens": 1, "groups": 1},
    }
    assert by_origin([], {"learner": {"loss": 1.0}}) == {}


def test_staleness_is_how_far_behind_the_sampled_tokens_are() -> None:
    assert staleness(MIXED, version=5) == {"0": 3, "1": 2, "3": 1}
    assert staleness([MIXED[1]], version=5) == {} and staleness([], version=5) == {}


# ---------------------------------------------------------------- decisions


def plan_of(controls: tuple[Control, ...], step: int = 0, states: Any = None, **scope: Any) -> StepPlan:
    named = ("own", "book")
    states = [initial(one) for one in controls] if states is None else states
    return plan_step(controls, states, step, {"accuracy": 0.25, "seconds_train": 1.5}, 3, Scope(4, named, **scope))


BOTTLENECK = Bottleneck(reinforce="own", imports="book", candidates=1)
KNOWN = {"prompts": {"p0": list(Entry("unreached", 0.0, 9.0, 0)), "p1": list(Entry("unreliable", 1.0, 1.0, 0))}}

SHORT: dict[str, tuple[StepPlan, str]] = {
    "nothing decided": (plan_of(()), ""),
    "shares of the loss": (
        plan_of((Mixture(strand="book", against="own", peak=0.5, floor=0.25, decay=2),), 9), "book 0.25, own 0.75",
    ),
    "a coefficient of 1": (plan_of((Anneal(strand="own", start=0.5, end=1.0, over=1),), 3), ""),
    "a buffer that waits": (plan_of((Buffer(watch="own", strand="book", size=2),)), "book rests"),
    "a buffer that fires": (
        plan_of((Buffer(watch="own", strand="book", size=2),), 1, [{"waiting": ["p1", "p3", "p4"]}]),
        "book step: 2 waited",
    ),
    "classes": (
        plan_of((BOTTLENECK,), 1, [KNOWN], prompts=3, draw=lambda step: ("p0", "p1", "p2")),
        "unknown 1, unreached 1, unreliable 1",
    ),
    "a prefix": (plan_of((Prefix(strand="own", low=0.5, high=0.5),)), "own prefix 0.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORT)
def test_a_decision_is_told_in_a_few_words(name: str) -> None:
    plan, told = SHORT[name]
    assert in_short(plan, {"kept": 4}) == told
    both = in_short(plan, {"without own": 1, "kept": 3, "hinted": 2})
    assert both == "; ".join(part for part in (told, "groups: 2 hinted, 1 without own") if part)


def test_prompts_are_counted_by_whom_they_are_for_and_by_class() -> None:
    plan = SHORT["classes"][0]
    assert places(plan) == {"book": 1, "own": 2}
    assert classes(plan) == {"unknown": 1, "unreached": 1, "unreliable": 1}
    both = plan._replace(places=(Place("p0", frozenset({"own", "book"})), Place("p1")))
    assert places(both) == {"all": 1, "book+own": 1}
    assert places(plan_of(())) == {} and classes(plan_of(())) == {}


def test_a_decision_keeps_the_facts_that_it_was_made_by_and_each_controls_word() -> None:
    controls = (Buffer(watch="own", strand="book", size=2), Gate(strand="own", otherwise="book"))
    collected, _ = World((OWN, BOOK), controls).step()
    plan = plan_of(controls)
    stage = Stage(name="a", recipe=RecipeChoice(kind="grpo"), steps=4)
    outcome = {"step": 7, "accuracy": 0.5, "reward_mean": 0.5}
    row = decision_row(stage, (OWN, BOOK), replace(collected, plan=plan), outcome | dict.fromkeys(SHARES, 0.0))
    assert row["facts"] == {"accuracy": 0.25}, "as they were at planning, but for clocks"
    assert row["outcome"]["accuracy"] == 0.5
    assert [one["control"] for one in row["controls"]] == ["buffer", "gate"]
    assert row["controls"][0]["word"] == "book rests: 0 prompts wait, 2 make a step" and not row["controls"][1]["word"]
    assert row["verdicts"] == collected.verdicts and row["plan"]["rest"] == ["book"]


SHARES = ("share_learner", "share_demonstration", "on_policy_share")


def test_a_decisions_facts_are_the_last_steps_and_a_resume_has_the_same() -> None:
    world = Loop(steps=4, recipe="hpt", parameters={"rollouts": 2})
    world.run()
    facts = [row["facts"] for row in world.ledger.decisions]
    assert facts[0] == {}
    for now, before in zip(facts[1:], world.ledger.rows, strict=False):
        told = {key: value for key, value in before.items() if isinstance(value, float) and "seconds" not in key}
        assert json.dumps(now) == json.dumps(told), "NaN is NaN"
    assert facts[1] and not any("seconds" in key for one in facts for key in one)
    resumed = Loop(steps=4, recipe="hpt", parameters={"rollouts": 2})
    resumed.run(RunState(**json.loads(world.states[1])))
    assert json.dumps(resumed.ledger.decisions) == json.dumps(world.ledger.decisions[2:])


def test_with_samplers_ahead_facts_are_those_of_a_step_that_was_finished() -> None:
    world = Loop(steps=6, recipe="grpo", stale=2)
    world.learner.pause = 0.02
    world.run()
    assert [row["facts"] for row in world.ledger.decisions[:3]] == [{}] * 3, "planned before any step was done"
    assert world.ledger.decisions[3]["facts"]["accuracy"] == world.ledger.rows[0]["accuracy"]
