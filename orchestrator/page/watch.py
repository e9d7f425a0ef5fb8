"""What has changed in a run's directory, from the files' stamps alone: the ETags of documents, and the live stream."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from orchestrator.page.reading import Reading, stamp

Stamps = dict[str, tuple[Any, ...]]

PARTS: dict[str, tuple[str, ...]] = {
    "run": ("config", "metrics", "events", "probes", "handoffs", "trajectories", "decisions"),
    "braid": ("metrics",),
    "curves": ("metrics",),
    "decisions": ("decisions",),
    "decided": ("decisions", "metrics"),
    "support": ("probes", "handoffs", "config"),
    "prompt": ("probes",),
    "handoffs": ("handoffs",),
    "handoff": ("handoffs",),
    "reach": ("handoffs",),
    "costs": ("handoffs", "metrics"),
    "trajectories": ("trajectories",),
    "trajectory": ("trajectories", "coefficients", "model"),
    "report": ("config", "metrics", "events", "decisions"),
}
"""Document -> the parts of a run directory that it is a function of."""

OF_LINES = frozenset({"run", "braid", "curves", "decisions", "decided", "support", "costs", "report"})
"""Documents that read the lines of metrics, decisions or events: the others do not wait for them."""

LOOK_SECONDS = 0.5
PING_SECONDS = 15.0
STREAM_SECONDS = 600.0
"""A stream ends after this; the browser opens the next one by itself."""


def stamps(reading: Reading) -> Stamps:
    """Part -> what changes when its files do."""
    run = reading.run
    return {
        **{path.stem: stamp(path) for path in (run.config, run.metrics, run.events, run.decisions)},
        "probes": stamp(run.probes),
        "handoffs": (stamp(run.handoffs), *(stamp(path) for path in sorted(run.handoffs.glob("*.json")))),
        "trajectories": stamp(run.trajectories),
        "coefficients": stamp(run.coefficients),
        "model": stamp(run.root / "model"),
    }


def etag(name: str, now: Stamps, query: str) -> str:
    """The same as long as a document is."""
    told = repr((name, query, [now[part] for part in PARTS[name]]))
    return f'"{hashlib.sha256(told.encode()).hexdigest()[:32]}"'


def changed(before: Stamps, after: Stamps) -> list[str]:
    """Documents that may have changed."""
    parts = {part for part in after if before.get(part) != after[part]}
    return [name for name, needed in PARTS.items() if parts & set(needed)]


async def events(reading: Reading, closing: Callable[[], bool]) -> AsyncIterator[str]:
    """Server-sent events: `changed` with {"step", "status", "documents"}, a comment now and then, and an end.

    The first `changed` comes at once, with no documents.
    """
    loop = asyncio.get_running_loop()
    began = spoke = loop.time()
    seen = await anyio.to_thread.run_sync(stamps, reading)
    yield f"retry: 1000\n{_event(await anyio.to_thread.run_sync(_told, reading, []))}"
    while loop.time() - began < STREAM_SECONDS and not closing():
        await asyncio.sleep(LOOK_SECONDS)
        now = await anyio.to_thread.run_sync(stamps, reading)
        if names := changed(seen, now):
            seen, spoke = now, loop.time()
            yield _event(await anyio.to_thread.run_sync(_told, reading, names))
        elif loop.time() - spoke > PING_SECONDS:
            spoke = loop.time()
            yield ": still here\n\n"


def _told(reading: Reading, names: list[str]) -> dict[str, Any]:
    reading.refresh()
    with reading.lock:
        return {"step": max(reading.steps, default=None), "status": reading.status, "documents": names}


def _event(told: dict[str, Any]) -> str:
    return f"event: changed\ndata: {json.dumps(told)}\n\n"
