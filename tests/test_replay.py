"""Replay: what is asked of the past comes back as it was, drawn by the strategy, never this step's own, never twice."""

import asyncio
from dataclasses import replace
from itertools import combinations
from math import exp
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from orchestrator.loop import RunState, StageRun, run_stage
from orchestrator.past import packed, unpacked
from orchestrator.replay import Replay, weights
from policies.config import Past, Source, Strand
from policies.trajectory import CONTEXTS, PER_TOKEN, Origin, Preference, Producer, ScoreEntry, Trajectory
from tests.fakes import trajectory
from tests.test_loop import World


def past(name: str, value: float, *, logp: float = -1.0, prompt: str = "p0", **fields: Any) -> Trajectory:
    scores = (ScoreEntry("reward", value, value > 0.5),)
    logps = np.full(4, logp, np.float32)
    return trajectory(name, prompt_id=prompt, scores=scores, **{"behavior_logps": logps, **fields})


def source(refill: str = "recent", window: int = 16, limit: int = 65_536, **asked: Any) -> Source:
    given = {"refill": refill, "window": window, "limit": limit, "past": asked}
    return Source.model_validate({"producer": "replay", "per_prompt": 2, **given})


def memory(*sources: Source) -> Replay:
    replay = Replay.of([Strand(name=f"s{at}", source=one, terms=()) for at, one in enumerate(sources)])
    assert replay is not None
    return replay


def held(replay: Replay) -> list[str]:
    return [one.record.id for one in replay.query(Past(producers=EVERYBODY))]


EVERYBODY = ("rollout", "revision", "correction", "search", "teacher", "demonstration")
PAST = (past("a", 0.0, logp=-3), past("b", 1.0, logp=-2), past("c", 0.5, logp=-0.1), past("d", 1.0, logp=-1))


# ---------------------------------------------------------------- strategies


@pytest.mark.parametrize(("refill", "names"), [("recent", "cd"), ("best", "bd"), ("variance", "ad"), ("bucket", "bd")])
def test_a_strategy_says_which_of_the_past_comes_back(refill: str, names: str) -> None:
    replay = memory(source(refill))
    replay.remember(PAST)
    chosen = replay.of_prompt("p0", 2, source(refill), seed=1)
    assert "".join(one.id for one in chosen) == names


def test_random_replay_is_a_function_of_its_seed() -> None:
    replay = memory(source("random"))
    replay.remember(PAST)
    draws = [tuple(one.id for one in replay.of_prompt("p0", 2, source("random"), seed)) for seed in range(20)]
    again = [tuple(one.id for one in replay.of_prompt("p0", 2, source("random"), seed)) for seed in range(20)]
    assert draws == again and len(set(draws)) > 3


@pytest.mark.parametrize("count", [1, 3, 6])
def test_of_a_bucket_the_successes_of_lowest_entropy_come_first(count: int) -> None:
    """ExGRPO's estimate: the mean of -log p of what was sampled; failures come only where nothing passed."""
    draws = np.random.default_rng(count)
    rows = [past(f"t{at}", float(at % 2), behavior_logps=-draws.random(4).astype(np.float32)) for at in range(12)]
    replay = memory(source("bucket"))
    replay.remember(rows)
    entropy = {one.id: float(np.mean(-one.behavior_logps.astype(float))) for one in rows if one.scores[0].passed}
    expected = sorted(sorted(entropy, key=lambda name: entropy[name])[:count])
    assert sorted(one.id for one in replay.of_prompt("p0", count, source("bucket"), 0)) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_variance_is_the_greatest_of_all_subsets(seed: int, count: int) -> None:
    """RePO's max variance against enumeration."""
    values = np.random.default_rng(seed).normal(size=8).round(1)
    replay = memory(source("variance"))
    replay.remember(past(f"t{at}", float(value)) for at, value in enumerate(values))
    chosen = [one.scores[0].value for one in replay.of_prompt("p0", count, source("variance"), 0)]
    greatest = max(float(np.var(some)) for some in combinations(values, count))
    assert len(chosen) == count and float(np.var(chosen)) == pytest.approx(greatest)


def test_a_prompt_is_drawn_by_the_bucket_of_its_solve_rate() -> None:
    """ExGRPO: exp(-(mu - 1/2)^2 / 2), mu the solve rate in eighths; the draws follow it."""
    asked = source("bucket")
    replay = memory(asked)
    rates = {"none": 0, "few": 3, "half": 8, "most": 13, "all": 16}
    for name, passes in rates.items():
        replay.remember(past(f"{name}{at}", float(at < passes), prompt=name) for at in range(16))
    closed = np.array([exp(-((round(8 * rates[name] / 16) / 8 - 0.5) ** 2) / 2) for name in sorted(rates)])
    pools = [replay.query(Past(), name) for name in sorted(rates)]
    np.testing.assert_allclose(weights(pools, asked), closed, rtol=1e-12)
    np.testing.assert_array_equal(weights(pools, source("best")), np.ones(5))
    drawn = [replay.at_step(step, 1, asked, seed=5)[0].prompt_id for step in range(4_000)]
    share = np.array([drawn.count(name) / len(drawn) for name in sorted(rates)])
    np.testing.assert_allclose(share, closed / closed.sum(), atol=0.02)


def test_one_of_each_prompt_is_replayed_for_a_step() -> None:
    asked = source(window=4)
    replay = memory(asked)
    replay.remember(past(f"{at}", float(at % 2), prompt=f"p{at % 5}") for at in range(20))
    first = replay.at_step(3, 4, asked, seed=7)
    assert len({one.prompt_id for one in first}) == 4
    assert [one.id for one in first] == [one.id for one in replay.at_step(3, 4, asked, seed=7)]
    assert len(replay.at_step(3, 99, asked, seed=7)) == 5
    other = source("random")
    replay = memory(other)
    replay.remember(PAST)
    assert len({replay.at_step(step, 1, other, seed=7)[0].id for step in range(12)}) > 1, "another in another step"


# ---------------------------------------------------------------- what is asked


ASKED: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "abcd r"),
    ({"passed": True}, "bd r"),
    ({"passed": False}, "ac"),
    ({"at_least": 0.5}, "bcd r"),
    ({"at_least": 0.25, "at_most": 0.75}, "c"),
    ({"at_most": 0.0}, "a"),
    ({"producers": ["revision"]}, "r"),
    ({"producers": ["teacher"]}, "T"),
    ({"producers": ["demonstration"]}, "DC"),
    ({"producers": ["teacher", "rollout"], "passed": True}, "bd T"),
    ({"producers": ["search", "correction"]}, ""),
)


def everybody() -> list[Trajectory]:
    """What trains in a step of many strands: only some of it is a past to come back."""
    given = {"origin_of": Origin.DEMONSTRATION}
    unknown = ScoreEntry("reward", float("nan"), None, "timeout")
    return [
        *PAST,
        trajectory("u", scores=(unknown,)),
        past("r", 1.0, producer=Producer.REVISION, parent_id="a"),
        past("old", 1.0, producer=Producer.REPLAY, parent_id="b"),
        past("T", 1.0, origin_of=Origin.TEACHER, producer=Producer.TEACHER),
        trajectory("D", tokens=np.array([9, 9, 9, 9], np.int32), **given),
        trajectory("C", preference=Preference("set", 1.0), **given),
        trajectory("R", tokens=np.array([9, 9, 9, 8], np.int32), preference=Preference("set", 0.0), **given),
        trajectory("E", 0),
        trajectory("H", origin_of=Origin.HINT, producer=Producer.ROLLOUT),
    ]


@pytest.mark.parametrize(("asked", "names"), ASKED)
def test_a_source_gets_what_it_asks_for(asked: dict[str, Any], names: str) -> None:
    one = source(**asked)
    replay = memory(one)
    replay.remember(everybody())
    found = [each.id for each in replay.of_prompt("p0", 99, one, 0)]
    expected = [*names.replace(" ", ""), *(["u"] if not asked else [])]
    assert sorted(found) == sorted(expected)
    whole = memory(source(producers=EVERYBODY))
    whole.remember(everybody())
    assert sorted(each.record.id for each in whole.query(one.past)) == sorted(expected), "the same, asked of all"


def test_what_does_not_match_takes_no_place_in_the_window() -> None:
    asked, anything = source(window=2, passed=True), source(window=2)
    replay = memory(asked, anything)
    replay.remember(past(f"t{at}", float(at in (1, 3))) for at in range(9))
    assert [one.id for one in replay.of_prompt("p0", 9, asked, 0)] == ["t1", "t3"]
    assert [one.id for one in replay.of_prompt("p0", 9, anything, 0)] == ["t7", "t8"]
    assert held(replay) == ["t1", "t3", "t7", "t8"]


def test_age_is_counted_in_steps_and_versions_against_the_learners() -> None:
    young, near, both = source(age=2), source(versions=3), source(age=3, versions=2)
    served = [9]
    strands = [Strand(name=str(at), source=one, terms=()) for at, one in enumerate((young, near, both))]
    replay = Replay.of(strands, lambda: served[0])
    assert replay is not None
    for step in range(1, 6):
        replay.remember([past(f"s{step}", 1.0, version=step)], step)
    replay.remember([], 6)

    def asked(one: Source) -> list[str]:
        return [each.id for each in replay.of_prompt("p0", 9, one, 0)]

    assert asked(young) == ["s5"], "in step 7"
    assert asked(near) == []
    served[0] = 7
    assert asked(near) == ["s4", "s5"] and asked(both) == ["s5"]
    assert [one.id for one in replay.at_step(0, 3, near, 0)] == ["s5"], "the newest of them"
    assert replay.at_step(0, 3, source(age=2), 0)[0].id == "s5"
    assert [one.record.id for one in replay.query(Past(age=4))] == ["s3", "s4", "s5"]
    replay.version = None
    replay.remember([past("late", 0.0, prompt="p1", version=2)], 6)
    assert asked(near) == ["s3", "s4", "s5"], "where nobody says: one more than the newest"


def test_a_teachers_words_have_no_version_to_lie_behind() -> None:
    asked = source(versions=1, producers=["teacher"])
    replay = memory(asked)
    replay.remember([past("t", 1.0, origin_of=Origin.TEACHER, producer=Producer.TEACHER)])
    replay.remember([past("own", 1.0, version=7)])
    assert [one.id for one in replay.of_prompt("p0", 9, asked, 0)] == ["t"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"at_least": 1.0, "at_most": 0.5}, "past.at_least is above at_most, 0.5"),
        ({"producers": []}, "at least 1"),
        ({"producers": ["replay"]}, "demonstration"),
        ({"age": 0}, "greater than or equal to 1"),
        ({"versions": 0}, "greater than or equal to 1"),
        ({"score": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        source(**asked)


def test_a_source_that_no_strand_has_is_a_fault() -> None:
    with pytest.raises(ValueError, match="none of the stage's"):
        memory(source()).of_prompt("p0", 1, source(window=3), 0)
    assert Replay.of([]) is None


# ---------------------------------------------------------------- bounds


def test_the_memory_is_bounded_and_holds_the_learners_own_alone() -> None:
    replay = memory(source(window=3))
    replay.remember(past(f"t{at}", 1.0) for at in range(10))
    replay.remember([trajectory("book", origin_of=Origin.DEMONSTRATION)])
    replay.remember([trajectory("old", producer=Producer.REPLAY)])
    assert held(replay) == ["t7", "t8", "t9"]
    assert replay.of_prompt("elsewhere", 1, source(window=3), 0) == []


def newest(rows: list[Trajectory], window: int, limit: int) -> list[str]:
    """What a store must hold, said backwards: from the newest on, no words twice, `window` a prompt, `limit` in all."""
    taken: list[str] = []
    words: set[tuple[Any, ...]] = set()
    share: dict[str, int] = {}
    for one in reversed(rows):
        own = one.producer is Producer.ROLLOUT
        key = (one.id,) if own else (one.prompt_id, one.producer, one.tokens.tobytes())
        if key in words or share.get(one.prompt_id, 0) == window or len(taken) == limit:
            continue
        words.add(key)
        share[one.prompt_id] = share.get(one.prompt_id, 0) + 1
        taken.append(one.id)
    return taken[::-1]


@pytest.mark.parametrize(("window", "limit"), [(1, 4), (3, 7), (4, 5), (16, 6), (2, 99)])
def test_the_oldest_leaves_first_whatever_its_prompt(window: int, limit: int) -> None:
    draws = np.random.default_rng(window + limit)
    asked = source(window=window, limit=limit, producers=["rollout", "demonstration"])
    replay, rows = memory(asked), list[Trajectory]()
    for step in range(1, 61):
        some = []
        for at in range(int(draws.integers(0, 4))):
            prompt, name = f"p{draws.integers(0, 4)}", f"s{step}-{at}"
            if draws.random() < 0.5:
                some.append(past(name, 1.0, prompt=prompt))
            else:
                words = np.full(3, draws.integers(0, 3), np.int32)
                given = {"tokens": words, "parent_id": "book", "origin_of": Origin.DEMONSTRATION}
                some.append(trajectory(name, 3, prompt_id=prompt, **given))
        replay.remember(some, step)
        rows += some
        (store,) = replay.stores.values()
        assert [one.record.id for one in store] == newest(rows, window, limit) and len(store) <= limit
        assert sum(len(own) for own in store.by_prompt.values()) == len(store) and all(store.by_prompt.values())


@pytest.mark.parametrize("logps", [[-1.5, np.nan, -0.25, -1.5], [np.nan] * 4, [0.0, np.nan, -0.0, 0.0], [-1.5] * 4])
def test_a_memory_keeps_no_buffer_of_the_step_that_it_came_from(logps: list[float]) -> None:
    whole, logps = np.arange(1 << 16, dtype=np.int32), np.array(logps, np.float32)
    one = past("a", 1.0, tokens=whole[8:12], train_context=whole[:3], behavior_context=whole[:3], behavior_logps=logps)
    kept = packed(one)
    for name in (*CONTEXTS, *PER_TOKEN):
        array = getattr(kept, name)
        assert not np.shares_memory(array, getattr(one, name))
    assert np.shares_memory(kept.behavior_context, kept.train_context), "equal contexts are one"
    back = unpacked(kept)
    for name in (*CONTEXTS, *PER_TOKEN):
        assert getattr(back, name).tobytes() == getattr(one, name).tobytes(), name
        assert getattr(back, name).flags.c_contiguous and not getattr(back, name).flags.writeable
    assert (back.id, back.scores, back.text) == (one.id, one.scores, one.text)
    sibling = packed(replace(one, id="b"), kept)
    assert np.shares_memory(sibling.train_context, kept.train_context)


# ---------------------------------------------------------------- it does not feed itself


def test_a_replayed_trajectory_that_trains_again_is_not_remembered_twice() -> None:
    asked = source(producers=EVERYBODY)
    replay = memory(asked)
    given = {"origin_of": Origin.TEACHER, "producer": Producer.TEACHER}
    found = past("s1/found", 1.0, producer=Producer.SEARCH)
    replay.remember([past("s1/own", 1.0), past("s1/taught", 1.0, **given), found], 1)
    for step in range(2, 9):
        back = replay.of_prompt("p0", 9, asked, step)
        assert [one.id for one in back] == ["s1/own", "s1/taught", "s1/found"]
        producers = (Producer.REPLAY, Producer.TEACHER, Producer.SEARCH)
        again = [
            replace(one, id=f"s{step}/{at}", parent_id=one.id, producer=producers[at]) for at, one in enumerate(back)
        ]
        replay.remember(again, step)
    assert [(one.record.id, one.step) for one in replay.query(Past(producers=EVERYBODY))] == [
        ("s1/own", 1),
        ("s1/taught", 1),
        ("s1/found", 1),
    ], "its age is that of what the teacher wrote"


def test_a_revision_of_what_is_held_is_remembered() -> None:
    replay = memory(source())
    replay.remember([past("a", 1.0)])
    replay.remember([past("b", 1.0, parent_id="a", producer=Producer.REVISION, tokens=np.array([7] * 4, np.int32))])
    assert held(replay) == ["a", "b"]


def test_the_same_words_of_a_data_set_are_held_once_as_of_the_last_time() -> None:
    asked = source(window=2, producers=["demonstration", "rollout"])
    replay = memory(asked)
    for step in range(1, 4):
        shown = trajectory(f"s{step}/shown", parent_id="book-0", origin_of=Origin.DEMONSTRATION)
        replay.remember([shown, past(f"s{step}/own", 1.0)], step)
    assert [(one.record.id, one.step) for one in replay.query(asked.past)] == [("s3/shown", 3), ("s3/own", 3)]


# ---------------------------------------------------------------- in the loop


def test_a_step_replays_earlier_steps_with_their_versions_and_verdicts() -> None:
    world = World(steps=4, recipe="repo", parameters={"rollouts": 2, "replayed": 1})
    stage = world.stage()
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
    collector = replace(ports.collector, replay=Replay.of(stage.strands))
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
