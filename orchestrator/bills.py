"""What rows of the ledger say of work: what was computed, by role, model and kind, and how long each role was busy.

A row of a step or a probe has

    work               [{role, model, kind, sequences, positions, tokens, pairs}]   as `actors.meter` counts
    seconds_by_role    {role: seconds in which the role was asked}

and an event `work` has the same of what was done outside of steps: preparations, a teacher's demonstrations.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from actors.meter import Bill

COUNTS = ("sequences", "positions", "tokens", "pairs")
KEY = ("role", "model", "kind")


def facts(*bills: Bill) -> dict[str, Any]:
    """What a row says of its bills together."""
    return added({"work": bill.rows(), "seconds_by_role": bill.seconds} for bill in bills)


def added(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of rows, as a row; those that say nothing of work add nothing."""
    work: dict[tuple[str, ...], dict[str, int]] = {}
    seconds: dict[str, float] = {}
    for row in rows:
        for one in row.get("work") or ():
            place = work.setdefault(tuple(str(one[key]) for key in KEY), dict.fromkeys(COUNTS, 0))
            for count in COUNTS:
                place[count] += int(one[count])
        for role, spent in (row.get("seconds_by_role") or {}).items():
            seconds[role] = seconds.get(role, 0.0) + float(spent)
    return {
        "work": [dict(zip(KEY, place, strict=True)) | work[place] for place in sorted(work)],
        "seconds_by_role": dict(sorted(seconds.items())),
    }
