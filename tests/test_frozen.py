"""A frozen model's log-probabilities: from a folder, from weights given once, and refused without either."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_parts import MODEL, PROMPTS, chosen, drawn_model, empty_folder, reference_logps, requests, saved, weights_of

from actors.config import Frozen
from actors.engine import EngineError, SampleRequest
from actors.frozen import FrozenReplica
from actors.torch_scoring import batches
from policies.trajectory import Origin, Sampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_folder(tmp_path_factory.mktemp("frozen"))


def pairs(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    asked = requests(folder, PROMPTS)
    rng = np.random.default_rng(0)
    return [r.context for r in asked], [rng.integers(2, 50, size=3 + 5 * i).astype(np.int32) for i in range(len(asked))]


def check(scores: list[Any], model: Any, contexts: list[np.ndarray], tokens: list[np.ndarray], top_k: int) -> None:
    for score, context, response in zip(scores, contexts, tokens, strict=True):
        oracle_TV = reference_logps(model, context, response)
        np.testing.assert_allclose(score.logps, chosen(oracle_TV, response), atol=1e-4)
        np.testing.assert_allclose(score.topk_logps, oracle_TV.topk(top_k).values, atol=1e-4)
        assert score.topk_ids.shape == (len(response), top_k) and score.topk_ids.dtype == np.int32


async def test_a_folder_with_weights_is_scored_at_once(folder: Path, tmp_path: Path) -> None:
    model = drawn_model(folder, 4)
    teacher = FrozenReplica(str(saved(model, folder, tmp_path / "teacher")), MODEL, Frozen(), MODEL.context)
    assert await teacher.version() == 0
    contexts, tokens = pairs(folder)
    check(await teacher.logprobs(contexts, tokens, 5), model, contexts, tokens, 5)
    assert (await teacher.logprobs(contexts, tokens))[0].topk_ids is None
    assert await teacher.logprobs([], []) == []
    await teacher.close()


async def test_the_reference_is_what_it_was_last_given(folder: Path) -> None:
    reference = FrozenReplica(str(folder), MODEL, Frozen(), MODEL.context)
    contexts, tokens = pairs(folder)
    with pytest.raises(EngineError, match="no weights yet"):
        await reference.logprobs(contexts, tokens)
    for version, seed in ((0, 5), (40, 6)):
        model = drawn_model(folder, seed)
        await reference.update_weights(weights_of(model, version))
        assert await reference.version() == version
        check(await reference.logprobs(contexts, tokens, 3), model, contexts, tokens, 3)
    await reference.close()


async def test_a_sequence_that_does_not_fit_is_named(folder: Path) -> None:
    reference = FrozenReplica(str(folder), MODEL, Frozen(), MODEL.context)
    await reference.update_weights(weights_of(drawn_model(folder, 5), 0))
    five = np.full(5, 7, np.int32)
    for context, tokens, told in (
        (five, np.full(92, 7, np.int32), "sequence 1 has 97 tokens"),
        (five[:0], five, "0 context"),
        (five, five + 1000, "token 1007"),
    ):
        with pytest.raises(ValueError, match=told):
            await reference.logprobs([five, context], [five, tokens])
    await reference.close()


async def test_a_teacher_writes_as_a_teacher_with_the_probabilities_it_gave(folder: Path, tmp_path: Path) -> None:
    model = drawn_model(folder, 4)
    teacher = FrozenReplica(str(saved(model, folder, tmp_path / "teacher")), MODEL, Frozen(), MODEL.context)
    asked = [
        *requests(folder, PROMPTS[:3], max_tokens=9, temperature=0.7, logprobs="raw"),
        SampleRequest("long", np.full(96, 7, np.int32), Sampling(), 0),
    ]
    *written, refused = await teacher.generate(asked)
    for request, one in zip(asked, written, strict=False):
        assert (one.id, one.producer, one.model, one.version) == (request.id, "teacher", "teacher", -1)
        assert (one.origin == Origin.TEACHER).all() and (one.token_version == -1).all() and len(one.tokens)
        oracle_T = chosen(reference_logps(model, one.train_context, one.tokens), one.tokens)
        np.testing.assert_allclose(one.behavior_logps, oracle_T, atol=1e-4)
    assert refused.producer == "teacher" and len(refused.tokens) == 0 and "no room" in refused.scores[0].reason
    await teacher.close()


async def test_hidden_states_times_the_head_are_the_logits(folder: Path, tmp_path: Path) -> None:
    model = drawn_model(folder, 4)
    teacher = FrozenReplica(str(saved(model, folder, tmp_path / "teacher")), MODEL, Frozen(), MODEL.context)
    contexts, tokens = pairs(folder)
    hidden, head = await teacher.hidden(contexts, tokens), await teacher.head()
    assert await teacher.hidden([], []) == []
    for states_TH, context, response in zip(hidden, contexts, tokens, strict=True):
        assert states_TH.shape == (len(response), 128) and states_TH.dtype == head.dtype == np.float32
        logps_TV = torch.from_numpy(states_TH @ head.T).log_softmax(-1)
        torch.testing.assert_close(logps_TV, reference_logps(model, context, response), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="outside the model's vocabulary"):
        await teacher.hidden(contexts[:1], [tokens[0] + 1000])
    await teacher.close()


def test_batches_hold_every_sequence_once_and_stay_within_the_budget() -> None:
    rng = np.random.default_rng(1)
    sequences = [(np.zeros(rng.integers(1, 900)), np.zeros(rng.integers(1, 900))) for _ in range(200)]
    found = list(batches(sequences, vocabulary=50_000))
    assert sorted(index for batch in found for index in batch) == list(range(200))
    for batch in found:
        logits = len(batch) * (max(len(sequences[i][1]) for i in batch) + 1) * 50_000
        assert len(batch) == 1 or logits <= 1 << 26
    assert len(found) < 200
