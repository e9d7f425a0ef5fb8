"""`FrozenReplica`: a model that is not trained, asked for log-probabilities: the reference, or a teacher."""

from collections.abc import Sequence
from pathlib import Path

from actors.config import Frozen, Rollout
from actors.engine import Load, TokenScores
from actors.sampler import open_engine
from actors.weights import Weights
from policies.config import Model
from policies.trajectory import Int32


class FrozenReplica:
    """Holds the weights of its folder, or those it was last given; a folder without weights waits for them."""

    def __init__(self, folder: str, model: Model, config: Frozen, max_model_len: int) -> None:
        holds = Rollout(engine=config.engine, threads=config.threads, gpus=config.gpus)
        load: Load = "folder" if any(Path(folder).glob("*.safetensors")) else "publish"
        self._engine = open_engine(Path(folder), model, holds, max_model_len, load)

    async def ping(self) -> str:
        """Answers once the model is up."""
        return "ok"

    async def version(self) -> int:
        """Version of the weights held: 0 from the folder, -1 for none yet."""
        return self._engine.version

    async def update_weights(self, weights: Weights) -> None:
        """Freeze these weights: as the reference, the learner's at the start of a stage."""
        await self._engine.update_weights(weights)

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int = 0) -> list[TokenScores]:
        """One `TokenScores` for each (context, tokens), in order, at temperature 1."""
        return await self._engine.score(list(zip(contexts, tokens, strict=True)), top_k)

    async def close(self) -> None:
        """Free the model."""
        await self._engine.close()
