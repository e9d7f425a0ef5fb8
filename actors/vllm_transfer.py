"""vLLM's weight-transfer API, engine side: our `buffer` backend beside vLLM's own `nccl` and `ipc`.

A trainer drives every backend with the same four calls of vLLM's `VLLMWeightSyncClient`: init_weight_transfer_engine,
start_weight_update, update_weights, finish_weight_update. `buffer` takes a `Weights` record: as it is when the engine
lives in this process, or as the name of a shared-memory file when it has its own. It works on any device; the copy
to a GPU is the only one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.weights import Entry, Manifest, Weights, views

BACKEND = "buffer"


@dataclass
class BufferInit(WeightTransferInitInfo):  # type: ignore[misc]  # vLLM is untyped to mypy
    """No rendezvous: every update brings its own memory."""


@dataclass
class BufferUpdate(WeightTransferUpdateInfo):  # type: ignore[misc]
    """One whole version: the record itself, or where its bytes lie and what they hold."""

    weights: Weights | None = None
    path: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)

    def open(self) -> Weights:
        """The weights, without a copy."""
        if self.weights is not None:
            return self.weights
        return Weights(manifest_from(self.manifest), np.memmap(Path(self.path), np.uint8, mode="r"))


def manifest_to(manifest: Manifest) -> dict[str, Any]:
    """A manifest as plain values, for an engine in a process of its own."""
    entries = [[e.name, list(e.shape), e.dtype, e.offset, e.nbytes] for e in manifest.entries]
    return {"version": manifest.version, "entries": entries, "nbytes": manifest.nbytes, "checksum": manifest.checksum}


def manifest_from(values: dict[str, Any]) -> Manifest:
    """The inverse of `manifest_to`."""
    entries = tuple(Entry(name, tuple(shape), *rest) for name, shape, *rest in values["entries"])
    return Manifest(values["version"], entries, values["nbytes"], values["checksum"])


class BufferTransfer(WeightTransferEngine[BufferInit, BufferUpdate]):  # type: ignore[misc]
    """Loads a flat buffer layer by layer into the memory that the running model uses."""

    init_info_cls = BufferInit
    update_info_cls = BufferUpdate
    supports_draft_weight_update = False

    def init_transfer_engine(self, init_info: BufferInit) -> None:
        """Nothing to open."""

    def start_weight_update(self) -> None:
        """Put the layers on the meta device, to be filled one at a time."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load one whole version; on a GPU, wait for the copies."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: BufferUpdate) -> None:
        """Hand the tensors to the model's own loader, which fuses and shards them."""
        self.model.load_weights(self._on_device(update_info.open()))

    def finish_weight_update(self) -> None:
        """Bring every layer back to its kernel's layout, the tied output layer too."""
        with torch.no_grad():
            finalize_layerwise_reload(self.model, self.model_config)
            refresh_packed_heads(self.model)

    def shutdown(self) -> None:
        """Nothing is held between updates."""

    def _on_device(self, weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in views(weights):
            yield name, tensor if self.device.type == "cpu" else tensor.to(self.device, non_blocking=True)


def refresh_packed_heads(model: torch.nn.Module) -> None:
    """Repack the output layers: on a CPU each keeps its own packed copy, which a reload of a tied embedding misses.

    Without this the hidden states are the new policy's and the logits still go through the old head: silently wrong
    by whole nats.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead) and hasattr(module, "cpu_linear"):
            module.quant_method.process_weights_after_loading(module)


def register() -> None:
    """Make `buffer` known to vLLM in this process; harmless when it is already."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, BufferTransfer)


class WorkerExtension:
    """Mixed into vLLM's worker: importing this module in the worker's process registers the backend there."""


register()
