"""`braid probe`: what a model can reach: pass@k, the answers it gives, how far it follows good trajectories."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.commands import measured
from orchestrator.commands.measured import Demonstrations, Limit, MaxTokens, Model, Prompts, Samples, Step, Verifier
from orchestrator.options import InProcess, Json, Sets, print_json
from orchestrator.probes.intervals import Interval


def add(app: typer.Typer) -> None:
    """The command `probe`."""

    @app.command()
    def probe(  # noqa: PLR0913  (an option each)
        model: Model,
        prompts: Prompts = None,
        demonstrations: Demonstrations = None,
        verifier: Verifier = "",
        step: Step = None,
        samples: Samples = 64,
        limit: Limit = 256,
        max_tokens: MaxTokens = 512,
        out: Annotated[
            Path | None, typer.Option(help="Parquet file for the responses; it must not exist.", show_default=False)
        ] = None,
        sets: Sets = [],  # noqa: B006
        as_json: Json = False,
        in_process: InProcess = False,
    ) -> None:
        """Measure what a model folder, or a checkpoint of a run, can reach, with intervals. Nothing is trained.

        Of a run: its own held-out prompts and verifier, at any checkpoint that it kept; the run is not changed.

        Example: [bold]braid probe runs/first --step 400 --samples 128[/], or
        [bold]braid probe models/smollm2 --prompts tasks.jsonl --out probe.parquet[/]
        """
        from orchestrator.subject import Asked, subject

        asked = Asked(model, prompts, step, demonstrations, verifier, max_tokens, tuple(sets), in_process)
        read = subject(asked, out)
        from orchestrator.json_lines import plain
        from orchestrator.measuring import Countdown
        from orchestrator.probing_now import probe as measure

        _, found = measure(read, samples=samples, limit=limit, progress=Countdown(in_process), file=out)
        if as_json:
            print_json(plain(found))
        else:
            tell(found)


def tell(found: dict[str, Any]) -> None:
    """Tables of pass@k, answers and reach."""
    for name in ("completion", "scaffolded"):
        if found[name] is not None:
            _completion(found[name], "" if name == "completion" else " under the scaffold")
    reach = found["reach"]
    if reach is not None:
        print(
            f"reach of {reach['trajectories']} good trajectories: {_between(reach['reached'])} are written with "
            f"probability epsilon; of one the policy follows {_between(reach['followed'])} before it leaves it"
        )
        print(f"in the way: {', '.join(f'{shape} {count}' for shape, count in reach['obstacles'].items())}")


def _completion(found: dict[str, Any], where: str) -> None:
    table = measured.columns(f"pass@k{where}", "mean over the prompts")
    for row in found["pass_at_k"]:
        table.add_row(f"pass@{row['k']}", _between(row["after"]))
    measured.show(table)
    drawn, answers = found["samples"], found["answers"]
    print(
        f"{drawn['after']} verdicts on {drawn['prompts']} prompts, {drawn['unknown']} unknown, {drawn['tokens']} tokens"
    )
    for name, figure in (answers or {}).items():
        if isinstance(figure, dict) and isinstance(figure.get("after"), dict):
            print(f"answers, {name.replace('_', ' ')}: {_between(figure['after'], percent=False)}")


def _between(found: dict[str, Any], *, percent: bool = True) -> str:
    ends = (float("nan") if found[key] is None else found[key] for key in ("value", "low", "high"))
    return measured.between(Interval(*ends), percent=percent)
