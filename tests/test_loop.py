"""The loop over fakes at its ports: staleness, order, what is remembered, and how failures end a stage."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from fakes import (
    FakeFrozen,
    FakeLearner,
    FakeLedger,
    FakePublisher,
    FakeSampler,
    FakeScorer,
    NoEyes,
    prompt,
    trajectory,
)

from orchestrator.collect import Collector
from orchestrator.config import RecipeChoice, Stage
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.recipes import load
from policies.prompt import Prompt
from policies.trajectory import Origin, Trajectory

PROMPTS = tuple(prompt(f"p{index}") for index in range(6))


@dataclass
class Book:
    """Demonstrations for the prompts that are not in `missing`."""

    missing: frozenset[str] = frozenset()

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        if prompt_id in self.missing:
            return None
        return trajectory(f"d-{prompt_id}", prompt_id=prompt_id, origin_of=Origin.DEMONSTRATION)

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        return [
            trajectory(f"d{step}-{draw}", prompt_id=f"p{draw % 6}", origin_of=Origin.DEMONSTRATION)
            for draw in range(count)
        ]


@dataclass
class World:
    """A stage over fakes."""

    recipe: str = "grpo"
    steps: int = 5
    stale: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    sampler: FakeSampler = field(default_factory=FakeSampler)
    scorer: FakeScorer = field(default_factory=FakeScorer)
    learner: FakeLearner = field(default_factory=FakeLearner)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    book: Book = field(default_factory=Book)
    seen: list[int] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    """The run's state after each step, as a checkpoint holds it."""

    def stage(self) -> StageRun:
        recipe = load(self.recipe, **self.parameters)
        config = Stage(
            name="a",
            recipe=RecipeChoice(kind=self.recipe),
            steps=self.steps,
            prompts_per_step=2,
            max_staleness=self.stale,
        )
        return StageRun(0, config, recipe.strands, recipe.controls)

    async def after(self, stage: StageRun, state: RunState) -> None:
        self.seen.append(state.step)
        self.states.append(json.dumps(asdict(state)))

    def ports(self) -> Ports:
        by_id = {one.id: one for one in PROMPTS}
        return Ports(
            collector=Collector(self.sampler, self.scorer, PROMPTS, by_id, self.book, seed=3),
            learner=self.learner,
            publisher=FakePublisher(self.sampler),
            ledger=self.ledger,
            eyes=NoEyes(),
            reference=None,
            teacher=None,
            after_step=self.after,
            wants_weights=lambda stage, state: False,
        )

    def run(self, state: RunState | None = None) -> RunState:
        self.sampler.version = (state or RunState()).version
        return asyncio.run(asyncio.wait_for(run_stage(self.stage(), self.ports(), state or RunState()), 20))


def test_synchronous_steps_train_on_the_version_that_is_served() -> None:
    world = World(steps=4)
    end = world.run()
    assert world.sampler.calls == [0, 1, 2, 3]
    assert (end.step, end.stage_step, end.version) == (4, 4, 4)
    assert [row["on_policy_share"] for row in world.ledger.rows] == [1.0] * 4
    assert [row["staleness_mean"] for row in world.ledger.rows] == [0.0] * 4
    assert world.seen == [1, 2, 3, 4]


@pytest.mark.parametrize("stale", [1, 2, 3])
def test_samplers_run_ahead_by_max_staleness_and_no_further(stale: int) -> None:
    world = World(steps=8, stale=stale)
    world.learner.pause = 0.02
    world.run()
    staleness = [row["staleness_mean"] for row in world.ledger.rows]
    assert max(staleness) == stale, "a quick sampler uses the whole allowance"
    assert all(0 <= value <= stale for value in staleness)
    assert [row["step"] for row in world.ledger.rows] == list(range(1, 9))


def test_every_trained_trajectory_is_in_the_ledger_under_its_step() -> None:
    world = World(steps=3, recipe="luffy", parameters={"rollouts": 3})
    world.run()
    assert set(world.ledger.added) == {1, 2, 3}
    for step, trained in enumerate(world.learner.steps, start=1):
        assert [one.trajectory.id for one in world.ledger.added[step]] == [one.trajectory.id for one in trained]
    ids = [one.trajectory.id for added in world.ledger.added.values() for one in added]
    assert len(ids) == len(set(ids)) == 3 * 2 * 4


def test_a_demonstration_shares_the_group_and_keeps_its_origin() -> None:
    world = World(steps=1, recipe="luffy", parameters={"rollouts": 3})
    world.run()
    (examples,) = world.learner.steps
    groups: dict[str, list[Any]] = {}
    for one in examples:
        groups.setdefault(one.trajectory.group_id, []).append(one)
    assert [len(members) for members in groups.values()] == [4, 4]
    for members in groups.values():
        given = [one for one in members if one.trajectory.origin[0] == Origin.DEMONSTRATION]
        assert len(given) == 1 and given[0].strand == 1
        assert given[0].trajectory.parent_id.startswith("d-")
        assert np.isnan(given[0].trajectory.behavior_logps).all(), "unknown stays unknown"
        rewards = np.array([one.trajectory.scores[0].value for one in members])
        told = np.array([one.advantages[0] for one in members])
        np.testing.assert_allclose(told, rewards - rewards.mean(), atol=1e-6)
    row = world.ledger.rows[0]
    assert row["share_learner"] == pytest.approx(0.75) and row["share_demonstration"] == pytest.approx(0.25)


def test_a_mixture_decides_the_shares_and_says_why() -> None:
    world = World(steps=3, recipe="chord", parameters={"rollouts": 2, "demonstrations": 3, "decay": 2})
    world.run()
    mu = [one["demonstrations"] for one in world.learner.coefficients]
    assert mu[0] == pytest.approx(0.9) and mu[-1] == pytest.approx(0.05)
    assert [one["rollouts"] for one in world.learner.coefficients] == pytest.approx([1 - value for value in mu])
    assert "cosine" in world.ledger.decisions[0]["reason"]


def test_an_unknown_verdict_is_excluded_counted_and_not_a_zero() -> None:
    lost = "a/000000/0000/rollouts-1"
    world = World(steps=1, scorer=FakeScorer(unknown=frozenset({lost})))
    world.run()
    (examples,) = world.learner.steps
    assert lost not in {one.trajectory.id for one in examples}
    assert world.ledger.rows[0]["unknown_rewards"] == 1
    dropped = [event for event in world.ledger.events if event["kind"] == "dropped"]
    assert [(event["id"], event["reason"]) for event in dropped] == [(lost, "no reward: timeout")]
    group = [one for one in examples if one.trajectory.group_id == "a/000000/0000"]
    rewards = np.array([one.trajectory.scores[0].value for one in group])
    expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
    np.testing.assert_allclose([one.advantages[0] for one in group], expected, rtol=1e-5)


def test_missing_demonstrations_are_counted() -> None:
    world = World(steps=1, recipe="sft", book=Book(missing=frozenset(one.id for one in PROMPTS)))
    with pytest.raises(ValueError, match="stage a: none of its 1 steps had anything to train on; the ledger's events"):
        world.run()
    assert world.learner.steps == [], "nothing to train on: no step is made up"
    assert world.ledger.rows[0]["missing_demonstrations"] == 2
    assert world.ledger.events[0]["kind"] == "demonstrations_missing"


@pytest.mark.parametrize("stale", [0, 2])
def test_a_dead_sampler_ends_the_stage_with_its_own_error(stale: int) -> None:
    world = World(steps=5, stale=stale, sampler=FakeSampler(dies_at=2))
    with pytest.raises(ExceptionGroup) as caught:
        world.run()
    assert caught.group_contains(RuntimeError, match="the sampler fell over")
    assert len(world.learner.steps) <= 2


def test_a_stage_goes_on_from_where_its_state_stands() -> None:
    whole, first = World(steps=4), World(steps=4)
    whole.run()
    state = RunState(stage=0, stage_step=2, step=2, version=2)
    first.run(state)
    ids = [[one.trajectory.id for one in step] for step in whole.learner.steps[2:]]
    assert [[one.trajectory.id for one in step] for step in first.learner.steps] == ids
    seeds = [[one.trajectory.seed for one in step] for step in whole.learner.steps[2:]]
    assert [[one.trajectory.seed for one in step] for step in first.learner.steps] == seeds


def test_a_resumed_stage_plans_by_the_states_and_facts_of_its_checkpoint() -> None:
    small: dict[str, Any] = {"rollouts": 2, "size": 3}
    whole = World(recipe="relift", steps=6, parameters=small, scorer=FakeScorer(passes=()))
    whole.run()
    rests = [row["plan"]["rest"] for row in whole.ledger.decisions]
    assert ["rollouts"] in rests and ["demonstrations"] in rests, "the buffer fills and empties"
    for done in range(1, 6):
        again = World(recipe="relift", steps=6, parameters=small, scorer=FakeScorer(passes=()))
        again.run(RunState(**json.loads(whole.states[done - 1])))
        ids = [[one.trajectory.id for one in step] for step in again.learner.steps]
        assert ids == [[one.trajectory.id for one in step] for step in whole.learner.steps[done:]]


# ---------------------------------------------------------------- families


class Counted(dict[str, Prompt]):
    """Prompts by id that say which were asked for, and cannot be gone through."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        super().__init__({one.id: one for one in prompts})
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> Prompt:
        self.asked.append(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.append(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("every prompt of the run was asked for")

    keys = values = items = __iter__


@pytest.mark.parametrize("families", [True, False])
def test_a_step_asks_for_its_own_prompts_and_no_other(families: bool) -> None:
    def told(number: int) -> Prompt:
        return prompt(f"p{number}", family="even" if number % 2 == 0 else "odd", tokens=np.array([number], np.int32))

    prompts = [told(number) for number in range(5000)]
    parameters = {"teachers": {"even": "even", "*": "all"}, "outcome": 0.0} if families else {"rollouts": 2}
    world = World(recipe="multi_teacher_opd" if families else "grpo", steps=3, parameters=parameters)
    by_id, even, rest = Counted(prompts), FakeFrozen(), FakeFrozen()
    world.sampler.version, ports = 0, world.ports()
    collector = replace(ports.collector, prompts=prompts, by_id=by_id)
    teachers = {"even": even} if families else {}
    ports = replace(ports, collector=collector, teachers=teachers, teacher=rest if families else None)
    asyncio.run(asyncio.wait_for(run_stage(world.stage(), ports, RunState()), 20))
    drawn = {one.trajectory.prompt_id for step in world.learner.steps for one in step}
    assert set(by_id.asked) == drawn and len(drawn) == 3 * 2
    asked = [sorted(context[0] for context in one.contexts) for one in (even, rest)]
    numbers = sorted(int(name[1:]) for name in drawn)
    assert asked == ([[n for n in numbers if n % 2 == left] for left in (0, 1)] if families else [[], []])
