"""A run directory of any length, written quickly: every file as a run writes it, of planted figures.

Rows are those of `orchestrator.ledger`'s schemas and of metrics.jsonl; a few dozen tables are made once and written
again and again under other steps and names.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.ledger import PLACE
from orchestrator.probe_files import PROBE_SCHEMA
from orchestrator.run_directory import RunDirectory, environment
from policies.arrow import SCHEMA

STAGES = ("warm-start", "braid", "distil", "sharpen")
STRANDS = ("on-policy", "imitate", "hinted")
TEMPLATES = 24
FACTS = (
    *("sequences", "ratio_tokens", "entropy_tokens", "behavior_tokens", "ratio_mean", "clip_share", "entropy"),
    *("kl_behavior", "weight_mean", "weight_square_mean", "logp", "advantage", "ratio_max", "ess"),
)
"""What a metrics row says of each strand, besides tokens, loss and mass."""
WORDS = ("let", "so", "then", "hence", "the", "sum", "of", "two", "odd", "is", "even", "x", "12", "+", "30", "=", "42")


@dataclass(frozen=True, slots=True)
class Length:
    """How much there is of everything."""

    steps: int = 10_000
    each: int = 100
    """Trajectories of a step."""
    tokens: int = 96
    """Of a trajectory, in the mean."""
    probes: int = 40
    prompts: int = 256
    samples: int = 16


def write(out: Path, length: Length) -> RunDirectory:
    """The whole run."""
    lines = ["name: long", "seed: 1", "model: {kind: tiny, preset: arithmetic}", "stages:"]
    lines += [f"- {{name: {name}, recipe: {{kind: grpo}}, steps: {length.steps // 4}}}" for name in STAGES]
    run = RunDirectory.create(out, "\n".join(lines) + "\n", environment())
    run.coefficients.mkdir()
    rng = np.random.default_rng(1)
    tables = [_template(length, rng) for _ in range(TEMPLATES)]
    for step in range(1, length.steps + 1):
        _write_step(run, step, length, *tables[step % TEMPLATES])
    _write_lines(run.metrics, (_metrics(step, length) for step in range(1, length.steps + 1)))
    _write_lines(run.decisions, (_decision(step, length) for step in range(1, length.steps + 1)))
    _write_lines(run.events, iter([{"kind": "started", "step": 0}, {"kind": "finished", "step": length.steps}]))
    for step in {*range(0, length.steps + 1, max(1, length.steps // length.probes)), 0}:
        pq.write_table(_probe(step, length), run.probe_file(step), compression="zstd")
    _write_lines(run.metrics, (_probe_row(step, length) for step in sorted(_probed(run))), mode="a")
    return run


def stage_of(step: int, length: Length) -> str:
    """The stage of a step."""
    return STAGES[min(3, (step - 1) * 4 // length.steps)]


def _probed(run: RunDirectory) -> list[int]:
    return [int(path.stem.partition("=")[2]) for path in run.probes.glob("step=*.parquet")]


def _template(length: Length, rng: np.random.Generator) -> tuple[pa.Table, pa.Array]:
    """A step's trajectories, and g of each."""
    sizes = np.maximum(4, rng.poisson(length.tokens, length.each)).astype(np.int32)
    ends = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    total, each = int(sizes.sum()), length.each
    origin = np.repeat((rng.random(each) < 0.3).astype(np.int8), sizes)
    version = np.where(origin == 0, 7, -1).astype(np.int32)
    logps = np.where(origin == 0, -rng.exponential(0.5, total), math.nan).astype(np.float32)
    context = pa.ListArray.from_arrays(
        pa.array(np.arange(0, 24 * each + 1, 24, dtype=np.int32)),
        pa.array(rng.integers(0, 32000, 24 * each), pa.int32()),
    )

    def tokens(values: np.ndarray[Any, Any], kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(ends, pa.array(values, kind))

    passed = rng.random(each) < 0.5
    scores = [
        [{"name": "reward", "value": float(good), "passed": bool(good), "status": "ok", "reason": "", "scorer": "math"}]
        for good in passed
    ]
    texts = [" ".join(rng.choice(WORDS, size)) for size in sizes]
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_tokens": 512, "stop": [], "logprobs": "processed"}
    columns: dict[str, Any] = {
        **{name: [f"{name}-{at}" for at in range(each)] for name in ("id", "prompt_id")},
        "group_id": [f"g-{at // 8}" for at in range(each)],
        "parent_id": [""] * each,
        "producer": ["rollout" if at % 10 else "demonstration" for at in range(each)],
        "model": ["learner"] * each,
        "version": [7] * each,
        **dict.fromkeys(("train_context", "behavior_context", "teacher_context"), context),
        "tokens": tokens(rng.integers(0, 32000, total), pa.int32()),
        "origin": tokens(origin, pa.int8()),
        "token_version": tokens(version, pa.int32()),
        "train_mask": tokens(np.ones(total, np.bool_), pa.bool_()),
        "behavior_logps": tokens(logps, pa.float32()),
        "scores": scores,
        "preference": [None] * each,
        "finish_reason": ["stop"] * each,
        "sampling": [sampling] * each,
        "seed": list(range(each)),
        "text": texts,
        "created_at": [1000.0] * each,
        "seconds": [0.5] * each,
        "tokens_generated": sizes.astype(np.int64),
        "stage": ["braid"] * each,
        "step": [0] * each,
        "strand": [STRANDS[at % 3] for at in range(each)],
        "advantage": tokens(rng.normal(size=total).astype(np.float32), pa.float32()),
    }
    schema = pa.schema([*SCHEMA, *PLACE])
    arrays = [columns[field.name] for field in schema]
    table = pa.table(
        [
            one if isinstance(one, pa.Array) else pa.array(one, field.type)
            for one, field in zip(arrays, schema, strict=True)
        ],
        schema=schema,
    )
    return table, tokens(rng.normal(size=total).astype(np.float32) / 100, pa.float32())


def _write_step(run: RunDirectory, step: int, length: Length, table: pa.Table, g: pa.Array) -> None:
    stage, each = stage_of(step, length), length.each
    named = {
        "id": pa.array([f"{stage}/{step:06d}/{at:04d}" for at in range(each)]),
        "step": pa.array([step] * each, pa.int64()),
        "stage": pa.array([stage] * each),
    }
    for name, values in named.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, run.trajectory_file(step), compression="zstd", write_page_checksum=True)
    beside = pa.table({**named, "strand": table["strand"], "g": g})
    pq.write_table(beside, run.coefficient_file(step), compression="zstd")


def _metrics(step: int, length: Length) -> dict[str, Any]:
    done = step / length.steps
    shares = {"learner": 0.5 + 0.5 * done, "demonstration": 0.35 * (1 - done), "hint": 0.15 * (1 - done)}
    strand = dict.fromkeys(FACTS, 0.123456789 + done)
    way = {"written": 72, "given": 28, "admitted": 96, "trained": 96, "masked": 0, "aside": 0, "unaccounted": 0}
    way |= {"scored": {"ok": 100}, "dropped": {"select": 4}}  # type: ignore[dict-item]
    return {
        "kind": "step",
        "stage": stage_of(step, length),
        "stage_steps": length.steps // 4,
        "step": step,
        "stage_step": (step - 1) % max(1, length.steps // 4) + 1,
        "version": step - 1,
        "loss": 1 / (1 + done) + 0.1 * math.sin(step),
        "gradient_norm": 1 + 0.2 * math.sin(step / 7),
        "learning_rate": 1e-5,
        "reward_mean": 0.3 + 0.5 * done + 0.1 * math.sin(step / 3),
        "accuracy": 0.3 + 0.5 * done + 0.1 * math.sin(step / 3),
        "tokens_trained": length.each * length.tokens,
        "tokens_generated": length.each * length.tokens,
        **{f"share_{name}": share for name, share in shares.items()},
        "on_policy_share": shares["learner"],
        "response_length_mean": float(length.tokens),
        **{f"seconds_{part}": 0.123456789 for part in ("generate", "score", "train", "publish", "ledger")},
        "seconds": 0.7,
        "by_origin": {
            name: {"tokens": int(9600 * share), "gradient_mass": share, "loss": 0.1, "groups": 12}
            for name, share in shares.items()
        },
        "by_strand": {name: {**strand, "tokens": 3200.0, "loss": 0.3, "gradient_mass": 1 / 3} for name in STRANDS},
        "funnel": {**way, "by_strand": dict.fromkeys(STRANDS, way)},
        "staleness": {"0": 7200},
        "interference": {"on-policy|imitate": 0.1},
        "time": 1.7e9 + step,
    }


def _decision(step: int, length: Length) -> dict[str, Any]:
    share = 0.4 * (1 - step / length.steps)
    routed = [f"braid/{step:06d}/{at:04d}: imitate leaves: {at % 5} of 4 passed, the gate is at 0" for at in range(8)]
    plan = {"recipe": "luffy", "coefficients": dict.fromkeys(STRANDS, 1.0 - share), "places": {"imitate": 4}}
    reason = f"accuracy {1 - share:.3f} is below 0.9: imitate keeps {share:.3f} of its share"
    told = {"reason": reason, "controls": [{"control": "share", "word": ""}], "routed": routed}
    facts = {"accuracy": 1 - share, "reward_mean": 1 - share}
    return {
        "step": step,
        "stage": stage_of(step, length),
        "plan": plan,
        **told,
        "verdicts": {"kept": 8},
        "facts": facts,
    }


def _probe(step: int, length: Length) -> pa.Table:
    prompts, draws = length.prompts, length.samples + 1
    at = np.repeat(np.arange(prompts), draws)
    draw = np.tile(np.arange(draws) - 1, prompts)
    rates = np.clip(at / prompts + step / length.steps - 0.5, 0, 1)
    passed = ((draw * 37 + at) % draws) / draws < rates
    count = prompts * draws
    columns: dict[str, Any] = {
        "step": np.full(count, step),
        "stage": [stage_of(max(1, step), length)] * count,
        "set": ["probe"] * count,
        "prompt_id": [f"q{one:05d}" for one in at],
        "prompt": [f"What is {one} + {one}?" for one in at],
        "family": [f"family-{one % 7}" for one in at],
        "greedy": draw < 0,
        "draw": draw,
        "passed": passed,
        "value": passed.astype(float),
        "status": ["ok"] * count,
        "answer": [str(one) for one in at],
        "tokens": np.full(count, 40),
        "text": [f"It is {one * 2}, for {one} and {one} are {one * 2}." for one in at],
    }
    return pa.table({name: pa.array(columns.get(name, [None] * count)) for name in PROBE_SCHEMA.names}).cast(
        PROBE_SCHEMA
    )


def _probe_row(step: int, length: Length) -> dict[str, Any]:
    share = 0.2 + 0.6 * step / length.steps
    told = {"greedy_accuracy": share, "sampled_accuracy": share, "n": length.prompts, "n_sampled": length.prompts * 16}
    return {"kind": "probe", "step": step, "stage": stage_of(max(1, step), length), **told}


def _write_lines(path: Path, rows: Iterator[dict[str, Any]], mode: str = "w") -> None:
    with path.open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
