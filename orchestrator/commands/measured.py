"""What `diagnose`, `probe` and `eval` share on the command line."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.options import plain_console
from orchestrator.probes.intervals import Interval

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, or a run directory.", show_default=False)]
Prompts = Annotated[
    Path | None,
    typer.Option(help="Prompts, .jsonl or .parquet; by default a run's held-out ones.", show_default=False),
]
Demonstrations = Annotated[
    Path | None,
    typer.Option(help="Good responses {prompt, response} to these prompts: where reach dies.", show_default=False),
]
Step = Annotated[int | None, typer.Option(help="A run's checkpoint; the newest by default.", show_default=False)]
Verifier = Annotated[
    str,
    typer.Option(
        help="Kind, or a mapping: '{kind: answer, marker: \"#\"}'. A run's own by default, else math.",
        show_default=False,
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Responses to a prompt at most; fewer once it is clear.")]
Limit = Annotated[int, typer.Option(min=1, help="Prompts at most; of more, so many evenly through the file.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest response to a model folder's prompts; a run has its own.")]


def between(one: Interval, *, percent: bool = True) -> str:
    """`41 % (35 to 47)`; a dash where it is unknown."""
    if not one.known:
        return "–"
    scale, unit = (100, " %") if percent else (1, "")
    digits = 0 if percent else 2
    return f"{one.value * scale:.{digits}f}{unit} ({one.low * scale:.{digits}f} to {one.high * scale:.{digits}f})"


def show(table: Table) -> None:
    """A table on stdout."""
    plain_console().print(table)


def columns(*names: str) -> Table:
    """A plain table."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right")
    return table
