"""What every actor's process is given: quiet libraries, and as many threads as its share of the machine."""

import os

from actors.vllm_environment import environment as vllm_environment
from policies.config import Model, TinyModel

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Nothing a run starts reaches for a hub or reports home, and threads that wait do not take a core from the others."""


def threads(asked: int | None, replicas: int, model: Model) -> int:
    """CPU threads of one replica: as asked; one for a tiny model; else the machine's cores shared by the replicas.

    A tiny model's time goes into Python and small kernels: a second thread waits for the first, and takes its core
    from the other actors.
    """
    if asked is None and isinstance(model, TinyModel):
        return 1
    return asked or max(1, (os.cpu_count() or 1) // replicas)


def environment(count: int, engine: str = "torch", gpus: float = 0) -> dict[str, str]:
    """Environment of a process with `count` CPU threads, and of its engine."""
    return {**QUIET, "OMP_NUM_THREADS": str(count), **(vllm_environment(count, gpus) if engine == "vllm" else {})}
