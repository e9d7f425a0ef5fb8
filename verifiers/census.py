"""What a tree of processes is doing: who is in it, how much CPU it had, whether it wants more."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Census:
    """A moment of a tree of processes."""

    cpu_seconds: float
    """Of all, with their children that ended."""
    runnable: bool
    """Whether one of them has a CPU or waits for one; the others wait for something else."""

    @staticmethod
    def of(pid: int) -> "Census":
        """The tree below `pid`, without it."""
        seconds, runnable = 0.0, False
        for process in descendants(pid):
            try:
                times = process.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
                runnable |= process.status() == psutil.STATUS_RUNNING
            except psutil.Error:
                continue  # it has ended meanwhile
        return Census(seconds, runnable)


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below `pid`, the innermost first; none where `pid` is gone."""
    try:
        return list(reversed(psutil.Process(pid).children(recursive=True)))
    except psutil.Error:
        return []
