"""Environment of a process that runs vLLM: set before torch or vllm is imported there, or it has no effect.

The cluster layer passes `environment(...)` when it starts a replica; importing `actors.vllm_core` sets what is still
unset. This module imports nothing heavy.
"""

import os

ENVIRONMENT: dict[str, str] = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # Scoring a sequence that fills the context asks for one token more, which is drawn and thrown away.
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What every replica needs, on any device."""

CPU: dict[str, str] = {
    # Eager mode alone does not stop the one compiled function of the sampler: up to 20 s at the first batch.
    "TORCH_COMPILE_DISABLE": "1",
    # Two replicas on one machine would otherwise pin their threads to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Threads that wait by spinning take the cores from the learner: ten times slower with two threads on busy cores.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""What a replica without a GPU needs besides."""


def environment(threads: int | None = None, gpus: float = 0) -> dict[str, str]:
    """Variables of a replica's process; `threads` CPU threads, one unless told (more only pays from about 100 M)."""
    if gpus:
        return dict(ENVIRONMENT)
    return ENVIRONMENT | CPU | {"OMP_NUM_THREADS": str(threads or 1)}


def prepare(threads: int | None = None, gpus: float = 0) -> None:
    """Set in this process what is still unset; call before the first import of torch."""
    for name, value in environment(threads, gpus).items():
        os.environ.setdefault(name, value)
