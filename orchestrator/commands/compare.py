"""`braid compare`: runs or checkpoints side by side."""

from typing import Annotated

import typer

from orchestrator.options import Json, plain_console, print_json


def add(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def compare(
        runs: Annotated[
            list[str],
            typer.Argument(metavar="RUN RUN ...", help="Run directories, each with @STEP or @STAGE if need be."),
        ],
        as_json: Json = False,
    ) -> None:
        """Put runs or checkpoints side by side: paired on the prompts that all were asked, against the first one.

        pass@k, solved sets, answers, reach, cost, who wrote what trained, and where the pipelines differ. A run stands
        for its last probe; [bold]runs/first@120[/] is the one after step 120, [bold]runs/first@warm-start[/] as that
        stage left it. Runs that are still going give what they have.

        Example: [bold]braid compare runs/first runs/second[/], or [bold]braid compare runs/first@0 runs/first[/]
        """
        from orchestrator.comparison import document
        from orchestrator.comparison_text import show

        found = document(runs)
        if as_json:
            print_json(found)
        else:
            show(found, plain_console())
