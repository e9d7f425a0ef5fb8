"""New weights in a running engine: what it writes afterwards is exactly what a fresh engine would write."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from engine_parts import (
    MODEL,
    PROMPTS,
    chosen,
    drawn_model,
    empty_folder,
    reference_logps,
    requests,
    saved,
    weights_of,
)

from actors.config import Rollout
from actors.engine import Call, Engine, EngineError, Transport
from actors.torch_engine import torch_engine
from actors.vllm_engine import vllm_engine
from actors.weights import ManifestError, Weights, pack
from policies.trajectory import FinishReason

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = Rollout(max_concurrent=64, kv_cache_bytes=64 << 20)
PROCESS = CONFIG.model_copy(update={"isolation": "process"})
ENGINES: dict[str, Callable[[Path], Engine]] = {
    "vllm": lambda folder: vllm_engine(folder, MODEL, CONFIG, MODEL.context),
    "torch": lambda folder: torch_engine(folder, MODEL, CONFIG, MODEL.context),
    "process": lambda folder: vllm_engine(folder, MODEL, PROCESS, MODEL.context),
}
PARAMETERS = ["vllm", "torch", pytest.param("process", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_folder(tmp_path_factory.mktemp("publish"))


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[int, Any]:
    return {seed: drawn_model(folder, seed) for seed in (1, 2, 3)}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PARAMETERS)
async def engine(request: pytest.FixtureRequest, folder: Path, models: dict[int, Any]) -> AsyncIterator[Engine]:
    made = ENGINES[request.param](folder)
    await made.update_weights(weights_of(models[1], 1))
    yield made
    await made.close()


async def test_after_a_publish_an_engine_equals_a_fresh_one_loaded_from_the_saved_folder(
    folder: Path, models: dict[int, Any], tmp_path: Path
) -> None:
    """Tied output layers keep a packed copy on a CPU: this fails by whole nats when that copy is not refreshed."""
    running = vllm_engine(folder, MODEL, CONFIG, MODEL.context)
    fresh = vllm_engine(saved(models[2], folder, tmp_path / "saved"), MODEL, CONFIG, MODEL.context, "folder")
    assert fresh.version == 0
    asked = requests(folder, PROMPTS, temperature=0.0, max_tokens=32)
    await running.update_weights(weights_of(models[1], 1))
    before = await running.generate(asked)
    await running.update_weights(weights_of(models[2], 2))
    after, expected = await running.generate(asked), await fresh.generate(asked)
    for one, two, old in zip(after, expected, before, strict=True):
        assert one.tokens.tolist() == two.tokens.tolist() != old.tokens.tolist()
        np.testing.assert_allclose(one.logps, two.logps, atol=1e-6)
    await running.close()
    await fresh.close()


async def test_weights_replaced_in_mid_generation_stamp_every_token_with_the_version_that_drew_it(
    engine: Engine, folder: Path, models: dict[int, Any]
) -> None:
    """The stamp is believed only if the token's log-probability is that version's, and no other's."""
    asked = requests(folder, PROMPTS * 4, name="mixed", max_tokens=80)
    drawing = asyncio.create_task(engine.generate(asked))
    published = {engine.version: 1}
    while not drawing.done():
        await asyncio.sleep(0.05)
        seed = 2 if len(published) % 2 else 1
        await engine.update_weights(weights_of(models[seed], engine.version + 1))
        published[engine.version] = seed
    completions = await drawing
    assert max(len(set(c.versions.tolist())) for c in completions) > 1
    for request, completion in zip(asked, completions, strict=True):
        assert (np.diff(completion.versions) >= 0).all() and len(completion.tokens) == len(completion.logps)
        seeds = np.array([published[version] for version in completion.versions.tolist()])
        for seed, other in ((1, 2), (2, 1)):
            logps = {
                s: chosen(reference_logps(models[s], request.context, completion.tokens), completion.tokens)
                for s in (seed, other)
            }
            np.testing.assert_allclose(completion.logps[seeds == seed], logps[seed][seeds == seed], atol=1e-4)
            if (seeds == seed).sum() > 3:
                assert np.abs(completion.logps - logps[other])[seeds == seed].max() > 0.01


async def test_later_requests_do_not_meet_the_prefixes_of_old_weights(
    engine: Engine, folder: Path, models: dict[int, Any]
) -> None:
    prompt = ["12+34=" * 12]  # longer than a cache block, so that it is kept
    asked = requests(folder, prompt, name="prefix", temperature=0.0, max_tokens=8)
    await engine.generate(asked)
    await engine.update_weights(weights_of(models[3], engine.version + 1))
    drawn = (await engine.generate(asked))[0]
    oracle = reference_logps(models[3], asked[0].context, drawn.tokens)
    np.testing.assert_allclose(drawn.logps, chosen(oracle, drawn.tokens), atol=1e-4)
    await engine.update_weights(weights_of(models[1], engine.version + 1))


async def test_a_faulty_manifest_is_refused_whole_and_the_engine_serves_on(
    engine: Engine, folder: Path, models: dict[int, Any]
) -> None:
    asked = requests(folder, PROMPTS, name="faulty", temperature=0.0, max_tokens=8)
    version, before = engine.version, await engine.generate(asked)
    parameters = list(models[2].named_parameters())
    good = pack(parameters, version + 1)
    flipped = good.buffer.copy()
    flipped[1000] ^= 4
    partial = pack([*parameters[3:], ("extra.weight", parameters[0][1])], version + 1)
    for faulty, told in (
        (partial, f"{parameters[0][0]}: missing"),
        (partial, "extra.weight: not a parameter"),
        (pack(parameters, version + 1, dtype="bfloat16"), "bfloat16"),
        (Weights(good.manifest, flipped), "checksum"),
        (Weights(replace(good.manifest, version=-1), good.buffer), "versions start at 0"),
    ):
        with pytest.raises(ValueError, match=told):
            await engine.update_weights(faulty)
    with pytest.raises(ManifestError, match="4 faults"):
        await engine.update_weights(partial)
    after = await engine.generate(asked)
    assert engine.version == version
    assert [c.tokens.tolist() for c in after] == [c.tokens.tolist() for c in before]


async def test_a_repeated_publish_does_nothing_and_one_version_never_names_two_weights(
    engine: Engine, models: dict[int, Any]
) -> None:
    version = engine.version + 1
    await engine.update_weights(weights_of(models[1], version))
    await engine.update_weights(weights_of(models[1], version))
    with pytest.raises(ValueError, match="already served with other bytes"):
        await engine.update_weights(weights_of(models[2], version))
    assert engine.version == version


@pytest.mark.parametrize("kind", PARAMETERS)
async def test_an_update_that_fails_half_way_poisons_the_engine(
    kind: str, folder: Path, models: dict[int, Any]
) -> None:
    engine = ENGINES[kind](folder)
    await engine.update_weights(weights_of(models[1], 1))
    waiting = asyncio.create_task(engine.generate(requests(folder, PROMPTS, max_tokens=80)))
    await asyncio.sleep(0.02)
    strange = ("model.strange.weight", torch.zeros(2))
    holder = getattr(engine, "_core", engine)
    holder.shapes = {**holder.shapes, strange[0]: ((2,), "float32")}  # only the model itself finds it, too late
    with pytest.raises(EngineError, match="must be restarted"):
        await engine.update_weights(pack([*models[2].named_parameters(), strange], 2))
    with pytest.raises(EngineError, match="must be restarted"):
        await waiting
    with pytest.raises(EngineError, match="must be restarted"):
        await engine.generate(requests(folder, PROMPTS))
    await engine.close()


async def test_a_cut_request_is_an_abort_not_an_error(engine: Engine, folder: Path) -> None:
    asked = requests(folder, PROMPTS, name="abort", max_tokens=80)
    drawing = asyncio.create_task(engine.generate(asked))
    await asyncio.sleep(0.03)
    await engine.abort([request.id for request in asked])
    assert {c.finish_reason for c in await drawing} <= {FinishReason.ABORT, FinishReason.STOP}


async def test_a_transport_needs_the_device_it_is_for(folder: Path) -> None:
    with pytest.raises(ValueError, match="transport nccl needs a GPU"):
        vllm_engine(folder, MODEL, CONFIG, MODEL.context, transport="nccl")


@pytest.mark.parametrize("transport", ["buffer", pytest.param("ipc", marks=pytest.mark.gpu)])
async def test_the_learner_drives_a_transfer_through_vllms_own_interface(
    transport: Transport, folder: Path, models: dict[int, Any]
) -> None:
    from actors.vllm_trainer import PolicySource, Publisher, ReplicaClient

    gpu = {"gpus": 1, "isolation": "process"} if transport == "ipc" else {}
    engine = vllm_engine(folder, MODEL, CONFIG.model_copy(update=gpu), MODEL.context, transport=transport)
    model = models[2].to("cuda" if gpu else "cpu")
    loop = asyncio.get_running_loop()

    def replica(call: Call, payload: Any) -> None:
        asyncio.run_coroutine_threadsafe(engine.transfer(call, payload), loop).result(60)

    source = PolicySource(model)
    publisher = Publisher(transport, ReplicaClient([replica], source), source)
    await asyncio.to_thread(publisher.open)
    await asyncio.to_thread(publisher.publish, 1)
    asked = requests(folder, PROMPTS * 2, temperature=0.0, max_tokens=60)
    drawing = asyncio.create_task(engine.generate(asked))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(publisher.publish, 2)  # the same weights: held requests go on as if nothing had been
    assert engine.version == 2
    model = model.cpu()
    for request, completion in zip(asked, await drawing, strict=True):
        oracle = reference_logps(model, request.context, completion.tokens)
        np.testing.assert_allclose(completion.logps, chosen(oracle, completion.tokens), atol=1e-4)
    with pytest.raises(ManifestError, match="missing"):
        await engine.transfer("start", {"model.norm.weight": ((128,), "float32")})
    assert len(await engine.generate(requests(folder, PROMPTS, name="after", max_tokens=4))) == len(PROMPTS)
    publisher.close()
    await engine.close()
