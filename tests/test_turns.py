"""Episodes: token in, token out, and what is recorded of every turn, budget and failure."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_parts import MODEL, drawn_model, empty_folder, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.config import Rollout
from actors.engine import SampleRequest
from actors.sampler import SamplerReplica
from orchestrator.marks import parts
from policies.config import GroupCredit, TurnCredit
from policies.credit import assign
from policies.prompt import Message, Prompt
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Origin, ScoreEntry, Trajectory
from tests.chat_folder import chat_folder
from tests.turn_parts import Open, Scripted, Stage, entries, game, played, prompts, requests, whole
from verifiers.environments.config import AnyEnvironment, ToolsEnvironment


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


@pytest.mark.parametrize("end", ["", "|"], ids=["stop string", "end token"])
async def test_an_episode_reads_as_its_conversation(end: str, tmp_path: Path, open_stage: Open) -> None:
    """The oracle is the chat template's own rendering of the whole conversation, whichever way a turn ended."""
    chat = Tokenizer.load(chat_folder(tmp_path / "chat"))
    called = '<tool_call>{"name": "calculator", "arguments": {"expression": "2+2"}}</tool_call>'
    script = {"what is 2+2?": [f"{called}{end}", "#4|"]}
    known = [Prompt("what is 2+2?", "what is 2+2?", chat.prompt("what is 2+2?"), '"4"')]
    sampler = Scripted(chat, script)
    (one,) = await open_stage(ToolsEnvironment()).playing(sampler, chat, known, 4096).generate(requests(known))
    said = ["what is 2+2?", called, "<tool_response>\n4\n</tool_response>", "#4"]
    roles = ("user", "assistant", "user", "assistant")
    rendered = chat.rendered([Message(*pair) for pair in zip(roles, said, strict=True)])
    whole_text = chat.decode(np.concatenate([one.behavior_context, one.tokens]), skip_special=False)
    assert whole_text == rendered.rstrip("\n")
    own = chat.decode(one.tokens[one.origin == Origin.LEARNER], skip_special=False)
    assert own == called + ("<|im_end|>" if end else "") + "#4<|im_end|>"


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


WORDS = st.sampled_from(
    ["x", "yy", "done", "seed", "unknown", "raise", "strange", "flood", "12345678", "a|", "b^", "!abort"]
)


@given(
    scripts=st.lists(st.lists(WORDS, min_size=6, max_size=6), min_size=1, max_size=4),
    turns=st.integers(1, 5),
    tokens=st.none() | st.integers(1, 40),
    observed=st.integers(1, 12),
    longest=st.integers(12, 60),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_episode_breaks_its_budgets_or_its_record(
    tokenizer: Tokenizer,
    tmp_path: Path,
    scripts: list[list[str]],
    turns: int,
    tokens: int | None,
    observed: int,
    longest: int,
) -> None:
    own = game(tmp_path, turns=turns, tokens=tokens, observation_tokens=observed)
    stage = Stage(own)
    try:
        named = {f"{at}=": script for at, script in enumerate(scripts)}
        made, sampler = asyncio.run(played(stage, tokenizer, named, longest=longest))
        asked_for = [one for batch in sampler.asked for one in batch]
        assert stage.replicas[0].holds() == 0
    finally:
        stage.close()
    for one in made:
        own_requests = [request for request in asked_for if request.prompt_id == one.prompt_id]
        assert 1 <= len(own_requests) <= turns
        assert all(request.sampling.max_tokens >= 1 for request in own_requests)
        total = np.concatenate([one.behavior_context, one.tokens])
        for request in own_requests:
            np.testing.assert_array_equal(request.context, total[: len(request.context)])
            room = longest - len(request.context)
            assert request.sampling.max_tokens <= room
        spans = [(entry.start, entry.end) for entry in entries(one, "turn")]
        assert spans == sorted(spans) and all(0 <= a < b <= len(one.tokens) for a, b in spans)  # type: ignore[operator]
        for start, end in spans:
            assert (one.origin[start:end] == Origin.LEARNER).all()
        assert one.tokens_generated == int((one.origin == Origin.LEARNER).sum())
        if len(one.tokens) and one.finish_reason is not FinishReason.ABORT:
            assert one.origin[-1] == Origin.LEARNER, "nothing is said to nobody"
        assert whole(one).status in ("ok", "unscored", "error", "timeout")
