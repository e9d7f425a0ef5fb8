"""Figures of where the gradient comes from: by writer of the tokens, by age, between strands, and the funnel."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.history import History
from orchestrator.json_lines import Row
from orchestrator.report.origins import COLOURS
from orchestrator.report.traces import SERIES, Figure, bar, framed, line
from orchestrator.summary import responses
from policies.trajectory import Origin

SCORED = {"ok": "#5c6b7a", "timeout": "#c8452f", "error": "#b0506c", "none": "#868e97"}
CAUSES = {
    "control": "#c8452f",
    "context": "#b0506c",
    "select": "#8f7e00",
    "credit": "#8468bd",
    "no_verdict": "#8a6d3b",
    "no_tokens": "#6b7785",
}
"""Cause of a drop -> its colour; see `records.Cause`."""
EARLY = ("control", "context")
"""Causes before credit is given."""


def gradient_figures(history: History) -> dict[str, Figure]:
    """Every figure that the run has data for, by name, in the order of the report."""
    if not history.steps:
        return {}
    made = {
        "funnel": funnel(history),
        "origin mass": shares(history, "gradient_mass", "share of the gradient's mass"),
        "origin tokens": shares(history, "tokens", "share of trained tokens"),
        "origin loss": curves(history, "loss", "loss"),
        "origin ess": curves(history, "ess", "effective sample size, share"),
        "staleness": staleness(history),
        "interference": interference(history),
    }
    return {name: figure for name, figure in made.items() if figure["data"]}


def shares(history: History, fact: str, title: str) -> Figure:
    """Each origin's share of a sum over the step's tokens, stacked to 1."""
    steps = [row["step"] for row in history.steps]
    values = {origin: [_fact(row, origin, fact) or 0.0 for row in history.steps] for origin in Origin}
    whole = [sum(found[at] for found in values.values()) for at in range(len(steps))]
    data = [
        bar(
            steps,
            [own / all_ if all_ else 0.0 for own, all_ in zip(found, whole, strict=True)],
            origin.name.lower(),
            COLOURS[origin],
        )
        for origin, found in values.items()
        if any(found)
    ]
    figure = framed(history, data, title)
    figure["layout"] |= {"barmode": "stack", "bargap": 0}
    figure["layout"]["yaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
    return figure


def curves(history: History, fact: str, title: str) -> Figure:
    """One curve for each origin that knows the fact."""
    data = []
    for origin in Origin:
        rows = [{"step": row["step"], fact: _fact(row, origin, fact)} for row in history.steps]
        trace = line(rows, fact, origin.name.lower(), COLOURS[origin])
        data.append(trace | {"mode": "lines+markers", "marker": {"color": COLOURS[origin], "size": 4}})
    figure = framed(history, data, title)
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def staleness(history: History) -> Figure:
    """Versions between sampling and training -> share of a stage's tokens; what no policy sampled is in none."""
    data = []
    for index, span in enumerate(history.stages):
        behind: Counter[int] = Counter()
        for row in history.steps:
            if row["stage"] == span.name:
                behind.update({int(at): int(count) for at, count in (row.get("staleness") or {}).items()})
        ages, whole = sorted(behind), behind.total()
        if ages:
            colour = SERIES[index % len(SERIES)]
            data.append(bar(ages, [behind[age] / whole for age in ages], span.name, colour))
    figure = _without_steps(framed(history, data, "share of sampled tokens"), "versions behind")
    figure["layout"]["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    figure["layout"]["xaxis"] |= {"dtick": 1} if _short(data) else {}
    return figure


def interference(history: History) -> Figure:
    """Cosine between two strands' gradients in the steps that measured it: below 0 they pull against each other."""
    measured = [row for row in history.steps if row.get("interference")]
    data = []
    for index, pair in enumerate(dict.fromkeys(pair for row in measured for pair in row["interference"])):
        rows = [{"step": row["step"], "cosine": row["interference"].get(pair)} for row in measured]
        colour = SERIES[index % len(SERIES)]
        trace = line(rows, "cosine", pair.replace("|", " and "), colour)
        data.append(trace | {"mode": "lines+markers", "marker": {"color": colour, "size": 6}, "connectgaps": True})
    figure = framed(history, data, "cosine of gradients")
    figure["layout"]["yaxis"] |= {"range": [-1.05, 1.05], "zeroline": True, "zerolinecolor": "rgba(127,140,160,0.6)"}
    return figure


# ---------------------------------------------------------------- the funnel

STATIONS = ("trained", "admitted", "scored", "written and given")
"""From the bottom bar up; each bar is as long as the others, for no response is lost between them."""


def funnel(history: History) -> Figure:
    """What became of all responses of the run: who made them, their verdicts, who went on, who trained."""
    whole = responses(history.steps)
    if not whole["written"] + whole["given"]:
        return framed(history, [], "")
    figure = _without_steps(framed(history, _segments(whole), ""), "responses")
    figure["layout"] |= {"barmode": "stack", "hovermode": "closest", "bargap": 0.35}
    figure["layout"]["margin"] = {"l": 120, "r": 16, "t": 34, "b": 120}
    figure["layout"]["legend"] |= {"y": -0.42, "yanchor": "top"}
    figure["layout"]["yaxis"] |= {"categoryorder": "array", "categoryarray": list(STATIONS)}
    return figure


def _segments(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    trained, admitted, scored, came = STATIONS
    dropped: Mapping[str, int] = whole["dropped"]
    data = [
        _segment({came: whole["written"]}, "written in the step", "#168aad"),
        _segment({came: whole["given"]}, "given", "#6f7d92"),
        *(_segment({scored: n}, _verdict(status), SCORED.get(status, "#8a6d3b")) for status, n in _sorted(whole)),
        _segment({admitted: whole["admitted"]}, "admitted", "#3a8f70"),
        _segment({trained: whole["trained"] - whole["masked"]}, "trained", "#187a4b"),
        _segment({trained: whole["masked"]}, "trained, all masked", "#4f9a70"),
        _segment({trained: whole["aside"]}, "aside", "#868e97"),
    ]
    for cause in dict.fromkeys((*CAUSES, *dropped)):
        at = (admitted, trained) if cause in EARLY else (trained,)
        name = f"dropped: {cause.replace('_', ' ')}"
        data.append(_segment(dict.fromkeys(at, dropped.get(cause, 0)), name, CAUSES.get(cause, "#6b7785")))
    return [trace for trace in data if any(trace["x"])]


def _sorted(whole: Mapping[str, Any]) -> Sequence[tuple[str, int]]:
    """Verdicts by status, those that came first."""
    scored: Mapping[str, int] = whole["scored"]
    return sorted(scored.items(), key=lambda pair: (pair[0] != "ok", pair[0]))


def _verdict(status: str) -> str:
    return {"ok": "verdict", "none": "nobody was asked"}.get(status, f"no verdict: {status}")


def _segment(counts: Mapping[str, int], name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": list(counts.values()),
        "y": list(counts),
        "texttemplate": "%{x:,}",
        "textposition": "inside",
        "insidetextanchor": "middle",
        "hovertemplate": "%{x:,} %{fullData.name}<extra></extra>",
        "marker": {"color": colour, "line": {"width": 0}},
    }


# ---------------------------------------------------------------- rows


def _fact(row: Row, origin: Origin, fact: str) -> float | None:
    value = ((row.get("by_origin") or {}).get(origin.name.lower()) or {}).get(fact)
    return None if value is None else float(value)


def _short(data: Sequence[Mapping[str, Any]]) -> bool:
    return max((max(trace["x"]) for trace in data), default=0) <= 20


def _without_steps(figure: Figure, title: str) -> Figure:
    """A figure whose axis is not that of steps has no stages behind it."""
    figure["layout"] |= {"shapes": [], "annotations": []}
    figure["layout"]["xaxis"] |= {"title": {"text": title}}
    return figure
