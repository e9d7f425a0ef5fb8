"""The only `import ray` outside deploy: start or join a cluster, spawn plain classes as actors, wait with a name.

Nothing else in Braid knows that there is a cluster. Every wait takes a deadline and says what it waited for.
"""

import asyncio
import math
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
import ray.exceptions

NAMESPACE = "braid"
ROOT = Path(__file__).resolve().parents[1]
SLIVER = 0.001
"""Of the custom resource `braid_<role>`: steers an actor to its worker group without limiting how many fit there."""

ANSI = re.compile("\x1b\\[[0-9;]*m")

T = TypeVar("T")


class DeadlineError(TimeoutError):
    """A named wait ran out."""


class ActorLostError(RuntimeError):
    """An actor died while it was asked something; `actor` names it."""

    def __init__(self, actor: str, cause: str):
        super().__init__(f"{actor} died: {cause}")
        self.actor = actor


@dataclass(frozen=True, slots=True)
class Actor:
    """A handle and what to call it in an error."""

    handle: Any
    name: str

    def ask(self, method: str, *args: Any) -> Any:
        """Call `method`; returns a reference that may be passed to another actor without fetching it."""
        return getattr(self.handle, method).remote(*args)

    def ready(self) -> Any:
        """A reference that resolves when the constructor has run."""
        return self.handle.__ray_ready__.remote()


class Hold(Protocol):
    """What a run asks of its cluster: Ray's, or this process (`actors.in_process`)."""

    @property
    def private(self) -> bool:
        """Whether the run started it for itself, on this machine alone."""
        ...

    def spawn(self, cls: type, *args: Any, role: str, index: int, **options: Any) -> Actor:
        """Start the plain class `cls` as an actor."""
        ...

    def kill(self, actor: Actor) -> None:
        """End an actor at once."""
        ...

    def share(self, actor: Actor) -> Any:
        """What another actor's constructor is given to ask this one by itself."""
        ...

    def keep_logs(self, folder: Path) -> None:
        """Copy what the processes said."""
        ...

    def stop(self) -> None:
        """End this run's actors."""
        ...


@dataclass(slots=True)
class Cluster:
    """A run's hold on Ray: its actors live in namespace `braid` as `<run>/<role>-<index>`."""

    run: str
    temporary: Path | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    actors: list[Actor] = field(default_factory=list)

    @property
    def private(self) -> bool:
        """Whether the run started this cluster for itself, on this machine alone."""
        return self.temporary is not None

    def spawn(self, cls: type, *args: Any, role: str, index: int, **options: Any) -> Actor:
        """Start the plain class `cls` as an actor.

        Options: env (mapping), gpus, kwargs for the constructor, restarts (how often it is started again when it dies).
        """
        env: Mapping[str, str] = options.pop("env", {})
        gpus: float = options.pop("gpus", 0)
        restarts: int = options.pop("restarts", 0)
        steer = {f"braid_{role}": SLIVER} if f"braid_{role}" in self.resources else {}
        name = f"{self.run}/{role}-{index}"
        remote = ray.remote(cls).options(
            name=name,
            num_cpus=0,
            num_gpus=gpus,
            resources=steer,
            scheduling_strategy="SPREAD",
            max_restarts=restarts,
            runtime_env={"env_vars": dict(env)},
        )
        actor = Actor(remote.remote(*args, **options.pop("kwargs", {})), name)
        self.actors.append(actor)
        return actor

    def kill(self, actor: Actor) -> None:
        """End an actor at once; its name is free again when the call returns."""
        ray.kill(actor.handle, no_restart=True)
        self.actors = [other for other in self.actors if other is not actor]

    def share(self, actor: Actor) -> Any:
        """What another actor's constructor is given to ask this one by itself: its handle."""
        return actor

    def keep_logs(self, folder: Path) -> None:
        """Copy what the private cluster's processes said, before they and their folder go."""
        if self.temporary is not None:
            logs = self.temporary / "session_latest" / "logs"
            shutil.copytree(logs, folder, dirs_exist_ok=True, ignore_dangling_symlinks=True)

    def stop(self) -> None:
        """End this run's actors and leave the cluster; a cluster that the run started ends with it."""
        for actor in self.actors:
            ray.kill(actor.handle, no_restart=True)
        self.actors = []
        ray.shutdown()
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)


def start(run: str, *, cpus: int | None = None) -> Cluster:
    """Join the cluster that RAY_ADDRESS names (as a submitted job), or start a private one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging = {"log_to_driver": os.environ.get("BRAID_ACTOR_LOGS", "") == "1", "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", namespace=NAMESPACE, **logging)
        return Cluster(run, resources=ray.cluster_resources())
    # Unix sockets allow 107 characters for a path, so the private folder sits at the top of the temporary one.
    temporary = Path(tempfile.mkdtemp(prefix="braid-ray-"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        address="local",
        namespace=NAMESPACE,
        include_dashboard=False,
        num_cpus=cpus,
        _temp_dir=str(temporary),
        _node_ip_address="127.0.0.1",
        **logging,
    )
    _close_token()
    return Cluster(run, temporary=temporary, resources=ray.cluster_resources())


def _close_token() -> None:
    """Ray's own token file, made at the first start, is readable by every user of the machine; make it ours alone."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_mode & 0o077:
        token.chmod(0o600)


def put(value: Any) -> Any:
    """Place a value in the object store once, for several actors."""
    return ray.put(value)


async def wait(reference: Awaitable[T], *, deadline: float, what: str, actor: str = "") -> T:
    """The value of `reference`; DeadlineError after `deadline` seconds, ActorLostError when its actor died."""
    try:
        return await asyncio.wait_for(_resolve(reference), timeout=deadline)
    except TimeoutError as error:
        raise DeadlineError(f"{what} took longer than {deadline:g} s{f' on {actor}' if actor else ''}") from error
    except ray.exceptions.RayTaskError as error:
        # The caller sees the error that was raised over there, as if it had been raised here.
        error.cause.add_note(f"on {actor or 'an actor'}: {error.traceback_str}")
        raise error.cause from None
    except ray.exceptions.RayActorError as error:
        told = ANSI.sub("", str(error)).strip()
        lost = ActorLostError(actor or "an actor", told.splitlines()[-1].strip())
        lost.add_note(told)
        raise lost from None


def fetch(reference: Any, *, deadline: float, what: str, actor: str = "") -> Any:
    """`wait` for a caller inside an actor that has no event loop."""
    try:
        return ray.get(reference, timeout=deadline if math.isfinite(deadline) else None)
    except ray.exceptions.GetTimeoutError as error:
        raise DeadlineError(f"{what} took longer than {deadline:g} s{f' on {actor}' if actor else ''}") from error
    except ray.exceptions.RayTaskError as error:
        error.cause.add_note(f"on {actor or 'an actor'}: {error.traceback_str}")
        raise error.cause from None
    except ray.exceptions.RayActorError as error:
        raise ActorLostError(actor or "an actor", ANSI.sub("", str(error)).strip().splitlines()[-1]) from None


async def _resolve(reference: Awaitable[T]) -> T:
    return await reference
