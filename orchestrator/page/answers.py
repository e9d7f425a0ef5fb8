"""A document's name and a query become the document.

What reads Parquet files is imported when it is first asked for: the page's first view does not wait for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator.page import braid, decisions, handoffs, siblings, stages
from orchestrator.page.queries import record, whole
from orchestrator.page.reading import Reading
from orchestrator.page.series import POINTS
from policies.bad_input import BadInput

Document = dict[str, Any]
Query = Mapping[str, str]

MOST_COMPARED = 12
MOST_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of steps, in so many points."""

    start: int | None = None
    stop: int | None = None
    points: int = POINTS


@dataclass(frozen=True, slots=True)
class Turn:
    """A page of decisions."""

    before: int | None = None
    after: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Place:
    """One trajectory."""

    step: int
    row: int
    most: int = 4000
    """Tokens that are sent."""


@dataclass(frozen=True, slots=True)
class OnePrompt:
    """One prompt of a probe."""

    id: str
    name: str = "probe"
    step: int | None = None


@dataclass(frozen=True, slots=True)
class OneStage:
    """One stage."""

    stage: str


SPAN = {"from": "start", "to": "stop"}
SET = {"set": "name"}


def _spanned(make: Callable[..., Document]) -> Callable[[Reading, Query], Document]:
    def answer(reading: Reading, query: Query) -> Document:
        span = record(Span, query, SPAN)
        with reading.lock:
            return make(reading, span.start, span.stop, span.points)

    return answer


def _bare(make: Callable[[Reading], Document]) -> Callable[[Reading, Query], Document]:
    def answer(reading: Reading, query: Query) -> Document:
        whole(query)
        with reading.lock:
            return make(reading)

    return answer


def _decisions(reading: Reading, query: Query) -> Document:
    turn = record(Turn, query)
    with reading.lock:
        limit = max(1, min(turn.limit, MOST_ROWS))
        return decisions.decisions(reading, before=turn.before, after=turn.after, limit=limit)


def _trajectories(reading: Reading, query: Query) -> Document:
    from orchestrator.page.trajectories import Page, Wanted, trajectories

    names = {field.name for field in fields(Wanted)}
    wanted = {key: value for key, value in query.items() if key in names}
    page = {key: value for key, value in query.items() if key not in names}
    return trajectories(reading, record(Wanted, wanted), record(Page, page))


def _trajectory(reading: Reading, query: Query) -> Document:
    from orchestrator.page.reader import trajectory

    place = record(Place, query)
    return trajectory(reading, place.step, place.row, most=max(1, min(place.most, 20_000)))


def _prompt(reading: Reading, query: Query) -> Document:
    from orchestrator.page.support import prompt

    one = record(OnePrompt, query, SET)
    return prompt(reading, one.id, name=one.name, step=one.step)


def _support(reading: Reading, query: Query) -> Document:
    from orchestrator.page.support import Asked, support

    return support(reading, record(Asked, query, SET))


def _report(reading: Reading, query: Query) -> Document:
    from orchestrator.history import read_history
    from orchestrator.report.whole import document

    whole(query)
    made: Document = reading.remembered_apart(
        "report", reading.changes, lambda: document(read_history(reading.run.root))
    )
    return made


_OF_ONE: dict[str, Callable[[Reading, Query], Document]] = {
    "run": _bare(stages.run),
    "braid": _spanned(braid.braid),
    "curves": _spanned(braid.curves),
    "decided": _spanned(decisions.decided),
    "decisions": _decisions,
    "support": _support,
    "prompt": _prompt,
    "handoffs": _bare(handoffs.handoffs),
    "handoff": lambda reading, query: handoffs.handoff(reading, record(OneStage, query).stage),
    "reach": _bare(handoffs.reach),
    "costs": _bare(handoffs.costs),
    "trajectories": _trajectories,
    "trajectory": _trajectory,
    "report": _report,
}
OF_MANY = ("runs", "compare", "comparison")
NAMES = (*_OF_ONE, *OF_MANY)


def of_one(name: str, reading: Reading, query: Query) -> Document:
    """A document of one run. BadInput names what is wrong with the query."""
    return _OF_ONE[name](reading, query)


def of_many(name: str, root: Path, reading: Callable[[str], Reading], query: Query) -> Document:
    """`runs`; or `compare` with `runs=A,B`, and `comparison` with `runs=A@STEP,B@STAGE`: what stands side by side."""
    if name == "runs":
        whole(query)
        return siblings.runs(root)
    asked = list(dict.fromkeys(one for one in str(query.get("runs", "")).split(",") if one))
    if not asked or len(asked) > MOST_COMPARED:
        raise BadInput([f"runs: from 1 to {MOST_COMPARED} names with commas between them (got {len(asked)})"])
    if name == "comparison":
        parts = {one: one.partition("@") for one in asked}
        return siblings.comparison({one: reading(parts[one][0]) for one in asked}, {o: p[2] for o, p in parts.items()})
    readings = {one: reading(one) for one in asked}
    for one in readings.values():
        one.refresh()
    return siblings.compare(readings)
