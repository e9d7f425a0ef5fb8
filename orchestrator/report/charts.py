"""Figures of the report as plotly's JSON: traces and layout as plain data, one function a figure.

Stages are bands behind every curve; origins have the colours of `report.origins`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.history import History
from orchestrator.json_lines import Row
from orchestrator.progress import number
from orchestrator.report.origins import COLOURS, SHARES, label
from orchestrator.summary import PARTS, wilson
from policies.trajectory import Origin

Figure = dict[str, Any]

BANDS = ("rgba(127,140,160,0.10)", "rgba(127,140,160,0.00)")
SERIES = ("#56b4e9", "#d55e00", "#a58bd4", "#b8a200", "#5f9ea0", "#c06c84")
"""Colours of what is no origin: none of them stands for a writer of tokens."""
PROBE = "#d55e00"
PART_COLOURS = {
    "generate": "#56b4e9",
    "score": "#a58bd4",
    "train": "#d55e00",
    "publish": "#b8a200",
    "ledger": "#6b7785",
    "other": "#b0b7bf",
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
        _line(history.steps, "reward_mean", "reward of rollouts", SERIES[0], width=1.2),
        _line(history.steps, "accuracy", "accuracy of rollouts", COLOURS[Origin.LEARNER], width=1.2),
        *_probes(history.probes),
    ]
    figure = _figure(history, data, "share")
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def provenance(history: History) -> Figure:
    """Who wrote the tokens that each step trained on, stacked to 1."""
    steps = [row["step"] for row in history.steps]
    data = []
    for key, origin in SHARES.items():
        if any(number(row, key, 0.0) > 0 for row in history.steps):
            data.append(_bar(steps, [number(row, key, 0.0) for row in history.steps], label(key), COLOURS[origin]))
    figure = _figure(history, data, "share of trained tokens")
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
            data.append(_line(rows, fact, strand, SERIES[index % len(SERIES)]))
    figure = _figure(history, data, title)
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def time(history: History) -> Figure:
    """Where each step's seconds went."""
    parts = {part: [number(row, f"seconds_{part}", 0.0) for row in history.steps] for part in PARTS}
    parts["other"] = [max(0.0, number(row, "seconds", 0.0) - _parts(row)) for row in history.steps]
    steps = [row["step"] for row in history.steps]
    data = [_bar(steps, seconds, part, PART_COLOURS[part]) for part, seconds in parts.items()] if steps else []
    figure = _figure(history, data, "seconds a step")
    figure["layout"] |= {"barmode": "stack", "bargap": 0.1}
    return figure


def _curves(history: History, keys: Mapping[str, str], title: str, *, log: bool = False, zero: bool = False) -> Figure:
    """Curves of these keys of the metrics rows; those that no row knows are left out."""
    known = {key: name for key, name in keys.items() if any(row.get(key) is not None for row in history.steps)}
    colours = dict(zip(known, SERIES, strict=False))
    figure = _figure(history, [_line(history.steps, key, known[key], colours[key]) for key in known], title)
    if log:
        figure["layout"]["yaxis"]["type"] = "log"
    if zero:
        figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def _strand_fact(row: Row, strand: str, fact: str) -> float | None:
    facts = (row.get("by_strand") or {}).get(strand) or {}
    value = facts.get(fact)
    return None if value is None else float(value)


def _line(rows: Iterable[Mapping[str, Any]], key: str, name: str, colour: str, width: float = 1.8) -> dict[str, Any]:
    rows = list(rows)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [row["step"] for row in rows],
        "y": [row.get(key) for row in rows],
        "line": {"color": colour, "width": width},
        "connectgaps": False,
    }


def _bar(x: Sequence[int], y: Sequence[float], name: str, colour: str) -> dict[str, Any]:
    marker = {"color": colour, "line": {"width": 0}}
    return {"type": "bar", "name": name, "x": list(x), "y": list(y), "marker": marker}


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


def _figure(history: History, data: list[dict[str, Any]], title: str) -> Figure:
    """The layout that every figure shares: stage bands, a legend above; the page gives the colours of text and grid."""
    data = [trace for trace in data if any(value is not None for value in trace["y"])]
    return {
        "data": data,
        "layout": {
            "margin": {"l": 56, "r": 16, "t": 34, "b": 40},
            "height": 300,
            "xaxis": {"title": {"text": "step"}, "zeroline": False},
            "yaxis": {"title": {"text": title}, "zeroline": False},
            "legend": {"orientation": "h", "traceorder": "normal", "y": 1.0, "yanchor": "bottom", "x": 0},
            "hovermode": "x unified",
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#9aa4b0", "activecolor": "#667180"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "shapes": [_band(history, index) for index in range(len(history.stages))],
            "annotations": [_name(span.name, span.first, span.last) for span in history.stages],
        },
    }


def _band(history: History, index: int) -> dict[str, Any]:
    span = history.stages[index]
    edges = {"x0": span.first - 0.5, "x1": span.last + 0.5, "y0": 0, "y1": 1}
    colour = {"fillcolor": BANDS[index % 2], "line": {"width": 0}}
    return {"type": "rect", "xref": "x", "yref": "paper", "layer": "below", **edges, **colour}


def _name(name: str, first: int, last: int) -> dict[str, Any]:
    place = {"x": (first + last) / 2, "y": 0.0, "xref": "x", "yref": "paper", "yanchor": "bottom"}
    return {"text": name, "showarrow": False, "font": {"size": 11}, "opacity": 0.6, **place}


def _parts(row: Row) -> float:
    return sum(number(row, f"seconds_{part}", 0.0) for part in PARTS)
