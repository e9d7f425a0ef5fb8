"""Replay: bounded, read back from the ledger as it was, drawn by the strategy, never this step's own."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.ledger import RunLedger
from orchestrator.loop import RunState, StageRun, run_stage
from orchestrator.replay import Replay, read_back, window_of
from orchestrator.run_directory import RunDirectory
from policies.config import Source, Strand
from policies.example import Example
from policies.trajectory import Origin, Producer, ScoreEntry, Trajectory
from tests.fakes import trajectory
from tests.test_loop import World


def past(name: str, value: float, *, logp: float = -1.0, prompt: str = "p0") -> Trajectory:
    scores = (ScoreEntry("reward", value, value > 0.5),)
    return trajectory(name, prompt_id=prompt, scores=scores, behavior_logps=np.full(4, logp, np.float32))


def source(refill: str, window: int = 16) -> Source:
    return Source.model_validate({"producer": "replay", "per_prompt": 2, "refill": refill, "window": window})


PAST = (past("a", 0.0, logp=-3), past("b", 1.0, logp=-2), past("c", 0.5, logp=-0.1), past("d", 1.0, logp=-1))


@pytest.mark.parametrize(("refill", "names"), [("recent", "cd"), ("best", "bd"), ("variance", "ad"), ("bucket", "bd")])
def test_a_strategy_says_which_of_the_past_comes_back(refill: str, names: str) -> None:
    replay = Replay(16)
    replay.remember(PAST)
    chosen = replay.of_prompt("p0", 2, source(refill), seed=1)
    assert "".join(one.id for one in chosen) == names


def test_random_replay_is_a_function_of_its_seed() -> None:
    replay = Replay(16)
    replay.remember(PAST)
    draws = [tuple(one.id for one in replay.of_prompt("p0", 2, source("random"), seed)) for seed in range(20)]
    again = [tuple(one.id for one in replay.of_prompt("p0", 2, source("random"), seed)) for seed in range(20)]
    assert draws == again and len(set(draws)) > 3


def test_the_memory_is_bounded_and_holds_the_learners_own_alone() -> None:
    replay = Replay(3)
    replay.remember(past(f"t{at}", 1.0) for at in range(10))
    replay.remember([trajectory("book", origin_of=Origin.DEMONSTRATION)])
    replay.remember([trajectory("old", producer=Producer.REPLAY)])
    assert [one.id for one in replay.past["p0"]] == ["t7", "t8", "t9"]
    assert [one.id for one in replay.of_prompt("p0", 9, source("recent", window=2), 0)] == ["t8", "t9"]
    assert replay.of_prompt("elsewhere", 1, source("recent"), 0) == []


def test_one_of_each_prompt_is_replayed_for_a_step() -> None:
    replay = Replay(4)
    replay.remember(past(f"{at}", float(at % 2), prompt=f"p{at % 5}") for at in range(20))
    first = replay.at_step(3, 4, source("recent"), seed=7)
    assert len({one.prompt_id for one in first}) == 4
    assert [one.id for one in first] == [one.id for one in replay.at_step(3, 4, source("recent"), seed=7)]
    assert len(replay.at_step(3, 99, source("recent"), seed=7)) == 5


def test_the_memory_is_read_back_from_the_ledger_as_it_was(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "name: x\n", {})
    kept = Replay(3)
    with RunLedger(run, {"a": ("own",)}) as ledger:
        for step in range(1, 5):
            records = [past(f"s{step}-{at}", float(at), prompt=f"p{at % 2}") for at in range(3)]
            ledger.add(step, [Example(one, 0, np.zeros(4, np.float32)) for one in records], "a")
            if step < 4:
                kept.remember(records)
    back = read_back(run.trajectories, 3, 3)
    assert back.past.keys() == kept.past.keys()
    for name, held in kept.past.items():
        assert [one.id for one in back.past[name]] == [one.id for one in held]
        for one, other in zip(held, back.past[name], strict=True):
            np.testing.assert_array_equal(one.behavior_logps, other.behavior_logps)
            assert (one.scores, one.version) == (other.scores, other.version)


def test_a_step_replays_earlier_steps_with_their_versions_and_verdicts() -> None:
    world = World(steps=4, recipe="repo", parameters={"rollouts": 2, "replayed": 1})
    stage = world.stage()
    assert window_of(stage.strands) > 0
    replayed = _run(world, stage)
    assert replayed, "prompts come round again"
    for step, one in replayed:
        assert one.producer is Producer.REPLAY and one.version < step, "never this step's own"
        assert one.parent_id.split("/")[1] < f"{step:06d}" and one.prompt_id
        assert (one.token_version == one.version).all() and (one.behavior_logps == -1.0).all()
    judged = [name for name in world.scorer.judged if "replayed" in name]
    assert judged == [], "their verdicts are those of then"


def _run(world: World, stage: StageRun) -> list[tuple[int, Trajectory]]:
    ports = world.ports()
    collector = replace(ports.collector, replay=Replay(16))
    world.sampler.version = 0
    asyncio.run(run_stage(stage, replace(ports, collector=collector), RunState()))
    names = [strand.name for strand in stage.strands]
    own = names.index("replayed")
    return [
        (step, one.trajectory)
        for step, examples in enumerate(world.learner.steps)
        for one in examples
        if one.strand == own
    ]


def test_window_is_the_widest_that_a_strand_asks_for() -> None:
    strands = [Strand(name=str(n), source=source("recent", window=n), terms=()) for n in (3, 9, 5)]
    assert window_of(strands) == 9 and window_of([]) == 0
