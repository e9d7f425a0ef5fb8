"""Episodes: token in, token out, and what is recorded of every turn, budget and failure."""

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_parts import MODEL, drawn_model, empty_folder, saved

from actors.cluster import Actor, ActorLostError
from actors.config import Rollout
from actors.engine import SampleRequest
from actors.pool import asked
from actors.sampler import SamplerReplica
from orchestrator.config import Probe, SamplingConfig
from orchestrator.marks import parts
from orchestrator.probing import Prober
from orchestrator.turns import Playing
from policies.config import GroupCredit, TurnCredit
from policies.credit import assign
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Origin, Sampling, ScoreEntry, Trajectory
from tests.fakes import FakeScorer
from tests.turn_parts import Open, Scripted, Stage, game
from verifiers.environment_config import EnvironmentVerifier
from verifiers.environments.config import AnyEnvironment, RetryEnvironment, ToolsEnvironment
from verifiers.grader import Item
from verifiers.verifier import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = empty_folder(tmp_path_factory.mktemp("turns"))
    return saved(drawn_model(source, 1), source, source.parent / "drawn")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture
def open_stage() -> Iterator[Open]:
    opened: list[Stage] = []

    def make(own: AnyEnvironment, **more: Any) -> Stage:
        opened.append(Stage(own, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def prompts(tokenizer: Tokenizer, *texts: str) -> list[Prompt]:
    return [Prompt(text, text, tokenizer.encode(text), '"1"') for text in texts]


def requests(known: Sequence[Prompt], seed: int = 5, **sampling: Any) -> list[SampleRequest]:
    decoding = Sampling(**{"max_tokens": 8, **sampling})
    return [
        SampleRequest(f"step/{at}", one.tokens, decoding, seed + at, one.id, f"group-{at}")
        for at, one in enumerate(known)
    ]


def entries(one: Trajectory, name: str) -> list[ScoreEntry]:
    return [entry for entry in one.scores if entry.name == name]


def whole(one: Trajectory) -> ScoreEntry:
    (found,) = entries(one, "environment")
    return found


async def played(
    stage: Stage, tokenizer: Tokenizer, script: dict[str, Sequence[str]], **more: Any
) -> tuple[list[Trajectory], Scripted]:
    sampler = Scripted(tokenizer, script)
    known = prompts(tokenizer, *script)
    return await stage.playing(sampler, tokenizer, known, **more).generate(requests(known)), sampler


# ---------------------------------------------------------------- token in, token out


@pytest.fixture
def drawing(folder: Path) -> SamplerReplica:
    return SamplerReplica(str(folder), MODEL, Rollout(engine="torch"), MODEL.context, "learner", "folder")


async def test_an_episode_is_what_was_sampled_and_what_was_said(
    drawing: SamplerReplica, tokenizer: Tokenizer, open_stage: Open, tmp_path: Path
) -> None:
    """Each turn's context is the record so far, bit for bit."""
    known = prompts(tokenizer, "12+34=", "7-5=", "abc")
    heard: list[SampleRequest] = []

    class Listening:
        async def generate(self, asked_: Sequence[SampleRequest]) -> list[Trajectory]:
            heard.extend(asked_)
            return await drawing.generate(asked_)

    stage = open_stage(game(tmp_path, turns=3))
    made = await stage.playing(Listening(), tokenizer, known, MODEL.context).generate(requests(known))
    for one, prompt in zip(made, known, strict=True):
        total = np.concatenate([one.behavior_context, one.tokens])
        own = [request for request in heard if request.prompt_id == prompt.id]
        assert len(own) == 3 and len({request.seed for request in own}) == 3
        for request in own:
            np.testing.assert_array_equal(request.context, total[: len(request.context)])
        np.testing.assert_array_equal(one.behavior_context, prompt.tokens)
        learned = one.origin == Origin.LEARNER
        assert learned.sum() == one.tokens_generated
        assert np.isfinite(one.behavior_logps[learned]).all() and np.isnan(one.behavior_logps[~learned]).all()


async def test_log_probabilities_are_those_of_the_whole_trajectory(
    drawing: SamplerReplica, tokenizer: Tokenizer, open_stage: Open, tmp_path: Path
) -> None:
    known = prompts(tokenizer, "12+34=", "7-5=", "abc")
    stage = open_stage(game(tmp_path, turns=3))
    made = await stage.playing(drawing, tokenizer, known, MODEL.context).generate(requests(known))
    scored = await drawing.score([(one.behavior_context, one.tokens) for one in made])
    for one, told in zip(made, scored, strict=True):
        learned = one.origin == Origin.LEARNER
        np.testing.assert_allclose(told.logps[learned], one.behavior_logps[learned], atol=2e-5)
        # a planted mistake is seen: shift the observation by one token and they are not the same
        moved = np.roll(one.tokens, 1)
        (wrong,) = await drawing.score([(one.behavior_context, moved)])
        assert not np.allclose(wrong.logps[learned], one.behavior_logps[learned], atol=1e-2)


async def test_an_environment_that_ends_at_once_changes_nothing(
    drawing: SamplerReplica, tokenizer: Tokenizer, open_stage: Open
) -> None:
    known = prompts(tokenizer, "12+34=", "7-5=", "abc")
    stage = open_stage(ToolsEnvironment())
    alone = await drawing.generate(requests(known))
    made = await stage.playing(drawing, tokenizer, known, MODEL.context).generate(requests(known))
    for before, after in zip(alone, made, strict=True):
        for name in ("id", "prompt_id", "group_id", "seed", "text", "finish_reason", "version", "tokens_generated"):
            assert getattr(before, name) == getattr(after, name), name
        for name in ("tokens", "behavior_logps", "token_version", "train_mask", "origin", "behavior_context"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
        assert whole(after).status == "unscored" and math.isnan(whole(after).value)


async def test_the_same_seed_is_the_same_episode_and_another_is_not(
    drawing: SamplerReplica, tokenizer: Tokenizer, open_stage: Open, tmp_path: Path
) -> None:
    known = prompts(tokenizer, "12+34=", "7-5=")
    playing = open_stage(game(tmp_path, turns=2, replicas=2)).playing(drawing, tokenizer, known, MODEL.context)
    first, again = [await playing.generate(requests(known)) for _ in range(2)]
    other = await playing.generate(requests(known, seed=77))
    alone = await playing.generate(requests(known)[1:])
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.tokens, same.tokens)
        np.testing.assert_array_equal(one.behavior_logps, same.behavior_logps)
        assert not np.array_equal(one.tokens, different.tokens)
    np.testing.assert_array_equal(alone[0].tokens, first[1].tokens)


# ---------------------------------------------------------------- what is recorded


async def test_ragged_episodes_are_each_whole(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    script = {"a=": ["x", "yy", "done"], "b=": ["done|"], "c=": ["z|", "done"]}
    (a, b, c), sampler = await played(open_stage(game(tmp_path)), tokenizer, script)
    assert [tokenizer.decode(one.tokens, skip_special=False) for one in (a, b, c)] == [
        "x1;yy2;done",
        "done<eos>",
        "z<eos>1;done",
    ]
    assert [one.text for one in (a, b, c)] == ["done", "done", "done"]
    E, L = int(Origin.ENVIRONMENT), int(Origin.LEARNER)
    assert a.origin.tolist() == [L, E, E, L, L, E, E, L, L, L, L]
    assert a.train_mask.tolist() == [origin == L for origin in a.origin]
    assert a.token_version.tolist() == [0, -1, -1, 1, 1, -1, -1, 2, 2, 2, 2]
    assert a.version == 0 and a.tokens_generated == 7
    np.testing.assert_array_equal(np.isnan(a.behavior_logps), a.origin == E)
    assert [(e.value, e.start, e.end) for e in entries(a, "turn")] == [(1.0, 0, 1), (2.0, 3, 5), (3.0, 7, 11)]
    assert [(e.value, e.start, e.end) for e in entries(c, "turn")] == [(1.0, 0, 2), (2.0, 4, 8)]
    assert [whole(one).value for one in (a, b, c)] == [6.0, 1.0, 3.0]
    assert all(whole(one).passed and whole(one).reason == "over" for one in (a, b, c))
    assert all(one.finish_reason is FinishReason.STOP for one in (a, b, c))
    assert [len(batch) for batch in sampler.asked] == [3, 2, 1], "the live ones take a turn together"
    assert parts(a) is not None and parts(a).tolist() == [0, -1, -1, 1, 1, -1, -1, 2, 2, 2, 2]  # type: ignore[union-attr]


async def test_credit_reads_turns_and_outcomes(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    script = {"a=": ["x", "yy", "done"], "b=": ["done|"]}
    (a, b), _ = await played(open_stage(game(tmp_path)), tokenizer, script)
    turned = assign(TurnCredit(bonus=0.0, baseline="zero"), [a, b])
    assert turned.advantages[0].tolist() == [1, 0, 0, 2, 2, 0, 0, 3, 3, 3, 3]
    assert turned.advantages[1].tolist() == [1] * 5
    judged = [
        replace(one, scores=(*one.scores, ScoreEntry("reward", value, value > 0)))
        for one, value in ((a, 1.0), (b, 0.0))
    ]
    grouped = assign(GroupCredit(), judged)
    assert not grouped.excluded
    assert set(grouped.advantages[0][a.train_mask].tolist()) == {0.5}


async def test_each_episode_has_its_own_seed(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    made, _ = await played(open_stage(game(tmp_path)), tokenizer, {"a=": ["seed", "done"], "b=": ["seed", "done"]})
    assert [tokenizer.decode(one.tokens) for one in made] == ["seed5;done", "seed6;done"]


# ---------------------------------------------------------------- budgets


async def test_the_budget_of_turns(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    (one,), _ = await played(open_stage(game(tmp_path, turns=2)), tokenizer, {"a=": ["x", "y", "z"]})
    assert tokenizer.decode(one.tokens) == "x1;y"
    assert one.finish_reason is FinishReason.LENGTH and whole(one).reason == "the budget of 2 turns ran out"
    assert whole(one).value == 3.0, "the last turn was still answered"


async def test_the_budget_of_tokens_and_a_full_context(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    script = {"a=": ["xxxx", "yyyy", "zzzz"]}
    (one,), sampler = await played(open_stage(game(tmp_path, tokens=11)), tokenizer, script)
    assert tokenizer.decode(one.tokens) == "xxxx1;yyyy"
    assert [batch[0].sampling.max_tokens for batch in sampler.asked] == [8, 5]
    assert one.finish_reason is FinishReason.LENGTH and whole(one).reason == "the budget of 11 tokens ran out"
    (one,), sampler = await played(open_stage(game(tmp_path)), tokenizer, script, longest=14)
    assert len(one.behavior_context) + len(one.tokens) <= 14
    assert [batch[0].sampling.max_tokens for batch in sampler.asked] == [8, 6]
    assert one.finish_reason is FinishReason.LENGTH and whole(one).reason == "the model's context of 14 tokens is full"


async def test_a_flood_is_cut_to_its_budget(tokenizer: Tokenizer, open_stage: Open, tmp_path: Path) -> None:
    stage = open_stage(game(tmp_path, observation_tokens=6))
    (one,), _ = await played(stage, tokenizer, {"a=": ["flood", "done"]})
    assert tokenizer.decode(one.tokens) == "flood999...done"


async def test_a_call_that_is_cut_or_stopped_half_way(tokenizer: Tokenizer, open_stage: Open) -> None:
    own = ToolsEnvironment(calls={"form": "plain", "open": "(", "close": ")", "before": "=", "after": ";"}, turns=3)
    script = {"a=": ["(1+1)", "#2|"], "b=": ["(1+", "(2*3)", "#6|"], "c=": ["#12^"], "d=": ["(1", "(2", "(3"]}
    (a, b, c, d), sampler = await played(open_stage(own), tokenizer, script)
    assert tokenizer.decode(a.tokens) == "(1+1)=2;#2"
    assert tokenizer.decode(b.tokens) == "(1+=error: the call is not closed with );(2*3)=6;#6"
    assert [one.finish_reason for one in (a, b, c, d)] == [FinishReason.STOP] * 2 + [FinishReason.LENGTH] * 2
    assert sampler.asked[0][0].sampling.stop == (")",)
    assert [one.text for one in (a, b, c, d)] == ["#2", "#6", "#12", "(3"]
    assert not entries(a, "turn"), "tools give no rewards"


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
    rows = await Prober(playing, scorer, known, by_id, Probe(samples=1), 0).probe(SamplingConfig(max_tokens=8))
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
