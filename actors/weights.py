"""`Weights`: a version of the policy on its way to the engines: one flat buffer and a manifest that describes it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
