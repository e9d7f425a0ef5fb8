"""A thread that owns a model and steps it, and the `Engine` that talks to it.

    generate() ─┐                        ┌─ core.step(): one token for every request in flight
    score()    ─┼─> jobs (FIFO) ─> thread ┤
    update()   ─┘   between two steps     └─ finished completions -> the futures of their calls

All requests of one `generate` call are added between the same two steps, so a batch submitted at once is drawn the
same way each time; calls that overlap share the steps (continuous batching). A weight update is a job like any
other: it falls between two steps, and every token is stamped with the version that drew it.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from actors.engine import Call, Completion, EngineError, RequestError, SampleRequest, TokenScores, failed
from actors.weights import Shapes, Weights, already_served, compare, validate
from policies.trajectory import Int32

T = TypeVar("T")


class Core(Protocol):
    """A model that writes one token a step for every request in flight. One thread calls it; it never waits."""

    version: int
    """Policy version being served; -1 before the first weights."""

    @property
    def shapes(self) -> Shapes:
        """What an update must hold."""
        ...

    def add(self, request: SampleRequest) -> None:
        """Take a request in; RequestError if it can never be drawn."""
        ...

    def busy(self) -> bool:
        """Whether a step would do something."""
        ...

    def step(self) -> list[Completion]:
        """Draw one token for each request in flight; those that ended."""
        ...

    def abort(self, ids: Sequence[str]) -> list[Completion]:
        """End these requests with the tokens they have; unknown ids are passed over."""
        ...

    def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int) -> list[TokenScores]:
        """Log-probabilities of given tokens under the current weights."""
        ...

    def load(self, weights: Weights) -> None:
        """Replace the weights; requests in flight go on with their keys and values computed afresh."""
        ...

    def transfer(self, call: Call, payload: Any) -> None:
        """One call of vLLM's weight-transfer control plane; RequestError where the core has none."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    """One `generate` call: its completions as they arrive, and the future of all of them."""

    ids: list[str]
    future: "Future[list[Completion]]" = field(default_factory=Future)
    done: dict[str, Completion] = field(default_factory=dict)

    def deliver(self, completion: Completion) -> None:
        self.done[completion.id] = completion
        if len(self.done) == len(self.ids) and self.future.set_running_or_notify_cancel():
            self.future.set_result([self.done[name] for name in self.ids])


class SteppedEngine:
    """The `Engine` over a core that a thread of its own steps.

    An exception out of a step, or out of a weight update after its first write, leaves the model in an unknown
    state: the engine is poisoned, every waiting call fails with `EngineError`, and only a restart helps.
    """

    def __init__(self, make: Callable[[], Core]) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._calls: dict[str, _Call] = {}
        self._poison: Exception | None = None
        self._closing = False
        self._held = False
        """Between the start and the finish of a transfer the model is not whole: no step."""
        self._served: tuple[int, str] | None = None
        started: Future[Core] = Future()
        self._thread = threading.Thread(target=self._run, args=(make, started), name="engine-steps", daemon=True)
        self._thread.start()
        self._core = started.result()

    @property
    def version(self) -> int:
        """Policy version being served; -1 before the first publish."""
        return self._core.version

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Completion]:
        """Draw every request; results in the order asked. One that cannot be drawn comes back as `error`."""
        self._check(needs_weights=True)
        call = _Call([request.id for request in requests])
        if len(set(call.ids)) < len(call.ids):
            raise ValueError("generate: two requests of one call have the same id; an id names one trajectory")
        if not call.ids:
            return []
        try:
            await self._ask(lambda: self._admit(requests, call))
            return await asyncio.wrap_future(call.future)
        except asyncio.CancelledError:
            self._jobs.put((lambda: self._abort(call.ids), Future()))
            raise

    async def update_weights(self, weights: Weights) -> None:
        """Replace the weights in place at a step boundary; requests in flight go on under the new version.

        The whole manifest is compared with the model before anything is written: `ManifestError` names every fault
        and the engine serves on with what it has. The prefix cache is dropped and the keys and values of requests in
        flight are recomputed, so that every later token is exactly the new policy's: with a mixed cache its
        log-probability would be that of no policy at all. The same version with the same bytes again does nothing.
        """
        self._check()
        if already_served(weights, self._served):
            return
        await asyncio.to_thread(validate, weights, self._core.shapes)
        await self._ask(lambda: self._load(weights))

    async def transfer(self, call: Call, payload: Any) -> None:
        """One call of a weight transfer that the learner drives (`actors.vllm_trainer`).

        `start` takes what will come as name -> (shape, dtype) and refuses all that does not fit the model; from then
        until `finish`, which takes the version, requests are held and no step is made.
        """
        self._check()
        await self._ask(lambda: self._transfer(call, payload))

    async def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int = 0) -> list[TokenScores]:
        """Log-probabilities of (context, tokens) pairs under the current weights, at temperature 1."""
        self._check(needs_weights=True)
        return await self._ask(lambda: self._score(sequences, top_k)) if sequences else []

    async def on_core(self, work: Callable[[Core], T]) -> T:
        """Whatever a particular core can do beside: run between two steps, under weights that are whole."""
        self._check(needs_weights=True)
        return await self._ask(lambda: self._on_core(work))

    async def abort(self, ids: Sequence[str]) -> None:
        """Stop these requests; their partial tokens come back with finish reason `abort`."""
        self._check()
        await self._ask(lambda: self._abort(ids))

    async def close(self) -> None:
        """Free the engine; calls that still wait fail."""
        self._closing = True
        self._jobs.put((lambda: None, Future()))
        await asyncio.to_thread(self._thread.join, 30.0)

    # ------------------------------------------------------------ the caller's side

    def _check(self, *, needs_weights: bool = False) -> None:
        if self._closing:
            raise EngineError("the engine is closed")
        if self._poison is not None:
            raise EngineError(f"the engine failed and must be restarted: {self._poison}") from self._poison
        if needs_weights and self.version < 0:
            raise EngineError("the engine has no weights yet; publish a version to it first")

    async def _ask(self, work: Callable[[], T]) -> T:
        future: Future[T] = Future()
        self._jobs.put((work, future))
        return await asyncio.wrap_future(future)

    # ------------------------------------------------------------ the thread's side

    def _run(self, make: Callable[[], Core], started: "Future[Core]") -> None:
        try:
            core = make()
        except BaseException as error:  # noqa: BLE001  (handed to the constructor, which raises it)
            started.set_exception(error)
            return
        self._core = core
        started.set_result(core)
        while not self._closing:
            for work, future in self._take(wait=not self._may_step()):
                self._do(work, future)
            if self._may_step():
                self._do(self._step, Future())
        self._fail_all(EngineError("it was closed"))
        for work, future in self._take(wait=False):
            self._do(work, future)
        core.close()

    def _may_step(self) -> bool:
        return self._poison is None and not self._held and not self._closing and self._core.busy()

    def _take(self, *, wait: bool) -> Iterable[tuple[Callable[[], Any], "Future[Any]"]]:
        """Every job queued by now; with `wait`, at least one."""
        try:
            yield self._jobs.get(block=wait)
            while True:
                yield self._jobs.get_nowait()
        except Empty:
            return

    def _do(self, work: Callable[[], T], future: "Future[T]") -> None:
        """Run one job: a ValueError is its caller's, anything else poisons the engine."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            self._check()
            future.set_result(work())
        except (ValueError, EngineError) as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001  (the engine's one boundary: its failure becomes every caller's)
            self._poison = error
            future.set_exception(EngineError(f"the engine failed and must be restarted: {error!r}"))
            self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        for call in set(self._calls.values()):
            if call.future.set_running_or_notify_cancel():
                failure = EngineError(f"the engine failed and must be restarted: {error!r}")
                failure.__cause__ = error
                call.future.set_exception(failure)
        self._calls.clear()

    def _admit(self, requests: Sequence[SampleRequest], call: _Call) -> None:
        taken = [name for name in call.ids if name in self._calls]
        if taken:
            raise ValueError(f"generate: {taken[0]!r} is in flight already; wait for it, or abort it")
        for request in requests:
            self._calls[request.id] = call
            try:
                self._core.add(request)
            except RequestError as refusal:
                self._deliver([failed(request.id, str(refusal))])

    def _score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int) -> list[TokenScores]:
        return self._on_core(lambda core: core.score(sequences, top_k))

    def _on_core(self, work: Callable[[Core], T]) -> T:
        if self._held:
            raise EngineError("the engine is receiving weights; score after the transfer")
        return work(self._core)

    def _step(self) -> None:
        with _fatal("a step"):
            ended = self._core.step()
        self._deliver(ended)

    def _abort(self, ids: Sequence[str]) -> None:
        self._deliver(self._core.abort(ids))

    def _load(self, weights: Weights) -> None:
        with _fatal(f"the update to version {weights.manifest.version}"):
            self._core.load(weights)
        self._served = (weights.manifest.version, weights.manifest.checksum)

    def _transfer(self, call: Call, payload: Any) -> None:
        if call == "start":
            compare(payload, self._core.shapes)
            self._held = True
        with _fatal(f"the weight transfer's {call}") if self._held else nullcontext():
            self._core.transfer(call, payload)
        if call == "finish":
            self._held, self._served = False, None

    def _deliver(self, completions: Sequence[Completion]) -> None:
        for completion in completions:
            call = self._calls.pop(completion.id, None)
            if call is not None:
                call.deliver(completion)


@contextmanager
def _fatal(what: str) -> Iterator[None]:
    """Nothing that fails in here is a caller's mistake: the model is left half-way."""
    try:
        yield
    except (ValueError, EngineError) as error:
        raise RuntimeError(f"{what} failed: {error}") from error
