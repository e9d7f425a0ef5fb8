"""Episodes that go wrong cost themselves alone; and what the environment says becomes a verdict."""

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_parts import empty_folder

from actors.cluster import Actor, ActorLostError
from actors.engine import SampleRequest
from actors.pool import asked
from orchestrator import episodes
from orchestrator.config import Probe, SamplingConfig
from orchestrator.handoff_config import Handoff
from orchestrator.probing import Prober, ProbeSet
from orchestrator.turns import Playing
from policies.config import TurnCredit
from policies.credit import assign
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Trajectory
from tests.fakes import FakeScorer, trajectory
from tests.turn_parts import Open, Scripted, Stage, entries, game, played, prompts, requests, whole
from verifiers.config import AnswerVerifier
from verifiers.environment_config import EnvironmentVerifier
from verifiers.environments.config import AnyEnvironment, RetryEnvironment
from verifiers.grader import Item
from verifiers.verifier import build


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(empty_folder(tmp_path_factory.mktemp("failures")))


@pytest.fixture
def open_stage() -> Iterator[Open]:
    opened: list[Stage] = []

    def make(own: AnyEnvironment, **more: Any) -> Stage:
        opened.append(Stage(own, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


# ---------------------------------------------------------------- what goes wrong


async def test_what_breaks_costs_its_own_episode(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    stage = open_stage(game(tmp_path, seconds=0.5, options={"hang": 20}))
    script = {
        "a=": ["x", "raise"],
        "b=": ["hang", "done"],
        "c=": ["strange"],
        "d=": ["nan"],
        "refuse=": ["done"],
        "f=": ["x", "!error"],
        "g=": ["x", "done"],
    }
    made, _ = await played(stage, tokenizer, script)
    broken, good = made[:-1], made[-1]
    assert whole(good).value == 3.0 and good.finish_reason is FinishReason.STOP and not entries(good, "reward")
    for one in broken:
        assert one.finish_reason is FinishReason.ERROR
        (verdict,) = entries(one, "reward")
        assert math.isnan(verdict.value) and verdict.passed is None and verdict.reason
        assert math.isnan(whole(one).value)
    assert [whole(one).status for one in broken] == ["error", "timeout", "error", "error", "error", "error"]
    assert [len(one.tokens) for one in broken] == [8, 4, 7, 3, 0, 3]
    assert "the board fell over" in whole(broken[0]).reason
    assert "no such board" in whole(broken[4]).reason
    assert whole(broken[5]).reason == "no room"
    assert stage.replicas[0].holds() == 0 and len(stage.replicas) == 1 and not stage.events


async def test_a_turn_that_nobody_can_judge_leaves_the_whole_unknown(
    tokenizer: Tokenizer, open_stage: Open, tmp_path: Path
) -> None:
    (one,), _ = await played(open_stage(game(tmp_path)), tokenizer, {"a=": ["unknown", "done"]})
    assert [entry.status for entry in entries(one, "turn")] == ["timeout", "ok"]
    assert math.isnan(whole(one).value) and whole(one).status == "timeout"
    assert one.finish_reason is FinishReason.STOP and not entries(one, "reward"), "a verifier may still judge it"
    assert assign(TurnCredit(), [one]).excluded == (0,)


async def test_an_aborted_turn_ends_the_episode_with_what_it_has(
    tokenizer: Tokenizer, open_stage: Open, tmp_path: Path
) -> None:
    (one,), _ = await played(open_stage(game(tmp_path)), tokenizer, {"a=": ["x", "!abort"]})
    assert one.finish_reason is FinishReason.ABORT and tokenizer.decode(one.tokens) == "x1;"
    assert not one.train_mask[1:].any() and entries(one, "reward")[0].status == "error"


async def test_a_replica_that_dies_is_replaced_and_its_episodes_are_over(
    tokenizer: Tokenizer, open_stage: Open, tmp_path: Path
) -> None:
    stage = open_stage(game(tmp_path, replicas=2))

    class Dead:
        """At the actor port: every call finds it gone."""

        def __getattr__(self, method: str) -> Any:
            class Call:
                async def remote(self, *_: object) -> Any:
                    raise ActorLostError("environment-0", "somebody stopped it")

            return Call()

    script = {"a=": ["x", "done"], "b=": ["x", "done"]}
    known = prompts(tokenizer, *script)

    class Killing(Scripted):  # type: ignore[misc]
        async def generate(self, requests_: Sequence[SampleRequest]) -> list[Trajectory]:
            if len(self.asked) == 1:
                dead = Actor(Dead(), "environment-0")
                home = stage.pool.replicas[0]
                stage.pool.replicas[0] = dead
                stage.pool._homes = {k: dead if v is home else v for k, v in stage.pool._homes.items()}
            return await super().generate(requests_)

    playing = stage.playing(Killing(tokenizer, script), tokenizer, known)
    dead, alive = await playing.generate(requests(known))
    assert dead.finish_reason is FinishReason.ERROR and "somebody stopped it" in whole(dead).reason
    assert entries(dead, "reward")[0].status == "error"
    assert whole(alive).value == 3.0
    assert [kind for kind, _ in stage.events] == ["environment_restart"] and len(stage.replicas) == 3
    again = await stage.playing(Scripted(tokenizer, script), tokenizer, known).generate(requests(known))
    assert [whole(one).value for one in again] == [3.0, 3.0]


async def test_a_cancelled_call_leaves_no_episode_behind(
    tokenizer: Tokenizer, open_stage: Open, tmp_path: Path
) -> None:
    stage = open_stage(game(tmp_path))

    class Waiting:
        async def generate(self, requests_: Sequence[SampleRequest]) -> list[Trajectory]:
            await asyncio.sleep(60)
            return []

    known = prompts(tokenizer, "a=", "b=")
    task = asyncio.create_task(stage.playing(Waiting(), tokenizer, known).generate(requests(known)))
    while stage.replicas[0].holds() < 2:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if not stage.replicas[0].holds():
            break
        await asyncio.sleep(0.01)
    assert stage.replicas[0].holds() == 0


async def test_a_step_says_what_its_episodes_were(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    script = {"a=": ["x", "yy", "done"], "b=": ["done|"], "c=": ["x", "raise"], "d=": ["unknown", "done"]}
    made, _ = await played(open_stage(game(tmp_path)), tokenizer, script)
    told = episodes.facts(made)
    assert [episodes.turns(one) for one in made] == [3, 1, 2, 2]
    assert told["turns_mean"] == 2.0 and told["episodes_broken"] == 1
    assert told["observed_share"] == (4 + 0 + 2 + 2) / sum(len(one.tokens) for one in made)
    assert told["turn_reward_first"] == (1.0 + 1.0 + 1.0 + 2.0) / 4
    assert told["turn_reward_last"] == (3.0 + 1.0 + 1.0 + 2.0) / 4
    assert episodes.facts([]) == {} == episodes.facts([trajectory()])


# ---------------------------------------------------------------- verdicts


async def test_the_environments_word_is_a_verdict(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    script = {"a=": ["x", "done"], "b=": ["x", "y", "z", "z"], "c=": ["raise"]}
    made, _ = await played(open_stage(game(tmp_path)), tokenizer, script)
    known = {one.id: one for one in prompts(tokenizer, *script)}

    def verdicts(**own: Any) -> list[Any]:
        verifier = build(EnvironmentVerifier(**own))
        told = [asked(one, known[one.prompt_id]) for one in made]
        return verifier.score_many([Item(t.prompt, t.response, "1", told=json.loads(t.told)) for t in told])

    total, last = verdicts(passes=9.0), verdicts(of="last", passes=9.0)
    assert [(s.value, s.passed) for s in total[:2]] == [(3.0, True), (10.0, False)]
    assert [(s.value, s.passed) for s in last[:2]] == [(2.0, True), (4.0, False)]
    assert total[2].status == "error" and math.isnan(total[2].value)
    alone = build({"kind": "environment"}).score("q", "a", None)
    assert alone.status == "error" and "no environment" in alone.reason
    rubric = build(
        {"kind": "rubric", "parts": [{"kind": "environment", "passes": 2.0}, {"kind": "answer", "marker": ""}]}
    )
    item = Item(
        "q", "1", "1", told={"environment": {"value": 1.0, "last": 1.0, "passed": True, "status": "ok", "reason": ""}}
    )
    assert rubric.score_many([item])[0].value == 1.0


async def test_a_probe_does_not_judge_what_broke_off(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    script = {"a=": ["x", "raise"], "b=": ["done"]}
    known = prompts(tokenizer, *script)
    playing: Playing = open_stage(game(tmp_path)).playing(Scripted(tokenizer, script), tokenizer, known)
    scorer = FakeScorer()
    by_id = {one.id: one for one in known}
    own = ProbeSet("probe", known, by_id, playing)
    prober = Prober([own], scorer, Probe(samples=1), Handoff(), AnswerVerifier(), 0)
    rows = await prober.probe(SamplingConfig(max_tokens=8))
    assert [(row["prompt_id"], row["status"], row["passed"] is None) for row in rows if row["greedy"]] == [
        ("a=", "error", True),
        ("b=", "ok", False),
    ]
    assert all("a=" not in name for name in scorer.judged)


async def test_retry_is_a_second_turn_that_is_judged_like_the_first(tokenizer: Tokenizer, open_stage: Open) -> None:
    stage = open_stage(RetryEnvironment(request="?"), verifier=build({"kind": "answer"}).config)
    (a, b), _ = await played(stage, tokenizer, {"a=": ["#2|", "#1|"], "b=": ["#1|", "#1|"]})
    assert tokenizer.decode(a.tokens, skip_special=False) == "#2<eos>?#1<eos>"
    assert [entry.value for entry in entries(a, "turn")] == [0.0, 1.0] and a.text == "#1"
    assert [entry.value for entry in entries(b, "turn")] == [1.0, 1.0]
    assert a.finish_reason is FinishReason.STOP
