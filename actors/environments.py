"""Environments as actors: a replica holds episodes by name; a pool of them bounds every wait and replaces the dead.

An episode whose replica hangs or dies is over with a status and a reason: nothing is known of its reward, which is not
the same as a reward of 0.
"""

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from actors import cluster
from actors.cluster import Actor
from actors.served import Share, models_of
from verifiers.config import AnyVerifier
from verifiers.environments.config import AnyEnvironment, RetryEnvironment
from verifiers.environments.opening import open_environment
from verifiers.environments.protocol import Environment, Task, Turn
from verifiers.score import Status
from verifiers.verifier import Verifier, build

GRACE = 60.0
"""Seconds past an environment's own time after which its replica is taken for dead: in one process, its thread serves
the learner as well."""

MOST_CHARACTERS = 100_000
"""Of an observation and of a reason that travel at all; the token budget cuts the rest."""

MOST_STUCK = 32
"""Threads that hang in a user's environment before their replica asks to be replaced."""

AT_ONCE = 8
"""Episodes that one replica answers at the same time."""


class Began(NamedTuple):
    """An episode's first words, as they travel."""

    id: str
    prompt: str
    reference: str
    """As JSON."""
    seed: int


class EnvironmentReplica:
    """Holds episodes. A plain class, so that a test makes one without a cluster."""

    def __init__(
        self,
        own: AnyEnvironment,
        verifier: AnyVerifier | None = None,
        models: Mapping[str, Share] | None = None,
    ) -> None:
        """`verifier` judges the answers of `retry`; `models` serve it, by `Wanted.name`."""
        asks = isinstance(own, RetryEnvironment) and verifier is not None
        self._judge: Verifier | None = build(verifier, models_of(models or {})) if asks and verifier else None
        self._seconds = own.seconds
        self._open = open_environment(own, self._judge)
        self._episodes: dict[str, Environment] = {}
        self._stuck = 0

    def begin(self, episodes: Sequence[Began | tuple[str, str, str, int]]) -> list[Turn | None]:
        """Start episodes; what comes back for one is None, or why it cannot be played."""
        ready = [Began(*one) for one in episodes]
        return self._each([(one.id, partial(self._begin, one)) for one in ready])

    def step(self, turns: Sequence[tuple[str, str]]) -> list[Turn]:
        """What becomes of each (episode, what the model wrote), in order. Never raises."""
        found = self._each([(name, partial(self._step, name, text)) for name, text in turns])
        return [one or Turn.broken(Status.ERROR, "the environment gave no turn") for one in found]

    def end(self, names: Sequence[str]) -> None:
        """Forget episodes."""
        for name in names:
            self._episodes.pop(name, None)

    def holds(self) -> int:
        """How many episodes are open."""
        return len(self._episodes)

    def close(self) -> None:
        """End the verifier's processes."""
        if self._judge is not None:
            self._judge.close()

    def _begin(self, one: Began) -> None:
        episode = self._open()
        episode.start(Task(one.prompt, json.loads(one.reference), one.seed))
        self._episodes[one.id] = episode

    def _step(self, name: str, text: str) -> Turn:
        episode = self._episodes.get(name)
        if episode is None:
            return Turn.broken(Status.ERROR, "the replica that held the episode died")
        return checked(episode.step(text))

    def _each(self, work: Sequence[tuple[str, Callable[[], Turn | None]]]) -> list[Turn | None]:
        """The answers in order. What takes longer than its time ends its own episode alone."""
        found: list[Turn | None] = []
        for low in range(0, len(work), AT_ONCE):
            batch = [_Working(name, call) for name, call in work[low : low + AT_ONCE]]
            until = time.monotonic() + self._seconds
            found += [one.answer(until) for one in batch]
            late = [one.name for one in batch if one.late]
            self._stuck += len(late)
            self.end(late)
        if self._stuck > MOST_STUCK:
            raise RuntimeError(f"{self._stuck} turns hang in the environment")
        return found


class _Working:
    """One call in a thread of its own, which is left alone when it is late: a thread cannot be ended."""

    def __init__(self, name: str, call: Callable[[], Turn | None]) -> None:
        self.name = name
        self.late = False
        self._found: list[Turn | None] = []
        self._call = call
        self._thread = threading.Thread(target=self._run, name=f"episode {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.append(self._call())
        except Exception as error:  # noqa: BLE001  (boundary: an environment that breaks has not said 0)
            self._found.append(Turn.broken(Status.ERROR, f"{type(error).__name__}: {error}"[:MOST_CHARACTERS]))

    def answer(self, until: float) -> Turn | None:
        self._thread.join(max(until - time.monotonic(), 0.0))
        if self._found:
            return self._found[0]
        self.late = True
        return Turn.broken(Status.TIMEOUT, "the environment did not answer in its time")


def checked(turn: Any) -> Turn:
    """A turn as it may travel: what a user's class gives is of the right types and of a bounded size, or broken."""
    if not isinstance(turn, Turn):
        return Turn.broken(Status.ERROR, f"step gave a {type(turn).__name__}; it gives a Turn")
    texts: tuple[Any, ...] = (turn.observation, turn.reason)
    if not all(isinstance(one, str) for one in texts):
        return Turn.broken(Status.ERROR, "a turn's observation and reason are texts")
    reward = None if turn.reward is None else float(turn.reward)
    if reward is not None and not math.isfinite(reward) and turn.status == Status.OK:
        return Turn.broken(Status.ERROR, f"the environment's reward is {reward}")
    return Turn(
        turn.observation[:MOST_CHARACTERS],
        reward,
        bool(turn.done or turn.failed),
        None if turn.passed is None else bool(turn.passed),
        turn.reason[:MOST_CHARACTERS],
        Status(turn.status),
        bool(turn.failed),
    )


@dataclass(slots=True)
class EnvironmentPool:
    """Replicas that hold episodes; an episode stays where it began."""

    spawn: Callable[[int], Actor]
    """Starts replica `index`; used at first and to replace one that died."""
    replicas: list[Actor]
    seconds: float
    """An environment's own time for one turn."""
    start: float
    """Longest wait for a replica that is started again."""
    on_event: Callable[..., None]
    kill: Callable[[Actor], None]
    _homes: dict[str, Actor] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    """A replica answers one call at a time; what waits for its turn spends no time of its own."""
    _next: int = 0

    async def begin(self, episodes: Sequence[Began]) -> list[Turn | None]:
        """Start episodes, dealt out in turn; what comes back for one is None, or why it cannot be played."""
        for one in episodes:
            self._homes[one.id] = self.replicas[self._next % len(self.replicas)]
            self._next += 1
        return await self._asked("begin", [(one.id, one) for one in episodes])

    async def step(self, turns: Sequence[tuple[str, str]]) -> list[Turn]:
        """What becomes of each (episode, what the model wrote), in order."""
        found = await self._asked("step", [(name, (name, text)) for name, text in turns])
        return [one or Turn.broken(Status.ERROR, "the environment gave no turn") for one in found]

    async def end(self, names: Sequence[str]) -> None:
        """Forget episodes; a replica that cannot be told will be found out when it is next asked."""
        shares: dict[str, tuple[Actor, list[str]]] = {}
        for name in names:
            if (home := self._homes.pop(name, None)) is not None:
                shares.setdefault(home.name, (home, []))[1].append(name)
        for home, share in shares.values():
            if any(one is home for one in self.replicas):
                await self._ask(home, "end", share, len(share))

    async def _asked(self, method: str, asked: Sequence[tuple[str, tuple[object, ...]]]) -> list[Turn | None]:
        shares: dict[int, list[int]] = {}
        homes = [self._homes[name] for name, _ in asked]
        for place, home in enumerate(homes):
            shares.setdefault(id(home), []).append(place)
        answers = await asyncio.gather(
            *(
                self._ask(homes[share[0]], method, [asked[at][1] for at in share], len(share))
                for share in shares.values()
            )
        )
        found: dict[int, Turn | None] = {}
        for share, answer in zip(shares.values(), answers, strict=True):
            found |= dict(zip(share, answer, strict=True))
        return [found[at] for at in range(len(asked))]

    async def _ask(self, home: Actor, method: str, asked: Sequence[object], count: int) -> Sequence[Turn | None]:
        """The replica's answers; where it does not give any, why, for each."""
        rounds = -(-count // AT_ONCE)
        try:
            async with self._locks.setdefault(home.name, asyncio.Lock()):
                answer: Sequence[Turn | None] = await cluster.wait(
                    home.ask(method, asked),
                    deadline=rounds * self.seconds + GRACE,
                    what=f"{method} of {count} episodes",
                    actor=home.name,
                )
        except Exception as error:  # noqa: BLE001  (boundary: whatever ends a replica ends its episodes alone)
            status = Status.TIMEOUT if isinstance(error, cluster.DeadlineError) else Status.ERROR
            await self._replace(home, status, error)
            return [Turn.broken(status, f"{type(error).__name__}: {error}")] * count
        return answer

    async def _replace(self, dead: Actor, status: Status, error: Exception) -> None:
        index = next((at for at, one in enumerate(self.replicas) if one is dead), None)
        if index is None:
            return  # another call's failure has already replaced it
        self.on_event("environment_restart", actor=dead.name, status=status.value, cause=str(error))
        self.kill(dead)
        fresh = self.spawn(index)
        self.replicas[index] = fresh
        await cluster.wait(fresh.ready(), deadline=self.start, what="restarting", actor=fresh.name)
