"""How long a publish takes, learner to engine through the object store, beside the time to copy its bytes once.

python -m benchmarks.publish --model PATH [--dtype bfloat16] [--rounds 8]
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from actors import cluster
from benchmarks.step import pipeline
from orchestrator import build
from orchestrator.config import Pipeline


async def publishes(config: Pipeline, scratch: Path, rounds: int) -> tuple[list[float], int]:
    """Seconds of each publish from the learner's call to the engine's confirmation, and the bytes of one."""
    inputs = build.read_inputs(config, scratch, Path())
    hold = cluster.start("publish")
    try:
        parts = await build.start_parts(config, inputs, hold, print, lambda text: None)
        stage = inputs.stages[0]
        await parts.learner.begin_stage(stage.strands, stage.config.optimizer, 1)
        seconds = [(await parts.publisher.publish(version)).seconds for version in range(rounds)]
        weights = await cluster.wait(parts.rollouts.weights, deadline=60, what="reading the manifest")
        return seconds, weights.manifest.nbytes
    finally:
        hold.stop()


def copy_seconds(nbytes: int) -> float:
    """The floor: one copy of that many bytes into memory that is already mapped."""
    source, target = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    began = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, or a Hugging Face folder")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=8, help="publishes; the first is warm-up")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        config = pipeline(asked.model, asked.dtype)
        seconds, nbytes = asyncio.run(publishes(config, Path(scratch), asked.rounds))
    later = seconds[1:]
    floor = min(copy_seconds(nbytes) for _ in range(3))
    print(f"{nbytes / 2**20:.0f} MiB: median {statistics.median(later):.3f} s, {min(later):.3f} to {max(later):.3f};")
    print(f"first {seconds[0]:.3f} s; one copy of the bytes {floor:.3f} s ({statistics.median(later) / floor:.1f} x)")


if __name__ == "__main__":
    main()
