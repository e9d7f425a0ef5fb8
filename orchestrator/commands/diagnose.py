"""`braid diagnose`: what holds a model back, prompt by prompt, and the pipeline that would remove it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.commands import measured
from orchestrator.commands.measured import Demonstrations, Limit, MaxTokens, Model, Prompts, Samples, Step, Verifier
from orchestrator.options import InProcess, Json, Sets, print_json

if TYPE_CHECKING:
    from orchestrator.diagnosing import Result

SHOWN = 6
"""Prompts whose crucial tokens are printed."""

CALLED = {
    "unreached_prefix": "unreached prefix",
    "unavailable_action": "unavailable action",
    "undecided": "undecided between these two",
}


def add(app: typer.Typer) -> None:
    """The command `diagnose`."""

    @app.command()
    def diagnose(  # noqa: PLR0913  (an option each)
        model: Model,
        prompts: Prompts = None,
        demonstrations: Demonstrations = None,
        teacher: Annotated[
            Path | None, typer.Option(help="A model folder with the same tokenizer.", show_default=False)
        ] = None,
        verifier: Verifier = "",
        step: Step = None,
        samples: Samples = 64,
        limit: Limit = 256,
        max_tokens: MaxTokens = 512,
        out: Annotated[
            Path | None,
            typer.Option(help="Recommended pipeline to write; recommended.yaml by default.", show_default=False),
        ] = None,
        sets: Sets = [],  # noqa: B006
        as_json: Json = False,
        in_process: InProcess = False,
    ) -> None:
        """Say per prompt what keeps a model from solving it, which bottleneck costs most, and write what to run next.

        Unreached prefix: the way of a good response is never taken. Unavailable action: it is, but for a few crucial
        tokens. Unreliable, mastered, lost: by verdicts. "undecided" where the evidence does not say.

        Example: [bold]braid diagnose models/smollm2 --prompts tasks.jsonl --demonstrations worked.jsonl[/], then
        [bold]braid run recommended.yaml[/]. Of a run: [bold]braid diagnose runs/first[/]
        """
        from orchestrator.held_apart import taken
        from orchestrator.subject import Asked, subject, teacher_folder
        from policies.bad_input import refuse

        asked = Asked(model, prompts, step, demonstrations, verifier, max_tokens, tuple(sets), in_process, teacher)
        refuse([f"--out: '{one}' exists and is not overwritten; choose another" for one in (taken(out) if out else ())])
        read = subject(asked)
        taught = teacher_folder(asked, read.tokenizer)
        from orchestrator.diagnosing import diagnose as measure
        from orchestrator.measuring import Countdown

        found = measure(read, samples=samples, limit=limit, out=out, progress=Countdown(in_process), teacher=taught)
        if as_json:
            print_json(document(found))
        else:
            tell(found)


def document(found: "Result") -> dict[str, object]:
    """As `diagnosis.Diagnosed.document`, with what was measured, and where the pipeline was written."""
    written = str(found.file) if found.file else None
    facts = {"model": str(found.subject.folder), "step": found.subject.step, "seconds": found.taken.seconds}
    return {**facts, **found.done.document, "written": written}


def tell(found: "Result") -> None:
    """The table, the crucial tokens, the bottleneck, and what to run."""
    done = found.done.found
    table = measured.columns("class", "share of prompts", "named", "pass@1 it costs")
    for kind, share in done.shares.items():
        named = sum(one.kind == kind for one in done.prompts)
        if kind != "undecided" or share.value > 0.005:
            cost = measured.between(done.headroom[kind])
            table.add_row(CALLED.get(kind, kind), measured.between(share), str(named), cost)
    measured.show(table)
    unnamed = sum(one.kind == "undecided" for one in done.prompts)
    print(f"pass@1 {measured.between(done.pass_at_1)}; {len(done.prompts)} prompts, {unnamed} of them undecided")
    for line in _crucial(found):
        print(line)
    print(
        f"bottleneck: {CALLED.get(done.bottleneck, done.bottleneck) if done.bottleneck != 'undecided' else 'undecided'}"
    )
    if found.done.recommendation is not None:
        print(f"recommended: {found.done.recommendation.told}")
    if found.file is not None:
        print(f"written: {found.file}; try `braid check {found.file}`, then `braid run {found.file}`")


def _crucial(found: "Result") -> list[str]:
    """`p3: token 4 of 9: '7' has 0.2 %, '8' 93 %`."""
    tokenizer = found.subject.tokenizer
    told = []
    for one in [one for one in found.done.found.prompts if one.crucial][:SHOWN]:
        for token in one.crucial:
            good, other = (tokenizer.decode([ids], skip_special=False) for ids in (token.token, token.instead))
            told.append(
                f"  {one.prompt}: token {token.position + 1} of {token.length}: {good!r} has {token.probability:.2%}, "
                f"{other!r} {token.instead_probability:.0%}"
            )
    return ["crucial tokens:", *told] if told else []
