"""The actor that serves a model with a scalar head: one replica, asked in batches by every scorer."""

import time
from collections.abc import Sequence

from actors.config import Judge
from verifiers.scalar_model import ScalarHead
from verifiers.served import Exchange, Reading


class ScalarReplica:
    """Holds a reward, process reward or preference model. A plain class, as every actor is."""

    def __init__(self, path: str, config: Judge) -> None:
        """Loads the model; ValueError for a folder without a scalar head."""
        import torch

        if config.gpus and not torch.cuda.is_available():
            raise ValueError(f"resources.judge.gpus: {config.gpus}, but torch sees no GPU here; set it to 0")
        if config.threads:
            torch.set_num_threads(config.threads)
        device = "cuda" if config.gpus else "cpu"
        self._model = ScalarHead(path, batch_tokens=config.batch_tokens, device=device)

    def read(self, exchanges: Sequence[Exchange], seconds: float, asked: float | None = None) -> list[Reading]:
        """A reading of each exchange, in order; what is not begun within `seconds` is `timeout`.

        `asked`: since when (Unix seconds), where the call waited in a queue. Whoever gave it up meanwhile costs nothing
        more, and those behind it do not wait for it; the machines' clocks have to agree to a few seconds.
        """
        waited = 0.0 if asked is None else max(time.time() - asked, 0.0)
        return self._model.read(exchanges, seconds - waited)

    def identity(self) -> str:
        """The folder's fingerprint."""
        return self._model.identity()
