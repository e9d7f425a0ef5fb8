"""Packing, validating and viewing weights: no engine needed."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.weights import ManifestError, Weights, pack, validate, views


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(3, 5),
        "b.weight": torch.randn(7, dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "transposed": torch.randn(4, 6).t(),
    }


def shapes(given: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in given.items()}


def test_views_of_a_pack_are_the_tensors_and_share_its_memory() -> None:
    given = tensors()
    weights = pack(given.items(), version=3)
    back = dict(views(weights))
    assert list(back) == list(given)
    base = weights.buffer.__array_interface__["data"][0]
    for entry in weights.manifest.entries:
        assert torch.equal(back[entry.name], given[entry.name])
        assert back[entry.name].dtype == given[entry.name].dtype
        assert entry.offset % 64 == 0
        if entry.nbytes:
            assert back[entry.name].data_ptr() == base + entry.offset
    assert not weights.buffer.flags.writeable
    validate(weights, shapes(given))


def test_a_lazy_iterable_whose_tensors_are_overwritten_afterwards_packs_the_values_it_saw() -> None:
    scratch = torch.empty(1000)

    def gathered() -> "object":
        for index in range(50):
            scratch.fill_(float(index))
            yield f"layer.{index}", scratch

    weights = pack(gathered(), version=0)
    for index, (_, tensor) in enumerate(views(weights)):
        assert torch.equal(tensor, torch.full((1000,), float(index)))


def test_dtype_casts_floating_tensors_and_leaves_integers() -> None:
    weights = pack([("w", torch.tensor([1.0, 1.0 + 2**-12])), ("i", torch.tensor([1, 2]))], version=0, dtype="bfloat16")
    back = dict(views(weights))
    assert back["w"].dtype == torch.bfloat16 and back["i"].dtype == torch.int64
    assert torch.equal(back["w"], torch.tensor([1.0, 1.0 + 2**-12]).bfloat16())


def test_views_keep_the_buffer_alive() -> None:
    back = dict(views(pack([("w", torch.arange(1000.0))], version=0)))
    np.random.default_rng(0).bytes(1 << 20)
    assert torch.equal(back["w"], torch.arange(1000.0))


def test_every_fault_of_a_manifest_is_named_in_one_error() -> None:
    given = tensors()
    weights = pack(given.items(), version=9)
    expected = shapes(given) | {
        "absent": ((2,), "float32"),
        "b.weight": ((7,), "float32"),
        "a.weight": ((5, 3), "float32"),
    }
    del expected["scalar"]
    with pytest.raises(ManifestError) as caught:
        validate(weights, expected)
    message = str(caught.value)
    for part in (
        "version 9",
        "absent: missing",
        "scalar: not a parameter",
        "b.weight: bfloat16[7], the model needs float32[7]",
        "a.weight: float32[3, 5], the model needs float32[5, 3]",
    ):
        assert part in message


def test_a_flipped_bit_a_short_buffer_and_an_overlap_are_refused() -> None:
    given = tensors()
    weights, expected = pack(given.items(), version=1), shapes(given)
    flipped = weights.buffer.copy()
    flipped[2] ^= 1
    with pytest.raises(ManifestError, match="checksum"):
        validate(Weights(weights.manifest, flipped), expected)
    with pytest.raises(ManifestError, match="the manifest says"):
        validate(Weights(weights.manifest, weights.buffer[:-64]), expected)
    entries = tuple(replace(e, offset=0) if e.name == "b.weight" else e for e in weights.manifest.entries)
    with pytest.raises(ManifestError, match="inside the tensor before it"):
        validate(Weights(replace(weights.manifest, entries=entries), weights.buffer), expected)
    entries = tuple(replace(e, nbytes=e.nbytes + 4) if e.name == "scalar" else e for e in weights.manifest.entries)
    with pytest.raises(ManifestError, match="do not hold"):
        validate(Weights(replace(weights.manifest, entries=entries), weights.buffer), expected)


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, actors.weights, actors.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
