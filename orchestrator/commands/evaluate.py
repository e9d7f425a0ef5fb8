"""`braid eval`: greedy and sampled accuracy of a model, quickly."""

from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator.commands import measured
from orchestrator.commands.measured import Limit, MaxTokens, Model, Prompts, Step, Verifier
from orchestrator.options import InProcess, Json, Sets, print_json


def add(app: typer.Typer) -> None:
    """The command `eval`."""

    @app.command("eval")
    def evaluate(  # noqa: PLR0913  (an option each)
        model: Model,
        prompts: Prompts = None,
        verifier: Verifier = "",
        step: Step = None,
        samples: Annotated[int, typer.Option(min=1, help="Sampled responses to a prompt, beside a greedy one.")] = 4,
        limit: Limit = 256,
        max_tokens: MaxTokens = 512,
        sets: Sets = [],  # noqa: B006
        as_json: Json = False,
        in_process: InProcess = False,
    ) -> None:
        """Accuracy of a model folder or a run's checkpoint, greedy and sampled, with intervals by family.

        Example: [bold]braid eval models/smollm2 --prompts tasks.jsonl --verifier math[/], or
        [bold]braid eval runs/first[/]
        """
        from orchestrator.subject import Asked, subject

        read = subject(Asked(model, prompts, step, None, verifier, max_tokens, tuple(sets), in_process))
        from orchestrator.json_lines import plain
        from orchestrator.measuring import Countdown
        from orchestrator.probing_now import evaluate as measure

        taken, found = measure(read, samples=samples, limit=limit, progress=Countdown(in_process))
        own = taken.snapshot.sets["probe"]
        if as_json:
            facts = {"model": str(read.folder), "step": read.step, "seconds": taken.seconds}
            print_json(
                plain({**facts, "unknown": int(own.unknown_P.sum()), "families": [asdict(one) for one in found]})
            )
            return
        table = measured.columns("family", "prompts", "greedy", "sampled")
        for one in found:
            table.add_row(one.family, str(one.prompts), measured.between(one.greedy), measured.between(one.sampled))
        measured.show(table)
        print(f"{int(own.n_P.sum())} sampled verdicts, {int(own.unknown_P.sum())} unknown; {taken.seconds:.1f} s")
