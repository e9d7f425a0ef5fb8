"""`Ranks`: what one rank knows of the others of its learner, and how it exchanges small things with them."""

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from actors.config import Learner

COLLECTIVE_DEADLINE = timedelta(minutes=30)
"""Longest wait for the other ranks in one collective; the caller's own deadline on a step is shorter."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One of `count` ranks. Every method is collective: all ranks call it alike."""

    mine: int
    count: int
    device: torch.device

    def most(self, count: int) -> int:
        """The largest count of any rank."""
        if self.count == 1:
            return count
        largest = torch.tensor(count, device=self.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def meet(self) -> None:
        """Wait for every rank."""
        if self.count > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value` (JSON: floats survive exactly, NaN too), in rank order, so that a merge is the same."""
        if self.count == 1:
            return [value]
        mine = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=self.device)
        longest = self.most(len(mine))
        padded = torch.full((longest,), ord(" "), dtype=torch.uint8, device=self.device)
        padded[: len(mine)] = mine
        rows = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(rows, padded)
        return [json.loads(bytes(row.tolist())) for row in rows]

    def leave(self) -> None:
        """Leave the process group. A lone rank's stays: DeepSpeed holds on to it, and the next learner here uses it."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(config: Learner, rank: int, world_size: int, rendezvous: str) -> Ranks:
    """Join the ranks' process group, rank 0 at `rendezvous`; a lone rank of bare torch needs none."""
    ranks = Ranks(rank, world_size, torch.device("cuda" if config.gpus else "cpu"))
    if config.engine == "torch" and world_size == 1:
        return ranks
    host, _, port = rendezvous.rpartition(":")
    if host in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ |= {  # DeepSpeed reads these even where a group exists
        "RANK": str(rank),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_SIZE": "1",
        "MASTER_ADDR": host or "127.0.0.1",
        "MASTER_PORT": port or "0",
    }
    if dist.is_initialized():  # an earlier learner of this process; DeepSpeed cannot change groups
        return ranks
    store = dist.HashStore() if world_size == 1 else None  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if config.gpus else "gloo",
        init_method=None if store else f"tcp://{rendezvous}",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=COLLECTIVE_DEADLINE,
    )
    return ranks
