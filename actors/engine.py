"""`Engine`: what a rollout replica runs. Token in, token out; every token knows its policy version."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from actors.weights import Weights
from policies.trajectory import FinishReason, Float32, Int32, Sampling

Load = Literal["publish", "folder"]
"""Where an engine's first weights come from: the learner's publish, or the model folder's own files."""


Call = Literal["init", "start", "update", "finish", "shutdown"]
"""Of a weight transfer: vLLM's init_weight_transfer_engine, start_weight_update, update_weights and so on."""


Transport = Literal["buffer", "nccl", "ipc"]
"""How weights come to vLLM: one buffer through the object store, from GPU to GPU, or within one GPU."""


class EngineError(RuntimeError):
    """The engine cannot serve: no weights yet, or a failure after which only a restart helps."""


class RequestError(ValueError):
    """One request that cannot be drawn, such as a prompt longer than the context; the others go on."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleRequest:
    """One response to draw. The id is the trajectory's, so that a repeated call is recognised."""

    id: str
    context: Int32
    sampling: Sampling
    seed: int
    prompt_id: str = ""
    group_id: str = ""
    """Lineage that the trajectory will carry; the engine does not read it."""


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What the engine wrote for one request. T = tokens, the end token included when it stopped there."""

    id: str
    tokens: Int32
    logps: Float32
    """[T] of the distribution that `sampling.logprobs` names; NaN where the engine does not know.

    At temperature 0 both names mean the distribution at temperature 1: a greedy token's own would always be 0.
    """
    versions: Int32
    """[T] policy version that sampled each token."""
    text: str
    """Of the tokens, special ones left out; where a stop string ended it, up to and with that string."""
    finish_reason: FinishReason
    seconds: float
    """From submission to the last token."""
    reason: str = ""
    """Why it failed, when the finish reason is `error`."""


def failed(name: str, reason: str) -> Completion:
    """A request that gave nothing, and why."""
    none = np.zeros(0, np.int32)
    return Completion(name, none, none.astype(np.float32), none, "", FinishReason.ERROR, 0.0, reason)


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Log-probabilities of given tokens. K = top-k."""

    logps: Float32
    """[T]"""
    topk_ids: Int32 | None = None
    """[T, K]"""
    topk_logps: Float32 | None = None
    """[T, K]"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can read at all: checked at the door, so that a bad request never reaches the batch."""

    max_model_len: int
    """Context and response together, in tokens."""
    vocabulary: int

    def room(self, request: SampleRequest) -> int:
        """How many tokens may be drawn after this context; RequestError says why none can."""
        length, wanted = len(request.context), request.sampling.max_tokens
        self._check_ids(request.context, "the prompt")
        if length == 0:
            raise RequestError("the context is empty; give it at least one token")
        if length >= self.max_model_len:
            raise RequestError(
                f"the prompt has {length} tokens and the model's context is {self.max_model_len}: "
                "no room for a response; shorten the prompt or raise model.context"
            )
        if wanted < 1:
            raise RequestError(f"sampling.max_tokens is {wanted}; draw at least one token")
        return min(wanted, self.max_model_len - length)

    def check_scorable(self, sequences: Sequence[tuple[Int32, Int32]]) -> None:
        """Raise RequestError unless every pair has a context and tokens that fit the model together."""
        for index, (context, tokens) in enumerate(sequences):
            what, total = f"score: sequence {index}", len(context) + len(tokens)
            self._check_ids(context, what)
            self._check_ids(tokens, what)
            if len(context) == 0 or len(tokens) == 0:
                raise RequestError(f"{what} has {len(context)} context and {len(tokens)} response tokens")
            if total > self.max_model_len:
                raise RequestError(f"{what} has {total} tokens and the model's context is {self.max_model_len}")

    def _check_ids(self, ids: Int32, what: str) -> None:
        if len(ids) and (ids.min() < 0 or ids.max() >= self.vocabulary):
            strange = ids[(ids < 0) | (ids >= self.vocabulary)][0]
            raise RequestError(f"{what} has token {strange}, outside the model's vocabulary of {self.vocabulary}")


class Engine(Protocol):
    """A generator of text whose weights can be replaced while it runs."""

    @property
    def version(self) -> int:
        """Policy version being served; -1 before the first publish."""
        ...

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Completion]:
        """Draw every request; results in the order asked."""
        ...

    async def update_weights(self, weights: Weights) -> None:
        """Replace the weights in place at a step boundary; requests in flight go on under the new version."""
        ...

    async def transfer(self, call: Call, payload: Any) -> None:
        """One call of a weight transfer that the learner drives, for engines that have one."""
        ...

    async def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int = 0) -> list[TokenScores]:
        """Log-probabilities of (context, tokens) pairs under the current weights, at temperature 1."""
        ...

    async def abort(self, ids: Sequence[str]) -> None:
        """Stop these requests; their partial tokens come back with finish reason `abort`."""
        ...

    async def close(self) -> None:
        """Free the engine."""
        ...
