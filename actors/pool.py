"""Groups of actors behind the loop's ports: rollout replicas that heal, frozen models, learner ranks.

A replica that dies is replaced, given the newest weights, and asked again for what it owed; only throughput is lost.
A learner rank that dies ends the run: its last checkpoint is where `braid resume` goes on.
"""

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from actors import cluster, meter
from actors.cluster import Actor, ActorLostError
from actors.config import Deadlines, Role
from actors.engine import SampleRequest, TokenScores
from actors.facts import PublishFacts
from actors.meter import POLICY
from actors.sharding import StepFacts, deal, in_order, merge_facts
from policies.config import Optimizer, Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.reduce import normalisers
from policies.trajectory import FinishReason, Float32, Int32, Trajectory
from verifiers.environment_config import TOLD
from verifiers.grader import Asked
from verifiers.served import MESSAGES

RETRIES = 2
"""Times that a dead replica's share is asked again before the run gives up."""


def bounds(count: int, parts: int) -> list[tuple[int, int]]:
    """[low, high) of `parts` contiguous shares of `count` things; some are empty where parts > count."""
    return list(pairwise(count * index // parts for index in range(parts + 1)))


@dataclass(slots=True)
class RolloutPool:
    """Replicas that write responses; deals requests out in contiguous shares so that a group meets one prefix cache."""

    spawn: Callable[[int], Actor]
    """Starts replica `index`; used at first and to replace one that died."""
    replicas: list[Actor]
    deadlines: Deadlines
    on_event: Callable[..., None]
    kill: Callable[[Actor], None]
    weights: Any = None
    """Reference to the newest published weights."""
    version: int = -1
    role: Role = "rollout"
    model: str = POLICY
    """Whose responses these are, on a bill (actors.meter)."""
    _healing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """Every request's trajectory, in order."""
        shares = [list(requests[low:high]) for low, high in bounds(len(requests), len(self.replicas))]
        with meter.using(self.role):
            parts = await asyncio.gather(
                *(self._share(index, "generate", share) for index, share in enumerate(shares) if share)
            )
        written = [trajectory for part in parts for trajectory in part]
        meter.generated(self.role, self.model, lengths(requests, written))
        return written

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int) -> list[TokenScores]:
        """What the served policy says of given tokens at temperature 1, one for each (context, tokens), in order."""
        pairs = list(zip(contexts, tokens, strict=True))
        shares = [pairs[low:high] for low, high in bounds(len(pairs), len(self.replicas))]
        asked = (self._share(index, "score", share, top_k) for index, share in enumerate(shares) if share)
        meter.scored(self.role, self.model, contexts, tokens)
        with meter.using(self.role):
            return [one for part in await asyncio.gather(*asked) for one in part]

    async def update(self, reference: Any, version: int) -> None:
        """Give every replica the weights behind `reference`; returns when all serve them."""
        self.weights, self.version = reference, version
        await asyncio.gather(*(self._update(index) for index in range(len(self.replicas))))

    async def _share(self, index: int, method: Literal["generate", "score"], share: list[Any], *more: Any) -> list[Any]:
        for _ in range(RETRIES + 1):
            actor = self.replicas[index]
            try:
                result: list[Any] = await cluster.wait(
                    actor.ask(method, share, *more),
                    deadline=self.deadlines.generate,
                    what=f"{method} of {len(share)} responses",
                    actor=actor.name,
                )
            except ActorLostError as error:
                await self._heal(index, actor, error)
            else:
                return result
        raise ActorLostError(self.replicas[index].name, f"it died {RETRIES + 1} times over the same requests")

    async def _update(self, index: int) -> None:
        actor = self.replicas[index]
        try:
            await cluster.wait(
                actor.ask("update_weights", self.weights),
                deadline=self.deadlines.publish,
                what=f"publishing version {self.version}",
                actor=actor.name,
            )
        except ActorLostError as error:
            await self._heal(index, actor, error)

    async def _heal(self, index: int, dead: Actor, error: ActorLostError) -> None:
        """Replace `dead`; the newcomer serves only after it has the newest weights."""
        async with self._healing:
            if self.replicas[index] is not dead:
                return  # another share's failure has already replaced it
            self.on_event("rollout_restart", actor=dead.name, cause=str(error), version=self.version)
            self.kill(dead)
            fresh = self.spawn(index)
            await cluster.wait(fresh.ready(), deadline=self.deadlines.start, what="restarting", actor=fresh.name)
            if self.weights is not None:
                await cluster.wait(
                    fresh.ask("update_weights", self.weights),
                    deadline=self.deadlines.publish,
                    what=f"publishing version {self.version}",
                    actor=fresh.name,
                )
            self.replicas[index] = fresh


def lengths(requests: Sequence[SampleRequest], written: Sequence[Trajectory]) -> list[tuple[int, int]]:
    """Tokens of context and of response, of those that an engine did not refuse."""
    return [
        (len(asked.context), len(one.tokens))
        for asked, one in zip(requests, written, strict=True)
        if len(one.tokens) or one.finish_reason != FinishReason.ERROR
    ]


def asked(one: Trajectory, prompt: Prompt) -> Asked:
    """A response as the scorer takes it."""
    return Asked(one.id, prompt.text, one.text, prompt.reference, one.group_id, told(one, prompt))


def told(one: Trajectory, prompt: Prompt) -> str:
    """As JSON, what is known of a response before it is judged: its conversation, and what its environment said."""
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
    found: dict[str, Any] = {MESSAGES: turns} if turns else {}
    whole = next((entry for entry in one.scores if entry.name == TOLD), None)
    if whole is not None:
        last = next((entry.value for entry in reversed(one.scores) if entry.name == "turn"), math.nan)
        known = {"value": whole.value, "last": last, "passed": whole.passed}
        found[TOLD] = known | {"status": whole.status, "reason": whole.reason}
    return json.dumps(found)


@dataclass(slots=True)
class FrozenPool:
    """A model that is not trained, asked for log-probabilities of given tokens, hidden states, or responses."""

    replicas: list[Actor]
    deadlines: Deadlines
    model: str = "frozen"
    """Its name, on a bill (actors.meter)."""

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32], top_k: int) -> list[TokenScores]:
        """One TokenScores for each (context, tokens), in order."""
        meter.scored("frozen", self.model, contexts, tokens)
        return await self._shared("logprobs", (contexts, tokens), top_k, what="scoring")

    async def hidden(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T, H] last hidden states for each (context, tokens), in order."""
        meter.scored("frozen", self.model, contexts, tokens)
        return await self._shared("hidden", (contexts, tokens), what="reading")

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """The frozen model's response to each request, in order."""
        written: list[Trajectory] = await self._shared("generate", (requests,), what="answering")
        meter.generated("frozen", self.model, lengths(requests, written))
        return written

    def head(self) -> Any:
        """A reference to the (V, H) head; it never passes through the driver."""
        return self.replicas[0].ask("head")

    async def update(self, reference: Any, mix: float = 1.0) -> None:
        """Freeze these weights, or mix a share of them into those held."""
        await self._all("update_weights", reference, mix, deadline=self.deadlines.publish)

    async def save(self, directory: Path) -> None:
        """The weights of a refreshed model; every replica holds the same, so one writes."""
        first = self.replicas[0]
        await cluster.wait(
            first.ask("save", directory), deadline=self.deadlines.save, what="frozen save", actor=first.name
        )

    async def load(self, directory: Path) -> None:
        """What `save` wrote, into every replica."""
        await self._all("load", directory, deadline=self.deadlines.save)

    async def _shared(self, method: str, columns: tuple[Sequence[Any], ...], *more: Any, what: str) -> list[Any]:
        """The columns dealt out in contiguous shares, the answers in order."""
        count = len(columns[0])
        asked = [
            cluster.wait(
                actor.ask(method, *(list(column[low:high]) for column in columns), *more),
                deadline=self.deadlines.generate,
                what=f"{what} {high - low} sequences",
                actor=actor.name,
            )
            for actor, (low, high) in zip(self.replicas, bounds(count, len(self.replicas)), strict=True)
            if high > low
        ]
        with meter.using("frozen"):
            return [one for part in await asyncio.gather(*asked) for one in part]

    async def _all(self, method: str, *args: Any, deadline: float) -> None:
        await asyncio.gather(
            *(
                cluster.wait(actor.ask(method, *args), deadline=deadline, what=f"frozen {method}", actor=actor.name)
                for actor in self.replicas
            )
        )


@dataclass(slots=True)
class LearnerPool:
    """The learner's ranks as one learner."""

    ranks: list[Actor]
    deadlines: Deadlines
    strands: tuple[Strand, ...] = ()
    model: str = POLICY
    """What it trains, on a bill (actors.meter)."""

    async def open(self, *, loopback: bool) -> None:
        """Tell every rank where rank 0 sits, and let them meet."""
        first = self.ranks[0]
        where = await cluster.wait(
            first.ask("address", loopback), deadline=self.deadlines.start, what="starting", actor=first.name
        )
        await self._all("open", where, len(self.ranks), deadline=self.deadlines.start)

    async def begin_stage(
        self, strands: Sequence[Strand], optimizer: Optimizer, steps: int, track: float | None = None
    ) -> None:
        """New recipe, optimizer state and schedule on every rank; `track` follows movement, for a control to freeze."""
        self.strands = tuple(strands)
        await self._all("begin_stage", self.strands, optimizer, steps, track, deadline=self.deadlines.start)

    async def restart(self) -> None:
        """The run's first weights again, on every rank."""
        await self._all("restart", deadline=self.deadlines.start)

    async def step(
        self,
        examples: Sequence[Example],
        updates: int,
        coefficients: Mapping[str, float],
        freeze: float | None = None,
        *,
        interference: bool = False,
    ) -> StepFacts:
        """Split the step's examples over updates and ranks; every term's normaliser is global and fixed here."""
        places = deal(examples, updates, len(self.ranks))
        shares = [[[examples[place] for place in rank] for rank in update] for update in places]
        counts = [normalisers(self.strands, [one for rank in update for one in rank]) for update in shares]
        more = (dict(coefficients), len(shares) > 1, freeze, interference)
        asked = [
            actor.ask("step", [update[rank] for update in shares], counts, *more)
            for rank, actor in enumerate(self.ranks)
        ]
        with meter.using("learner"):
            ranks = await asyncio.gather(
                *(
                    cluster.wait(reference, deadline=self.deadlines.step, what="a learner step", actor=actor.name)
                    for reference, actor in zip(asked, self.ranks, strict=True)
                )
            )
        facts = merge_facts(ranks)
        meter.stepped(self.model, shares, facts)
        return replace(facts, coefficients=in_order(examples, places, [rank.coefficients for rank in ranks]))

    async def attach_head(self, target: str, head: Any) -> None:
        """Give every rank the head behind `head`, that of the frozen model `target`."""
        await self._all("attach_head", target, head, deadline=self.deadlines.start)

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response, by the policy as it is now."""
        return await self._read("logprobs", contexts, tokens)

    async def values(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        """[T] of each response: what a scalar head foresees before each token."""
        return await self._read("values", contexts, tokens)

    async def scores(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[float]:
        """A scalar head's output at each response's last token."""
        return await self._read("scores", contexts, tokens)

    def export(self, version: int) -> Any:
        """A reference to the weights as `version`; the buffer never passes through the driver."""
        exports = [actor.ask("export_weights", version) for actor in self.ranks]  # ZeRO-3 gathers on every rank
        return exports[0]

    async def save(self, directory: Path) -> None:
        """Model and training state under `directory`."""
        await self._all("save", directory, deadline=self.deadlines.save)

    async def load(self, directory: Path) -> None:
        """What `save` wrote."""
        await self._all("load", directory, deadline=self.deadlines.save)

    async def _read(self, method: str, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Any]:
        """Shares for every rank, some of them empty: partitioned parameters come together on all ranks at once."""
        meter.scored("learner", self.model, contexts, tokens)
        asked = [
            cluster.wait(
                actor.ask(method, list(contexts[low:high]), list(tokens[low:high])),
                deadline=self.deadlines.step,
                what=f"learner {method}",
                actor=actor.name,
            )
            for actor, (low, high) in zip(self.ranks, bounds(len(tokens), len(self.ranks)), strict=True)
        ]
        with meter.using("learner"):
            return [one for part in await asyncio.gather(*asked) for one in part]

    async def _all(self, method: str, *args: Any, deadline: float) -> list[Any]:
        return await asyncio.gather(
            *(
                cluster.wait(actor.ask(method, *args), deadline=deadline, what=f"learner {method}", actor=actor.name)
                for actor in self.ranks
            )
        )


@dataclass(slots=True)
class RayPublisher:
    """Learner to object store to every engine: one flat buffer, read zero-copy, no disk."""

    learner: LearnerPool
    rollouts: RolloutPool

    async def publish(self, version: int) -> PublishFacts:
        """Returns when every replica serves `version`."""
        began = time.perf_counter()
        with meter.using("publish"):
            reference = self.learner.export(version)
            await self.rollouts.update(reference, version)
        return PublishFacts(version, time.perf_counter() - began)
