"""Models that judge, behind two small ports. An actor serves them to many scorers; here nobody knows how.

A config names its models (`wanted`); whoever builds the verifier hands over a `Served` for each name. Without one,
the verifier loads the model in its own process, which is right for a script and wrong for a cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from verifiers.score import Status


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


MESSAGES = "messages"
"""Key in `Item.told`: the conversation before the response, [{role, content}, ...], where it is more than a prompt."""

Framing = Literal["folder", "conversation", "reply", "text"]
"""How prompt and response become the tokens that the model reads.

folder: as the folder says: a model that Braid trained reads `reply`, another one `conversation`, and a token classifier
`text`. conversation: both turns through the model's chat template, as most reward models on hubs are trained; without a
template as `text`. reply: the template up to the opening of the reply, then the response and the end token, as a policy
writes it. text: prompt and response as they are, then the end token.
"""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a model with a scalar head reads: a conversation whose last turn is judged, whole or step by step."""

    messages: tuple[Message, ...]
    """All turns before the response."""
    response: str
    framing: Framing = "folder"
    ends: tuple[int, ...] = ()
    """Where steps of the response end, in characters; empty: one output, at the end of the whole."""
    separator: str = ""
    """What ends a step."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A scalar head's outputs for an exchange: one for each of its `ends`, or one. Without any, a status says why."""

    outputs: tuple[float, ...]
    status: Status = Status.OK
    reason: str = ""


class ScalarModel(Protocol):
    """A model with a scalar head: reward models, process reward models, preference models."""

    def read(self, exchanges: Sequence[Exchange], seconds: float) -> list[Reading]:
        """A reading of each, in order; what is not begun within `seconds` is `timeout`. Never raises on a text."""
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
