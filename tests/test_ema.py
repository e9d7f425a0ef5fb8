"""A frozen model that follows the learner: what it holds is the written mean, served rounded and stored whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_parts import MODEL, chosen, drawn_model, empty_folder, reference_logps, weights_of

from actors.average import FILE, Average
from actors.config import Frozen
from actors.engine import EngineError
from actors.frozen import FrozenReplica
from actors.weights import pack, views

HALF = MODEL.model_copy(update={"dtype": "bfloat16"})
CONTEXT, TOKENS = np.array([3, 12, 3, 14], np.int32), np.array([4, 9, 30, 1], np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_folder(tmp_path_factory.mktemp("average"))


def drawn(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(17, 5, generator=generator).to(dtype),
        "bias": torch.randn(5, generator=generator).to(dtype),
        "steps": torch.tensor([seed]),
    }


def held(average: Average) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in views(average.weights())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_is_the_formulas_bit_for_bit(dtype: torch.dtype) -> None:
    """teacher = (1 - rate) teacher + rate student, in float32 whatever the models' type (numpy, step by step)."""
    rate = 0.05
    average, oracle = Average(), {}
    for seed in range(6):
        tensors = drawn(seed, dtype)
        given = pack(tensors.items(), seed)
        if seed == 0:
            average.replace(given)
            oracle = {name: tensors[name].float().numpy() for name in ("weight", "bias")}
        else:
            average.mix(given, rate)
            for name, old in oracle.items():
                oracle[name] = old * np.float32(1 - rate) + tensors[name].float().numpy() * np.float32(rate)
    found = held(average)
    assert found["weight"].dtype == dtype and found["steps"].tolist() == [5]
    for name, value in oracle.items():
        assert torch.equal(found[name], torch.from_numpy(value).to(dtype)), name


def test_small_shares_are_not_lost_to_bfloat16() -> None:
    average = Average()
    average.replace(pack([("w", torch.ones(3, dtype=torch.bfloat16))], 0))
    for version in range(1, 101):
        average.mix(pack([("w", torch.full((3,), 2.0, dtype=torch.bfloat16))], version), 1e-3)
    expected = 2 - 0.999**100  # each single step is below bfloat16's resolution at 1
    assert held(average)["w"].float().tolist() == pytest.approx([expected] * 3, rel=4e-3)


def test_what_was_given_is_never_written_to() -> None:
    tensors = drawn(0)
    first, second = pack(tensors.items(), 0), pack(drawn(1).items(), 1)
    before = first.buffer.tobytes(), second.buffer.tobytes()
    average = Average()
    average.replace(first)
    average.mix(second, 0.5)
    assert (first.buffer.tobytes(), second.buffer.tobytes()) == before
    with pytest.raises(ValueError, match="no weights to mix into"):
        Average().mix(first, 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stored_average_goes_on_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    straight, resumed = Average(), Average()
    given = [pack(drawn(seed, dtype).items(), seed) for seed in range(4)]
    straight.replace(given[0])
    straight.mix(given[1], 0.3)
    straight.save(tmp_path)
    resumed.load(tmp_path)
    for one in given[2:]:
        straight.mix(one, 0.3)
        resumed.mix(one, 0.3)
    ours, theirs = held(straight), held(resumed)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert straight.weights().manifest.version == resumed.weights().manifest.version
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"weights\.safetensors: cannot be read"):
        Average().load(tmp_path)


@pytest.mark.parametrize("model", [MODEL, HALF], ids=["float32", "bfloat16"])
async def test_a_refreshed_model_serves_the_mean(folder: Path, tmp_path: Path, model: Any) -> None:
    old, new = drawn_model(folder, 5, model), drawn_model(folder, 6, model)
    teacher = FrozenReplica(str(folder), model, Frozen(), model.context, refreshed=True)
    await teacher.update_weights(weights_of(old, 7))
    await teacher.update_weights(weights_of(new, 8), 0.25)
    with torch.no_grad():
        for own, other in zip(old.parameters(), new.parameters(), strict=True):
            own.copy_(own.float() * 0.75 + other.float() * 0.25)
    await _serves(teacher, old)
    await teacher.save(tmp_path)
    resumed = FrozenReplica(str(folder), model, Frozen(), model.context, refreshed=True)
    await resumed.load(tmp_path)
    await _serves(resumed, old)
    # A later stage begins with weights whose version was mixed in before: they replace the mean all the same.
    await resumed.update_weights(weights_of(new, 8))
    await _serves(resumed, new)
    await teacher.close()
    await resumed.close()


async def _serves(replica: FrozenReplica, model: Any) -> None:
    (scores,) = await replica.logprobs([CONTEXT], [TOKENS])
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 0.1
    np.testing.assert_allclose(scores.logps, chosen(reference_logps(model, CONTEXT, TOKENS), TOKENS), atol=tolerance)


async def test_a_model_that_is_never_refreshed_has_no_mean(folder: Path) -> None:
    fixed = FrozenReplica(str(folder), MODEL, Frozen(), MODEL.context)
    await fixed.update_weights(weights_of(drawn_model(folder, 5), 0))
    with pytest.raises(EngineError, match="no average to mix into"):
        await fixed.update_weights(weights_of(drawn_model(folder, 6), 1), 0.5)
    await fixed.close()
