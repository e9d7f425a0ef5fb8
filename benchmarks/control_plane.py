"""How much the driver bears: the real loop, controls, credit and ledger over engines that cost nothing.

    python -m benchmarks.control_plane [--actors 1000] [--recipe bottleneck] [--memory-steps 10000]

First responses arrive ever faster from `--actors` rollout actors (exponential times of service, each actor one queue).
Beside each other: what actors that never idle would give, what the fleet alone gives when each step waits for its last
response (the floor: the stragglers are no fault of the driver), and what came through the driver. The last row has no
waiting at all: the most that one driver process bears. Then memory over `--memory-steps` small steps:
resident bytes once everything has been touched, and what they grow by.
"""

import argparse
import asyncio
import gc
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.fake_engines import Clock, Fleet, Idle, Served, Shelf, Verdicts, prompts
from orchestrator.collect import Collector
from orchestrator.config import RecipeChoice, Stage
from orchestrator.ledger import RunLedger
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.recipes import load
from orchestrator.replay import read_back
from orchestrator.run_directory import RunDirectory

RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 0.0)
"""Responses a second of one actor; 0: no waiting."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the driver is given to do."""

    recipe: str
    steps: int
    prompts_per_step: int
    prompts: int
    length: int
    actors: int
    each: float = 0.0
    staleness: int = 2


@dataclass(slots=True)
class Measured:
    """What came of it."""

    responses: int
    trained: int
    seconds: float
    """From the first step's end to the last's."""
    first_step: float
    """Share of the responses that the seconds do not count."""
    waited: float = 0.0
    """Seconds that the fleet alone would take for all of them."""
    resident: list[tuple[int, float]] = field(default_factory=list)
    """(step, MiB)."""

    @property
    def rate(self) -> float:
        """Responses a second, the first step left out."""
        return self.responses * (1.0 - self.first_step) / self.seconds


def stage_of(load_: Load) -> StageRun:
    """The stage; a recipe without parameters of its own beside the defaults."""
    recipe = load(load_.recipe)
    config = Stage(
        name="load",
        recipe=RecipeChoice(kind=load_.recipe),
        steps=load_.steps,
        prompts_per_step=load_.prompts_per_step,
        max_staleness=load_.staleness,
    )
    return StageRun(0, config, recipe.strands, recipe.controls)


async def drive(load_: Load, folder: Path, every: int = 0, progress: Progress | None = None) -> Measured:
    """Run the stage on fake engines with a real ledger; `every`: read resident memory after so many steps."""
    fleet, clock, learner = Fleet(load_.actors, load_.each, load_.length), Clock(), Idle()
    stage, book = stage_of(load_), prompts(load_.prompts)
    run = RunDirectory.create(folder / "run", "name: load\n", {})
    measured = Measured(0, 0, 0.0, 0.0)
    task = progress.add_task(f"{load_.each or 'no'} wait", total=load_.steps) if progress else None
    process = psutil.Process()

    async def after(_: StageRun, state: RunState) -> None:
        if progress is not None and task is not None:
            progress.advance(task)
        if every and state.step % every == 0:
            gc.collect()
            measured.resident.append((state.step, process.memory_info().rss / 2**20))

    with RunLedger(run, {"load": [one.name for one in stage.strands]}) as ledger:
        ports = Ports(
            collector=Collector(
                fleet,
                Verdicts(),
                book,
                {one.id: one for one in book},
                Shelf(load_.length),
                seed=7,
                replay=read_back(run.trajectories, 0, stage.strands),
                policy=learner,
            ),
            learner=learner,
            publisher=Served(fleet),
            ledger=ledger,
            eyes=clock,
            reference=None,
            teacher=None,
            after_step=after,
            wants_weights=lambda stage, state: False,
        )
        await run_stage(stage, ports, RunState())
    measured.responses, measured.trained = fleet.written, learner.trained
    measured.waited = fleet.waited
    measured.seconds, measured.first_step = clock.at[-1] - clock.at[0], 1.0 / load_.steps
    return measured


def throughput(options: argparse.Namespace) -> list[dict[str, float]]:
    """A row for each rate of arrival."""
    rows = []
    with Progress(transient=True) as progress:
        for each in RATES:
            load_ = Load(options.recipe, options.steps, 512, 16_384, options.length, options.actors, each)
            with tempfile.TemporaryDirectory() as folder:
                found = asyncio.run(drive(load_, Path(folder), progress=progress))
            alone = found.responses / found.waited if each else math.nan
            step = found.seconds / (options.steps - 1)
            rows.append({"busy": each * options.actors, "alone": alone, "responses": found.rate, "step": step})
    return rows


def memory(options: argparse.Namespace) -> list[tuple[int, float]]:
    """Resident MiB over many small steps."""
    load_ = Load(options.recipe, options.memory_steps, 8, 1024, 16, options.actors, staleness=1)
    with Progress(transient=True) as progress, tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(drive(load_, Path(folder), max(options.memory_steps // 10, 1), progress))
    return found.resident


def show(console: Console, rows: Sequence[Mapping[str, float]], resident: Sequence[tuple[int, float]]) -> None:
    """Both findings as tables."""
    table = Table(title="responses a second")
    for name in ("actors never idle", "the fleet alone", "through the driver", "share", "seconds a step"):
        table.add_column(name, justify="right")
    for row in rows:
        waits = row["busy"] > 0
        share = f"{row['responses'] / row['alone']:.0%}" if waits else ""
        alone = f"{row['alone']:,.0f}" if waits else "no wait"
        busy = f"{row['busy']:,.0f}" if waits else ""
        table.add_row(busy, alone, f"{row['responses']:,.0f}", share, f"{row['step']:.2f}")
    console.print(table)
    if len(resident) > 2:
        half = resident[len(resident) // 2 :]
        growth = (half[-1][1] - half[0][1]) / max(half[-1][0] - half[0][0], 1) * 1000
        console.print("resident MiB by step: " + ", ".join(f"{step}: {mib:.0f}" for step, mib in resident))
        console.print(f"growth over the second half: {growth:.2f} MiB a 1,000 steps")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and give back what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=1000)
    parser.add_argument("--recipe", default="bottleneck")
    parser.add_argument("--steps", type=int, default=8, help="steps of 512 prompts for each rate")
    parser.add_argument("--length", type=int, default=256, help="tokens of a response")
    parser.add_argument("--memory-steps", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    found = {"throughput": throughput(options), "resident": memory(options) if options.memory_steps else []}
    show(Console(), found["throughput"], found["resident"])
    print(f"{time.perf_counter() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
