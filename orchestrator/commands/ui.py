"""`braid ui`: the page of a run, or of all runs in a directory."""

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[Path, typer.Argument(metavar="DIR", help="A run, or a directory with runs.", show_default=False)]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Expose = Annotated[bool, typer.Option("--expose", help="Allow an address that other machines reach.")]
NoOpen = Annotated[bool, typer.Option("--no-open", help="Print the address, and open no browser.")]


def add(app: typer.Typer) -> None:
    """The command `ui`."""

    @app.command()
    def ui(
        directory: Runs,
        port: Port = 0,
        host: Host = "127.0.0.1",
        expose: Expose = False,
        no_open: NoOpen = False,
    ) -> None:
        """Serve a local page of a run: braid, decisions, support, handoffs, costs, trajectories; live while it goes.

        Prints one line, the address with its token, and serves until Ctrl-C. It only reads.

        Example: [bold]braid ui runs/first[/], or [bold]braid ui runs[/] for all of them side by side
        """
        from orchestrator.ui import serve

        serve(directory, host=host, port=port, expose=expose, open_browser=not no_open)
