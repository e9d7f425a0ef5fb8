"""The same roles in one process, without Ray: the loop's ports over a torch engine, one learner rank and a verifier.

For notebooks, tests and debugging: breakpoints work, and a step of a tiny model takes a tenth of a second.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from actors import meter
from actors.config import Frozen, Learner, Rollout
from actors.facts import PublishFacts
from actors.frozen import FrozenReplica
from actors.learner import LearnerRank
from actors.pool import asked
from actors.sampler import SamplerReplica
from actors.scorer import ScorerReplica
from actors.sharding import StepFacts, deal, in_order
from policies.config import Model, Optimizer, Strand
from policies.example import Example
from policies.models import Head
from policies.prompt import Prompt
from policies.reduce import normalisers
from policies.trajectory import Float32, Int32, Trajectory
from verifiers.config import Verifier


@dataclass(slots=True)
class LocalParts:
    """A sampler, a scorer, a learner and a publisher that share this process."""

    sampler: SamplerReplica
    scorer: "LocalScorer"
    learner: "LocalLearner"
    companions: Mapping[str, "LocalLearner"] = field(default_factory=dict)
    """Co-learners by name."""
    frozen: Mapping[str, FrozenReplica] = field(default_factory=dict)
    """Frozen models by the names that were asked for; they wait for weights."""

    async def publish(self, version: int) -> PublishFacts:
        """Hand the learner's weights to the engine."""
        began = time.perf_counter()
        await self.sampler.update_weights(self.learner.rank.export_weights(version))
        return PublishFacts(version, time.perf_counter() - began)


@dataclass(slots=True)
class LocalScorer:
    """One verifier."""

    replica: ScorerReplica

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The same trajectories with their scores, in order."""
        items = [asked(one, prompts[one.prompt_id]) for one in trajectories]
        scores = await asyncio.to_thread(self.replica.score, items)
        return [replace(one, scores=entries) for one, entries in zip(trajectories, scores, strict=True)]


@dataclass(slots=True)
class LocalLearner:
    """One rank of bare torch."""

    rank: LearnerRank
    strands: tuple[Strand, ...] = ()

    async def begin_stage(
        self, strands: Sequence[Strand], optimizer: Optimizer, steps: int, track: float | None = None
    ) -> None:
        """New recipe, optimizer state and schedule; the weights stay."""
        self.strands = tuple(strands)
        self.rank.begin_stage(self.strands, optimizer, steps, track)

    async def restart(self) -> None:
        """The run's first weights again."""
        self.rank.restart()

    async def step(
        self,
        examples: Sequence[Example],
        updates: int,
        coefficients: Mapping[str, float],
        freeze: float | None = None,
        *,
        interference: bool = False,
    ) -> StepFacts:
        """One step of `updates` optimizer updates."""
        places = deal(examples, updates, 1)
        shares = [[examples[place] for place in update[0]] for update in places]
        counts = [normalisers(self.strands, share) for share in shares]
        more = (coefficients, len(shares) > 1, freeze, interference)
        with meter.using("learner"):
            facts = await asyncio.to_thread(self.rank.step, shares, counts, *more)
        meter.stepped(meter.POLICY, [[share] for share in shares], facts)
        return replace(facts, coefficients=in_order(examples, places, [facts.coefficients]))

    async def attach_head(self, target: str, head: Float32) -> None:
        """The head of the frozen model `target`."""
        self.rank.attach_head(target, head)

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response, by the policy as it is now."""
        return await asyncio.to_thread(self.rank.logprobs, contexts, tokens)

    async def values(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response: what a scalar head foresees before each token."""
        return await asyncio.to_thread(self.rank.values, contexts, tokens)

    async def scores(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[float]:
        """A scalar head's output at each response's last token."""
        return await asyncio.to_thread(self.rank.scores, contexts, tokens)

    async def save(self, directory: Path) -> None:
        """Model and training state under `directory`."""
        self.rank.save(directory)

    async def load(self, directory: Path) -> None:
        """What `save` wrote."""
        self.rank.load(directory)


def local_parts(  # noqa: PLR0913  (each role that a stage may have)
    folder: Path,
    model: Model,
    verifier: Verifier,
    *,
    seed: int,
    threads: int = 1,
    head: Head = "language",
    companions: Sequence[str] = (),
    frozen: Sequence[str] = (),
) -> LocalParts:
    """Build every role in this process; `folder` is the model's, as `materialise` gives it.

    `companions` and `frozen` name the co-learners (scalar heads) and the frozen models that are wanted.
    """
    engine = Rollout(engine="torch", threads=threads)
    learner = Learner(engine="torch", threads=threads)
    return LocalParts(
        SamplerReplica(str(folder), model, engine, model.context, "learner"),
        LocalScorer(ScorerReplica(verifier)),
        LocalLearner(LearnerRank(folder, model, learner, seed=seed, head=head)),
        {name: LocalLearner(LearnerRank(folder, model, learner, seed=seed, head="scalar")) for name in companions},
        {name: _frozen(folder, model, name, threads) for name in frozen},
    )


def _frozen(folder: Path, model: Model, name: str, threads: int) -> FrozenReplica:
    config = Frozen(threads=threads)
    return FrozenReplica(str(folder), model, config, model.context, name=name, refreshed=True, given=True)
