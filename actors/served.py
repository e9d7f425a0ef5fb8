"""Models that judge, as actors: one replica holds a model, and every scorer asks it in batches.

A scorer is handed a `Share` for each model: the actor that serves it or, in a run without Ray, the replica itself.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors import cluster
from actors.cluster import Actor, ActorLostError
from verifiers.score import Status
from verifiers.served import Exchange, Message, Models, Reading, Reply, Served

GRACE = 5.0
"""Seconds past a batch's own limit that a scorer waits for what was ready in time."""

LOADING = 1800.0
"""Seconds that a scorer waits at its start for a model to load; a run's own deadline for the start is shorter."""

Share = Actor | Served


def models_of(shares: Mapping[str, Share]) -> Models:
    """The shares behind the verifiers' ports."""
    return {name: Remote(share) if isinstance(share, Actor) else share for name, share in shares.items()}


@dataclass(frozen=True, slots=True)
class Remote:
    """A served model asked through its actor: both ports, for the replica behind it has the one that is wanted."""

    actor: Actor
    grace: float = GRACE

    def read(self, exchanges: Sequence[Exchange], seconds: float) -> list[Reading]:
        """A scalar head's reading of each exchange; of a model that is late or lost, a status that names its actor."""
        if not exchanges:
            return []
        try:
            found: list[Reading] = self._ask("read", list(exchanges), seconds, time.time(), seconds=seconds)
        except cluster.DeadlineError as error:
            return [Reading((), Status.TIMEOUT, str(error))] * len(exchanges)
        except ActorLostError as error:
            return [Reading((), Status.ERROR, str(error))] * len(exchanges)
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
        return str(self._ask("identity", seconds=LOADING))

    def _ask(self, method: str, *args: object, seconds: float) -> Any:
        what = f"{method} by a model that judges"
        return cluster.fetch(
            self.actor.ask(method, *args), deadline=seconds + self.grace, what=what, actor=self.actor.name
        )
