"""The vLLM engine against a Hugging Face forward and against the plain torch engine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from engine_parts import (
    MODEL,
    PROMPTS,
    chosen,
    drawn_model,
    empty_folder,
    processed,
    reference_logps,
    requests,
    weights_of,
)

from actors.config import Frozen, Rollout
from actors.engine import Engine, EngineError
from actors.frozen import FrozenReplica
from actors.sampler import SamplerReplica
from actors.torch_engine import torch_engine
from actors.vllm_engine import vllm_engine
from policies.trajectory import FinishReason, Origin, Producer

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = Rollout(max_concurrent=64, kv_cache_bytes=64 << 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_folder(tmp_path_factory.mktemp("vllm-engine"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return drawn_model(folder, 1)


PARAMETERS = ["thread", pytest.param("process", marks=pytest.mark.slow)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PARAMETERS)
async def engine(request: pytest.FixtureRequest, folder: Path, model: Any) -> AsyncIterator[Engine]:
    config = CONFIG.model_copy(update={"isolation": request.param})
    made = vllm_engine(folder, MODEL, config, MODEL.context)
    with pytest.raises(EngineError, match="no weights yet"):
        await made.generate(requests(folder, PROMPTS))
    await made.update_weights(weights_of(model, 5))
    assert made.version == 5
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def oracle(folder: Path, model: Any) -> AsyncIterator[Engine]:
    made = torch_engine(folder, MODEL, CONFIG, MODEL.context)
    await made.update_weights(weights_of(model, 5))
    yield made
    await made.close()


async def test_log_probabilities_are_those_of_a_hugging_face_forward(engine: Engine, folder: Path, model: Any) -> None:
    asked = requests(folder, PROMPTS, max_tokens=32)
    completions = await engine.generate(asked)
    scores = await engine.score([(r.context, c.tokens) for r, c in zip(asked, completions, strict=True)], top_k=4)
    for request, completion, score in zip(asked, completions, scores, strict=True):
        oracle_TV = reference_logps(model, request.context, completion.tokens)
        np.testing.assert_allclose(completion.logps, chosen(oracle_TV, completion.tokens), atol=1e-4)
        np.testing.assert_array_equal(score.logps, completion.logps)  # scoring and decoding agree to the bit
        assert score.topk_ids is not None and score.topk_logps is not None
        np.testing.assert_allclose(score.topk_logps, oracle_TV.topk(4).values, atol=1e-4)
        assert (score.topk_ids == oracle_TV.topk(4).indices.numpy()).mean() > 0.95
        assert set(completion.versions.tolist()) == {5}


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.4, "top_k": 5},
        {"temperature": 0.0, "logprobs": "raw"},
    ],
    ids=str,
)
async def test_each_engine_names_the_distribution_it_drew_from(
    engine: Engine, oracle: Engine, folder: Path, model: Any, sampling: dict[str, Any]
) -> None:
    asked = requests(folder, PROMPTS * 2, seed=40, max_tokens=24, **sampling)
    ours, theirs = await engine.generate(asked), await oracle.generate(asked)
    for request, one, two in zip(asked, ours, theirs, strict=True):
        for completion in (one, two):
            raw_TV = reference_logps(model, request.context, completion.tokens)
            expected = chosen(processed(raw_TV, request.sampling), completion.tokens)
            np.testing.assert_allclose(completion.logps, expected, atol=1e-4)
        if request.sampling.temperature == 0.0:
            assert (one.tokens.tolist(), one.text) == (two.tokens.tolist(), two.text)
            assert one.finish_reason == two.finish_reason


async def test_a_stop_string_ends_both_engines_at_the_same_place(engine: Engine, oracle: Engine, folder: Path) -> None:
    free = await engine.generate(requests(folder, PROMPTS, temperature=0.0, max_tokens=24))
    stop = free[0].text[5:7]
    asked = requests(folder, PROMPTS, temperature=0.0, max_tokens=24, stop=(stop, "never this"))
    ours, theirs = await engine.generate(asked), await oracle.generate(asked)
    assert ours[0].finish_reason == FinishReason.STOP and ours[0].text.endswith(stop)
    for one, two, whole in zip(ours, theirs, free, strict=True):
        assert (one.tokens.tolist(), one.text, one.finish_reason) == (two.tokens.tolist(), two.text, two.finish_reason)
        assert whole.text.startswith(one.text) and (stop in one.text) == (stop in whole.text)


async def test_n_samples_of_a_prompt_differ_and_come_again_from_their_seeds(engine: Engine, folder: Path) -> None:
    asked = requests(folder, PROMPTS[:1] * 8, max_tokens=16)
    once, again = await engine.generate(asked), await engine.generate(asked)
    assert [c.tokens.tolist() for c in once] == [c.tokens.tolist() for c in again]
    assert [c.logps.tolist() for c in once] == [c.logps.tolist() for c in again]
    assert len({tuple(c.tokens.tolist()) for c in once}) == 8


async def test_the_length_budget_and_the_context_both_end_a_response(engine: Engine, folder: Path) -> None:
    short, long = await engine.generate(
        requests(folder, ["1+1="], max_tokens=4) + requests(folder, ["9" * 92], name="x", max_tokens=50)
    )
    assert short.finish_reason == FinishReason.LENGTH and len(short.tokens) == 4
    assert len(long.tokens) <= 4 and np.isfinite(long.logps).all()
    full = np.full(90, 12, np.int32)
    scored = await engine.score([(full[:1], np.resize(full, 95))])  # context and tokens fill all 96 positions
    assert len(scored[0].logps) == 95
    with pytest.raises(ValueError, match="97 tokens"):
        await engine.score([(full[:2], np.resize(full, 95))])


async def test_what_cannot_be_drawn_is_data_and_the_others_go_on(engine: Engine, folder: Path) -> None:
    asked = requests(folder, ["1+1=", "9" * 96, "2+2=", "3+3=", "4+4="], max_tokens=8)
    asked[2] = replace(asked[2], context=asked[2].context[:0])
    asked[3] = replace(asked[3], context=np.array([5, 10_000], np.int32))
    asked[4] = replace(asked[4], sampling=replace(asked[4].sampling, temperature=0.5, logprobs="raw"))
    drawn = await engine.generate(asked)
    assert len(drawn[0].tokens) and drawn[0].finish_reason != FinishReason.ERROR
    for completion, reason in zip(drawn[1:], ("96 tokens", "empty", "token 10000", "raw"), strict=True):
        assert completion.finish_reason == FinishReason.ERROR and reason in completion.reason


async def test_an_abort_keeps_the_partial_tokens(engine: Engine, folder: Path) -> None:
    asked = requests(folder, ["1+1=", "2+2="], max_tokens=80, temperature=0.0)
    whole = await engine.generate(asked)
    for delay in (0.02, 0.05, 0.1, 0.2, 0.5):  # however busy the machine is, one of these falls into the middle
        task = asyncio.create_task(engine.generate(asked))
        await asyncio.sleep(delay)
        await engine.abort([asked[0].id, "unknown"])
        cut, other = await task
        if 0 < len(cut.tokens) < 80:
            break
    assert cut.finish_reason == FinishReason.ABORT and 0 < len(cut.tokens) < 80
    assert cut.tokens.tolist() == whole[0].tokens[: len(cut.tokens)].tolist()
    np.testing.assert_allclose(cut.logps, whole[0].logps[: len(cut.tokens)], atol=1e-5)
    assert cut.versions.tolist() == [5] * len(cut.tokens)
    assert other.tokens.tolist() == whole[1].tokens.tolist()


async def test_a_cancelled_call_leaves_nothing_in_flight(engine: Engine, folder: Path) -> None:
    asked = requests(folder, ["1+1="] * 4, max_tokens=80)
    task = asyncio.create_task(engine.generate(asked))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = await engine.generate(asked)  # refused if the ids were still in flight
    assert [c.id for c in again] == [r.id for r in asked]


async def test_overlapping_calls_share_steps_and_ids_are_never_mixed(engine: Engine, folder: Path) -> None:
    calls = [requests(folder, PROMPTS, name=f"call{n}-", seed=100 * n, max_tokens=20) for n in range(4)]
    drawn = await asyncio.gather(*(engine.generate(call) for call in calls))
    for call, completions in zip(calls, drawn, strict=True):
        assert [c.id for c in completions] == [r.id for r in call]
        alone = await engine.generate(call[:1])
        assert alone[0].tokens.tolist() == completions[0].tokens.tolist()
    with pytest.raises(ValueError, match="an id names one trajectory"):
        await engine.generate([calls[0][0]] * 2)


async def test_a_sampler_writes_provenance_and_joins_a_repeated_call(folder: Path, model: Any) -> None:
    sampler = SamplerReplica(str(folder), MODEL, Rollout(engine="torch"), MODEL.context, "learner")
    await sampler.update_weights(weights_of(model, 7))
    assert await sampler.version() == 7
    asked = requests(folder, [*PROMPTS, "9" * 96], max_tokens=12)
    first, second = await asyncio.gather(sampler.generate(asked), sampler.generate(asked[:3]))
    assert all(one is two for one, two in zip(first, second, strict=False))  # joined: the very same record
    good, bad = first[0], first[-1]
    assert (good.producer, good.model, good.version, good.seed) == (Producer.ROLLOUT, "learner", 7, asked[0].seed)
    assert set(good.origin.tolist()) == {Origin.LEARNER} and set(good.token_version.tolist()) == {7}
    assert good.train_mask.all() and np.isfinite(good.behavior_logps).all()
    assert good.tokens_generated == len(good.tokens) and good.seconds > 0 and good.created_at > 0
    assert bad.finish_reason == FinishReason.ERROR and len(bad.tokens) == 0
    assert bad.scores[0].status == "error" and "96 tokens" in bad.scores[0].reason and np.isnan(bad.scores[0].value)
    await sampler.close()


async def test_a_frozen_model_on_vllm_has_no_hidden_states(folder: Path, model: Any) -> None:
    teacher = FrozenReplica(str(folder), MODEL, Frozen(engine="vllm"), MODEL.context, given=True)
    await teacher.update_weights(weights_of(model, 5))
    for asked in (teacher.head(), teacher.hidden([np.ones(2, np.int32)], [np.ones(2, np.int32)])):
        with pytest.raises(ValueError, match=r"frozen\.engine: vllm gives no hidden states; set it to torch"):
            await asked
    await teacher.close()
