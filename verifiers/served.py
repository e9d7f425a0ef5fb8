"""Models that judge, behind two small ports. An actor serves them to many scorers; here nobody knows how.

A config names its models (`wanted`); whoever builds the verifier hands over a `Served` for each name. Without one,
the verifier loads the model in its own process, which is right for a script and wrong for a cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that a verifier asks. Two parts of one verifier that want the same share it."""

    role: Literal["reward", "process", "preference", "judge"]
    path: str
    """Hugging Face folder."""

    @property
    def name(self) -> str:
        """Key under which it is handed over."""
        return f"{self.role}:{self.path}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered; `reason` says why there is no text."""

    text: str | None
    reason: str = ""
    timed_out: bool = False
    refused: bool = False
    """The model, or who serves it, declined: `reason` says how."""


class ScalarModel(Protocol):
    """A model with a scalar head: reward models, process reward models, preference models."""

    def scores(self, pairs: Sequence[tuple[str, str]], seconds: float) -> list[float]:
        """The head's output at the end of each (prompt, response); NaN where it could not be read in time."""
        ...

    def step_scores(
        self, pairs: Sequence[tuple[str, str]], ends: Sequence[Sequence[int]], seconds: float
    ) -> list[list[float]]:
        """The head's output at the token that holds each step's last character; `ends` are character offsets."""
        ...

    def identity(self) -> str:
        """A fingerprint of the weights: part of the scorer's version."""
        ...


@runtime_checkable
class Chat(Protocol):
    """A model that answers conversations."""

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, max_tokens: int, temperature: float, seconds: float
    ) -> list[Reply]:
        """One reply to each conversation, in order; never raises on what the model wrote."""
        ...

    def identity(self) -> str:
        """Which model, for the scorer's version."""
        ...


Served = ScalarModel | Chat
Models = Mapping[str, Served]
"""By `Wanted.name`."""
