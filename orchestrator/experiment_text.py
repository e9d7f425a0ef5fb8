"""An experiment's table for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.progress import UNKNOWN, clock
from orchestrator.study_checks import changed
from orchestrator.variants import Expanded

VERDICTS = {"better": "bold green", "worse": "bold red", "undecided": "yellow", "unmeasured": "dim", "baseline": "dim"}
MEASURES = {
    "pass_at_1": "pass@1",
    "retained_support": "retained support",
    "shifted": "pass@1 on shifted prompts",
    "guard": "pass@1 on guard prompts",
}


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print what `experiment_table.document` says."""
    console.print()
    console.print(Text.assemble((document["name"], "bold"), f": {document['study']} by {measure(document)}"))
    console.print(_table(document))
    for row in document["variants"]:
        console.print(_runs(row))
    for note in _notes(document):
        console.print(Text(note, "yellow" if "not what" in note else ""))


def measure(document: Mapping[str, Any]) -> str:
    """`pass@16`."""
    return MEASURES.get(document["measure"]) or f"pass@{document['k']}"


def _table(document: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    sure = f"{document['confidence']:.0%}"
    for column in ("variant", measure(document), f"difference, {sure}", "verdict", "seeds", "prompts", "spent"):
        table.add_column(column, justify="left" if column in ("variant", "verdict") else "right", no_wrap=True)
    table.add_column("roles")
    for row in document["variants"]:
        table.add_row(
            Text(row["name"], "bold"),
            interval(row["value"]),
            "" if row["difference"] is None else interval(row["difference"], signed=True),
            Text(row["verdict"], VERDICTS[row["verdict"]]),
            str(row["seeds"]),
            str(row["prompts"]),
            _spent(document, row),
            ", ".join(_roles(row)),
        )
    return table


def interval(one: Mapping[str, Any], *, signed: bool = False) -> str:
    """`+0.031 [-0.004, +0.066]`."""
    if one["value"] is None:
        return UNKNOWN
    form = "+.3f" if signed else ".3f"
    value, low, high = (format(one[key], form) if one[key] is not None else UNKNOWN for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _spent(document: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The mean over runs that ended, in the budget's unit; trained tokens where there is none."""
    unit = document["budget"]["unit"] if document["budget"] else "trained_tokens"
    known = [one["spent"][unit] for one in row["runs"] if one["spent"].get(unit) is not None and not one["missing"]]
    if not known:
        return UNKNOWN
    mean = sum(known) / len(known)
    return clock(mean) if unit == "seconds" else f"{mean:,.4g} {unit.replace('_', ' ')}"


def _roles(row: Mapping[str, Any]) -> Iterator[str]:
    """`imitate expansion 2/3`: each stage's roles over seeds, the count where seeds differ."""
    stages = dict.fromkeys(stage for one in row["runs"] for stage in one["roles"])
    for stage in stages:
        named = [one["roles"][stage] for one in row["runs"] if stage in one["roles"]]
        for role in dict.fromkeys(named):
            count = f" {named.count(role)}/{len(named)}" if len(set(named)) > 1 else ""
            yield f"{stage} {role}{count}"


def _runs(row: Mapping[str, Any]) -> Text:
    """What became of runs that do not count, and whether the claim holds; empty lines are left out."""
    lines = [f"  {one['directory']}: {one['missing']}" for one in row["runs"] if one["missing"]]
    lines += [f"  {one['directory']}: {stage} {did}" for one in row["runs"] for stage, did in one["contract"].items()]
    if row["verdict"] != "baseline" and row["claim"]["told"] != "nothing is claimed":
        lines.append(f"  {row['name']}: {row['claim']['told']}")
    return Text("\n".join(lines), "dim")


def _notes(document: Mapping[str, Any]) -> Iterator[str]:
    yield from document["notes"]
    if document["comparisons"] > 1:
        count = f"{document['comparisons']} comparisons, Bonferroni"
        yield f"All differences hold together at {document['confidence']:.0%} ({count})."


def show_plan(expanded: Expanded, console: Console) -> None:
    """Print what an experiment would run, and how much."""
    study, base = expanded.experiment, expanded.variants[expanded.baseline]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("variant", "stages", "changes"):
        table.add_column(column)
    for name, pipeline in expanded.variants.items():
        stages = ", ".join(f"{one.name} {one.recipe.kind} {one.steps}" for one in pipeline.stages)
        told = "\n".join(f"{key}: {there} (was {here})" for key, (here, there) in changed(base, pipeline).items())
        table.add_row(Text(name, "bold"), Text(stages), Text("the baseline" if name == expanded.baseline else told))
    console.print()
    console.print(Text.assemble(("variants", "bold"), f"  {study.study}, decided by {study.measure}"))
    console.print(table)
    seeds = ", ".join(map(str, study.seeds))
    count = f"{len(expanded.runs)} runs ({len(expanded.variants)} variants x seeds {seeds})"
    console.print(f"{count}, {expanded.steps:,} steps in all{_until(expanded)}")


def _until(expanded: Expanded) -> str:
    budget = expanded.base.budget
    if budget is None:
        return "; no shared budget"
    unit = budget.unit.replace("_", " ")
    amount = f"{budget.amount:,.6g} {unit}" if budget.amount else f"the {unit} that {expanded.baseline} spends"
    return f", or fewer: each run ends at {amount}"
