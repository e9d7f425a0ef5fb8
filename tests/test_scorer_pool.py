"""Scorers that die, hang, raise or miscount: each response gets its entry, only the culprit's is an error."""

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from actors import cluster
from actors.cluster import Actor, ActorLostError
from actors.scorer_pool import CHUNK, RESTARTS, ScorerPool
from tests.mortal_scorer import Mortal, verdicts
from verifiers.grader import Asked


@dataclass
class Fake:
    """An actor at the port: what it does is written in the responses."""

    world: "World"
    name: str
    alive: bool = True

    async def judge(self, items, seconds):
        self.world.calls.append((self.name, [one.id for one in items]))
        await asyncio.sleep(0)
        if not self.alive:
            raise ActorLostError(self.name, "it was dead")
        said = [one.response for one in items]
        if "bomb" in said:
            self.alive = False
            raise ActorLostError(self.name, "out of memory")
        if "raise" in said:
            raise KeyError("oops")
        if "hang" in said:
            await asyncio.sleep(1000)
        if "slow" in said:
            await asyncio.sleep(0.3)
        if "miscount" in said:
            return verdicts(items[1:])
        return verdicts(items)

    async def __ray_ready__(self):
        await asyncio.sleep(self.world.mending)
        if self.world.barren:
            raise RuntimeError("cannot start")


@dataclass
class Handle:
    fake: Fake

    def __getattr__(self, method):
        return Remote(getattr(self.fake, method))


@dataclass
class Remote:
    call: object

    def remote(self, *args):
        return self.call(*args)


@dataclass
class World:
    replicas: int = 2
    compares: bool = False
    timeout: float = 30.0
    barren: bool = False
    """Whether no new scorer starts."""
    mending: float = 0.0
    """Seconds that a new one takes to start."""
    calls: list = field(default_factory=list)
    events: list = field(default_factory=list)
    spawned: Counter = field(default_factory=Counter)
    killed: list = field(default_factory=list)

    def spawn(self, place):
        self.spawned[place] += 1
        name = f"run/scorer-{place}.{self.spawned[place]}"
        return Actor(Handle(Fake(self, name)), name)

    def pool(self):
        return ScorerPool(
            self.spawn,
            [self.spawn(place) for place in range(self.replicas)],
            self.timeout,
            lambda kind, **facts: self.events.append((kind, facts)),
            self.killed.append,
            start=5.0,
            compares=self.compares,
            grace=0.2,
        )

    def kinds(self):
        return Counter(kind for kind, _ in self.events)


def asked(*responses, groups=None):
    return [Asked(f"t{at}", "p", said, '"1"', groups[at] if groups else f"g{at}") for at, said in enumerate(responses)]


async def statuses(pool, items):
    found = await asyncio.wait_for(pool.judge(items), 60)
    assert len(found) == len(items)
    assert all(one.passed is None and math.isnan(one.value) for (one,) in found if one.status != "ok")
    return [one.status if one.status != "ok" else one.value for (one,) in found]


RIGHT, WRONG = ["right"], ["wrong"]


@pytest.mark.parametrize("replicas", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
async def test_every_response_gets_its_own_verdict_in_order(replicas, count):
    world = World(replicas)
    said = [("right", "wrong")[at * at % 3 % 2] for at in range(count)]
    assert await statuses(world.pool(), asked(*said)) == [float(one == "right") for one in said]
    handed = [name for _, names in world.calls for name in names]
    assert sorted(handed) == sorted(f"t{at}" for at in range(count))  # each asked once
    assert all(len(names) <= CHUNK for _, names in world.calls)
    assert not world.events


@pytest.mark.parametrize("replicas", [1, 2, 8])
@pytest.mark.parametrize("hostile", ["bomb", "raise", "miscount"])
async def test_only_the_culprits_answer_is_an_error(replicas, hostile):
    world = World(replicas)
    said = RIGHT * 20 + [hostile] + WRONG * 20 + [hostile] + RIGHT * 5
    found = await statuses(world.pool(), asked(*said))
    assert found == [1.0] * 20 + ["error"] + [0.0] * 20 + ["error"] + [1.0] * 5
    assert world.kinds()["scorer_failed"] >= 3
    if hostile == "bomb":
        assert len(world.killed) == world.kinds()["scorer_restart"] >= 3
    else:
        assert not world.killed  # it raised; it lives


async def test_what_was_asked_of_one_that_had_died_before_is_not_to_blame():
    world = World(1)
    pool = world.pool()
    pool.replicas[0].handle.fake.alive = False
    assert await statuses(pool, asked("right")) == [1.0]
    assert world.kinds() == {"scorer_failed": 1, "scorer_restart": 1}


async def test_a_hung_scorer_costs_its_own_chunk_and_is_replaced():
    world = World(4, timeout=0.5)
    said = RIGHT * 40 + ["hang"] + RIGHT * 40
    pool = world.pool()
    began = time.monotonic()
    found = await statuses(pool, asked(*said))
    assert time.monotonic() - began < 20
    lost = [at for at, one in enumerate(found) if one == "timeout"]
    assert 40 in lost and len(lost) <= -(-81 // 8) and set(found) == {1.0, "timeout"}
    (failed,) = [facts for kind, facts in world.events if kind == "scorer_failed"]
    assert (failed["status"], failed["count"]) == ("timeout", len(lost))
    assert world.kinds() == {"scorer_failed": 1, "scorer_restart": 1} and len(world.killed) == 1
    assert await statuses(pool, asked(*RIGHT * 30)) == [1.0] * 30  # the newcomer serves


async def test_a_slow_scorer_does_not_hold_the_others_items():
    world = World(2)
    await statuses(world.pool(), asked("slow", *RIGHT * 63))
    by = Counter(name.partition(".")[0] for name, names in world.calls for _ in names)
    slow = next(name for name, names in world.calls if "t0" in names)
    assert by[slow.partition(".")[0]] <= 16 and sum(by.values()) == 64  # its first chunk, a quarter, and no more


async def test_when_every_scorer_hangs_the_rest_is_not_judged_and_it_is_said():
    world = World(2, timeout=0.3)
    found = await statuses(world.pool(), asked(*["hang"] * 200))
    assert set(found) == {"timeout"}
    assert world.kinds()["unjudged"] == 1


async def test_a_verifier_that_cannot_live_ends():
    world = World(2)
    found = await statuses(world.pool(), asked(*["bomb"] * 200))
    assert set(found) == {"error"}
    assert sum(world.spawned.values()) <= 2 * (RESTARTS + 2)


async def test_many_culprits_among_the_innocent_use_nobody_up():
    world = World(1)
    said = ["bomb" if at % 25 == 7 else "right" for at in range(1000)]
    assert await statuses(world.pool(), asked(*said)) == ["error" if one == "bomb" else 1.0 for one in said]
    assert RESTARTS < sum(world.spawned.values()) - 1 <= 80  # at most two deaths each


async def test_a_place_that_takes_too_long_to_mend_is_given_up():
    world = World(1, mending=0.3)
    pool = world.pool()
    pool.start = 1.0
    found = await statuses(pool, asked(*["bomb" if at % 2 else "right" for at in range(40)]))
    assert 1.0 in found and found.count("error") > 20  # some of the innocent, and it is said
    assert world.kinds()["unjudged"] == 1


async def test_where_no_new_scorer_starts_the_others_judge_all_but_the_culprit():
    world = World(3)
    pool = world.pool()
    world.barren = True
    found = await statuses(pool, asked(*RIGHT * 30, "bomb"))
    assert found == [1.0] * 30 + ["error"]
    assert world.kinds()["scorer_lost"] == 2
    world.barren = False
    assert await statuses(pool, asked(*RIGHT * 30)) == [1.0] * 30


async def test_where_none_is_left_everything_is_an_error():
    world = World(1, barren=True)
    assert await statuses(world.pool(), asked(*["bomb"] + RIGHT * 50)) == ["error"] * 51
    assert world.kinds()["unjudged"] == 1


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize("replicas", [1, 2, 8])
async def test_a_group_that_is_compared_is_never_divided(replicas):
    world = World(replicas, compares=True)
    names = [f"g{at % 12}" for at in range(96)]  # strewn over the batch, eight of each
    said = ["bomb" if at == 30 else "right" for at in range(96)]
    found = await statuses(world.pool(), asked(*said, groups=names))
    assert [one == "error" for one in found] == [name == "g6" for name in names]  # the culprit's group, whole
    for _, handed in world.calls:
        whole = Counter(names[int(one[1:])] for one in handed)
        assert set(whole.values()) == {8}


async def test_a_group_larger_than_a_chunk_still_comes_whole():
    world = World(2, compares=True)
    await statuses(world.pool(), asked(*RIGHT * 100, groups=["one"] * 99 + ["two"]))
    assert sorted(len(names) for _, names in world.calls) == [1, 99]


async def test_those_without_a_group_are_their_own():
    world = World(1, compares=True)
    assert await statuses(world.pool(), asked("right", "bomb", "wrong", groups=["", "", ""])) == [1.0, "error", 0.0]


# ---------------------------------------------------------------- counts


async def test_what_nobody_judged_is_counted_under_the_scorers_name():
    world = World(2)
    pool = world.pool()
    await statuses(pool, asked(*RIGHT * 10, "bomb"))
    await statuses(pool.aside(), asked(*RIGHT * 50))  # a probe's are apart
    (tally,) = pool.take().values()
    assert (tally.counts, tally.asked) == ({"ok": 10, "error": 1}, 11)
    assert tally.failures[0].response == "bomb"
    assert not pool.take()


async def test_two_calls_share_the_scorers_and_neither_times_out_for_the_other():
    world = World(1, timeout=5)
    pool = world.pool()
    slow = pool.judge(asked(*["slow"] * 3))
    found = await asyncio.gather(slow, pool.judge(asked(*RIGHT * 3)))
    assert [[one.status for (one,) in own] for own in found] == [["ok"] * 3] * 2
    assert not world.events


# ---------------------------------------------------------------- a real cluster


@pytest.mark.ray
@pytest.mark.timeout(300)
async def test_a_killed_and_a_stopped_process_cost_their_own_answers():
    hold = cluster.start("scorers", cpus=2)
    events = []
    try:

        def spawn(place):
            return hold.spawn(Mortal, role="scorer", index=place)

        replicas = [spawn(place) for place in range(2)]
        for one in replicas:
            await cluster.wait(one.ready(), deadline=120, what="starting")
        pool = ScorerPool(
            spawn, replicas, 60.0, lambda kind, **facts: events.append(kind), hold.kill, start=120.0, grace=1.0
        )
        said = RIGHT * 10 + ["SIGKILL"] + WRONG * 10
        assert await statuses(pool, asked(*said)) == [1.0] * 10 + ["error"] + [0.0] * 10
        assert Counter(events) == {"scorer_failed": 2, "scorer_restart": 2}
        pool.timeout = 2.0
        found = await statuses(pool, asked(*RIGHT * 10, "SIGSTOP", *WRONG * 10))
        assert found[10] == "timeout" and found.count("timeout") <= 6
        assert all(one in (value, "timeout") for one, value in zip(found, [1.0] * 10 + [0] + [0.0] * 10, strict=True))
        pool.timeout = 60.0
        assert await statuses(pool, asked(*said[:10])) == [1.0] * 10
    finally:
        hold.stop()
