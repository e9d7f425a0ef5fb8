"""Models that judge, as actors: one replica holds a model, and every scorer asks it in batches.

A scorer is handed a `Share` for each model: the actor that serves it or, in a run without Ray, the replica itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors import cluster
from actors.cluster import Actor
from verifiers.served import Message, Models, Reply, Served

GRACE = 5.0
"""Seconds past a batch's own limit that a scorer waits for what was ready in time."""

Share = Actor | Served


def models_of(shares: Mapping[str, Share]) -> Models:
    """The shares behind the verifiers' ports."""
    return {name: Remote(share) if isinstance(share, Actor) else share for name, share in shares.items()}


@dataclass(frozen=True, slots=True)
class Remote:
    """A served model asked through its actor: both ports, for the replica behind it has the one that is wanted."""

    actor: Actor

    def scores(self, pairs: Sequence[tuple[str, str]], seconds: float) -> list[float]:
        """The head's output at the end of each (prompt, response)."""
        found: list[float] = self._ask("scores", list(pairs), seconds, seconds=seconds)
        return found

    def step_scores(
        self, pairs: Sequence[tuple[str, str]], ends: Sequence[Sequence[int]], seconds: float
    ) -> list[list[float]]:
        """The head's output at each step's last character."""
        found: list[list[float]] = self._ask("step_scores", list(pairs), list(ends), seconds, seconds=seconds)
        return found

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, max_tokens: int, temperature: float, seconds: float
    ) -> list[Reply]:
        """One reply to each conversation."""
        asked = (list(conversations), max_tokens, temperature, seconds)
        found: list[Reply] = self._ask("answer", *asked, seconds=seconds)
        return found

    def identity(self) -> str:
        """A fingerprint of the model."""
        return str(self._ask("identity", seconds=60.0))

    def _ask(self, method: str, *args: object, seconds: float) -> Any:
        what = f"{method} by a model that judges"
        return cluster.fetch(self.actor.ask(method, *args), deadline=seconds + GRACE, what=what, actor=self.actor.name)
