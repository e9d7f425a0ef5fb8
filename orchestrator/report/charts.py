"""Figures of the report as plotly's JSON: traces and layout as plain data, one function a figure.

Stages are bands behind every curve; origins have the colours of `report.origins`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.history import History
from orchestrator.json_lines import Row
from orchestrator.probes.intervals import wilson
from orchestrator.progress import number
from orchestrator.report.origins import COLOURS, SHARES, label
from orchestrator.report.traces import SERIES, Figure, bar, framed, line
from orchestrator.summary import PARTS

PROBE = "#c8452f"
PART_COLOURS = {
    "generate": "#168aad",
    "score": "#8468bd",
    "train": "#c8452f",
    "publish": "#8f7e00",
    "ledger": "#6b7785",
    "other": "#868e97",
}


def figures(history: History) -> dict[str, Figure]:
    """Every figure that the run has data for, by name, in the order of the report."""
    if not history.steps and not history.probes:
        return {}
    made = {
        "outcome": outcome(history),
        "provenance": provenance(history),
        "loss": _curves(history, {"loss": "loss"}, "loss"),
        "gradient norm": _curves(history, {"gradient_norm": "gradient norm before clipping"}, "global norm", log=True),
        "gradient mass": by_strand(history, "gradient_mass", "share of the gradient"),
        "freshness": _curves(
            history, {"on_policy_share": "on-policy share", "ess": "effective sample size"}, "share", zero=True
        ),
        "length": _curves(history, {"response_length_mean": "mean tokens of a rollout"}, "tokens", zero=True),
        "time": time(history),
    }
    return {name: figure for name, figure in made.items() if figure["data"]}


def outcome(history: History) -> Figure:
    """Reward and accuracy of the rollouts, and probes with their 95 % intervals."""
    data = [
        line(history.steps, "reward_mean", "reward of rollouts", SERIES[0], width=1.2),
        line(history.steps, "accuracy", "accuracy of rollouts", SERIES[2], width=1.2),
        *_probes(history.probes),
    ]
    figure = framed(history, data, "share")
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def provenance(history: History) -> Figure:
    """Who wrote the tokens that each step trained on, stacked to 1."""
    steps = [row["step"] for row in history.steps]
    data = []
    for key, origin in SHARES.items():
        if any(number(row, key, 0.0) > 0 for row in history.steps):
            data.append(bar(steps, [number(row, key, 0.0) for row in history.steps], label(key), COLOURS[origin]))
    figure = framed(history, data, "share of trained tokens")
    figure["layout"] |= {"barmode": "stack", "bargap": 0}
    figure["layout"]["yaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
    return figure


def by_strand(history: History, fact: str, title: str) -> Figure:
    """One curve for each strand that states `fact`."""
    strands = dict.fromkeys(name for row in history.steps for name in (row.get("by_strand") or {}))
    data = []
    for index, strand in enumerate(strands):
        rows = [{"step": row["step"], fact: _strand_fact(row, strand, fact)} for row in history.steps]
        if any(row[fact] is not None for row in rows):
            data.append(line(rows, fact, strand, SERIES[index % len(SERIES)]))
    figure = framed(history, data, title)
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def time(history: History) -> Figure:
    """Where each step's seconds went."""
    parts = {part: [number(row, f"seconds_{part}", 0.0) for row in history.steps] for part in PARTS}
    parts["other"] = [max(0.0, number(row, "seconds", 0.0) - _parts(row)) for row in history.steps]
    steps = [row["step"] for row in history.steps]
    data = [bar(steps, seconds, part, PART_COLOURS[part]) for part, seconds in parts.items()] if steps else []
    figure = framed(history, data, "seconds a step")
    figure["layout"] |= {"barmode": "stack", "bargap": 0.1}
    return figure


def _curves(history: History, keys: Mapping[str, str], title: str, *, log: bool = False, zero: bool = False) -> Figure:
    """Curves of these keys of the metrics rows; those that no row knows are left out."""
    known = {key: name for key, name in keys.items() if any(row.get(key) is not None for row in history.steps)}
    colours = dict(zip(known, SERIES, strict=False))
    figure = framed(history, [line(history.steps, key, known[key], colours[key]) for key in known], title)
    if log:
        figure["layout"]["yaxis"]["type"] = "log"
    if zero:
        figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def _strand_fact(row: Row, strand: str, fact: str) -> float | None:
    facts = (row.get("by_strand") or {}).get(strand) or {}
    value = facts.get(fact)
    return None if value is None else float(value)


def _probes(probes: Sequence[Row]) -> list[dict[str, Any]]:
    """Greedy probes: points with Wilson intervals, joined; the count and stage stand in the hover text."""
    known = [probe for probe in probes if probe.get("greedy_accuracy") is not None]
    if not known:
        return []
    shares = [number(probe, "greedy_accuracy") for probe in known]
    counts = [int(number(probe, "n", 0)) for probe in known]
    bounds = [wilson(share, n) for share, n in zip(shares, counts, strict=True)]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "probe, greedy, 95 %",
            "x": [probe["step"] for probe in known],
            "y": shares,
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [high - share for (_, high), share in zip(bounds, shares, strict=True)],
                "arrayminus": [share - low for (low, _), share in zip(bounds, shares, strict=True)],
                "thickness": 1.4,
                "width": 5,
            },
            "text": [f"{probe['stage']}, n = {n}" for probe, n in zip(known, counts, strict=True)],
            "hovertemplate": "%{y:.1%} (%{text})",
            "line": {"color": PROBE, "width": 1, "dash": "dot"},
            "marker": {"color": PROBE, "size": 9},
        }
    ]


def _parts(row: Row) -> float:
    return sum(number(row, f"seconds_{part}", 0.0) for part in PARTS)
