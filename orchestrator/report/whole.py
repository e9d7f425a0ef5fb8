"""The report as one document: figures in their groups, who judged, and the newest rows of decisions and events."""

from typing import Any

import yaml

from orchestrator.history import History
from orchestrator.json_lines import plain
from orchestrator.progress import UNKNOWN
from orchestrator.report.figures import MOST_POINTS, groups
from orchestrator.summary import responses_by_strand, scorers

MOST_ROWS = 500
"""Decisions, and events, of a long run: the newest so many are in the report; the ledger has them all."""


def document(history: History, most: int = MOST_POINTS) -> dict[str, Any]:
    """JSON values; unknown figures are null.

    groups: as `figures.groups`. scorers: as `summary.scorers`. ways: [{"stage", "strand", what became of the
    responses that the strand asked for}]. config: the resolved pipeline as YAML. environment: flat {name: text}.
    decisions, events: the newest 500 rows as the ledger has them; decisions_total, events_total.
    """
    ways = responses_by_strand(history.steps)
    found: dict[str, Any] = plain(
        {
            "groups": groups(history, most),
            "scorers": scorers(history.steps),
            "ways": [{"stage": stage, "strand": strand, **way} for (stage, strand), way in ways.items()],
            "config": yaml.safe_dump(dict(history.config), sort_keys=False, allow_unicode=True),
            "environment": _flat(history.environment),
            "decisions": list(history.decisions[-MOST_ROWS:]),
            "decisions_total": len(history.decisions),
            "events": list(history.events[-MOST_ROWS:]),
            "events_total": len(history.events),
        }
    )
    return found


def _flat(environment: Any) -> dict[str, str]:
    """Nested facts as `packages.torch`."""
    flat: dict[str, str] = {}
    for key, value in environment.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[str(key)] = UNKNOWN if value is None else str(value)
    return flat
