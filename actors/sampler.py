"""`SamplerReplica`: one engine that writes trajectories with the newest weights it was given. A plain class."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from actors.config import Rollout
from actors.engine import Call, Completion, Engine, Load, SampleRequest, TokenScores
from actors.weights import Weights
from policies.config import Model
from policies.trajectory import FinishReason, Int32, Origin, Producer, ScoreEntry, Trajectory


class SamplerReplica:
    """Draws responses and says of every token which version wrote it, with what probability.

    A request whose id is in flight already is joined, not drawn again, so a repeated call is harmless; an id that
    was answered before is drawn again from its seed.
    """

    def __init__(
        self,
        folder: str,
        model: Model,
        config: Rollout,
        max_model_len: int,
        model_name: str,
        load: Load = "publish",
    ) -> None:
        self._engine = open_engine(Path(folder), model, config, max_model_len, load)
        self._model_name = model_name
        self._drawing: dict[str, asyncio.Task[Mapping[str, Trajectory]]] = {}

    async def ping(self) -> str:
        """Answers once the engine is up."""
        return "ok"

    async def version(self) -> int:
        """Policy version being served; -1 before the first publish."""
        return self._engine.version

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """One trajectory for each request, in order, with the request's lineage.

        A request that cannot be drawn comes back without tokens, finish reason `error`, and a score named `rollout`
        whose reason says why.
        """
        fresh = {request.id: request for request in requests if request.id not in self._drawing}
        if fresh:
            task = asyncio.create_task(self._draw(list(fresh.values())))
            for name in fresh:
                self._drawing[name] = task
            task.add_done_callback(lambda _: self._forget(fresh))
        owners = {request.id: self._drawing[request.id] for request in requests}
        drawn: dict[str, Trajectory] = {}
        for owner in set(owners.values()):
            # one caller's cancellation must not take the draw from the others that joined it
            drawn |= await asyncio.shield(owner)
        return [drawn[request.id] for request in requests]

    async def update_weights(self, weights: Weights) -> None:
        """Replace the weights in place; requests in flight go on under the new version."""
        await self._engine.update_weights(weights)

    async def transfer(self, call: Call, payload: Any) -> None:
        """One call of a weight transfer that the learner drives (`actors.vllm_trainer`)."""
        await self._engine.transfer(call, payload)

    async def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int = 0) -> list[TokenScores]:
        """Log-probabilities of (context, tokens) pairs under the current weights."""
        return await self._engine.score(sequences, top_k)

    async def abort(self, ids: Sequence[str]) -> None:
        """Stop these requests; what they have comes back through their own calls."""
        await self._engine.abort(ids)

    async def close(self) -> None:
        """Free the engine."""
        await self._engine.close()

    async def _draw(self, requests: Sequence[SampleRequest]) -> Mapping[str, Trajectory]:
        completions = await self._engine.generate(requests)
        now = time.time()
        return {
            request.id: trajectory(request, completion, self._model_name, self._engine.version, now)
            for request, completion in zip(requests, completions, strict=True)
        }

    def _forget(self, names: Mapping[str, SampleRequest]) -> None:
        for name in names:
            del self._drawing[name]


def open_engine(folder: Path, model: Model, config: Rollout, max_model_len: int, load: Load = "publish") -> Engine:
    """The engine that the config names."""
    match config.engine:
        case "vllm":
            from actors.vllm_engine import vllm_engine

            return vllm_engine(folder, model, config, max_model_len, load)
        case "torch":
            from actors.torch_engine import torch_engine

            return torch_engine(folder, model, config, max_model_len, load)
        case _:
            assert_never(config.engine)


def trajectory(request: SampleRequest, completion: Completion, model: str, version: int, now: float) -> Trajectory:
    """A completion with its provenance; `version` is that of a response without tokens."""
    tokens = len(completion.tokens)
    failed = completion.finish_reason == FinishReason.ERROR
    reason = ScoreEntry("rollout", float("nan"), None, "error", completion.reason, scorer="engine")
    return Trajectory(
        id=request.id,
        prompt_id=request.prompt_id,
        group_id=request.group_id,
        producer=Producer.ROLLOUT,
        model=model,
        version=int(completion.versions[0]) if tokens else version,
        train_context=request.context,
        behavior_context=request.context,
        teacher_context=request.context,
        tokens=completion.tokens,
        origin=np.full(tokens, Origin.LEARNER, np.int8),
        token_version=completion.versions,
        train_mask=np.ones(tokens, np.bool_),
        behavior_logps=completion.logps,
        scores=(reason,) if failed else (),
        finish_reason=completion.finish_reason,
        sampling=request.sampling,
        seed=request.seed,
        text=completion.text,
        created_at=now,
        seconds=completion.seconds,
        tokens_generated=tokens,
    )
