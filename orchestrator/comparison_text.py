"""A comparison for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.experiment_text import interval
from orchestrator.progress import UNKNOWN, clock

CELL = 60
"""Widest value of a key that differs."""
Parts = Mapping[str, Any]


def show(document: Parts, console: Console) -> None:
    """Print what `comparison.document` says: a column for each run, differences against the first."""
    console.print(_columns(document, "", _runs(document["runs"])))
    for name, one in document["sets"].items():
        console.print(_columns(document, f"{name}, {one['prompts']} prompts", _set(one)))
    reach = list(_reach(document["reach"]))
    if reach:
        console.print(_columns(document, "reach of the bank", reach))
    if document["config"]:
        rows = [(one["key"], *(_cell(value) for value in one["values"])) for one in document["config"]]
        console.print(_columns(document, "pipeline", rows))
    sure = f"{document['confidence']:.0%}"
    console.print(f"\nIntervals at {sure}, each for itself; solved: pass rate of at least {document['epsilon']:g}.")
    for note in document["notes"]:
        console.print(Text(note))


def _columns(document: Parts, title: str, rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title=title or None, title_justify="left")
    table.add_column("")
    for one in document["runs"]:
        table.add_column(Text(one["label"]), justify="left")
    for row in rows:
        table.add_row(Text(str(row[0]), "dim"), *(Text(str(cell)) for cell in row[1:]))
    return table


def _runs(runs: Sequence[Parts]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("status", *(f"{one['status']}, {one['steps']} steps" for one in runs)),
        ("measured", *(_where(one) for one in runs)),
        ("trained tokens", *(_count(one["spent"]["trained_tokens"]) for one in runs)),
        ("generated tokens", *(_count(one["spent"]["generated_tokens"]) for one in runs)),
        ("FLOPs, probes included", *(_flops(one["cost"]) for one in runs)),
        ("time in steps", *(clock(one["seconds"]["total"]) for one in runs)),
        ("trained on", *(_shares(one["shares"]) for one in runs)),
        ("decisions", *(_decisions(one["decisions"]) for one in runs)),
    ]
    if any(one["handoffs"] for one in runs):
        rows.append(("roles", *(", ".join(_roles(one["handoffs"])) or UNKNOWN for one in runs)))
    if any(one["missing"] for one in runs):
        rows.append(("missing", *("; ".join(one["missing"]) for one in runs)))
    return rows


def _count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _flops(cost: Parts | None) -> str:
    return UNKNOWN if cost is None or cost["flops"] is None else f"{cost['flops']:.3g}"


def _where(one: Parts) -> str:
    return UNKNOWN if one["step"] is None else f"after step {one['step']}, {one['stage']}"


def _shares(shares: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share) or UNKNOWN


def _decisions(one: Parts) -> str:
    return f"{one['changes']} changes in {one['steps']} steps" if one["steps"] else UNKNOWN


def _roles(handoffs: Mapping[str, Parts]) -> Iterator[str]:
    for stage, told in handoffs.items():
        did = f" ({told['action']})" if told["action"] else ""
        if told["role"] or did:
            yield f"{stage} {told['role'] or UNKNOWN}{did}"


def _set(one: Parts) -> list[Sequence[str]]:
    """Each figure of every run, and below it the others' difference to the first."""
    rows: list[Sequence[str]] = []
    ks: Sequence[Parts] = next((own["pass_at_k"] for own in one["runs"] if own), [])
    for at, figure in enumerate(ks):
        rows.append((f"pass@{figure['k']}", *_told(one["runs"], at)))
        rows.append(("", *_told(one["differences"], at, signed=True)))
    rows.append(("greedy", *(UNKNOWN if own is None else interval(own["greedy"]) for own in one["runs"])))
    apart = ("" if own is None else interval(own["greedy"], signed=True) for own in one["differences"])
    rows.append(("", *apart))
    for key, said in (
        ("both", "solved by both"),
        ("only_first", "solved by the first alone"),
        ("only_this", "solved by this one alone"),
        ("neither", "solved by neither"),
        ("undecided", "undecided"),
    ):
        rows.append((said, *("" if own is None else str(own[key]) for own in one["solved"])))
    if one["answers"]:
        answers = one["answers"]
        told = (UNKNOWN if own is None else interval(own) for own in answers["distinct"])
        rows.append((f"answers in {answers['draws']:.3g} draws", *told))
        rows.append(("", *("" if own is None else interval(own, signed=True) for own in answers["differences"])))
    return rows


def _told(sides: Sequence[Parts | None], at: int, *, signed: bool = False) -> Iterator[str]:
    for own in sides:
        yield ("" if signed else UNKNOWN) if own is None else interval(own["pass_at_k"][at], signed=signed)


def _reach(reach: Sequence[Parts | None]) -> Iterator[Sequence[str]]:
    """The share of a good trajectory that each follows by itself."""
    known = [one["reached"] for one in reach if one]
    if not known:
        return
    first = interval(known[0]["before"])
    yield "followed", first, *(UNKNOWN if one is None else interval(one["reached"]["after"]) for one in reach[1:])
    apart = (UNKNOWN if one is None else interval(one["reached"]["change"], signed=True) for one in reach[1:])
    yield "", "", *apart


def _cell(value: Any) -> str:
    text = str(value)
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"
