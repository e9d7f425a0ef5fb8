"""What figures are made of: curves, bars and the frame that all of them share, as plotly's JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.history import History

Figure = dict[str, Any]

BANDS = ("rgba(127,140,160,0.10)", "rgba(127,140,160,0.00)")
SERIES = ("#168aad", "#c8452f", "#8468bd", "#8f7e00", "#5c6b7a", "#b0506c")
"""Colours of what is no origin: none of them stands for a writer of tokens."""


def line(rows: Iterable[Mapping[str, Any]], key: str, name: str, colour: str, width: float = 1.8) -> dict[str, Any]:
    """A curve of a key over steps; unknown values are gaps."""
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


def bar(x: Sequence[int], y: Sequence[float], name: str, colour: str) -> dict[str, Any]:
    """A bar at each step."""
    marker = {"color": colour, "line": {"width": 0}}
    return {"type": "bar", "name": name, "x": list(x), "y": list(y), "marker": marker}


def framed(history: History, data: list[dict[str, Any]], title: str) -> Figure:
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
