"""What a comparison came to: a table, a JSON file, a plot, and the same table for the documents."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.fixed_pipelines import CONTROL
from benchmarks.paired import Interval, difference, interval
from benchmarks.planted_families import FAMILIES
from benchmarks.run_records import MEASURES, Shelf, figure

SPENT = ("trained", "generated", "steps")


def summary(shelf: Shelf, rates: Mapping[str, float], seeds: Sequence[int]) -> dict[str, Any]:
    """Every pipeline's figures over the seeds, and the control's differences from the best fixed one and the others."""
    figures = {
        name: {
            key: interval(list(shelf.values(name, rate, figure(key), seeds).values()))._asdict()
            for key in (*MEASURES, *FAMILIES)
        }
        | {key: statistics.fmean(shelf.values(name, rate, figure(key), seeds).values()) for key in SPENT}
        | {"rate": rate}
        for name, rate in rates.items()
    }
    fixed = [name for name in rates if name != CONTROL]
    best = max(fixed, key=lambda name: figures[name]["accuracy"]["mean"], default=None)
    told = {"scale": asdict(shelf.scale), "seeds": list(seeds), "best_fixed": best, "pipelines": figures}
    if CONTROL not in rates:
        return told | {"differences": {}}

    def less(name: str, key: str) -> Interval:
        ours = shelf.values(CONTROL, rates[CONTROL], figure(key), seeds)
        return difference(ours, shelf.values(name, rates[name], figure(key), seeds))

    return told | {"differences": {name: {key: less(name, key)._asdict() for key in MEASURES} for name in fixed}}


def write(told: Mapping[str, Any], out: Path, console: Console) -> None:
    """Print, and leave bottlenecks.json, bottlenecks.md and bottlenecks.svg in `out`."""
    (out / "bottlenecks.json").write_text(json.dumps(told, indent=1) + "\n")
    rows = _rows(told)
    title = (
        f"{len(told['seeds'])} seeds, mean and 95 % interval; accuracy and families are solve rates at temperature 1"
    )
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column)
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)
    lines = _sentences(told)
    for line in lines:
        console.print(line)
    (out / "bottlenecks.md").write_text("\n".join([*_markdown(rows), "", *lines]) + "\n")
    _draw(told, out / "bottlenecks.svg")


def _ordered(told: Mapping[str, Any]) -> list[str]:
    """Pipelines, the most accurate first."""
    figures = told["pipelines"]
    return sorted(figures, key=lambda name: -figures[name]["accuracy"]["mean"])


def _rows(told: Mapping[str, Any]) -> list[list[str]]:
    head = ["pipeline", "rate", "accuracy", "greedy", *FAMILIES, "gained", "lost", "trained", "generated", "steps"]
    rows = [head]
    for name in _ordered(told):
        own = told["pipelines"][name]
        means = [f"{own[key]['mean']:.2f}" for key in FAMILIES]
        support = [_mean(own[key], 1) for key in ("gained", "lost")]
        spent = [f"{own[key] / 1000:.1f}k" for key in ("trained", "generated")]
        accuracy = [_mean(own[key], 3) for key in ("accuracy", "greedy")]
        rows.append([name, f"{own['rate']:g}", *accuracy, *means, *support, *spent, f"{own['steps']:.0f}"])
    return rows


def _mean(value: Mapping[str, float], digits: int) -> str:
    """Mean and half the interval's width."""
    return f"{value['mean']:.{digits}f} ± {(value['high'] - value['low']) / 2:.{digits}f}"


def _shown(value: Mapping[str, float], digits: int) -> str:
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def _sentences(told: Mapping[str, Any]) -> list[str]:
    best = told["best_fixed"]
    if best not in told["differences"]:
        return []
    own = told["differences"][best]
    parts = [f"accuracy {_shown(own['accuracy'], 3)}", f"greedy {_shown(own['greedy'], 3)}"]
    parts += [f"support {key} {_shown(own[key], 1)}" for key in ("gained", "lost")]
    return [f"{CONTROL} less {best}, seed by seed: {', '.join(parts)}."]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _draw(told: Mapping[str, Any], out: Path) -> None:
    """Accuracy, overall and by family, and support lost and gained: one row for each pipeline."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bottlenecks"  # the same figures give the same file
    import matplotlib.pyplot as plt

    names, figures = _ordered(told)[::-1], told["pipelines"]
    places = range(len(names))
    chart, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 0.34 * len(names) + 1.4), sharey=True)
    left.errorbar(
        [figures[name]["accuracy"]["mean"] for name in names],
        places,
        xerr=[_half(figures[name]["accuracy"]) for name in names],
        fmt="C0o",
        capsize=3,
    )
    left.set(xlabel="accuracy at temperature 1", yticks=list(places), yticklabels=names)
    for index, family in enumerate(FAMILIES):
        middle.plot([figures[name][family]["mean"] for name in names], places, f"C{index}o", label=family, alpha=0.8)
    middle.set(xlabel="by family", xlim=(-0.03, 1.03))
    middle.legend(fontsize=7, loc="center left", bbox_to_anchor=(0.1, 0.5))
    for side, key, colour in ((1, "gained", "C2"), (-1, "lost", "C3")):
        values = [side * figures[name][key]["mean"] for name in names]
        right.barh(
            places, values, xerr=[_half(figures[name][key]) for name in names], color=colour, capsize=2, label=key
        )
    right.axvline(0, color="black", lw=0.8)
    right.set(xlabel="prompts lost and gained")
    for axis in (left, middle, right):
        axis.grid(axis="x", alpha=0.3)
    chart.savefig(out, bbox_inches="tight", metadata={"Date": None})


def _half(value: Mapping[str, float]) -> float:
    """Half the interval's width; 0 where it is not known."""
    return (value["high"] - value["low"]) / 2 if value["high"] == value["high"] else 0.0
