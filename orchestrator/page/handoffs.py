"""What the ends of stages say: reach, role, gain, handoff, contract, cost, diagnosis."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.json_lines import plain
from orchestrator.page.reading import Reading, read_json, stamp
from orchestrator.page.series import all_steps
from orchestrator.page.stages import bands
from policies.bad_input import BadInput

Document = dict[str, Any]

MOST_TEXT = 100_000
"""Characters of a recommended pipeline."""


def documents(reading: Reading) -> list[Document]:
    """Every handoff file that can be read, whole, in the order of stages."""
    found = []
    for path in sorted(reading.run.handoffs.glob("*.json")):
        one = reading.remembered(f"handoff {path.name}", stamp(path), lambda: read_json(path))  # noqa: B023
        if one:
            found.append({"stage": path.stem, **one})
    return sorted(found, key=lambda one: (_number(one.get("index")), str(one["stage"])))


def handoffs(reading: Reading) -> Document:
    """The table of handoffs.

    {"stages": [{"stage", "index", "steps": [first, last], "measured": {"before", "after"}, "labels": {...},
                 "epsilon", "confidence", "role": change.role of the file, "gain": change.gain,
                 "rates": completion.support.rates,
                 "support": {"expanded", "attrited", "retained", "undecided", "absent": counts},
                 "handoff": the file's, "terms": contract.terms, "action": contract.action,
                 "diagnosis": the file's, without what it says of single prompts (`prompts`, `crucial`)}]}

    Parts that a file does not have are null.
    """
    return {"stages": [_summary(one) | {"diagnosis": _diagnosis(reading, one)} for one in documents(reading)]}


def handoff(reading: Reading, stage: str) -> Document:
    """One stage's file whole, as the run wrote it. BadInput where there is none."""
    for one in documents(reading):
        if one["stage"] == stage:
            return one
    raise BadInput([f"stage: no handoff of stage {stage!r} was written"])


def reach(reading: Reading) -> Document:
    """Reach curves of every stage.

    {"stages": [{"stage", "index", "measured", "reach": change.reach of the file, "divergence": change.divergence,
                 "pass_at_k": completion.pass_at_k, "cot_pass_at_k", "answers"}]}
    """
    return {
        "stages": [
            {
                **_head(one),
                **{key: _at(one, "change", key) for key in ("reach", "divergence")},
                **{key: _at(one, "completion", key) for key in ("pass_at_k", "cot_pass_at_k", "answers")},
            }
            for one in documents(reading)
        ]
    }


def costs(reading: Reading) -> Document:
    """What each stage cost.

    {"stages": [{"stage", "steps", "seconds": {"generate", "score", "train", "publish", "ledger", "other", "total"},
                 "tokens_trained", "tokens_generated", "cost": the handoff file's `cost`, or null}]}

    Seconds and tokens are of the metrics rows and known while a stage goes on.
    """
    told = {one["stage"]: one.get("cost") for one in documents(reading)}
    split: list[Document] = reading.remembered("costs", reading.changes, lambda: _split(reading))
    return {"stages": [{**one, "cost": told.get(one["stage"])} for one in split]}


def _split(reading: Reading) -> list[Document]:
    from orchestrator.summary import time_split  # not before it is needed: it loads all of the configuration

    rows: dict[str, list[Document]] = {one["name"]: [] for one in bands(reading)}
    for step in all_steps(reading):
        row = reading.steps[int(step)]
        rows[row["stage"]].append(row)
    return [
        {
            "stage": name,
            "steps": len(found),
            "seconds": plain(time_split(found)),
            **{key: int(sum(row.get(key) or 0 for row in found)) for key in ("tokens_trained", "tokens_generated")},
        }
        for name, found in rows.items()
    ]


def _summary(one: Document) -> Document:
    support = _at(one, "completion", "support")
    counts = None
    if isinstance(support, Mapping):
        names = ("expanded", "attrited", "retained", "undecided", "absent")
        counts = {name: _count(support.get(name)) for name in names}
    return {
        **_head(one),
        **{key: one.get(key) for key in ("steps", "labels", "epsilon", "confidence", "handoff")},
        **{key: _at(one, "change", key) for key in ("role", "gain")},
        "rates": _at(one, "completion", "support", "rates"),
        "support": counts,
        "terms": _at(one, "contract", "terms"),
        "action": _at(one, "contract", "action"),
    }


def _diagnosis(reading: Reading, one: Document) -> Document | None:
    """The file's without single prompts, and with the text of the pipeline that it recommends."""
    found = _without(one.get("diagnosis"), "prompts", "crucial")
    name = _at(found, "recommendation", "file")
    if not isinstance(found, Mapping) or not isinstance(name, str) or not name:
        return found if isinstance(found, dict) else None
    path = reading.run.handoffs / Path(name).name
    try:
        text = path.read_text(encoding="utf-8")[:MOST_TEXT] if path.is_file() else None
    except (OSError, ValueError):
        text = None
    return {**found, "recommendation": {**found["recommendation"], "text": text}}


def _head(one: Document) -> Document:
    return {key: one.get(key) for key in ("stage", "index", "measured")}


def _at(one: Any, *keys: str) -> Any:
    """The value under these keys; None where any is missing."""
    for key in keys:
        if not isinstance(one, Mapping):
            return None
        one = one.get(key)
    return one


def _without(value: Any, *keys: str) -> Any:
    """The map without these keys; what is no map as it is."""
    return {key: inner for key, inner in value.items() if key not in keys} if isinstance(value, Mapping) else value


def _count(value: Any) -> int | None:
    """Ids as their number; a number as it is."""
    return len(value) if isinstance(value, list) else value if isinstance(value, int) else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")
