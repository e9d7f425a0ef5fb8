"""`Grader`: what every verifier kind is made of. It takes a batch of items and gives a score for each, in order.

Kinds that judge one response at a time are functions of an item (`one_by_one`, `in_threads`); kinds that ask a model or
compare the responses of a group read the whole batch. `checked` stands round every grader and keeps the promises
that hold for all: it never raises, gives as many scores as it was asked for, ends by its deadline, and lets no value
pass that is not finite.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from verifiers.score import Score, Status

LONGEST_REASON = 2000
"""Characters."""

LATE = "the time for the batch ran out before this response"


class Asked(NamedTuple):
    """One response to judge, as it travels to a scorer: plain texts."""

    id: str
    prompt: str
    response: str
    reference: str
    """As JSON."""
    group: str = ""
    """Responses to one prompt that are compared with each other share it."""
    told: str = "{}"
    """As JSON: what is known of the response already, such as its environment's reward."""


@dataclass(frozen=True, slots=True)
class Item:
    """One response to judge. `reference` is what the verifier's page says, as a Python value."""

    prompt: str
    response: str
    reference: Any
    group: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)


class Grader(Protocol):
    """Scores of a batch of items, in order."""

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each; what is not begun at `until` (time.monotonic) is `timeout`."""
        ...

    def close(self) -> None:
        """End what it started: processes, connections."""
        ...


Judge = Callable[[Item], Score]
"""The verdict on one item. May raise: `one_by_one` and `in_threads` turn that into status `error`."""


@dataclass(frozen=True, slots=True)
class Each:
    """A grader of a function of one item, on `threads` of them at a time."""

    judge: Judge
    threads: int = 1

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each; an item whose function raises costs only its own."""
        if self.threads == 1 or len(items) < 2:
            return [self._one(item, until) for item in items]
        with ThreadPoolExecutor(min(self.threads, len(items))) as pool:
            return list(pool.map(lambda item: self._one(item, until), items))

    def close(self) -> None:
        """There is nothing to end."""

    def _one(self, item: Item, until: float) -> Score:
        began = time.monotonic()
        if began > until:
            return Score.unknown(Status.TIMEOUT, LATE)
        try:
            score = self.judge(item)
        except Exception as error:  # noqa: BLE001  (boundary: a verifier that breaks has not said 0)
            score = Score.unknown(Status.ERROR, type(error).__name__)
        return replace(score, seconds=time.monotonic() - began)


def one_by_one(judge: Judge) -> Grader:
    """A grader of a function that computes."""
    return Each(judge)


def in_threads(judge: Judge, threads: int) -> Grader:
    """A grader of a function that waits: for a process, or for an answer over the network."""
    return Each(judge, threads)


@dataclass(frozen=True, slots=True)
class Checked:
    """A grader whose scores are signed, finite, complete and in time, whatever it does itself."""

    inner: Grader
    scorer: str
    version: str

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each item, always."""
        began = time.monotonic()
        if not items:
            return []
        if began > until:
            return [self._sign(Score.unknown(Status.TIMEOUT, LATE), 0.0)] * len(items)
        try:
            found = self.inner.grade(items, until)
            if len(found) != len(items):
                raise ValueError(f"{len(found)} scores of {len(items)} items")
        except Exception as error:  # noqa: BLE001  (boundary: a verifier that breaks has not said 0)
            found = [Score.unknown(Status.ERROR, f"{self.scorer}: {type(error).__name__}")] * len(items)
        share = (time.monotonic() - began) / len(items)
        return [self._sign(_finite(score), share) for score in found]

    def close(self) -> None:
        """End what the inner one started."""
        self.inner.close()

    def _sign(self, score: Score, seconds: float) -> Score:
        own = score.seconds if math.isfinite(score.seconds) else seconds
        spans = tuple(replace(span, reason=readable(span.reason)) for span in score.spans)
        told = readable(score.reason)
        return replace(score, reason=told, spans=spans, seconds=own, scorer=self.scorer, version=self.version)


def readable(reason: str) -> str:
    """A reason as a line that a table and a terminal can hold: a model may have written parts of it."""
    whole = reason[: 4 * LONGEST_REASON].encode(errors="replace").decode()
    clean = "".join(one if one.isprintable() or one == "\n" else " " for one in whole)
    return clean if len(clean) <= LONGEST_REASON else clean[:LONGEST_REASON] + " ..."


def _finite(score: Score) -> Score:
    """The score, or an error in its place: a reward that is not finite never leaves a verifier."""
    if score.status == Status.OK and not math.isfinite(score.value):
        unknown = Score.unknown(Status.ERROR, f"the verifier's value is {score.value}")
        return replace(unknown, seconds=score.seconds, parts=score.parts)
    return score
