"""`LearnerSeat`: where a learner rank will sit. It says where it is before the ranks meet, then holds the rank."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.config import Learner
from actors.learner import LearnerRank
from actors.sharding import StepFacts
from actors.weights import Weights
from policies.config import Model, Optimizer, Strand
from policies.example import Example
from policies.models import Head
from policies.reduce import Normalisers
from policies.trajectory import Float32, Int32


class LearnerSeat:
    """An actor of the learner group; a plain class. `open` builds the rank, the other calls are the rank's own."""

    def __init__(
        self, folder: Path, model: Model, config: Learner, rank: int, seed: int, head: Head = "language"
    ) -> None:
        self._folder, self._model, self._config = folder, model, config
        self._rank, self._seed, self._head = rank, seed, head
        self._learner: LearnerRank | None = None

    def address(self, loopback: bool) -> str:
        """A free host:port of this machine, for the other ranks to meet rank 0 at."""
        host = "127.0.0.1" if loopback else socket.gethostbyname(socket.gethostname())
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"{host}:{probe.getsockname()[1]}"

    def open(self, rendezvous: str, world_size: int) -> None:
        """Build the rank; returns when all ranks have met."""
        self._learner = LearnerRank(
            self._folder,
            self._model,
            self._config,
            rank=self._rank,
            world_size=world_size,
            rendezvous=rendezvous,
            seed=self._seed,
            head=self._head,
        )

    def begin_stage(
        self, strands: Sequence[Strand], optimizer: Optimizer, steps: int, track: float | None = None
    ) -> None:
        """`LearnerRank.begin_stage`."""
        self._open().begin_stage(strands, optimizer, steps, track)

    def restart(self) -> None:
        """`LearnerRank.restart`."""
        self._open().restart()

    def step(
        self,
        updates: Sequence[Sequence[Example]],
        normalisers: Sequence[Normalisers],
        coefficients: Mapping[str, float],
        compute_old: bool,
        freeze: float | None = None,
        interference: bool = False,
    ) -> StepFacts:
        """`LearnerRank.step`."""
        return self._open().step(updates, normalisers, coefficients, compute_old, freeze, interference)

    def attach_head(self, target: str, head: Float32) -> None:
        """`LearnerRank.attach_head`."""
        self._open().attach_head(target, head)

    def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """`LearnerRank.logprobs`."""
        return self._open().logprobs(contexts, tokens)

    def values(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """`LearnerRank.values`."""
        return self._open().values(contexts, tokens)

    def scores(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[float]:
        """`LearnerRank.scores`."""
        return self._open().scores(contexts, tokens)

    def export_weights(self, version: int) -> Weights:
        """`LearnerRank.export_weights`."""
        return self._open().export_weights(version)

    def save(self, directory: Path) -> None:
        """`LearnerRank.save`."""
        self._open().save(directory)

    def load(self, directory: Path) -> None:
        """`LearnerRank.load`."""
        self._open().load(directory)

    def _open(self) -> LearnerRank:
        assert self._learner is not None, "open() comes first"
        return self._learner
