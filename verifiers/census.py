"""What a tree of processes is doing: who is in it, how much CPU it had, and how long it waited for one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Census:
    """A moment of a tree of processes."""

    cpu_seconds: float
    """Of all, with their children that ended."""
    waited_seconds: float
    """The longest that one thread was ready to run and had no CPU. Not the sum: many threads wait for each other."""
    stopped: bool
    """Whether the first of them, or what started it, was stopped by somebody outside."""

    @staticmethod
    def of(pid: int) -> "Census":
        """The tree below `pid`."""
        seconds, waits = 0.0, [0.0]
        below = descendants(pid)
        for process in below:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue  # it has ended meanwhile
            seconds += times.user + times.system + times.children_user + times.children_system
            waits += _waits(process.pid)
        return Census(seconds, max(waits), any(_is_stopped(one) for one in (pid, *(one.pid for one in below[-1:]))))


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below `pid`, the innermost first; none where `pid` is gone."""
    try:
        return list(reversed(psutil.Process(pid).children(recursive=True)))
    except psutil.Error:
        return []


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    except psutil.Error:
        return False


def _waits(pid: int) -> Iterator[float]:
    """Of each thread, the seconds on a run queue (the kernel's sched-stats.rst: the second number, in nanoseconds)."""
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            yield int(file.read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            continue
