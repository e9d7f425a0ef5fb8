"""Replay after a resume: the ledger gives back the memory of the unbroken run, and the same comes out of it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.ledger import RunLedger
from orchestrator.loop import RunState, StageRun, run_stage
from orchestrator.past import Held
from orchestrator.replay import Replay, read_back
from orchestrator.run_directory import RunDirectory
from policies.config import Source, Strand
from policies.example import Example
from policies.trajectory import CONTEXTS, PER_TOKEN, Origin, Producer, ScoreEntry, Trajectory
from tests.fakes import trajectory
from tests.test_loop import World

EVERYBODY = ("rollout", "revision", "correction", "search", "teacher", "demonstration")


def strand(name: str, **source: Any) -> Strand:
    given = {"producer": "replay", "per_prompt": 1, **source}
    return Strand(name=name, source=Source.model_validate(given), terms=())


STRANDS = (
    strand("plain", window=3),
    strand("few", window=4, limit=7),
    strand("everybody", window=5, limit=11, past={"producers": EVERYBODY}),
    strand("scored", window=2, limit=5, past={"producers": ["teacher", "rollout"], "at_least": 0.5, "age": 4}),
)


def step_of(step: int, draws: np.random.Generator, replay: Replay) -> list[Trajectory]:
    """A step's training data: own, taught and given words on a few prompts, and what is replayed of them."""
    rows = []
    for at in range(int(draws.integers(2, 6))):
        name, prompt = f"s{step}-{at}", f"p{draws.integers(0, 4)}"
        scores = (ScoreEntry("reward", float(draws.choice([0.0, 0.5, 1.0, np.nan]))),)
        logps = draws.normal(size=5).astype(np.float32)
        shared = {"prompt_id": prompt, "scores": scores, "tokens": draws.integers(0, 2, 5).astype(np.int32)}
        match int(draws.integers(0, 4)):
            case 0:
                one = trajectory(name, 5, origin_of=Origin.DEMONSTRATION, parent_id="book", **shared)
            case 1:
                given = {"producer": Producer.TEACHER, "model": "teacher", "behavior_logps": logps}
                one = trajectory(name, 5, origin_of=Origin.TEACHER, **given, **shared)
            case _:
                one = trajectory(name, 5, version=step - 1, behavior_logps=logps, **shared)
        rows.append(one)
    for at, one in enumerate(replay.of_prompt(f"p{draws.integers(0, 4)}", 2, STRANDS[2].source, step)):
        learners = one.producer is Producer.ROLLOUT
        again = replace(one, id=f"s{step}-r{at}", parent_id=one.id)
        rows.append(replace(again, producer=Producer.REPLAY) if learners else again)
    return rows


def same(one: Held, other: Held) -> bool:
    """Bit for bit, and in the same place."""
    here, there = one.trajectory, other.trajectory
    told = [(x.number, x.step, repr(x.value), x.passed) for x in (one, other)]
    plain = [
        (x.id, x.prompt_id, x.parent_id, x.producer, x.model, x.version, repr(x.scores), x.text, x.finish_reason)
        for x in (here, there)
    ]
    arrays = (getattr(here, name).tobytes() == getattr(there, name).tobytes() for name in (*CONTEXTS, *PER_TOKEN))
    return told[0] == told[1] and plain[0] == plain[1] and all(arrays)


def assert_same(one: Replay, other: Replay) -> None:
    assert (one.step, one.count, one.newest) == (other.step, other.count, other.newest)
    assert one.stores.keys() == other.stores.keys()
    for wanted, store in one.stores.items():
        mine, theirs = list(store), list(other.stores[wanted])
        assert [held.record.id for held in mine] == [held.record.id for held in theirs]
        assert all(same(held, twin) for held, twin in zip(mine, theirs, strict=True))
        assert list(store.order) == list(other.stores[wanted].order)


def test_the_memory_is_read_back_from_the_ledger_as_it_was(tmp_path: Path) -> None:
    """Eviction by both bounds, all writers, two stages; an unbroken run reads back where a stage begins."""
    run = RunDirectory.create(tmp_path / "run", "name: x\n", {})
    draws = np.random.default_rng(3)
    unbroken = read_back(run.trajectories, 0, STRANDS)
    assert unbroken is not None
    with RunLedger(run, {}) as ledger:
        for step in range(1, 25):
            if step == 13:
                ledger.flush()
                begun = read_back(run.trajectories, 12, STRANDS)
                assert begun is not None
                assert_same(begun, unbroken)
                unbroken = begun
            rows = step_of(step, draws, unbroken)
            ledger.add(step, [Example(one, 0, np.zeros(5, np.float32)) for one in rows], "a" if step < 13 else "b")
            unbroken.remember(rows)
            if step % 3 == 0 or step in (12, 13):
                ledger.flush()
                resumed = read_back(run.trajectories, step, STRANDS)
                assert resumed is not None
                assert_same(resumed, unbroken)
    few, whole = unbroken.stores[list(unbroken.stores)[1]], unbroken.stores[list(unbroken.stores)[2]]
    assert len(few) == 7 and len(whole) == 11, "both bounds were met"
    assert {one.record.producer for one in whole} >= {Producer.ROLLOUT, Producer.TEACHER, Producer.DEMONSTRATION}


def test_files_are_read_in_the_order_of_their_steps(tmp_path: Path) -> None:
    """Names of a million steps no longer sort as numbers do."""
    run = RunDirectory.create(tmp_path / "run", "name: x\n", {})
    with RunLedger(run, {}) as ledger:
        for step in (999_999, 1_000_000):
            ledger.add(step, [Example(trajectory(f"s{step}"), 0, np.zeros(4, np.float32))], "a")
    replay = read_back(run.trajectories, 1_000_000, STRANDS)
    assert replay is not None and [one.step for one in next(iter(replay.stores.values()))] == [999_999, 1_000_000]
    later = read_back(run.trajectories, 1_000_003, STRANDS)
    assert later is not None and later.step == 1_000_003, "also where the last steps left no file"


def drawn(examples: Sequence[Sequence[Example]]) -> list[list[tuple[str, str, str]]]:
    """What each step trained on, and what each came from."""
    return [
        [(one.trajectory.id, one.trajectory.parent_id, one.trajectory.producer) for one in step] for step in examples
    ]


def staged(world: World, past: dict[str, Any]) -> StageRun:
    """The world's stage, whose replay asks for `past`."""
    stage = world.stage()
    strands = tuple(
        one.model_copy(update={"source": Source.model_validate(one.source.model_dump() | past)})
        if one.source.producer == "replay"
        else one
        for one in stage.strands
    )
    return replace(stage, strands=strands)


def train(world: World, stage: StageRun, run: RunDirectory, state: RunState) -> None:
    """The stage from where the state stands, over a real ledger."""
    with RunLedger(run, {}) as ledger:
        ledger.truncate_after(state.step)
        replay = read_back(run.trajectories, state.step, stage.strands, lambda: state.version)
        collector = replace(world.ports().collector, replay=replay)
        world.sampler.version = state.version
        asyncio.run(run_stage(stage, replace(world.ports(), collector=collector, ledger=ledger), state))


@pytest.mark.parametrize("past", [{}, {"limit": 3}, {"past": {"versions": 3, "age": 2, "at_least": 0.5}}])
@pytest.mark.parametrize("recipe", ["repo", "exgrpo", "bottleneck"])
def test_a_resumed_run_replays_what_the_unbroken_one_does(recipe: str, past: dict[str, Any], tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "name: x\n", {})
    whole = World(steps=8, recipe=recipe, parameters={"rollouts": 2})
    train(whole, staged(whole, past), run, RunState())
    expected = drawn(whole.learner.steps)
    if recipe != "bottleneck":
        assert any(kind == "replay" for step in expected[4:] for _, _, kind in step), "something comes back"
    again = World(steps=8, recipe=recipe, parameters={"rollouts": 2})
    train(again, staged(again, past), run, RunState(**json.loads(whole.states[3])))
    assert drawn(again.learner.steps) == expected[4:]


def test_what_others_wrote_comes_back_as_theirs_and_does_not_multiply(tmp_path: Path) -> None:
    """Rollouts and demonstrations train together, and a third strand brings both back, with a resume in the middle."""
    run = RunDirectory.create(tmp_path / "run", "name: x\n", {})

    def mixed(world: World) -> StageRun:
        stage = world.stage()
        past = {"past": {"producers": ["rollout", "demonstration"]}, "per_prompt": 3, "refill": "random"}
        imitation = next(one for one in stage.strands if one.source.producer == "demonstration")
        again = imitation.model_copy(update={"name": "again", "source": strand("again", **past).source})
        return replace(stage, strands=(*stage.strands, again))

    whole = World(steps=10, recipe="luffy", parameters={"rollouts": 2})
    train(whole, mixed(whole), run, RunState())
    again = World(steps=10, recipe="luffy", parameters={"rollouts": 2})
    train(again, mixed(again), run, RunState(**json.loads(whole.states[5])))
    assert drawn(again.learner.steps) == drawn(whole.learner.steps)[6:]

    back = [one.trajectory for step in whole.learner.steps for one in step if one.strand == 2]
    assert {one.producer for one in back} == {Producer.REPLAY, Producer.DEMONSTRATION}
    for one in back:
        theirs = one.producer is Producer.DEMONSTRATION
        assert (one.origin == (Origin.DEMONSTRATION if theirs else Origin.LEARNER)).all()
        assert np.isnan(one.behavior_logps).all() if theirs else (one.behavior_logps == -1.0).all()
    memory = read_back(run.trajectories, 10, mixed(whole).strands)
    assert memory is not None
    (store,) = memory.stores.values()
    for name in store.by_prompt:
        kinds = [one.record.producer for one in store.of_prompt(name)]
        assert kinds.count(Producer.DEMONSTRATION) == 1, "the book has one for each prompt, trained over and over"
        assert "again" not in "".join(one.record.id for one in store.of_prompt(name))
