"""The plain torch engine against Hugging Face's own forward and generate, numpy and closed forms."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from engine_parts import MODEL, PROMPTS, chosen, drawn_model, empty_folder, reference_logps, requests, weights_of

from actors.config import Rollout
from actors.engine import EngineError
from actors.stepper import SteppedEngine
from actors.torch_engine import torch_engine
from actors.torch_sampling import draw, reshape
from policies.trajectory import FinishReason, Sampling

CONFIG = Rollout(engine="torch", max_concurrent=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_folder(tmp_path_factory.mktemp("torch-engine"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return drawn_model(folder, 1)


@pytest_asyncio.fixture
async def engine(folder: Path, model: Any) -> AsyncIterator[SteppedEngine]:
    made = torch_engine(folder, MODEL, CONFIG, MODEL.context)
    await made.update_weights(weights_of(model, 0))
    yield made
    await made.close()


async def test_greedy_tokens_are_those_of_hugging_face_generate(
    engine: SteppedEngine, folder: Path, model: Any
) -> None:
    asked = requests(folder, PROMPTS, temperature=0.0, max_tokens=20)
    for request, completion in zip(asked, await engine.generate(asked), strict=True):
        ids = torch.from_numpy(request.context.astype(np.int64))[None]
        expected = model.generate(
            ids, do_sample=False, max_new_tokens=20, use_cache=True, eos_token_id=1, pad_token_id=0
        )
        assert completion.tokens.tolist() == expected[0, ids.shape[1] :].tolist()


async def test_log_probabilities_are_those_of_one_unpadded_forward(
    engine: SteppedEngine, folder: Path, model: Any
) -> None:
    asked = requests(folder, PROMPTS, max_tokens=24)
    completions = await engine.generate(asked)
    scores = await engine.score([(r.context, c.tokens) for r, c in zip(asked, completions, strict=True)], top_k=3)
    for request, completion, score in zip(asked, completions, scores, strict=True):
        oracle_TV = reference_logps(model, request.context, completion.tokens)
        np.testing.assert_allclose(completion.logps, chosen(oracle_TV, completion.tokens), atol=1e-5)
        np.testing.assert_allclose(score.logps, chosen(oracle_TV, completion.tokens), atol=1e-5)
        best = oracle_TV.topk(3)
        assert score.topk_ids is not None and score.topk_logps is not None
        assert score.topk_ids.tolist() == best.indices.tolist()
        np.testing.assert_allclose(score.topk_logps, best.values, atol=1e-5)


async def test_a_seed_draws_the_same_tokens_whatever_stands_beside_it(engine: SteppedEngine, folder: Path) -> None:
    asked = requests(folder, PROMPTS, max_tokens=16)
    together = await engine.generate(asked)
    alone = [(await engine.generate([request]))[0] for request in asked[:3]]
    other = await engine.generate([replace(request, seed=request.seed + 100) for request in asked])
    assert [c.tokens.tolist() for c in together[:3]] == [c.tokens.tolist() for c in alone]
    assert [c.tokens.tolist() for c in together] != [c.tokens.tolist() for c in other]


async def test_calls_that_overlap_give_what_they_give_alone(engine: SteppedEngine, folder: Path) -> None:
    first, second = (requests(folder, PROMPTS, name=name, max_tokens=16) for name in "ab")
    one, two = await asyncio.gather(engine.generate(first), engine.generate(second))
    assert [c.tokens.tolist() for c in one] == [c.tokens.tolist() for c in two]
    assert [c.id for c in two] == [r.id for r in second]


async def test_a_stop_string_ends_the_text_with_itself_and_keeps_its_tokens(
    engine: SteppedEngine, folder: Path
) -> None:
    free = (await engine.generate(requests(folder, PROMPTS[:1], temperature=0.0, max_tokens=20)))[0]
    stop = free.text[4:6]
    cut = (await engine.generate(requests(folder, PROMPTS[:1], temperature=0.0, max_tokens=20, stop=(stop,))))[0]
    assert cut.finish_reason == FinishReason.STOP
    assert cut.text == free.text[: free.text.index(stop) + 2]
    assert cut.tokens.tolist() == free.tokens[: len(cut.tokens)].tolist() and len(cut.tokens) < len(free.tokens)


async def test_an_end_token_stops_and_is_part_of_the_tokens(folder: Path, model: Any) -> None:
    eager = drawn_model(folder, 1)
    with torch.no_grad():  # the end token's embedding is also its output row: make it win at once
        eager.lm_head.weight[1] = eager.lm_head.weight.sum(0) * 10
    engine = torch_engine(folder, MODEL, CONFIG, MODEL.context)
    await engine.update_weights(weights_of(eager, 0))
    drawn = await engine.generate(requests(folder, PROMPTS * 4, max_tokens=60))
    ended = [c for c in drawn if c.finish_reason == FinishReason.STOP]
    assert ended and all(c.tokens[-1] == 1 and 1 not in c.tokens[:-1] for c in ended)
    assert all("<eos>" not in c.text for c in ended)
    await engine.close()


async def test_what_cannot_be_drawn_is_data_and_the_others_go_on(engine: SteppedEngine, folder: Path) -> None:
    asked = requests(folder, ["1+1=", "9" * 96, "2+2="], max_tokens=8)
    good, bad, also = await engine.generate(asked)
    assert bad.finish_reason == FinishReason.ERROR and "96 tokens" in bad.reason and "context" in bad.reason
    assert len(bad.tokens) == 0 and len(good.tokens) and len(also.tokens)
    long = (await engine.generate(requests(folder, ["9" * 90], max_tokens=50)))[0]
    assert long.finish_reason in (FinishReason.LENGTH, FinishReason.STOP) and len(long.tokens) <= 6


async def test_nothing_is_drawn_before_the_first_publish(folder: Path) -> None:
    engine = torch_engine(folder, MODEL, CONFIG, MODEL.context)
    assert engine.version == -1
    with pytest.raises(EngineError, match="no weights yet"):
        await engine.generate(requests(folder, PROMPTS))
    await engine.close()
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(requests(folder, PROMPTS))


def test_reshaped_distributions_are_those_of_a_slow_numpy_reading() -> None:
    rng = np.random.default_rng(0)
    samplings = [
        Sampling(temperature=0.7, top_p=0.8),
        Sampling(temperature=1.3, top_k=4),
        Sampling(temperature=1.0, top_p=0.5, top_k=6),
        Sampling(temperature=0.5, top_p=1e-9),
        Sampling(),
    ]
    logits = rng.normal(size=(len(samplings), 17)) * 2
    ours = reshape(torch.tensor(logits, dtype=torch.float32), samplings).softmax(-1).numpy()
    for row, sampling in enumerate(samplings):
        scaled = logits[row] / sampling.temperature
        order = np.argsort(-scaled)
        kept = order[: sampling.top_k] if sampling.top_k > 0 else order
        p = np.exp(scaled[kept] - scaled[kept].max())
        p /= p.sum()
        before = np.cumsum(p) - p  # mass above each token: a token stays while that is below top_p
        kept, p = kept[before < sampling.top_p], p[before < sampling.top_p]
        expected = np.zeros(17)
        expected[kept] = p / p.sum()
        np.testing.assert_allclose(ours[row], expected, atol=1e-6)


async def test_an_engine_counts_its_threads_by_itself(folder: Path, model: Any) -> None:
    """In one process a learner sets torch's threads, too: what an engine draws must not hang on who came before it."""
    before, drawn = torch.get_num_threads(), []
    for others in (1, 4):
        torch.set_num_threads(others)
        engine = torch_engine(folder, MODEL, CONFIG.model_copy(update={"threads": 1}), MODEL.context)
        torch.set_num_threads(before)
        await engine.update_weights(weights_of(model, 0))
        asked = requests(folder, [f"{at}+{at}=" for at in range(64)], max_tokens=16)
        drawn.append([(one.tokens.tolist(), one.logps.tobytes()) for one in await engine.generate(asked)])
        await engine.close()
    assert drawn[0] == drawn[1]


def test_draws_follow_the_distribution_that_their_log_probabilities_name() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0]).log_softmax(-1).repeat(20_000, 1)
    sampling = Sampling(temperature=0.8, top_k=3)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(logits))]
    tokens, logps = draw(logits, [sampling] * len(logits), generators)
    p = np.exp(np.array([1.0, 0.0, -np.inf, 2.0]) / 0.8)
    p /= p.sum()
    frequencies = np.bincount(tokens.numpy(), minlength=4) / len(tokens)
    np.testing.assert_allclose(frequencies, p, atol=4 * np.sqrt(0.25 / len(tokens)))
    np.testing.assert_allclose(np.exp(logps.numpy()), p[tokens.numpy()], rtol=1e-5)


def test_raw_log_probabilities_ignore_temperature_and_cuts() -> None:
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    samplings = [
        Sampling(temperature=0.3, top_k=2, logprobs="raw"),
        Sampling(temperature=0.0),
        Sampling(temperature=0.0, top_k=1),
    ]
    tokens, logps = draw(logits, samplings, [torch.Generator().manual_seed(s) for s in range(3)])
    np.testing.assert_allclose(logps, chosen(logits.log_softmax(-1), tokens.numpy()), rtol=1e-6)
    assert tokens[1:].tolist() == logits[1:].argmax(-1).tolist()
