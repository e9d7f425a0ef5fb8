"""A plan in words, for the terminal."""

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.composition import say_control, say_credit, say_source, say_term
from orchestrator.legality import Verdict
from orchestrator.needs import reads_advantage, templates
from orchestrator.plan import Plan, StagePlan
from orchestrator.recipes.schema import CoLearner, Labels
from policies.config import Strand

RESTING = ("alternate", "bernoulli", "buffer", "start_when", "bottleneck")
"""Kinds of controls by whose word a strand is not asked for all that it could give."""


def show(plan: Plan, console: Console) -> None:
    """Print the plan, stage by stage."""
    console.print(Text.assemble((plan.name, "bold"), f"  {_model(plan.model)}"))
    console.print(table([(name, said) for name, said in plan.actors.items()]))
    for stage in plan.stages:
        console.print(_stage(stage))
    if plan.repairs:
        console.print(Text("\nrepairs, run only where a contract asks for one", "dim"))
    for stage in plan.repairs:
        console.print(_stage(stage))
    refused = [stage.name for stage in plan.stages if not stage.legal]
    console.print()
    console.print(Text(f"refused: {', '.join(refused)}", "bold red") if refused else Text("legal", "bold green"))


def _model(model: dict[str, Any]) -> str:
    return f"{model['kind']} {model.get('path') or model.get('preset')}, {model['dtype']}, context {model['context']}"


def _stage(stage: StagePlan) -> RenderableType:
    at_most = "at most " if any(control.kind in RESTING for control in stage.controls) else ""
    shares = ", ".join(f"{share:.0%} {producer}" for producer, share in stage.shares.items())
    about = [
        ("recipe", f"{stage.recipe}: {stage.summary}"),
        ("from", stage.citation),
        ("labels", say_labels(Labels.model_validate(stage.labels))),
        ("steps", f"{stage.steps} of {at_most}{stage.trajectories} trajectories ({shares})"),
        *say_parts(stage.strands, stage.learners),
        *_controls(stage),
        *((view.name, view.supplier + (f": {view.note}" if view.note else "")) for view in stage.views),
        *(("contract", line) for line in stage.contract),
        *(("note", note) for note in stage.notes),
    ]
    parts: list[RenderableType] = [Text(), Text(stage.name, "bold"), table(about)]
    parts += [Padding(_verdict(verdict), (0, 0, 0, 2), expand=False) for verdict in stage.verdicts]
    return Group(*parts)


def _controls(stage: StagePlan) -> Iterator[tuple[str, str]]:
    """Every control as it is written, and below it what it does."""
    for control, does in zip(stage.controls, stage.schedule, strict=True):
        yield "control", f"{say_control(control)}\n{does}"


def say_labels(labels: Labels) -> str:
    """`on · reward · reshaping`."""
    return " · ".join([labels.provenance, ", ".join(labels.interface), ", ".join(labels.role)])


def say_parts(strands: tuple[Strand, ...], learners: tuple[CoLearner, ...]) -> Iterator[tuple[str, str]]:
    """(name, what it is) of every strand and co-learner."""
    for strand in strands:
        said = ", ".join(say_source(strand.source))
        if reads_advantage(strand):
            said += f"; advantage {', '.join(say_credit(strand.credit))}"
        terms = [f"{term.name}: {say_term(term)}" for term in strand.terms]
        shown = [f"{key}: {json.dumps(text, ensure_ascii=False)}" for key, text in templates(strand.source)]
        yield f"strand {strand.name}", "\n".join([said, *shown, *(terms or ["serves its group alone"])])
    for learner in learners:
        warmup = f" after {learner.warmup} steps alone" if learner.warmup else ""
        terms = [f"{strand.name}.{term.name}: {say_term(term)}" for strand in learner.strands for term in strand.terms]
        yield f"learner {learner.name}", "\n".join([f"{learner.role} with a scalar head{warmup}", *terms])


def table(rows: list[tuple[str, str]]) -> Table:
    """Names beside what is said of them."""
    found = Table.grid(padding=(0, 2))
    found.add_column(style="dim", no_wrap=True)
    found.add_column()
    for name, said in rows:
        found.add_row(f"  {name}", Text(said))
    return found


def _verdict(verdict: Verdict) -> Text:
    style = {"error": "bold red", "warning": "yellow", "declared": "cyan"}[verdict.level]
    where = f" {verdict.where}" if verdict.where else ""
    fix = f"; {verdict.fix}" if verdict.fix else ""
    return Text.assemble((verdict.level, style), f" {verdict.rule}{where}: {verdict.text}{fix}")
