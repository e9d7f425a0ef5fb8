"""`Environment`: what a model acts in. It reads what the model wrote and says what the model reads next.

An object is one episode, begun by `start`. What it does is a function of its task and of what it was told, so that an
episode with the same words is the same episode: draw whatever is random from `Task.seed`. It may raise: that ends the
episode as an error of the environment, which is never a reward of 0.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from verifiers.score import Status


@dataclass(frozen=True, slots=True)
class Task:
    """What an episode is about."""

    prompt: str
    """The user's text, which the model has read when its first turn begins."""
    reference: Any = None
    """What the prompt's row holds for its verifier; the model never sees it unless the environment tells."""
    seed: int = 0
    """A different one for each response to a prompt."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of one turn of the model."""

    observation: str = ""
    """What the model reads before its next turn; of no meaning when the episode is over."""
    reward: float | None = None
    """Of this turn; None where the environment says nothing of it."""
    done: bool = False
    passed: bool | None = None
    """Whether the task is solved by now, where the environment knows."""
    reason: str = ""
    """Why the episode is over, or what the reward is for."""
    status: Status = Status.OK
    """What is not ok says that the turn has a reward which nobody knows: that of the episode is unknown, too."""
    failed: bool = False
    """The environment could not go on: the episode is over, and nothing is said of the model."""

    @classmethod
    def broken(cls, status: Status, reason: str) -> "Turn":
        """The end of an episode that the environment could not go on with."""
        return cls(done=True, status=status, reason=reason, failed=True)


class Environment(Protocol):
    """One episode."""

    def start(self, task: Task) -> None:
        """Begin; the prompt is what the model reads first."""
        ...

    def step(self, text: str) -> Turn:
        """Answer a turn: `text` is what the model wrote, special tokens left out, a stop string kept."""
        ...
