"""vLLM's asynchronous engine in a process of its own: for tensor parallelism, and to survive what kills the engine.

It starts slower than the engine in this process, and the requests of one call may join the batch at different steps,
so equal seeds still give equal tokens but batches are not bit for bit the same. Weights go over in one file in shared
memory.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, assert_never

from vllm import SamplingParams
from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM

from actors.engine import Call, Completion, EngineError, RequestError, SampleRequest, TokenScores, failed
from actors.vllm_parameters import Reader, Setup, engine_arguments, scores, scoring
from actors.vllm_transfer import manifest_to
from actors.weights import Shapes, Weights, already_served, compare, needed_by, validate
from policies.trajectory import Int32

SHARED_MEMORY = Path("/dev/shm")


class ProcessEngine:
    """The `Engine` over `AsyncLLM`. Use it from one event loop."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(setup)))
        self._reader = Reader.of(setup, self._engine.model_config.get_vocab_size())
        self.shapes: Shapes = needed_by(setup.folder, setup.model.dtype)
        self.version = -1
        self._ready = False
        self._served: tuple[int, str] | None = None
        self._poison: Exception | None = None
        self._in_flight: set[str] = set()
        self._updating = asyncio.Lock()
        self._calls: set[asyncio.Future[list[Completion]]] = set()
        """Draws that wait; cancelled when the engine is poisoned, for a held engine would never answer them."""

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Completion]:
        """Draw every request; results in the order asked. One that cannot be drawn comes back as `error`."""
        await self._check(needs_weights=True)
        ids = [request.id for request in requests]
        if len(set(ids)) < len(ids) or self._in_flight.intersection(ids):
            raise ValueError("generate: an id is given twice or is in flight already; an id names one trajectory")
        self._in_flight.update(ids)
        drawing = asyncio.gather(*(self._draw(request) for request in requests))
        self._calls.add(drawing)
        try:
            return list(await drawing)
        except asyncio.CancelledError:
            if self._poison is not None:
                raise self._failure() from self._poison
            raise
        finally:
            self._calls.discard(drawing)
            self._in_flight.difference_update(ids)

    async def update_weights(self, weights: Weights) -> None:
        """Replace the weights while requests are held; they go on under the new version, caches computed afresh.

        Checked whole before anything is written; a failure after that poisons the engine.
        """
        async with self._updating:
            await self._check()
            if already_served(weights, self._served):
                return
            await asyncio.to_thread(validate, weights, self.shapes)
            with self._fatal():
                await self._replace(weights)
            self._served = (weights.manifest.version, weights.manifest.checksum)

    async def transfer(self, call: Call, payload: Any) -> None:
        """One call of a weight transfer that the learner drives; requests are held from `start` to `finish`."""
        await self._check()
        if call == "start":
            compare(payload, self.shapes)
        with self._fatal():
            await self._call(call, payload)
        self._served = None if call == "finish" else self._served

    async def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int = 0) -> list[TokenScores]:
        """Log-probabilities of (context, tokens) pairs under the current weights, at temperature 1."""
        await self._check(needs_weights=True)
        self._reader.limits.check_scorable(sequences)
        mark = time.monotonic_ns()

        async def one(index: int, context: Int32, tokens: Int32) -> TokenScores:
            prompt = [*context.tolist(), *tokens.tolist()]
            return scores(await self._run(f"score-{mark}-{index}", prompt, scoring(top_k)), len(tokens), top_k)

        return list(await asyncio.gather(*(one(index, *pair) for index, pair in enumerate(sequences))))

    async def abort(self, ids: Sequence[str]) -> None:
        """Stop these requests; their partial tokens come back with finish reason `abort`."""
        await self._check()
        await self._engine.abort([name for name in ids if name in self._in_flight])

    async def close(self) -> None:
        """End the engine's process."""
        self._engine.shutdown()

    # ------------------------------------------------------------ inside

    async def _check(self, *, needs_weights: bool = False) -> None:
        if self._poison is not None:
            raise self._failure() from self._poison
        if not self._ready:
            self._ready = True
            if self._setup.transport == "buffer":
                await self._engine.init_weight_transfer_engine(WeightTransferInitRequest({}))
            if self._setup.load == "folder":
                await self._engine.update_weight_version("0")
                self.version = 0
        if needs_weights and self.version < 0:
            raise EngineError("the engine has no weights yet; publish a version to it first")

    async def _draw(self, request: SampleRequest) -> Completion:
        began = time.monotonic()
        try:
            parameters = self._reader.drawing(request)
        except RequestError as refusal:
            return failed(request.id, str(refusal))
        output = await self._run(request.id, request.context.tolist(), parameters)
        return self._reader.completion(request, output.outputs[0], began)

    async def _run(self, name: str, prompt: list[int], parameters: SamplingParams) -> RequestOutput:
        last = None
        with self._fatal():
            async for output in self._engine.generate(tokens_input(prompt), parameters, name):
                last = output
        if last is None:
            raise EngineError(f"the engine ended request {name!r} without an answer")
        return last

    async def _replace(self, weights: Weights) -> None:
        with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY, prefix="braid-weights-") as file:
            await asyncio.to_thread(weights.buffer.tofile, file.name)
            await self._call("start", None)
            await self._call("update", {"path": file.name, "manifest": manifest_to(weights.manifest)})
            await self._call("finish", weights.manifest.version)

    async def _call(self, call: Call, payload: Any) -> None:
        match call:
            case "init":
                await self._engine.init_weight_transfer_engine(WeightTransferInitRequest(payload))
            case "start":
                await self._engine.pause_generation(mode="keep", clear_cache=True)
                await self._engine.start_weight_update()
            case "update":
                await self._engine.update_weights(WeightTransferUpdateRequest(payload))
            case "finish":
                await self._engine.finish_weight_update(weight_version=str(payload))
                self.version = int(payload)
                await self._engine.resume_generation()
            case "shutdown":
                await self._engine.shutdown_weight_transfer_engine()
            case _:
                assert_never(call)

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._poison = error
            for call in self._calls:
                call.cancel()
            raise self._failure() from error

    def _failure(self) -> EngineError:
        return EngineError(f"the engine failed and must be restarted: {self._poison!r}")
