"""The vLLM rollout engine: imports vLLM only when one is made, with the process's environment set before."""

from pathlib import Path
from typing import assert_never

from actors.config import Rollout
from actors.engine import Engine, Load
from actors.stepper import SteppedEngine
from actors.vllm_environment import prepare
from policies.config import Model


def vllm_engine(folder: Path, model: Model, config: Rollout, max_model_len: int, load: Load = "publish") -> Engine:
    """An engine over vLLM, in this process or its own as `isolation` says; `load` names its first weights' origin.

    With `publish` the folder needs config and tokenizer only, and the engine draws nothing before the first update;
    with `folder` it serves the folder's weights as version 0. The process must not also train: vLLM changes torch's
    thread settings and opens a process group of its own. ValueError names the key when the memory cannot hold one
    sequence.
    """
    prepare(config.threads, config.gpus)
    match config.isolation:
        case "thread":
            from actors.vllm_core import VllmCore

            return SteppedEngine(lambda: VllmCore(folder, model, config, max_model_len, load))
        case "process":
            from actors.vllm_process import ProcessEngine

            return ProcessEngine(folder, model, config, max_model_len, load)
        case _:
            assert_never(config.isolation)
