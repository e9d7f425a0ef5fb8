"""`braid show`: trajectories of a step on the terminal, tokens coloured by who wrote them, with their verdicts."""

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from orchestrator.json_lines import plain
from orchestrator.report.origins import ON_TERMINAL
from orchestrator.report.samples import Order, Sample, load, ordered
from orchestrator.report.visible import one_line, visible
from orchestrator.run_directory import RunDirectory
from policies.trajectory import Origin, ScoreEntry


def show(
    directory: Path,
    step: int | None = None,
    *,
    limit: int = 5,
    strand: str | None = None,
    sort: Order = "written",
    as_json: bool = False,
) -> None:
    """Prints the first `limit` trajectories of a step (by default the newest); as one JSON document if asked.

    Model text cannot command the terminal: control characters are shown, not obeyed.
    """
    samples = ordered(load(RunDirectory.open(directory), step, strand), sort)
    console = Console(highlight=False)
    if as_json:
        console.file.write(json.dumps([as_row(one) for one in samples[:limit]], indent=2, ensure_ascii=True) + "\n")
        return
    console.print(legend(samples))
    for one in samples[:limit]:
        console.print(heading(one))
        if one.prompt:
            console.print(Padding(Text(visible(one.prompt), style="dim"), (0, 0, 0, 2)))
        console.print(Padding(body(one), (0, 0, 0, 2)))
        for score in one.trajectory.scores:
            console.print(Padding(verdict(score), (0, 0, 0, 2)))
        console.print()
    if len(samples) > limit:
        console.print(Text(f"{len(samples) - limit} more; --limit shows them", style="dim"))


def as_row(one: Sample) -> dict[str, Any]:
    """The sample as JSON values."""
    trajectory = one.trajectory
    row: dict[str, Any] = plain(
        {
            "id": trajectory.id,
            "step": one.step,
            "stage": one.stage,
            "strand": one.strand,
            "producer": trajectory.producer,
            "model": trajectory.model,
            "version": trajectory.version,
            "reward": one.reward,
            "advantage": one.advantage,
            "finish_reason": trajectory.finish_reason,
            "prompt": one.prompt,
            "text": trajectory.text,
            "segments": [
                {"origin": s.origin.name.lower() if s.origin is not None else None, "text": s.text, "tokens": s.tokens}
                for s in one.segments
            ],
            "scores": [
                {"name": s.name, "value": s.value, "passed": s.passed, "status": s.status, "reason": s.reason}
                for s in trajectory.scores
            ],
        }
    )
    return row


def legend(samples: list[Sample]) -> Text:
    """Step, stage, and the colours of the origins that occur."""
    first = samples[0]
    text = Text(f"step {first.step}, stage {first.stage}, {len(samples)} trajectories   ")
    present = {Origin(int(origin)) for one in samples for origin in one.trajectory.origin}
    for origin in sorted(present):
        text.append(f"■ {origin.name.lower()} ", style=ON_TERMINAL[origin])
    return text


def heading(one: Sample) -> Text:
    """Strand, writer, version, reward, advantage, finish reason."""
    trajectory = one.trajectory
    mark, style = {True: ("✓", "bold green"), False: ("✗", "bold red"), None: ("?", "bold yellow")}[_passed(one)]
    text = Text(f"{mark} ", style=style)
    text.append(one_line(trajectory.id, 60), "bold")
    version = f" v{trajectory.version}" if trajectory.version >= 0 else ""
    text.append(f"  {one.strand}, {trajectory.producer} of {one_line(trajectory.model, 60)}{version}")
    text.append(f"  reward {_figure(one.reward)}  advantage {_figure(one.advantage)}")
    return text.append(f"  {len(trajectory.tokens)} tokens, {trajectory.finish_reason}", "dim")


def body(one: Sample) -> Text:
    """The response, each segment in its writer's colour."""
    text = Text()
    for segment in one.segments:
        text.append(visible(segment.text), ON_TERMINAL[segment.origin] if segment.origin is not None else "")
    if any(segment.origin is None for segment in one.segments):
        text.append(f"\n[{one.segments[0].note}]", "dim")
    return text


def verdict(score: ScoreEntry) -> Text:
    """`reward = 0.5 (answer): reason`, or why there is none."""
    value = _figure(score.value) if score.status == "ok" else score.status
    by = f" ({score.scorer})" if score.scorer else ""
    span = f" tokens {score.start}..{score.end}" if score.start is not None else ""
    reason = f": {one_line(score.reason)}" if score.reason else ""
    return Text(f"{score.name} = {value}{by}{span}{reason}", style="dim" if score.status == "ok" else "yellow")


def _passed(one: Sample) -> bool | None:
    return next((score.passed for score in one.trajectory.scores if score.name == "reward"), None)


def _figure(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3g}"
