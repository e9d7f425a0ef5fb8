"""What commands share: their arguments and options by type, and how they print."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

File = Annotated[Path, typer.Argument(metavar="FILE", help="A pipeline file.", show_default=False)]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.", show_default=False)]
Order = Literal["written", "reward", "-reward", "advantage", "-advantage", "length", "-length"]
Sets = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key: stages.sharpen.steps=5. May be repeated.")
]
InProcess = Annotated[
    bool,
    typer.Option(
        "--in-process", help="Without Ray: torch engines and one learner rank, all in this process; to debug."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]


def print_json(document: Any) -> None:
    """One document on stdout."""
    print(json.dumps(document, indent=2, default=str))


def plain_console() -> Console:
    """A terminal's colours and width; plain lines of full length elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=1000, no_color=True, highlight=False)
