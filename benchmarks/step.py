"""Braid's step beside its floor: the same shapes in the same run, alternating, as ratios.

    python -m benchmarks.step [--model tiny|PATH] [--dtype float32] [--rounds 8]

Each round: one whole Braid step (generate, score, credit, ledger, train, publish: the real loop and actors), then the
floor on the shapes that this very step drew: vLLM's `LLM.generate` of exactly those lengths, and a plain padded torch
forward, backward, clip and AdamW over exactly those sequences. Nothing else runs meanwhile. Overhead is everything of
Braid's step that is neither its generate nor its train call; the floor's share says how far the two calls themselves
are from bare parts.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from actors import cluster
from actors.vllm_environment import environment as vllm_environment
from benchmarks.bare import BareEngine, BareTrainer
from orchestrator import build
from orchestrator.config import Pipeline
from orchestrator.ledger import RunLedger
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.run_directory import RunDirectory, environment
from policies.arrow import from_table


def pipeline(model: str, dtype: str = "float32") -> Pipeline:
    """GRPO at the size asked for: 32 x 8 short responses at tiny size, 4 x 8 of a real model otherwise."""
    tiny = model == "tiny"
    prompts: dict[str, Any] = (
        {"kind": "arithmetic", "digits": [3]}
        if tiny
        else {"kind": "reasoning_gym", "dataset": "chain_sum", "options": {"min_terms": 2, "max_terms": 3}}
    )
    return Pipeline.model_validate(
        {
            "name": "bench",
            "model": {"kind": "tiny"} if tiny else {"kind": "hf", "path": model, "context": 192, "dtype": dtype},
            "prompts": {"train": prompts},
            "demonstrations": None,
            "verifier": {"kind": "answer"} if tiny else {"kind": "reasoning_gym", "dataset": "chain_sum"},
            "resources": {"learner": {"engine": "torch"}},
            "stages": [
                {
                    "name": "bench",
                    "recipe": {"kind": "grpo", "rollouts": 8},
                    "steps": 1,
                    "prompts_per_step": 32 if tiny else 4,
                    "sampling": {"max_tokens": 32},
                }
            ],
        }
    )


class NoEyes:
    """Looks away."""

    def step(self, row: Mapping[str, Any]) -> None:
        """Nothing."""


async def rounds(config: Pipeline, directory: RunDirectory, count: int) -> list[dict[str, float]]:
    """Seconds of each round: whole step, its parts, and the floor's generate and train."""
    inputs = build.read_inputs(config, directory.root, Path())
    hold = cluster.start("bench")
    try:
        parts = await build.start_parts(config, inputs, hold, print, lambda text: None)
        engine, trainer = _spawn_floor(hold, config, inputs)
        for actor in (engine, trainer):
            await cluster.wait(actor.ready(), deadline=300, what=f"starting {actor.name}")
        stage = inputs.stages[0]
        await parts.learner.begin_stage(stage.strands, stage.config.optimizer, count)
        await parts.publisher.publish(0)
        state, found = RunState(), []
        with RunLedger(directory, {"bench": [strand.name for strand in stage.strands]}) as ledger:
            for index in range(count):
                ports = _ports(parts, inputs, config, ledger)
                began = time.perf_counter()
                await run_stage(_only(stage, index), ports, state)
                whole = time.perf_counter() - began
                row = json.loads(directory.metrics.read_text().splitlines()[-1])
                ledger.flush()
                floor = await _floor(engine, trainer, directory, index + 1)
                parts_of = {key: row[key] for key in row if key.startswith("seconds_")}
                found.append({"step": whole, **parts_of, **floor, "tokens": float(row["tokens_generated"])})
    finally:
        hold.stop()
    return found


def _only(stage: StageRun, index: int) -> StageRun:
    """The stage cut to one step, so that nothing runs ahead while the floor is measured."""
    config = stage.config.model_copy(update={"steps": index + 1})
    return StageRun(0, config, stage.strands, stage.controls)


def _ports(parts: build.Parts, inputs: build.Inputs, config: Pipeline, ledger: RunLedger) -> Ports:
    async def after(stage: StageRun, state: RunState) -> None:
        """Nothing follows a step here."""

    return Ports(
        collector=parts.collector(inputs, config, inputs.stages[0], lambda: 0),
        learner=parts.learner,
        publisher=parts.publisher,
        ledger=ledger,
        eyes=NoEyes(),
        reference=None,
        teacher=None,
        after_step=after,
        wants_weights=lambda stage, state: True,
    )


def _spawn_floor(hold: cluster.Cluster, config: Pipeline, inputs: build.Inputs) -> tuple[cluster.Actor, cluster.Actor]:
    rollout, learner, model = config.resources.rollout, config.resources.learner, config.model
    count = build.threads(rollout.threads, rollout.replicas, model)
    engine = hold.spawn(
        BareEngine,
        str(inputs.folder),
        model.dtype,
        model.context,
        rollout.max_concurrent,
        rollout.kv_cache_bytes,
        role="bare-engine",
        index=0,
        env=vllm_environment(count),
    )
    count = build.threads(learner.threads, learner.replicas, model)
    trainer = hold.spawn(
        BareTrainer,
        str(inputs.folder),
        model.dtype,
        count,
        learner.micro_batch_tokens,
        role="bare-trainer",
        index=0,
        env={"OMP_NUM_THREADS": str(count)},
    )
    return engine, trainer


async def _floor(engine: cluster.Actor, trainer: cluster.Actor, directory: RunDirectory, step: int) -> dict[str, float]:
    """The bare parts on the shapes that the step drew."""
    drawn = from_table(pq.read_table(directory.trajectory_file(step)))
    contexts, tokens = [one.train_context for one in drawn], [one.tokens for one in drawn]
    lengths, seeds = [len(one) for one in tokens], [one.seed for one in drawn]
    generate, _ = await cluster.wait(engine.ask("generate", contexts, lengths, seeds), deadline=600, what="floor")
    train = await cluster.wait(trainer.ask("step", contexts, tokens), deadline=600, what="floor")
    return {"floor_generate": generate, "floor_train": train}


def summary(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians over the rounds, the first (warm-up) left out; overhead is (step - floor) / step."""
    later = found[1:]
    medians = {key: statistics.median(row[key] for row in later) for key in later[0]}
    ratios = [(row["step"] - row["floor_generate"] - row["floor_train"]) / row["step"] for row in later]
    calls = [(row["step"] - row["seconds_generate"] - row["seconds_train"]) / row["step"] for row in later]
    return medians | {
        "overhead_over_floor": statistics.median(ratios),
        "overhead_min": min(ratios),
        "overhead_max": max(ratios),
        "outside_the_two_calls": statistics.median(calls),
    }


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, or a Hugging Face folder")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of a real model")
    parser.add_argument("--rounds", type=int, default=8, help="rounds; the first is warm-up")
    parser.add_argument("--json", type=Path, help="write the figures here")
    asked = parser.parse_args()
    config = pipeline(asked.model, asked.dtype)
    with tempfile.TemporaryDirectory() as scratch:
        directory = RunDirectory.create(Path(scratch) / "bench", "", environment())
        found = asyncio.run(rounds(config, directory, asked.rounds))
    figures = summary(found)
    table = Table(title=f"one step at {asked.model}: {figures['tokens']:.0f} tokens, medians of {asked.rounds - 1}")
    for column in ("figure", "value"):
        table.add_column(column)
    for key, value in figures.items():
        shown = f"{value:.1%}" if key.startswith(("overhead", "outside")) else f"{value:.3f}"
        table.add_row(key, shown)
    Console().print(table)
    if asked.json:
        asked.json.write_text(json.dumps({"model": asked.model, "rounds": found, "medians": figures}, indent=1))


if __name__ == "__main__":
    main()
