"""A run without Ray: the same plain classes as actors of this process, behind the same handles as `actors.cluster`.

For debugging, notebooks and quick tests: breakpoints work, an error is raised where it happens, and nothing is started
but threads. Engines are torch's, the learner is one rank; there is nothing here to heal or to partition.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.cluster import Actor


@dataclass(frozen=True, slots=True, eq=False)
class Handle:
    """An object that is asked as a Ray actor is, `handle.method.remote(...)`: one call at a time."""

    target: Any
    calls: ThreadPoolExecutor

    def __getattr__(self, method: str) -> "Method":
        return Method(_nothing if method == "__ray_ready__" else getattr(self.target, method), self.calls)


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One method of a handle."""

    call: Callable[..., Any]
    calls: ThreadPoolExecutor

    def remote(self, *args: Any) -> Any:
        """Call it; the future that comes back may be another call's argument."""
        return asyncio.ensure_future(self._answer(args))

    async def _answer(self, args: tuple[Any, ...]) -> Any:
        given = [await one if isinstance(one, Awaitable) else one for one in args]
        if inspect.iscoroutinefunction(self.call):
            return await self.call(*given)
        return await asyncio.get_running_loop().run_in_executor(self.calls, lambda: self.call(*given))


async def _nothing() -> None:
    return None


@dataclass(slots=True)
class InProcess:
    """What `actors.cluster.Cluster` is to a run, in one process."""

    run: str
    actors: list[Actor] = field(default_factory=list)
    calls: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="actors"))
    """One thread for all actors' calls: torch's random state is the process's, and two builds at once would mix it."""

    @property
    def private(self) -> bool:
        """Whether the run started this cluster for itself: always."""
        return True

    def spawn(self, cls: type, *args: Any, role: str, index: int, **options: Any) -> Actor:
        """Build the plain class `cls` here; what concerns processes (env, gpus) has no meaning."""
        actor = Actor(Handle(cls(*args, **options.get("kwargs", {})), self.calls), f"{self.run}/{role}-{index}")
        self.actors.append(actor)
        return actor

    def kill(self, actor: Actor) -> None:
        """Let go of an actor."""
        self.actors = [other for other in self.actors if other is not actor]
        _end(actor)

    def share(self, actor: Actor) -> Any:
        """What another actor is given to ask this one by itself: the object, for one thread runs all calls."""
        return actor.handle.target

    def keep_logs(self, folder: Path) -> None:
        """There are no logs but the process's own output."""

    def stop(self) -> None:
        """End the verifiers' processes and the threads."""
        for actor in self.actors:
            _end(actor)
        self.actors = []
        self.calls.shutdown(wait=False)


def _end(actor: Actor) -> None:
    close = getattr(actor.handle.target, "close", None)
    if close is not None and not inspect.iscoroutinefunction(close):
        close()


def start(run: str) -> InProcess:
    """A cluster of one process."""
    return InProcess(run)
