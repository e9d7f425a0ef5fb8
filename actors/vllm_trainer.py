"""The learner's side of vLLM's weight-transfer API: one interface for the flat buffer, NCCL and CUDA IPC.

    PolicySource -> trainer engine (buffer | nccl | ipc) -> ReplicaClient -> every replica's `transfer(call, payload)`

`buffer` packs once and hands the record over; `nccl` broadcasts from GPU to GPU; `ipc` lets replicas on the learner's
own GPU read its memory. A replica holds its steps between `start` and `finish`. `nccl` and `ipc` need a GPU; they are
written against vLLM 0.32 and were not run on the CPU machines where this is tested.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, assert_never

import torch
from vllm.distributed.weight_transfer.base import (
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightSource,
)
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from actors.engine import Transport
from actors.vllm_transfer import BACKEND
from actors.weights import Shapes, pack
from policies.models import merged_state

Transfer = Callable[[str, Any], None]
"""Calls one replica's `transfer(call, payload)` and waits for its answer."""


class PolicySource(WeightSource):  # type: ignore[misc]  # vLLM is untyped to mypy
    """The policy as engines load it: Hugging Face names, adapters merged, tied weights once."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def metadata(self) -> list[ParamMeta]:
        """Name, dtype and shape of everything that iteration yields."""
        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in merged_state(self._model)]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(merged_state(self._model))

    def shapes(self) -> Shapes:
        """The metadata as replicas compare it."""
        return {m.name: (m.shape, str(m.dtype).removeprefix("torch.")) for m in self.metadata()}


class ReplicaClient:
    """vLLM's `VLLMWeightSyncClient` over our replicas: each call goes to all at once and waits for every answer.

    Each replica is an engine of `workers` processes and joins an NCCL group at its own offset.
    """

    def __init__(self, replicas: Sequence[Transfer], source: PolicySource, workers: int = 1) -> None:
        self._replicas, self._source, self._workers = replicas, source, workers
        self.version = -1
        """Version that the next `finish` gives the weights."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Open the replicas' ends; they wait for each other in there."""
        payloads = [dict(init_info) for _ in self._replicas]
        if "rank_offset" in init_info:
            for index, payload in enumerate(payloads):
                payload["rank_offset"] = 1 + index * self._workers
        self._all("init", payloads)

    def start_weight_update(self) -> None:
        """Say what will come: a replica that needs something else refuses here, before a weight is touched."""
        self._all("start", [self._source.shapes()] * len(self._replicas))

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Receive; returns when every replica has all of it."""
        self._all("update", [update_info] * len(self._replicas))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Serve the new version and go on."""
        version = self.version if weight_version is None else int(weight_version)
        self._all("finish", [version] * len(self._replicas))

    def shutdown_weight_transfer_engine(self) -> None:
        """Close the replicas' ends."""
        self._all("shutdown", [None] * len(self._replicas))

    def _all(self, call: str, payloads: Sequence[Any]) -> None:
        with ThreadPoolExecutor(len(self._replicas)) as threads:
            list(threads.map(lambda replica, payload: replica(call, payload), self._replicas, payloads))


@dataclass
class BufferTrainerInit(TrainerInitInfo):  # type: ignore[misc]
    """No rendezvous."""

    backend: ClassVar[str] = BACKEND


class BufferTrainer(TrainerWeightTransferEngine[BufferTrainerInit]):  # type: ignore[misc]
    """Packs the source into one buffer and hands it to every replica."""

    init_info_cls = BufferTrainerInit

    @classmethod
    def trainer_init(
        cls, init_info: BufferTrainerInit, *, client: ReplicaClient, source: PolicySource | None = None
    ) -> "BufferTrainer":
        """Ready at once."""
        if init_info.is_sender:
            client.init_weight_transfer_engine({})
        return cls(client=client, source=source, is_sender=init_info.is_sender)

    def send_weights(self) -> None:
        """One round; ranks that do not send still take part in gathering the source."""
        weights = pack(iter(self.source), self.client.version)
        if self.is_sender:
            self.client.start_weight_update()
            self.client.update_weights({"weights": weights})
            self.client.finish_weight_update()


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where an NCCL group meets: the sender's address, a free port, and all processes, sender and workers."""

    host: str
    port: int
    processes: int


class Publisher:
    """The learner's end of a transport; every rank makes one and calls `publish`, rank 0 sends."""

    def __init__(self, transport: Transport, client: ReplicaClient, source: PolicySource, rank: int = 0) -> None:
        self._transport, self._client, self._source, self._rank = transport, client, source, rank
        self._trainer: TrainerWeightTransferEngine | None = None

    def open(self, meeting: Meeting | None = None) -> None:
        """Meet the replicas; `nccl` needs a meeting place."""
        match self._transport:
            case "buffer":
                info = BufferTrainerInit(rank=self._rank)
            case "nccl":
                if meeting is None:
                    raise ValueError("transport nccl: give the address, port and size of its group")
                info = NCCLTrainerInitInfo(meeting.host, meeting.port, meeting.processes, rank=self._rank)
            case "ipc":
                info = IPCTrainerInitInfo(rank=self._rank)
            case _:
                assert_never(self._transport)
        self._trainer = WeightTransferTrainerFactory.trainer_init(info, client=self._client, source=self._source)

    def publish(self, version: int) -> None:
        """Send the policy as it is now; returns when every replica serves `version`."""
        if self._trainer is None:
            raise ValueError("the transport is not open; call open() first")
        self._client.version = version
        self._trainer.send_weights()

    def close(self) -> None:
        """Leave the group."""
        if self._trainer is not None:
            self._trainer.shutdown()


def register() -> None:
    """Make `buffer` known to vLLM's trainer side in this process; harmless when it is already."""
    if BACKEND not in WeightTransferTrainerFactory._registry:
        WeightTransferTrainerFactory.register_engine(BACKEND, BufferTrainer)


register()
