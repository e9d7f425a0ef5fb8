"""Scorers that share work: whatever one of them meets, every response gets its entry, and the others go on.

A call is dealt out in small chunks to whoever is free. A scorer that dies is replaced and its chunk asked again one by
one, so that only a response over which scorers die twice is judged `error`. One that does not answer in time is
replaced, and what it held is judged `timeout`. A verdict that nobody gave is never 0.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors import cluster, meter
from actors.cluster import Actor, ActorLostError, DeadlineError
from actors.pool import asked
from actors.scorer import REWARD, Judged
from policies.prompt import Prompt
from policies.trajectory import ScoreEntry, Trajectory
from verifiers.grader import Asked
from verifiers.health import Tallies, added, tallied
from verifiers.score import Score, Status

CHUNK = 32
"""Most responses, or whole groups of them, that a scorer holds at once."""

GRACE = 15.0
"""Seconds past a scorer's own limit, at which it hands back what was ready; past these too it counts as hung."""

RESTARTS = 16
"""Scorers that one place may use up without a verdict between, so that a verifier that cannot live ends."""

DEATHS = 2
"""Calls that die, or raise, over the same response before it is blamed; the last of them is over it alone."""

Entries = tuple[ScoreEntry, ...]


@dataclass(slots=True)
class ScorerPool:
    """Actors that run the verifier, behind the loop's port."""

    spawn: Callable[[int], Actor]
    """Starts the scorer of a place; used at first and to replace one that died or hung."""
    replicas: list[Actor]
    timeout: float
    """Seconds of judging that a call may take of each scorer."""
    on_event: Callable[..., None]
    kill: Callable[[Actor], None]
    start: float = 300.0
    """Longest wait for a new scorer, and for all that a place needs in one call, in seconds."""
    grace: float = GRACE
    compares: bool = False
    """Whether the verifier compares the responses of a group, so that a group is never divided."""
    name: str = REWARD
    """Of the entry that the verdict goes under."""
    signed: tuple[str, str] = ("", "")
    """Scorer and version under which a verdict that nobody gave is counted: those of the last that was given."""
    tallies: list[Tallies] = field(default_factory=list)
    """Of what was judged since they were taken."""
    locks: dict[int, asyncio.Lock] = field(default_factory=dict)
    """A place serves one call at a time; what waits for its turn spends no time of its own."""

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The same trajectories with their scores, in order."""
        scores = await self.judge([asked(one, prompts[one.prompt_id]) for one in trajectories])
        return [replace(one, scores=entries) for one, entries in zip(trajectories, scores, strict=True)]

    async def judge(self, items: Sequence[Asked | tuple[str, ...]]) -> list[Entries]:
        """The entries of each response, in order, always."""
        call = _Call([Asked(*one) for one in items], len(self.replicas), whole=self.compares)
        with meter.using("scorer"):
            await asyncio.gather(*(self._serve(place, call) for place in range(len(self.replicas))))
        if left := [at for at in range(len(items)) if at not in call.found]:
            status = Status.ERROR if call.spent else Status.TIMEOUT
            reason = "no scorer is left to ask" if call.spent else f"the scorers' {self.timeout:g} s ran out"
            self._give_up(call, left, status, reason)
            self.on_event("unjudged", status=status.value, cause=reason, count=len(left), ids=_ids(call, left))
        return [call.found[at] for at in range(len(items))]

    def take(self) -> Tallies:
        """How the scorers fared since this was last asked."""
        found = added(self.tallies)
        self.tallies.clear()
        return found

    def aside(self) -> "ScorerPool":
        """The same scorers, for verdicts that are counted apart, such as a probe's."""
        return replace(self, tallies=[])

    async def _serve(self, place: int, call: "_Call") -> None:
        """Ask one place's scorer for chunk after chunk, until all is answered or its time or its restarts run out."""
        left, mending, restarts = self.timeout, 0.0, 0
        while left > 0 and await call.more():
            async with self.locks.setdefault(place, asyncio.Lock()):
                chunk, began = call.take(), time.monotonic()
                if not chunk:
                    continue  # while this place served another call, the others took what there was
                lost = await self._ask(place, call, chunk, left)
                left -= (ended := time.monotonic()) - began
                alive = not lost or await self._replace(place, lost)
                mending += time.monotonic() - ended
            await call.done()
            restarts = restarts + 1 if lost else 0
            if not alive or restarts > RESTARTS or mending > self.start:
                call.spent = True
                return

    async def _ask(self, place: int, call: "_Call", chunk: list[list[int]], seconds: float) -> str:
        """Give a chunk its entries, or put it back; returns why the scorer must be replaced, if it must."""
        actor, members = self.replicas[place], [at for unit in chunk for at in unit]
        try:
            judged: Judged = await cluster.wait(
                actor.ask("judge", [call.items[at] for at in members], seconds),
                deadline=seconds + self.grace,
                what=f"judging {len(members)} responses",
                actor=actor.name,
            )
            if len(judged.entries) != len(members):
                raise ValueError(f"{len(judged.entries)} verdicts on {len(members)} responses")
        except DeadlineError as error:
            self._failed(call, actor, Status.TIMEOUT, error, members)
            self._give_up(call, members, Status.TIMEOUT, str(error))
            return str(error)
        except Exception as error:  # noqa: BLE001  (boundary: whatever a scorer meets costs at most its own answer)
            self._failed(call, actor, Status.ERROR, error, members)
            self._put_back(call, chunk, error)
            return str(error) if isinstance(error, ActorLostError) else ""
        self._keep(call, members, judged)
        return ""

    def _keep(self, call: "_Call", members: Sequence[int], judged: Judged) -> None:
        call.found |= dict(zip(members, judged.entries, strict=True))
        self.tallies.append(judged.tallies)
        if said := next((own[0] for own in judged.entries if own and own[0].scorer), None):
            self.signed = said.scorer, said.scorer_version

    def _put_back(self, call: "_Call", chunk: list[list[int]], error: Exception) -> None:
        """To be asked one by one; a unit that was alone with the last of its deaths has its answer: `error`."""
        for unit in chunk:
            call.deaths[unit[0]] = call.deaths.get(unit[0], 0) + 1
            if call.deaths[unit[0]] >= DEATHS:
                self._give_up(call, unit, Status.ERROR, f"{type(error).__name__}: {error}")
            else:
                call.alone.append(unit)

    def _give_up(self, call: "_Call", members: Sequence[int], status: Status, reason: str) -> None:
        """Entries for what nobody judged."""
        scorer, version = self.signed
        score = replace(Score.unknown(status, reason), scorer=scorer, version=version)
        entry = ScoreEntry(self.name, math.nan, None, status.value, reason, None, None, scorer, version)
        call.found |= dict.fromkeys(members, (entry,))
        self.tallies.append(tallied(self.name, [call.items[at] for at in members], [score] * len(members)))

    def _failed(self, call: "_Call", actor: Actor, status: Status, error: Exception, members: Sequence[int]) -> None:
        cause = f"{type(error).__name__}: {error}"
        told = {"status": status.value, "cause": cause, "count": len(members), "ids": _ids(call, members)}
        self.on_event("scorer_failed", actor=actor.name, **told)

    async def _replace(self, place: int, cause: str) -> bool:
        """A new scorer in the place; False, with an event, where none starts."""
        dead = self.replicas[place]
        self.on_event("scorer_restart", actor=dead.name, cause=cause)
        try:
            self.kill(dead)
            fresh = self.replicas[place] = self.spawn(place)
            await cluster.wait(fresh.ready(), deadline=self.start, what="restarting a scorer", actor=fresh.name)
        except Exception as error:  # noqa: BLE001  (boundary: the other scorers go on)
            self.on_event("scorer_lost", actor=dead.name, cause=f"{type(error).__name__}: {error}")
            return False
        return True


@dataclass(slots=True)
class _Call:
    """What is asked in one call, and how far it is."""

    items: list[Asked]
    places: int
    whole: bool
    """Whether a group is one unit."""
    waiting: deque[list[int]] = field(default_factory=deque)
    """Units not asked yet: indices of one response, or of a group."""
    alone: deque[list[int]] = field(default_factory=deque)
    """Units to be asked by themselves."""
    found: dict[int, Entries] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    """First index of a unit -> calls that died over it."""
    asked: int = 0
    """Chunks that scorers hold."""
    spent: bool = False
    """Whether a place was given up."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        units: dict[str, list[int]] = {}
        for at, item in enumerate(self.items):
            key = f"group {item.group}" if self.whole and item.group else f"response {at}"
            units.setdefault(key, []).append(at)
        self.waiting.extend(units.values())

    async def more(self) -> bool:
        """Whether there is something to ask; waits while others hold what may come back, which they must soon end."""
        async with self.changed:
            while self.asked and not (self.alone or self.waiting):
                await self.changed.wait()
        return bool(self.alone or self.waiting)

    def take(self) -> list[list[int]]:
        """The next chunk, for whoever then calls `done`; empty when there is none."""
        chunk = [self.alone.popleft()] if self.alone else self._chunk()
        self.asked += bool(chunk)
        return chunk

    async def done(self) -> None:
        """A chunk was answered, or put back."""
        self.asked -= 1
        async with self.changed:
            self.changed.notify_all()

    def _chunk(self) -> list[list[int]]:
        """Half of a fair share of what is left, so that the last chunks are small (Polychronopoulos and Kuck 1987)."""
        shares = 2 * self.places if self.places > 1 else 1
        units = [self.waiting.popleft() for _ in range(-(-len(self.waiting) // shares))]
        size, kept = 0, 0
        while kept < len(units) and (not kept or size + len(units[kept]) <= CHUNK):
            size, kept = size + len(units[kept]), kept + 1
        self.waiting.extendleft(reversed(units[kept:]))
        return units[:kept]


def _ids(call: _Call, members: Sequence[int]) -> list[str]:
    """The first few responses by name, for an event."""
    return [call.items[at].id for at in members[:3]]
