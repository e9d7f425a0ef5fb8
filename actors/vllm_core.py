"""vLLM's engine in this process, stepped by our thread: continuous batching with nothing between us and the model."""

import threading
import time
from collections.abc import Sequence
from typing import Any, assert_never

import torch
import torch._dynamo
from vllm.distributed import destroy_distributed_environment, destroy_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.v1.engine import FinishReason as EngineFinish
from vllm.v1.engine.llm_engine import LLMEngine

from actors.engine import Call, Completion, RequestError, SampleRequest, TokenScores
from actors.vllm_parameters import Reader, Setup, engine_arguments, scores, scoring
from actors.weights import Shapes, Weights, needed_by
from policies.trajectory import Int32

SET_NUM_THREADS, COMPILE_DISABLED = torch.set_num_threads, torch._dynamo.config.disable
"""As they were before an engine changed them in this process."""


class _Process:
    """How many engines live in this process; the last to close gives back what they took of it."""

    engines = 0
    lock = threading.Lock()

    @classmethod
    def enter(cls, *, compiles: bool) -> None:
        with cls.lock:
            cls.engines += 1
            # The environment says so too, but it is read only once and torch may have been imported before.
            torch._dynamo.config.disable = COMPILE_DISABLED or not compiles

    @classmethod
    def leave(cls) -> None:
        with cls.lock:
            cls.engines -= 1
            if cls.engines == 0:
                destroy_model_parallel()
                destroy_distributed_environment()
                torch.set_num_threads, torch._dynamo.config.disable = SET_NUM_THREADS, COMPILE_DISABLED


class VllmCore:
    """Adds, steps, aborts, scores and reloads one in-process `LLMEngine`; one thread only."""

    def __init__(self, setup: Setup) -> None:
        _Process.enter(compiles=bool(setup.config.gpus))
        self._engine = LLMEngine.from_engine_args(EngineArgs(**engine_arguments(setup)))
        self._reader = Reader.of(setup, self._engine.model_config.get_vocab_size())
        self.shapes: Shapes = needed_by(setup.folder, setup.model.dtype)
        self.version = -1
        self._requests: dict[str, tuple[SampleRequest, str, float]] = {}
        """In flight: id -> (request, vLLM's own id, when it came)."""
        self._ended: list[Completion] = []
        """Ended while a score was being computed."""
        if setup.transport == "buffer":
            self.transfer("init", {})
        if setup.load == "folder":
            self._serve(0)

    def add(self, request: SampleRequest) -> None:
        """Queue a request; it joins the batch at the next step that has room."""
        parameters = self._reader.drawing(request)
        try:
            own = self._engine.add_request(request.id, tokens_input(request.context.tolist()), parameters)
        except ValueError as error:
            raise RequestError(str(error)) from error
        self._requests[request.id] = (request, own, time.monotonic())

    def busy(self) -> bool:
        """Whether a request is in flight."""
        return bool(self._requests or self._ended)

    def step(self) -> list[Completion]:
        """One token for every running request."""
        ended, self._ended = self._ended, []
        return ended + [c for output in self._engine.step() if (c := self._ending(output))]

    def abort(self, ids: Sequence[str]) -> list[Completion]:
        """vLLM's synchronous engine forgets an aborted request, so its output is asked for first."""
        partial = []
        for name in ids:
            if name not in self._requests:
                continue
            own = self._requests[name][1]
            state = self._engine.output_processor.request_states[own]
            output = state.make_request_output([], None, EngineFinish.ABORT, None)
            self._engine.abort_request([own], internal=True)
            partial.append(self._ending(output))
        return [completion for completion in partial if completion]

    def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int) -> list[TokenScores]:
        """Prompt log-probabilities; requests in flight go on beside them."""
        self._reader.limits.check_scorable(sequences)
        lengths = {}
        for index, (context, tokens) in enumerate(sequences):
            name = f"score-{index}"
            self._engine.add_request(name, tokens_input([*context.tolist(), *tokens.tolist()]), scoring(top_k))
            lengths[name] = len(tokens)
        found: dict[str, TokenScores] = {}
        while len(found) < len(lengths):
            for output in self._engine.step():
                if output.request_id in lengths:
                    found[output.request_id] = scores(output, lengths[output.request_id], top_k)
                elif completion := self._ending(output):
                    self._ended.append(completion)
        return [found[name] for name in lengths]

    def load(self, weights: Weights) -> None:
        """Through vLLM's weight-transfer API."""
        self.transfer("start", None)
        self.transfer("update", {"weights": weights})
        self.transfer("finish", weights.manifest.version)

    def transfer(self, call: Call, payload: Any) -> None:
        """One call to vLLM's worker; `finish` also forgets every key and value that the old weights made."""
        match call:
            case "init":
                self._engine.collective_rpc("init_weight_transfer_engine", args=(payload,))
            case "start":
                self._engine.collective_rpc("start_weight_update")
            case "update":
                self._engine.collective_rpc("update_weights", args=(payload,))
            case "finish":
                self._engine.collective_rpc("finish_weight_update")
                self._engine.reset_prefix_cache(reset_running_requests=True)
                self._serve(int(payload))
            case "shutdown":
                self._engine.collective_rpc("shutdown_weight_transfer_engine")
            case _:
                assert_never(call)

    def close(self) -> None:
        """Free model and cache; the last engine of a process also closes vLLM's process group."""
        self._engine.engine_core.shutdown()
        _Process.leave()

    def _serve(self, version: int) -> None:
        self._engine.set_weight_version(str(version))
        self.version = version

    def _ending(self, output: RequestOutput | None) -> Completion | None:
        if output is None or not output.finished:
            return None
        request, _, started = self._requests.pop(output.request_id)
        return self._reader.completion(request, output.outputs[0], started)
