"""The loop's ports: what it asks of the parts. Actors fit them without importing them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from actors.engine import SampleRequest, TokenScores
from actors.facts import PublishFacts
from actors.sharding import StepFacts
from policies.config import Optimizer, Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.trajectory import Float32, Int32, Trajectory


class Sampler(Protocol):
    """Writes responses: the newest published policy, or a frozen model (the port is the same)."""

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """Trajectories in the order asked, with the requests' ids and lineage."""
        ...


class Scorer(Protocol):
    """Attaches scores; the one named `reward` is the outcome."""

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The same trajectories, scored, in order."""
        ...


class FrozenModel(Protocol):
    """A model that is not trained."""

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int) -> list[TokenScores]:
        """One entry for each (context, tokens)."""
        ...

    async def hidden(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T, H] for each: the last hidden state from which each token was predicted."""
        ...


class Demonstrations(Protocol):
    """Responses that somebody else wrote, by prompt."""

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        """The prompt's demonstration number `index`, or None."""
        ...

    def at_step(self, step: int, count: int, seed: int) -> Sequence[Trajectory]:
        """`count` demonstrations for a step; a pure function of its arguments."""
        ...


class Preferences(Protocol):
    """Preference sets."""

    def at_step(self, step: int, count: int, seed: int) -> Sequence[Sequence[Trajectory]]:
        """`count` sets for a step, each with its members; a pure function of its arguments."""
        ...


class Labelled(Protocol):
    """Rows that bear a label each, or labels of their steps."""

    def at_step(self, step: int, count: int, seed: int) -> Sequence[Trajectory]:
        """`count` rows for a step; a pure function of its arguments."""
        ...


class Policy(Protocol):
    """The policy in training, asked and not trained."""

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response, by the policy as it is now; empty for an empty one."""
        ...


class Learner(Protocol):
    """Trains the policy and hands out its weights."""

    async def begin_stage(
        self, strands: Sequence[Strand], optimizer: Optimizer, steps: int, track: float | None = None
    ) -> None:
        """New recipe, optimizer state and schedule; the weights stay. `steps` counts optimizer updates.

        `track`: follow what moves, with this decay, so that a step can freeze what moved most.
        """
        ...

    async def step(
        self,
        examples: Sequence[Example],
        updates: int,
        coefficients: Mapping[str, float],
        freeze: float | None = None,
        *,
        interference: bool = False,
    ) -> StepFacts:
        """One step of `updates` optimizer updates; `coefficients` scale strands by name (1 where absent).

        `freeze`: this share of the parameters, those that moved most in the steps without, stays as it is.
        `interference`: measure, before the first update, how the strands' gradients stand to each other.
        """
        ...

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response, by the policy as it is now; empty for an empty one."""
        ...

    async def save(self, directory: Path) -> None:
        """Model (Hugging Face folder at directory/model) and training state, without pickle."""
        ...

    async def load(self, directory: Path) -> None:
        """What `save` wrote: afterwards every later step is bit for bit as if never stopped."""
        ...


class Publisher(Protocol):
    """Carries the learner's weights to every engine."""

    async def publish(self, version: int) -> PublishFacts:
        """Returns when every replica serves `version`."""
        ...


class Ledger(Protocol):
    """Remembers. Writes may be buffered; `flush` makes them durable."""

    def add(self, step: int, examples: Sequence[Example], stage: str) -> None:
        """Everything that the learner consumes in a step, once."""
        ...

    def coefficients(self, step: int, examples: Sequence[Example], stage: str, g: Float32) -> None:
        """How hard the step pulled on each token of what `add` was given: flat, example after example."""
        ...

    def decision(self, row: Mapping[str, Any]) -> None:
        """What was decided for a step, and why."""
        ...

    def metrics(self, row: Mapping[str, Any]) -> None:
        """A step's or a probe's figures."""
        ...

    def event(self, kind: str, **facts: Any) -> None:
        """Something that happened: a failure, a restart, a drop."""
        ...

    def flush(self) -> None:
        """Make everything so far durable."""
        ...
