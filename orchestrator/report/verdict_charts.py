"""Figures of the verifiers: what they did not judge, how long they took, and the held-out score beside the reward."""

from collections.abc import Iterable
from typing import Any

from orchestrator.history import History
from orchestrator.json_lines import Row
from orchestrator.report.traces import SERIES, Figure, framed, line
from verifiers import health


def verdict_figures(history: History) -> dict[str, Figure]:
    """Every figure that the run has data for, by name, in the order of the report."""
    if not history.steps:
        return {}
    made = {
        "held out": held_out(history),
        "gap": gap(history),
        "unknown": unknown(history),
        "latency": latency(history),
    }
    return {name: figure for name, figure in made.items() if figure["data"]}


def held_out(history: History) -> Figure:
    """Mean reward and mean held-out score."""
    judged = [row for row in history.steps if row.get("held_out_mean") is not None]
    data = [
        line(judged, "reward_mean", "reward", SERIES[0]),
        line(judged, "held_out_mean", "held-out score", SERIES[1]),
    ]
    return framed(history, data, "mean score")


def gap(history: History) -> Figure:
    """The reward less the held-out score, in its interval."""
    known = [row for row in history.steps if row.get("held_out_gap") is not None]
    hidden: dict[str, Any] = {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    low = line(known, "held_out_gap_low", "", SERIES[0]) | hidden
    high = line(known, "held_out_gap_high", "", SERIES[0]) | hidden | {"fill": "tonexty", "fillcolor": f"{SERIES[0]}33"}
    return framed(history, [low, high, line(known, "held_out_gap", "gap", SERIES[0])], "reward less held-out score")


def unknown(history: History) -> Figure:
    """Share without a verdict of each scorer that ever owed one."""
    shares = {int(row["step"]): dict(_shares(row)) for row in history.steps}
    names = sorted({name for own in shares.values() for name, share in own.items() if share > 0})
    data = []
    for at, name in enumerate(names):
        rows = [{"step": step, name: own.get(name)} for step, own in shares.items()]
        data.append(line(rows, name, name, SERIES[at % len(SERIES)]))
    figure = framed(history, data, "share without a verdict")
    figure["layout"]["yaxis"] |= {"rangemode": "tozero", "tickformat": ".0%"}
    return figure


def _shares(row: Row) -> Iterable[tuple[str, float]]:
    """Scorer's name -> its share, in a step."""
    for who, tally in health.read(row.get("scorers") or ()).items():
        if tally.asked:
            yield who.name, tally.unknown_share


def latency(history: History) -> Figure:
    """Of half of the step's verdicts, and of all but one in a hundred."""
    data = [
        line(history.steps, "verdict_seconds_p50", "50 %", SERIES[4]),
        line(history.steps, "verdict_seconds_p99", "99 %", SERIES[1]),
    ]
    figure = framed(history, data, "seconds")
    figure["layout"]["yaxis"] |= {"type": "log"}
    return figure
