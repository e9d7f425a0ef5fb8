"""`Weights`: a version of the policy on its way to the engines: one flat buffer and a manifest that describes it.

`pack` copies tensors into the buffer, `validate` compares the whole of it with what an engine's model needs, `views`
reads tensors back without a copy. torch is imported by the functions that need it, not by this module.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

if TYPE_CHECKING:
    import torch

ALIGNMENT = 64
"""Bytes; every tensor starts at a multiple: vector loads, and any dtype can be viewed in place."""

Shapes = Mapping[str, tuple[tuple[int, ...], str]]
"""What a model needs: parameter name -> (shape, dtype)."""


class ManifestError(ValueError):
    """Weights that do not fit the engine's model; the message names every fault. No weight was touched."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the buffer, Hugging Face name."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """torch name without the module: float32, bfloat16."""
    offset: int
    """Bytes from the buffer's start; a multiple of 64."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a buffer holds. An engine validates it whole before it touches a weight."""

    version: int
    entries: tuple[Entry, ...]
    nbytes: int
    checksum: str
    """xxh3_128 of the buffer, hex."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A manifest and its buffer (uint8, read-only, zero-copy out of the object store)."""

    manifest: Manifest
    buffer: npt.NDArray[np.uint8]


@dataclass(slots=True)
class _Capacity:
    """Size of this process's last pack. A buffer of the right size from the start is never zeroed nor moved: it packs
    three times as fast as one that grows, and a policy's versions are all of one size."""

    nbytes: int = 0


_capacity = _Capacity()


def pack(tensors: Iterable[tuple[str, "torch.Tensor"]], version: int, *, dtype: str | None = None) -> Weights:
    """Copy named tensors into one flat buffer, once; `dtype` casts floating tensors on the way.

    The iterable may be lazy and its tensors short-lived (gathered ZeRO-3 shards, GPU tensors): each is copied
    before the next is asked for. Give parameters without tied duplicates: `model.named_parameters()`.
    """
    import torch

    buffer = np.empty(_capacity.nbytes, np.uint8)
    entries: list[Entry] = []
    end = 0
    for name, tensor in tensors:
        target = getattr(torch, dtype) if dtype and tensor.is_floating_point() else tensor.dtype
        nbytes = tensor.numel() * target.itemsize
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        end = offset + nbytes
        if end > buffer.nbytes:
            buffer.resize(max(end, 2 * buffer.nbytes), refcheck=False)
        if nbytes:
            view = torch.from_numpy(buffer[offset:end]).view(target).view(tensor.shape)
            view.copy_(tensor.detach())
            del view
        entries.append(Entry(name, tuple(tensor.shape), str(target).removeprefix("torch."), offset, nbytes))
    if buffer.nbytes > end:
        buffer.resize(end, refcheck=False)
    _capacity.nbytes = end
    buffer.flags.writeable = False
    return Weights(Manifest(version, tuple(entries), end, checksum(buffer)), buffer)


def checksum(buffer: npt.NDArray[np.uint8]) -> str:
    """xxh3_128 of the buffer, hex; about 10 GB/s on one core."""
    return str(xxhash.xxh3_128_hexdigest(buffer.data))


def validate(weights: Weights, expected: Shapes) -> None:
    """Raise `ManifestError` unless the weights are exactly what the model needs; all faults are named at once."""
    manifest = weights.manifest
    faults = [*_missing_or_extra(manifest, expected), *_misplaced(weights), *_misshapen(manifest, expected)]
    if not faults and checksum(weights.buffer) != manifest.checksum:
        faults.append(f"buffer: checksum is {checksum(weights.buffer)}, the manifest says {manifest.checksum}")
    if faults:
        head = f"weights of version {manifest.version} refused, {len(faults)} fault{'s' * (len(faults) > 1)}"
        raise ManifestError("\n  ".join([f"{head}; the engine keeps its weights:", *faults]))


def compare(offered: Shapes, expected: Shapes) -> None:
    """Raise `ManifestError` unless a transfer offers exactly what the model needs; all faults are named at once."""
    faults = [f"{name}: missing" for name in expected if name not in offered]
    for name, (shape, dtype) in offered.items():
        wanted = expected.get(name)
        if wanted is None:
            faults.append(f"{name}: not a parameter of this model")
        elif (tuple(shape), dtype) != wanted:
            faults.append(f"{name}: {dtype}{list(shape)}, the model needs {wanted[1]}{list(wanted[0])}")
    if faults:
        raise ManifestError("\n  ".join(["transfer refused; the engine keeps its weights:", *faults]))


def already_served(weights: Weights, served: tuple[int, str] | None) -> bool:
    """Whether these are the (version, checksum) an engine has; ValueError if one version would name two weights."""
    version, digest = weights.manifest.version, weights.manifest.checksum
    if version < 0:
        raise ValueError(f"weights carry version {version}; versions start at 0")
    if served is None or served[0] != version:
        return False
    if served[1] != digest:
        raise ValueError(f"version {version} is already served with other bytes; publish these under a new version")
    return True


def views(weights: Weights) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Each tensor as a view of the buffer: no copy. Never write to one: the buffer is shared and read-only."""
    import torch

    if weights.buffer.nbytes == 0:
        return
    # A read-only array makes torch warn; a writeable alias of the same bytes does not, and nobody here writes.
    flat = torch.frombuffer(_address(weights.buffer), dtype=torch.uint8)
    for entry in weights.manifest.entries:
        part = flat[entry.offset : entry.offset + entry.nbytes]
        yield entry.name, part.view(getattr(torch, entry.dtype)).view(entry.shape)


def needed(model: "torch.nn.Module") -> Shapes:
    """What a Hugging Face model's update must hold: parameters and saved buffers, a tied weight once."""
    own = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, torch.Tensor] = dict(model.named_parameters())
    found |= {name: tensor for name, tensor in model.state_dict().items() if name not in own}
    return {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in found.items()}


def needed_by(folder: Path, dtype: str) -> Shapes:
    """The same from a model folder's config alone, without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return needed(AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)))


def _address(buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The same memory as an array that claims to be writeable and keeps the original alive."""
    interface = dict(buffer.__array_interface__)
    interface["data"] = (interface["data"][0], False)
    return np.asarray(_Alias(buffer, interface))


class _Alias:
    """numpy's array interface over another array's memory."""

    def __init__(self, owner: npt.NDArray[np.uint8], interface: dict[str, object]) -> None:
        self.owner = owner
        self.__array_interface__ = interface


def _missing_or_extra(manifest: Manifest, expected: Shapes) -> list[str]:
    names = [entry.name for entry in manifest.entries]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    return [
        *(f"{name}: missing" for name in expected if name not in set(names)),
        *(f"{name}: not a parameter of this model" for name in names if name not in expected),
        *(f"{name}: listed more than once" for name in twice),
    ]


def _misplaced(weights: Weights) -> list[str]:
    manifest, size = weights.manifest, weights.buffer.nbytes
    faults = [] if manifest.nbytes == size else [f"buffer: {size} bytes, the manifest says {manifest.nbytes}"]
    end = 0
    for entry in sorted(manifest.entries, key=lambda entry: entry.offset):
        if entry.offset < end:
            faults.append(f"{entry.name}: starts at byte {entry.offset}, inside the tensor before it")
        if entry.offset % ALIGNMENT or entry.offset + entry.nbytes > size:
            faults.append(f"{entry.name}: bytes {entry.offset} + {entry.nbytes} of a buffer of {size}, aligned to 64")
        end = entry.offset + entry.nbytes
    return faults


def _misshapen(manifest: Manifest, expected: Shapes) -> list[str]:
    import torch

    faults = []
    for entry in manifest.entries:
        shape, dtype = expected.get(entry.name, (entry.shape, entry.dtype))
        if (entry.shape, entry.dtype) != (tuple(shape), dtype):
            faults.append(f"{entry.name}: {entry.dtype}{list(entry.shape)}, the model needs {dtype}{list(shape)}")
        kind = getattr(torch, entry.dtype, None)
        if not isinstance(kind, torch.dtype) or math.prod(entry.shape) * kind.itemsize != entry.nbytes:
            faults.append(f"{entry.name}: {entry.nbytes} bytes do not hold {entry.dtype}{list(entry.shape)}")
    return faults
