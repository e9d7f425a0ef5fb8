"""The plain torch rollout engine: imports torch only when one is made."""

from pathlib import Path

from actors.config import Rollout
from actors.engine import Load
from actors.stepper import SteppedEngine
from policies.config import Model


def torch_engine(
    folder: Path, model: Model, config: Rollout, max_model_len: int, load: Load = "publish"
) -> SteppedEngine:
    """An engine over the transformers model of a folder; `load` says where its first weights come from.

    With `publish` it draws nothing before the first update; with `folder` it serves the folder's weights as version
    0. Greedy tokens and log-probabilities are vLLM's; drawn tokens follow the same distribution from other noise. It
    needs no vLLM and no process of its own.
    """
    import torch

    from actors.torch_core import TorchCore

    def make() -> TorchCore:
        if config.threads is not None:
            torch.get_num_threads()  # a thread takes the process's count at its first question, and then keeps its own
            torch.set_num_threads(config.threads)
        core = TorchCore(folder, model, config.max_concurrent, max_model_len, load)
        return core.to("cuda") if config.gpus else core

    return SteppedEngine(make)
