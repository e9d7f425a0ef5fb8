"""Figures of what the controls decided: who got the step's prompts, how much each strand counts, what became of groups.

The reasons stand in the hover text. Marks are the steps in which a buffer gave its prompts to their strand.
"""

import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.history import History
from orchestrator.json_lines import Row
from orchestrator.report.traces import SERIES, Figure, bar, framed, line
from orchestrator.report.visible import one_line

KEPT, DROPPED, REDRAWN = "#168aad", "#c8452f", "#8f7e00"
ROUTES = {"kept": KEPT, "dropped": DROPPED, "redrawn": REDRAWN}
"""What becomes of a group in the end, and its colour."""
BEHIND = 0.45
"""Opacity of bars that points are seen on."""
MOST_REASONS = 2000
"""Of a long run, the newest so many steps tell their reasons when pointed at; the ledger has them all."""
REASON_CHARACTERS = 240
HOVER_COLUMNS = 70


def decision_figures(history: History) -> dict[str, Figure]:
    """Every figure that the run's decisions have data for, by name, in the order of the report."""
    rows = [row for row in history.decisions if isinstance(row.get("plan"), Mapping)]
    if not rows:
        return {}
    made = {
        "strand shares": strand_shares(history, rows),
        "places": planned(history, rows, "places"),
        "classes": planned(history, rows, "classes"),
        "coefficients": coefficients(history, rows),
        "verdicts": verdicts(history, rows),
    }
    return {name: figure for name, figure in made.items() if figure["data"]}


def strand_shares(history: History, rows: Sequence[Row]) -> Figure:
    """Each strand's share of the tokens that a step trained on, stacked to 1; nothing where there is one strand."""
    tokens = {row["step"]: _tokens(row) for row in history.steps}
    names, strands = _names(tokens.values()), _strands(history, rows)
    whole = {step: sum(found.values()) for step, found in tokens.items()}
    shares = [
        bar(
            list(tokens),
            [found.get(name, 0.0) / whole[step] if whole[step] else 0.0 for step, found in tokens.items()],
            name,
            _colour(strands, name),
        )
        for name in names
        if len(names) > 1
    ]
    return _stacked(framed(history, [*shares, *(_why(rows, 1.0) if shares else [])], "share of trained tokens"))


def planned(history: History, rows: Sequence[Row], key: str) -> Figure:
    """The step's prompts by the strands that they are for (places), or by their class, stacked."""
    found = {row["step"]: _counts(row["plan"], key) for row in rows}
    names = _names(found.values())
    strands = list(dict.fromkeys((*_strands(history, rows), *names))) if key == "places" else names
    told = len(names) > 1 or any(name != "all" for name in names)
    steps = list(found)
    data = [
        bar(steps, [found[step].get(name, 0.0) for step in steps], name, _colour(strands, name))
        for name in names
        if told
    ]
    top = max((sum(one.values()) for one in found.values()), default=0.0)
    figure = _stacked(framed(history, [*data, *(_why(rows, top) if data else [])], "prompts"))
    figure["layout"]["yaxis"] |= {"range": None, "tickformat": None, "rangemode": "tozero"}
    return figure


def coefficients(history: History, rows: Sequence[Row]) -> Figure:
    """Each strand's coefficient, 0 where it rests, and marks where a buffer fired; nothing where all are always 1."""
    found = {row["step"]: _counts(row["plan"], "coefficients") for row in rows}
    names, strands = _names(found.values()), _strands(history, rows)
    moved = any(value != 1.0 for one in found.values() for value in one.values())
    curves = [
        line([{"step": step, name: one.get(name)} for step, one in found.items()], name, name, _colour(strands, name))
        for name in names
        if moved
    ]
    for curve in curves:
        curve["line"]["shape"] = "hvh"
    data = [*curves, *(_fired(rows, strands) if curves else []), *(_why(rows, 1.0) if curves else [])]
    figure = framed(history, data, "coefficient")
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def verdicts(history: History, rows: Sequence[Row]) -> Figure:
    """What became of the step's groups (bars), and what controls did to them on the way (points)."""
    found = {row["step"]: _counts(row, "verdicts") for row in rows}
    names, steps = _names(found.values()), list(found)
    bars = [
        bar(steps, [found[step].get(name, 0.0) for step in steps], name, colour) | {"opacity": BEHIND}
        for name, colour in ROUTES.items()
        if name in names
    ]
    others = [name for name in names if name not in ROUTES]
    points = [_points(found, name, SERIES[(2 + at) % len(SERIES)]) for at, name in enumerate(others)]
    told = points or len(bars) > 1
    figure = framed(history, [*bars, *points] if told else [], "groups")
    figure["layout"] |= {"barmode": "stack", "bargap": 0}
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


# ---------------------------------------------------------------- traces


def _points(found: Mapping[int, Mapping[str, float]], name: str, colour: str) -> dict[str, Any]:
    trace = line([{"step": step, name: one.get(name, 0.0)} for step, one in found.items()], name, name, colour, 1.0)
    return trace | {"mode": "lines+markers", "marker": {"color": colour, "size": 5}}


def _fired(rows: Sequence[Row], strands: Sequence[str]) -> list[dict[str, Any]]:
    """A mark for each step that a buffer gave to its strand, with the number of prompts."""
    marks = []
    for name in strands:
        steps = {row["step"]: count for row in rows if (count := _counts(row["plan"], "own_prompts").get(name))}
        if steps:
            symbol = {"symbol": "triangle-down", "size": 10, "color": _colour(strands, name)}
            marks.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{name}'s buffer fires",
                    "x": list(steps),
                    "y": [1.06] * len(steps),
                    "text": [f"{count:.0f} prompts that waited" for count in steps.values()],
                    "hovertemplate": "%{text}",
                    "marker": symbol,
                }
            )
    return marks


def _why(rows: Sequence[Row], height: float) -> list[dict[str, Any]]:
    """The reasons, as a trace that is only seen when it is pointed at."""
    rows = rows[-MOST_REASONS:]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "why",
            "x": [row["step"] for row in rows],
            "y": [height] * len(rows),
            "text": [_told(str(row.get("reason", ""))) for row in rows],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"opacity": 0, "size": 1},
            "showlegend": False,
        }
    ]


def _told(reason: str) -> str:
    """Hover text of some lines; plotly reads a few tags, and others' text is none of them."""
    lines = textwrap.wrap(one_line(reason, REASON_CHARACTERS), HOVER_COLUMNS)
    return "<br>".join(html.escape(part, quote=False) for part in lines)


def _stacked(figure: Figure) -> Figure:
    figure["layout"] |= {"barmode": "stack", "bargap": 0}
    figure["layout"]["yaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
    return figure


# ---------------------------------------------------------------- rows


def _counts(row: Mapping[str, Any], key: str) -> dict[str, float]:
    """A row's figures under a key that older rows do not have."""
    found = row.get(key)
    return {str(name): float(value) for name, value in found.items()} if isinstance(found, Mapping) else {}


def _tokens(row: Row) -> dict[str, float]:
    strands = row.get("by_strand") or {}
    return {name: float(facts.get("tokens") or 0.0) for name, facts in strands.items()}


def _names(found: Iterable[Mapping[str, float]]) -> list[str]:
    """Every name, in the order of its first appearance."""
    return list(dict.fromkeys(name for one in found for name in one))


def _strands(history: History, rows: Sequence[Row]) -> list[str]:
    """Every strand, in the order that all figures colour them in."""
    return _names([*map(_tokens, history.steps), *(_counts(row["plan"], "coefficients") for row in rows)])


def _colour(names: Sequence[str], name: str) -> str:
    return SERIES[names.index(name) % len(SERIES)]
