"""What the controls decided, step by step, and why."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.page.reading import Reading
from orchestrator.page.series import MOST_POINTS, POINTS, listed
from orchestrator.page.stages import bands
from orchestrator.page.tail import Row

Document = dict[str, Any]

PAGE = 100
MOST_ROUTED = 50
"""Sentences about single groups that a row tells; `routed_total` says how many there are."""


def decisions(reading: Reading, *, before: int | None = None, after: int | None = None, limit: int = PAGE) -> Document:
    """A page of decisions: the newest first of those before step `before`, or the oldest first after step `after`.

    {"rows": [{"step", "stage", "reason", "coefficients": {strand: factor}, "places": {strand: prompts},
               "classes": {class: prompts}, "rest": [strands], "hints": {...}, "own_prompts": {strand: prompts},
               "controls": [{"control", "word"}], "verdicts": {what became of groups: count},
               "routed": [sentences, at most 50], "routed_total", "facts": {figure: value before},
               "outcome": {figure: value after}}],
     "total": decisions of the run, "next": `before` (or `after`) of the next page, or null}
    """
    steps = np.array(sorted(reading.decisions), np.int64)
    if after is not None:
        low = int(np.searchsorted(steps, after, "right"))
        chosen, more = steps[low : low + limit], low + limit < len(steps)
    else:
        high = len(steps) if before is None else int(np.searchsorted(steps, before, "left"))
        low = max(0, high - limit)
        chosen, more = steps[low:high][::-1], low > 0
    rows = reading.decisions_at([reading.decisions[int(step)] for step in chosen])
    told = [_told(row) for row in rows if row]
    return {"rows": told, "total": len(steps), "next": int(chosen[-1]) if more and len(chosen) else None}


def decided(reading: Reading, start: int | None = None, stop: int | None = None, points: int = POINTS) -> Document:
    """Decisions as curves beside the braid; a bucket of several steps tells its last step's decision.

    {"steps": [first step of each bucket], "until": [last step, whose decision this is], "exact": one step a bucket,
     "reasons": [text], "coefficients": [{"name": strand, "values": [factor or null]}],
     "places": [{"name": strand, "values": [prompts or null]}], "classes": [{"name", "values"}],
     "verdicts": [{"name", "values": [groups or null]}], "fired": [{"step", "name": strand, "prompts"}],
     "stages": as `braid`}
    """
    found = np.array(sorted(reading.decisions), np.int64)
    found = found[(found >= (start or 0)) & (found <= (stop if stop is not None else np.iinfo(np.int64).max))]
    count = min(max(1, min(points, MOST_POINTS)), len(found))
    edges = np.linspace(0, len(found), count + 1).round().astype(np.int64) if count else np.zeros(1, np.int64)
    last = found[edges[1:] - 1] if count else found
    rows = [row or {} for row in reading.decisions_at([reading.decisions[int(step)] for step in last])]
    plans = [_map(row.get("plan")) for row in rows]
    return {
        "steps": [int(step) for step in found[edges[:-1]]] if count else [],
        "until": [int(step) for step in last],
        "exact": count == len(found),
        "reasons": [str(row.get("reason") or "") for row in rows],
        **{key: _columns([_map(plan.get(key)) for plan in plans]) for key in ("coefficients", "places", "classes")},
        "verdicts": _columns([_map(row.get("verdicts")) for row in rows]),
        "fired": [
            {"step": int(step), "name": name, "prompts": prompts}
            for step, plan in zip(last, plans, strict=True)
            for name, prompts in _map(plan.get("own_prompts")).items()
        ],
        "stages": bands(reading),
    }


def _told(row: Row) -> Document:
    plan = _map(row.get("plan"))
    routed = row.get("routed") if isinstance(row.get("routed"), list) else []
    return {
        "step": row.get("step"),
        "stage": row.get("stage"),
        "reason": str(row.get("reason") or ""),
        **{key: _map(plan.get(key)) for key in ("coefficients", "places", "classes", "hints", "own_prompts")},
        "rest": plan.get("rest") or [],
        "controls": row.get("controls") or [],
        "verdicts": _map(row.get("verdicts")),
        "routed": [str(one) for one in routed or ()][:MOST_ROUTED],
        "routed_total": len(routed or ()),
        "facts": _map(row.get("facts")),
        "outcome": _map(row.get("outcome")),
    }


def _columns(found: Sequence[Mapping[str, Any]]) -> list[Document]:
    """Maps of numbers as one column for each name; a name that a map lacks is null there."""
    names = dict.fromkeys(name for one in found for name, value in one.items() if isinstance(value, int | float))
    nan = float("nan")
    return [
        {"name": name, "values": listed([float(one[name]) if one.get(name) is not None else nan for one in found])}
        for name in names
    ]


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
