"""A plan in words, for the terminal."""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.legality import Verdict
from orchestrator.plan import Plan, StagePlan


def show(plan: Plan, console: Console) -> None:
    """Print the plan, stage by stage."""
    console.print(Text.assemble((plan.name, "bold"), f"  {_model(plan.model)}"))
    console.print(_table([(name, said) for name, said in plan.actors.items()]))
    for stage in plan.stages:
        console.print(_stage(stage))
    refused = [stage.name for stage in plan.stages if not stage.legal]
    console.print()
    console.print(Text(f"refused: {', '.join(refused)}", "bold red") if refused else Text("legal", "bold green"))


def _model(model: dict[str, Any]) -> str:
    return f"{model['kind']} {model.get('path') or model.get('preset')}, {model['dtype']}, context {model['context']}"


def _stage(stage: StagePlan) -> RenderableType:
    labels = stage.labels
    shares = ", ".join(f"{share:.0%} {producer}" for producer, share in stage.shares.items())
    about = [
        ("recipe", f"{stage.recipe}: {stage.summary}"),
        ("from", stage.citation),
        ("labels", f"{labels['provenance']} · {', '.join(labels['interface'])} · {', '.join(labels['role'])}"),
        ("steps", f"{stage.steps} of {stage.trajectories} trajectories ({shares})"),
    ]
    about += [(f"strand {strand['name']}", _strand(strand)) for strand in stage.strands]
    about += [("control", say_control(control)) for control in stage.controls]
    about += [(view.name, view.supplier + (f": {view.note}" if view.note else "")) for view in stage.views]
    parts: list[RenderableType] = [Text(), Text(stage.name, "bold"), _table(about)]
    parts += [Padding(_verdict(verdict), (0, 0, 0, 2), expand=False) for verdict in stage.verdicts]
    return Group(*parts)


def _strand(strand: dict[str, Any]) -> str:
    return "\n".join([f"{say_source(strand)}; {say_credit(strand)}", *(say_term(term) for term in strand["terms"])])


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, said in rows:
        table.add_row(f"  {name}", Text(said))
    return table


def _verdict(verdict: Verdict) -> Text:
    style = {"error": "bold red", "warning": "yellow", "declared": "cyan"}[verdict.level]
    where = f" {verdict.where}" if verdict.where else ""
    fix = f"; {verdict.fix}" if verdict.fix else ""
    return Text.assemble((verdict.level, style), f" {verdict.rule}{where}: {verdict.text}{fix}")


def say_source(strand: dict[str, Any]) -> str:
    """`8 rollouts a prompt`."""
    source = strand["source"]
    count, unit = (source["per_prompt"], "prompt") if source["per_prompt"] else (source["per_step"], "step")
    return f"{count} {source['producer']}{'s' if count > 1 else ''} a {unit}"


def say_credit(strand: dict[str, Any]) -> str:
    """`reward - mean, over std`, `1 on every token`, `teacher - behavior`."""
    credit = strand["credit"]
    if credit["kind"] == "constant":
        return f"advantage {credit['value']:g} on every token"
    if credit["kind"] == "teacher_gap":
        return f"{credit['scale']:g} x (log p teacher - log p behavior) on each token"
    baseline = {"zero": "", "mean": " - group mean", "leave_one_out": " - mean of the others"}[credit["baseline"]]
    scale = {"none": "", "std": ", over the group's deviation", "mean": ", over the group's mean"}[credit["scale"]]
    return f"reward{baseline}{scale}" + (" (own rollouts' alone)" if credit["scope"] == "on_policy" else "")


def say_term(term: dict[str, Any]) -> str:
    """`point(old, clip 0.2/0.2) x 1, mean over sequence`."""
    kernel = term["kernel"]
    match kernel["kind"]:
        case "point":
            level = ", geometric" if kernel["level"] == "geometric" else ""
            said = f"point({kernel['denominator']}{level}, {_numbers(kernel['shape'])})"
        case "div":
            said = f"div({kernel['form']}, {kernel['target']})"
        case _:
            said = f"set({kernel['link']}, beta {kernel['beta']:g})"
    weights = "".join(f" x {weight['kind']}" for weight in term["weights"])
    reduce = f"{term['reduce']['kind']} {term['reduce']['length'] or ''}".strip()
    return f"{term['name']}: {said}{weights} / {reduce}" + (
        "" if term["coefficient"] == 1 else f" x {term['coefficient']:g}"
    )


def _numbers(variant: dict[str, Any]) -> str:
    """`clip low 0.2 high 0.2`: a variant's kind and what it is set to."""
    return " ".join([variant["kind"], *(f"{key} {value:g}" for key, value in variant.items() if _is_number(value))])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def say_control(content: dict[str, Any]) -> str:
    """`mixture: strand demonstrations, ...`."""
    return f"{content['kind']}: " + ", ".join(f"{key} {value}" for key, value in content.items() if key != "kind")
