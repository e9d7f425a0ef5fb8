"""A stage-end probe beside the bare engine on the same samples, alternating, as a ratio.

    python -m benchmarks.probe [--model tiny|PATH] [--prompts 256] [--samples 16] [--rounds 4]

Each round: one whole measurement of a stage's end (fixed draws, verdicts, the bank and own rollouts scored by both
policies, with the engines given the earlier weights and the newest again, the files written), then vLLM's
`LLM.generate` of exactly the lengths that it drew. Nothing else runs meanwhile.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from actors import cluster
from benchmarks.step import _spawn_floor, pipeline
from orchestrator import build
from orchestrator.config import Pipeline
from orchestrator.measuring_run import Measuring
from orchestrator.run_directory import RunDirectory, environment


def configured(model: str, dtype: str, prompts: int, samples: int) -> Pipeline:
    """The step benchmark's pipeline with a probe of so many prompts, and so many draws for each."""
    config = pipeline(model, dtype)
    source = config.prompts.train.model_copy(update={"count": prompts, "seed": 99})
    return config.model_copy(
        update={
            "prompts": config.prompts.model_copy(update={"probe": source}),
            "handoff": config.handoff.model_copy(update={"probe_samples": samples, "sequential": False}),
        }
    )


async def rounds(config: Pipeline, directory: RunDirectory, count: int) -> list[dict[str, float]]:
    """Seconds of each round's probe and of the bare engine, and the samples and tokens drawn."""
    inputs = build.read_inputs(config, directory.root, Path())
    hold = cluster.start("bench-probe")
    try:
        parts = await build.start_parts(config, inputs, hold, print, lambda text: None)
        engine, trainer = _spawn_floor(hold, config, inputs)
        await cluster.wait(engine.ready(), deadline=300, what=f"starting {engine.name}")
        hold.kill(trainer)
        await parts.publisher.publish(0)
        measuring = Measuring(directory, config, inputs, parts, lambda text: None)
        found = []
        for index in range(count + 1):
            measuring.found = (parts.rollouts.weights, 0) if index else None
            began = time.perf_counter()
            await measuring.at_end(inputs.stages[0], index, index - 1 if index else None)
            whole = time.perf_counter() - began
            contexts, lengths = _drawn(directory, index, inputs)
            seeds = list(range(len(lengths)))
            bare, _ = await cluster.wait(engine.ask("generate", contexts, lengths, seeds), deadline=600, what="floor")
            found.append({"probe": whole, "bare": bare, "samples": float(len(lengths)), "tokens": float(sum(lengths))})
    finally:
        hold.stop()
    return found[1:]


def _drawn(directory: RunDirectory, step: int, inputs: build.Inputs) -> tuple[list[np.ndarray], list[int]]:
    """Context and length of every response of the probe."""
    table = pq.read_table(directory.probe_file(step), columns=["prompt_id", "tokens"])
    asked = table.column("prompt_id").to_pylist()
    return [inputs.probe.by_id[name].tokens for name in asked], table.column("tokens").to_pylist()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, or a Hugging Face folder")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of a real model")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    config = configured(asked.model, asked.dtype, asked.prompts, asked.samples)
    with tempfile.TemporaryDirectory() as scratch:
        directory = RunDirectory.create(Path(scratch) / "bench", "", environment())
        found = asyncio.run(rounds(config, directory, asked.rounds))
    ratios = [one["probe"] / one["bare"] for one in found]
    table = Table(title=f"a stage-end probe at {asked.model}: {found[0]['samples']:.0f} responses")
    for column in ("figure", "median", "least", "most"):
        table.add_column(column)
    for name in ("probe", "bare"):
        values = [one[name] for one in found]
        table.add_row(f"{name}, s", *(f"{of(values):.2f}" for of in (statistics.median, min, max)))
    table.add_row("probe / bare", *(f"{of(ratios):.3f}" for of in (statistics.median, min, max)))
    Console().print(table)


if __name__ == "__main__":
    main()
