"""What a run came to: accuracy before and after each stage, who wrote its tokens, where its time went."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator import costs
from orchestrator.history import History, StageSpan, read_history
from orchestrator.json_lines import Row, plain
from orchestrator.probes.intervals import wilson
from orchestrator.progress import UNKNOWN, clock, number, shown
from orchestrator.report.origins import ON_TERMINAL, SHARES, label
from verifiers import health
from verifiers.score import Status

PARTS = ("generate", "score", "train", "publish", "ledger")
"""Where a step's time goes; the rest is `other`. Parts overlap where samplers run ahead."""
PLAIN_WIDTH = 120
"""Columns of a table that goes to a file."""


def summarise(directory: Path) -> dict[str, Any]:
    """The summary as JSON values; unknown figures are None."""
    history = read_history(directory)
    summary: dict[str, Any] = plain(
        {
            "name": history.config.get("name", ""),
            "status": history.status,
            "steps": len(history.steps),
            "stages": [_stage(history, span) for span in history.stages],
            "seconds": time_split(history.steps),
            "tokens_trained": int(_total(history.steps, "tokens_trained")),
            "tokens_generated": int(_total(history.steps, "tokens_generated")),
            "label_tokens": int(_total(history.steps, "label_tokens")),
            "cost": costs.of_run(history),
            "responses": responses(history.steps),
            "scorers": scorers(history.steps),
            "report": history.run.report,
        }
    )
    return summary


def print_summary(directory: Path, console: Console | None = None) -> dict[str, Any]:
    """Prints the summary, writes it as summary.json beside the report, and returns it."""
    summary = summarise(directory)
    (Path(directory) / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    console.print(_table(summary))
    split = summary["seconds"]
    parts = (*PARTS, *(("label",) if "label" in split else ()), "other")
    told = ", ".join(f"{part} {_percent(split[part], split['total'])}" for part in parts)
    console.print(f"{clock(split['total'])} in steps: {told}")
    console.print(f"{summary['tokens_generated']:,} tokens generated, {summary['tokens_trained']:,} trained")
    if summary["label_tokens"]:
        console.print(f"{summary['label_tokens']:,} more tokens generated to label steps")
    if told := _of_cost(summary["cost"]):
        console.print(told)
    console.print(_of_responses(summary["responses"]))
    for one in summary["scorers"]:
        if one["name"] in ("reward", "held_out"):
            console.print(_of_scorer(one))
    console.print(f"{summary['status']}; report: {summary['report']}", soft_wrap=True, markup=False)
    return summary


def time_split(steps: Iterable[Row]) -> dict[str, float]:
    """Seconds of each part over these steps, the rest, and the total."""
    rows = list(steps)
    split = {part: _total(rows, f"seconds_{part}") for part in PARTS}
    if labelling := _total(rows, "seconds_label"):
        split["label"] = labelling
    total = _total(rows, "seconds")
    return {**split, "other": max(0.0, total - sum(split.values())), "total": total}


def token_shares(steps: Iterable[Row]) -> dict[str, float]:
    """Who wrote the tokens that these steps trained on, each token counting once."""
    rows = [row for row in steps if number(row, "tokens_trained", 0.0) > 0]
    total = _total(rows, "tokens_trained")
    return {
        label(key): sum(number(row, key, 0.0) * row["tokens_trained"] for row in rows) / total if total else math.nan
        for key in SHARES
    }


WAY = ("written", "given", "admitted", "trained", "masked", "aside", "unaccounted")


def responses(steps: Iterable[Row]) -> dict[str, Any]:
    """What became of all responses of these steps: the sum of their funnels (`accounting.funnel`)."""
    known = [row["funnel"] for row in steps if isinstance(row.get("funnel"), Mapping)]
    return _added(known)


def responses_by_strand(steps: Iterable[Row]) -> dict[tuple[str, str], dict[str, Any]]:
    """(stage, strand) -> what became of the responses that the strand asked for."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in steps:
        for strand, own in ((row.get("funnel") or {}).get("by_strand") or {}).items():
            found.setdefault((str(row["stage"]), str(strand)), []).append(own)
    return {place: _added(rows) for place, rows in found.items()}


def scorers(steps: Iterable[Row]) -> list[dict[str, Any]]:
    """How each scorer of each version fared over these steps: verdicts, why others are missing, values, latencies."""
    tallies = health.added(health.read(row.get("scorers") or ()) for row in steps)
    return [
        {
            "name": who.name,
            "scorer": who.scorer,
            "version": who.version,
            "asked": tally.asked,
            **{status.value: tally.counts.get(status.value, 0) for status in Status},
            "low": tally.low if tally.verdicts else math.nan,
            "high": tally.high if tally.verdicts else math.nan,
            **{f"seconds_p{share:g}": tally.seconds(share / 100) for share in (50, 90, 99)},
        }
        for who, tally in tallies.items()
    ]


def _added(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    counts, scored, dropped = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        counts.update({key: int(row.get(key) or 0) for key in WAY})
        scored.update(row.get("scored") or {})
        dropped.update(row.get("dropped") or {})
    return {**{key: counts[key] for key in WAY}, "scored": dict(scored), "dropped": dict(dropped)}


def _stage(history: History, span: StageSpan) -> dict[str, Any]:
    steps = [row for row in history.steps if row["stage"] == span.name]
    before, after = history.probe_at(span.first - 1), history.probe_at(span.last)
    measured = after if after is not None and after["step"] >= span.first else None
    return {
        "name": span.name,
        "steps": len(steps),
        "planned": span.planned,
        "before": _accuracy(before),
        "after": _accuracy(measured),
        "shares": token_shares(steps),
        "seconds": time_split(steps),
        "tokens_trained": int(_total(steps, "tokens_trained")),
        "tokens_generated": int(_total(steps, "tokens_generated")),
    }


def _accuracy(probe: Row | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    share, n = number(probe, "greedy_accuracy"), int(number(probe, "n", 0))
    low, high = wilson(share, n)
    sampled = number(probe, "sampled_accuracy")
    return {"step": probe["step"], "greedy": share, "sampled": sampled, "n": n, "low": low, "high": high}


def _total(rows: Iterable[Row], key: str) -> float:
    return sum(number(row, key, 0.0) for row in rows)


# ---------------------------------------------------------------- table


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"{summary['name']}: {summary['steps']} steps", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "steps", "accuracy before", "accuracy after", "n", "time"):
        table.add_column(column, justify="left" if column == "stage" else "right", header_style="dim", no_wrap=True)
    table.add_column("trained tokens from", header_style="dim")
    for stage in summary["stages"]:
        after = stage["after"]
        table.add_row(
            stage["name"],
            f"{stage['steps']}/{stage['planned']}",
            _told(stage["before"]),
            _told(after),
            str(after["n"]) if after else UNKNOWN,
            clock(stage["seconds"]["total"]),
            _shares(stage["shares"]),
        )
    return table


def _of_responses(way: Mapping[str, Any]) -> str:
    """`120 responses written and 40 given: 100 trained, 20 aside, 40 dropped (30 control, 10 select)`."""
    causes = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in way["dropped"].items())
    dropped = f"{sum(way['dropped'].values()):,} dropped" + (f" ({causes})" if causes else "")
    aside = f"{way['aside']:,} aside, " if way["aside"] else ""
    return (
        f"{way['written']:,} responses written and {way['given']:,} given: {way['trained']:,} trained, {aside}{dropped}"
    )


def _of_cost(cost: Mapping[str, float | None]) -> str:
    """`3.2e+12 FLOPs, 21 % of them in probes: 4.1e+08 a response that trained, 9e+08 one that passed; price 0.31`."""
    total, probes = cost["flops"], cost["flops_probes"]
    if not total:
        return "" if cost["price"] is None else f"price {cost['price']:.4g}"
    each = [(cost["flops_each_trained"], "a response that trained"), (cost["flops_each_passed"], "one that passed")]
    told = ", ".join(f"{value:.3g} {what}" for value, what in each if value is not None)
    price = "" if cost["price"] is None else f"; price {cost['price']:.4g}"
    return f"{total:.3g} FLOPs, {_percent(probes or 0.0, total)} of them in probes{f': {told}' if told else ''}{price}"


def _of_scorer(one: Mapping[str, Any]) -> str:
    """`reward: 998 of 1,000 judged by math 3f2a (2 timeout); 0.01 s for half of them, 0.3 s for 99 %`."""
    missing = ", ".join(f"{one[key]:,} {key}" for key in ("error", "timeout", "refused") if one[key])
    half, most = (UNKNOWN if one[key] is None else shown(one[key]) for key in ("seconds_p50", "seconds_p99"))
    told = f"{one['name']}: {one['ok']:,} of {one['asked']:,} judged by {one['scorer']} {one['version']}"
    return f"{told}{f' ({missing})' if missing else ''}; {half} s for half of them, {most} s for 99 %"


def _told(accuracy: Mapping[str, Any] | None) -> str:
    """Accuracy and half the width of its interval, in percent."""
    if accuracy is None or accuracy["greedy"] is None:
        return UNKNOWN
    return f"{accuracy['greedy']:.1%} ± {(accuracy['high'] - accuracy['low']) / 2:.1%}"


def _shares(shares: Mapping[str, float | None]) -> Text:
    text = Text()
    for key, origin in SHARES.items():
        share = shares[label(key)]
        if share:
            text.append(f"{label(key)} {share:.0%}  ", style=ON_TERMINAL[origin])
    return text


def _percent(part: float, total: float) -> str:
    return f"{part / total:.0%}" if total else UNKNOWN
