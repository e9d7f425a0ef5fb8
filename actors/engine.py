"""`Engine`: what a rollout replica runs. Token in, token out; every token knows its policy version."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.weights import Weights
from policies.trajectory import FinishReason, Float32, Int32, Sampling


@dataclass(frozen=True, slots=True, eq=False)
class SampleRequest:
    """One response to draw. The id is the trajectory's, so that a repeated call is recognised."""

    id: str
    context: Int32
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What the engine wrote for one request. T = tokens, the end token included when it stopped there."""

    id: str
    tokens: Int32
    logps: Float32
    """[T] of the distribution that `sampling.logprobs` names; NaN where the engine does not know."""
    versions: Int32
    """[T] policy version that sampled each token."""
    text: str
    finish_reason: FinishReason
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Log-probabilities of given tokens. K = top-k."""

    logps: Float32
    """[T]"""
    topk_ids: Int32 | None = None
    """[T, K]"""
    topk_logps: Float32 | None = None
    """[T, K]"""


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

    async def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int = 0) -> list[TokenScores]:
        """Log-probabilities of (context, tokens) pairs under the current weights, at temperature 1."""
        ...

    async def abort(self, ids: Sequence[str]) -> None:
        """Stop these requests; their partial tokens come back with finish reason `abort`."""
        ...

    async def close(self) -> None:
        """Free the engine."""
        ...
