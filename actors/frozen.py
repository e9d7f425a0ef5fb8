"""`FrozenReplica`: a model that is not trained: the reference, or a teacher. It judges tokens and writes some."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actors.average import Average
from actors.config import Frozen, Rollout
from actors.engine import EngineError, Load, SampleRequest, TokenScores
from actors.sampler import open_engine, trajectory
from actors.stepper import SteppedEngine
from actors.weights import Weights
from policies.config import Model
from policies.trajectory import Float32, Int32, Origin, Producer, Trajectory

if TYPE_CHECKING:
    from actors.torch_core import TorchCore


class FrozenReplica:
    """Holds the weights of its folder, or those it was last given; a folder without weights waits for them.

    `refreshed`: it will be given the learner's weights again, whole or by shares, and keeps them in float32 beside
    the model. `name` stands in what it writes.
    """

    def __init__(  # noqa: PLR0913  (what, where, and how it is called)
        self,
        folder: str,
        model: Model,
        config: Frozen,
        max_model_len: int,
        *,
        name: str = "",
        refreshed: bool = False,
        given: bool = False,
    ) -> None:
        """`given`: whatever the folder holds, the weights come by `update_weights`."""
        holds = Rollout(engine=config.engine, threads=config.threads, gpus=config.gpus)
        has_weights = any(Path(folder).glob("*.safetensors"))
        load: Load = "folder" if has_weights and not given else "publish"
        self._config, self._name = config, name or Path(folder).name
        self._engine = open_engine(Path(folder), model, holds, max_model_len, load)
        self._average = Average() if refreshed else None

    async def ping(self) -> str:
        """Answers once the model is up."""
        return "ok"

    async def version(self) -> int:
        """Version of the weights held: 0 from the folder, -1 for none yet."""
        return self._engine.version

    # ------------------------------------------------------------ what it is asked

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int = 0) -> list[TokenScores]:
        """One `TokenScores` for each (context, tokens), in order, at temperature 1."""
        return await self._engine.score(list(zip(contexts, tokens, strict=True)), top_k)

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """A response to each request, in order: a teacher's tokens, with the log-probabilities it gave them."""
        completions = await self._engine.generate(requests)
        now = time.time()
        return [
            _taught(trajectory(request, completion, self._name, -1, now))
            for request, completion in zip(requests, completions, strict=True)
        ]

    async def hidden(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T, H] last hidden states at the slots that predict the tokens, for divergences over the vocabulary."""
        sequences = list(zip(contexts, tokens, strict=True))
        return await self._stepped().on_core(lambda core: _torch(core).hidden(sequences)) if sequences else []

    async def head(self) -> Float32:
        """[V, H] the matrix that makes logits of hidden states."""
        return await self._stepped().on_core(lambda core: _torch(core).head())

    # ------------------------------------------------------------ weights

    async def update_weights(self, weights: Weights, mix: float = 1.0) -> None:
        """Hold these weights; with `mix` below 1, (1 - mix) of those held and `mix` of these, in float32."""
        if self._average is None:
            if mix != 1.0:
                raise EngineError("a frozen model that is never refreshed has no average to mix into")
            await self._engine.update_weights(weights)
            return
        if mix == 1.0:
            self._average.replace(weights)
        else:
            self._average.mix(weights, mix)
        await self._engine.update_weights(self._average.weights())

    async def save(self, directory: Path) -> None:
        """The float32 weights of a model that is refreshed, for a resume."""
        if self._average is not None:
            self._average.save(directory)

    async def load(self, directory: Path) -> None:
        """Hold what `save` wrote, bit for bit."""
        if self._average is not None:
            self._average.load(directory)
            await self._engine.update_weights(self._average.weights())

    async def close(self) -> None:
        """Free the model."""
        await self._engine.close()

    def _stepped(self) -> SteppedEngine:
        if self._config.engine != "torch":
            raise ValueError(f"resources.frozen.engine: {self._config.engine} gives no hidden states; set it to torch")
        assert isinstance(self._engine, SteppedEngine)
        return self._engine


def _torch(core: object) -> "TorchCore":
    from actors.torch_core import TorchCore

    assert isinstance(core, TorchCore)
    return core


def _taught(written: Trajectory) -> Trajectory:
    """A frozen model's response: no version of the learner wrote it."""
    size = len(written.tokens)
    return replace(
        written,
        producer=Producer.TEACHER,
        version=-1,
        origin=np.full(size, Origin.TEACHER, np.int8),
        token_version=np.full(size, -1, np.int32),
    )
