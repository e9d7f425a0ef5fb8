"""Run directories and experiments with planted probes: counts by prompt are given, nothing is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from orchestrator.ledger import RunLedger
from orchestrator.load import dump, read
from orchestrator.probe_files import write_probe
from orchestrator.run_directory import RunDirectory
from policies.example import Example
from tests.build_run import example

SAMPLES = 16
PIPELINE: dict[str, Any] = {
    "name": "planted",
    "model": {"kind": "tiny", "preset": "arithmetic-small", "context": 64},
    "prompts": {
        "train": {"kind": "arithmetic", "digits": [1], "count": 40},
        "probe": {"kind": "arithmetic", "digits": [1], "count": 8, "seed": 9},
    },
    "handoff": {"probe_samples": SAMPLES, "sequential": False},
    "stages": [
        {"name": "warm", "recipe": {"kind": "sft"}, "steps": 2, "sampling": {"max_tokens": 8}},
        {"name": "learn", "recipe": {"kind": "sft"}, "steps": 2, "sampling": {"max_tokens": 8}},
    ],
}


def rows(
    passes: Mapping[str, Sequence[bool | None]], *, name: str = "probe", text: str = "{id}"
) -> list[dict[str, Any]]:
    """A response for each verdict, and a greedy one that is as the first; `text` says what the prompt's text is."""
    found = []
    for prompt, verdicts in passes.items():
        for draw, passed in enumerate([verdicts[0] if verdicts else None, *verdicts], start=-1):
            found.append(
                {
                    "set": name,
                    "prompt_id": prompt,
                    "prompt": text.format(id=prompt),
                    "family": "planted",
                    "greedy": draw < 0,
                    "draw": draw,
                    "passed": passed,
                    "value": None if passed is None else float(passed),
                    "status": "ok" if passed is not None else "timeout",
                    "answer": str(draw % 3) if passed is not None else None,
                    "tokens": 4,
                    "text": "4#",
                }
            )
    return found


def verdicts(rng: np.random.Generator, chances: Mapping[str, float], n: int = SAMPLES) -> dict[str, list[bool | None]]:
    """n draws for each prompt that passes with its probability."""
    return {prompt: [bool(one) for one in rng.random(n) < chance] for prompt, chance in chances.items()}


def built(
    out: Path,
    pipeline: Path,
    probes: Mapping[int, list[dict[str, Any]]],
    *,
    sets: Sequence[str] = (),
    ending: str = "finished",
    trained: Mapping[int, Sequence[Example]] | None = None,
    until: int | None = None,
) -> RunDirectory:
    """A run of that pipeline with these probes (step -> rows), whose steps trained on these examples."""
    config = read(pipeline, sets)
    run = RunDirectory.create(out, dump(config), {"python": "3.11"})
    with RunLedger(run, {}) as ledger:
        ledger.event("started", step=0, resumed=False)
        step, ends = 0, {}
        for stage in config.stages:
            for stage_step in range(1, stage.steps + 1):
                if until is not None and step >= until:
                    break
                step += 1
                ends[step] = stage.name
                ledger.add(step, (trained or {}).get(step) or [example(f"s{step}-d{i}") for i in range(2)], stage.name)
                ledger.metrics(row(step, stage.name, stage_step, stage.steps))
                ledger.decision({"step": step, "stage": stage.name, "reason": "as the recipe has it"})
        for at, found in probes.items():
            write_probe(run, at, ends.get(at, config.stages[0].name), found)
        if ending != "running":
            ledger.event(ending, step=step)
    return run


def row(step: int, stage: str, stage_step: int, stage_steps: int) -> dict[str, Any]:
    """A step's line."""
    return {
        "kind": "step",
        "step": step,
        "stage": stage,
        "stage_step": stage_step,
        "stage_steps": stage_steps,
        "tokens_trained": 100,
        "tokens_generated": 40,
        "seconds": 1.5,
        "share_learner": 0.25,
        "share_demonstration": 0.75,
    }


def file(folder: Path, **changes: Any) -> Path:
    """The pipeline, changed, as a file; keys keep their order, which says what the baseline is."""
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump({**PIPELINE, **changes}, sort_keys=False), encoding="utf-8")
    return path
