"""The vLLM rollout engine: imports vLLM only when one is made, with the process's environment set before."""

from pathlib import Path
from typing import assert_never

from actors.config import Rollout
from actors.engine import Engine, Load, Transport
from actors.stepper import SteppedEngine
from actors.vllm_environment import prepare
from policies.config import Model


def vllm_engine(
    folder: Path,
    model: Model,
    config: Rollout,
    max_model_len: int,
    load: Load = "publish",
    transport: Transport = "buffer",
) -> Engine:
    """An engine over vLLM, in this process or its own as `isolation` says; `load` names its first weights' origin.

    With `publish` the folder needs config and tokenizer only, and the engine draws nothing before the first update;
    with `folder` it serves the folder's weights as version 0. The process must not also train: vLLM changes torch's
    thread settings and opens a process group of its own. `nccl` and `ipc` take weights by `transfer` alone.
    """
    if transport != "buffer" and not config.gpus:
        raise ValueError(f"transport {transport} needs a GPU; set resources.rollout.gpus, or use buffer")
    prepare(config.threads, config.gpus)
    from actors.vllm_parameters import Setup

    setup = Setup(folder, model, config, max_model_len, load, transport)
    match config.isolation:
        case "thread":
            from actors.vllm_core import VllmCore

            return SteppedEngine(lambda: VllmCore(setup))
        case "process":
            from actors.vllm_process import ProcessEngine

            return ProcessEngine(setup)
        case _:
            assert_never(config.isolation)
