"""The handoff files of a run, as it wrote them."""

import json
from typing import Any

from orchestrator.run_directory import RunDirectory


def handoffs(run: RunDirectory) -> list[dict[str, Any]]:
    """Every handoff that can be read, with its `stage`, in the order of the stages; a damaged file is left out."""
    found = []
    for path in sorted(run.handoffs.glob("*.json")):
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(one, dict):
            found.append({"stage": path.stem, **one})
    return sorted(found, key=lambda one: int(one.get("index") or 0))


def role(one: dict[str, Any]) -> str | None:
    """The role that the handoff names."""
    named = ((one.get("change") or {}).get("role") or {}).get("name")
    return None if named is None else str(named)


def action(one: dict[str, Any]) -> str | None:
    """What its contract did; None where everything held."""
    did = (one.get("contract") or {}).get("action")
    return None if did is None else str(did)
