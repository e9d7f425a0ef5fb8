"""`braid label`: a finished run's responses become rows with a label for each step, which `labels` reads.

A run whose steps were labelled by completions has the labels in its ledger. Of another run, or of responses that
somebody else wrote, the newest checkpoint completes every step now, and the run's verifier judges the completions.
"""

import asyncio
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from actors import cluster, in_process
from orchestrator.build import Inputs, read_inputs
from orchestrator.config import Pipeline
from orchestrator.here import HERE
from orchestrator.label_config import StepLabels
from orchestrator.load import read
from orchestrator.measuring import rollouts
from orchestrator.needs import STEP
from orchestrator.run_directory import RunDirectory
from orchestrator.scorers import scorers
from orchestrator.step_labels import StepLabeller
from policies import checkpoint
from policies.arrow import from_table
from policies.bad_input import BadInput, refuse
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Producer, Sampling, ScoreEntry, Trajectory, changed
from teachers.config import JsonlDemonstrations
from teachers.demonstrations import load

CHUNK = 256
"""Responses labelled at a time: a deadline is for a call. A group is not parted, for its prefixes are asked once."""

SAMPLED = (Producer.ROLLOUT, Producer.REVISION)
BAD = "\ufffd"
"""Stands in a text for bytes that are no character."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the responses."""

    rows: int
    steps: int
    left_out: int
    """Without a verdict, or with bytes that are no text."""
    completions: int
    tokens: int
    separator: str
    """What `labels.separator` must say to read the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A run whose model completes steps now, and how."""

    home: RunDirectory
    pipeline: Pipeline
    inputs: Inputs
    labels: StepLabels
    in_process: bool


def label(
    directory: Path,
    out: Path,
    sets: Sequence[str] = (),
    *,
    file: Path | None = None,
    limit: int | None = None,
    in_process: bool = False,
) -> Written:
    """Write labelled steps as JSON lines: of the run's newest `limit` responses, or of those in `file`.

    `file` holds rows {prompt, completion} that answer prompts of the run's prompts.train. `sets` change the run's
    pipeline: `step_labels.completions=16` and the like; with any, labels in the ledger are not enough. The labels are
    shares of right completions, whatever the run's `step_labels.kind`. BadInput where there is nothing to label.
    """
    if out.exists():
        refuse([f"--out: exists and is not overwritten (got '{out}'); choose another"])
    home = RunDirectory.open(directory)
    pipeline = read(home.config, [*sets, *(HERE if in_process else ())], checked=False)
    labels = (pipeline.step_labels or StepLabels()).model_copy(update={"kind": "monte_carlo", "writer": "learner"})
    job = Job(home, pipeline, read_inputs(pipeline, home.root, home.root), labels, in_process)
    found = list(islice(responses(home) if file is None else _given(file, job), limit))
    if not found:
        where = file or home.trajectories
        refuse([f"{where}: holds no response that a policy sampled; give a run with rollouts, or --responses"])
    completions = tokens = 0
    if sets or file is not None or not any(map(_labelled, found)):
        found, completions, tokens = asyncio.run(_complete(job, found))
    known, cut = job.inputs.train.by_id, labels.steps
    separator = cut.separator if cut.at == "separator" and isinstance(cut.separator, str) and not cut.size else ""
    ready = [one for one in found if one.prompt_id in known and _labelled(one)]
    rows = [row for one in ready if (row := row_of(one, known[one.prompt_id], job.inputs.tokenizer, separator))]
    _write(out, rows)
    steps = sum(len(row["labels"]) for row in rows)
    return Written(len(rows), steps, len(found) - len(rows), completions, tokens, separator)


def _given(file: Path, job: Job) -> Iterator[Trajectory]:
    """Responses that somebody else wrote, as if the last stage had sampled them."""
    config, reading = JsonlDemonstrations(path=str(file.resolve())), job.pipeline.stages[-1].sampling
    longest = job.pipeline.model.context
    found = load(config, job.inputs.train, job.inputs.tokenizer, base=Path(), seed=job.pipeline.seed, context=longest)
    found.refuse_strangers()
    sampling = Sampling(reading.temperature, reading.top_p, reading.top_k, reading.max_tokens, reading.stop)
    for name, numbers in found.by_prompt.items():
        yield from (changed(found.flat[at], prompt_id=name, group_id=name, sampling=sampling) for at in numbers)


def responses(home: RunDirectory) -> Iterator[Trajectory]:
    """What the learner sampled, newest step first, each once."""
    for file in sorted(home.trajectories.glob("step=*.parquet"), reverse=True):
        yield from (one for one in from_table(pq.read_table(file)) if one.producer in SAMPLED and one.sampling)


def _steps(one: Trajectory) -> list[ScoreEntry]:
    return [entry for entry in one.scores if entry.name == STEP and entry.start is not None]


def _labelled(one: Trajectory) -> bool:
    """Whether completions have labelled any of its steps, or its outcome does."""
    own = _steps(one)
    return any(entry.scorer.startswith("monte_carlo") and entry.status == "ok" for entry in own)


# ---------------------------------------------------------------- rows


def row_of(one: Trajectory, prompt: Prompt, tokenizer: Tokenizer, separator: str) -> dict[str, Any] | None:
    """A row of step labels (docs/data.md); None where a step's bytes are no text. A step without a label has null.

    The reader puts `separator` after each step, so that a step is written without the one that ends it.
    """
    own = _steps(one)
    texts = [tokenizer.decode(one.tokens[entry.start : entry.end]).removesuffix(separator) for entry in own]
    if any(BAD in text or not text.strip() for text in texts):
        return None
    said: Any = prompt.text
    if prompt.messages:
        said = [{"role": message.role, "content": message.content} for message in prompt.messages]
    labels = [None if math.isnan(entry.value) else entry.value for entry in own]
    return {"prompt": said, "completions": texts, "labels": labels, "response": one.id}


def _write(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """All rows or no file."""
    aside = out.with_name(f".{out.name}.tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(out)


# ---------------------------------------------------------------- completions


async def _complete(job: Job, found: Sequence[Trajectory]) -> tuple[list[Trajectory], int, int]:
    """The responses with labels by completions of the newest checkpoint; how many those were, and their tokens."""
    pipeline, newest = job.pipeline, checkpoint.newest(job.home.checkpoints).path
    if newest is None:
        raise BadInput([f"{job.home.checkpoints}: no good checkpoint whose model could complete the steps"])
    hold = (in_process.start if job.in_process else cluster.start)(f"{job.home.root.name}-label")
    try:
        writer = rollouts(pipeline, hold, newest / "model", _tell)
        judges = scorers(pipeline, hold, _tell)
        for actor in (*writer.replicas, *judges.actors):
            deadline = pipeline.resources.deadlines.start
            await cluster.wait(actor.ready(), deadline=deadline, what=f"starting {actor.name}", actor=actor.name)
        known = job.inputs.train.by_id
        labeller = StepLabeller(job.labels, writer, judges.reward, known, job.inputs.tokenizer, pipeline.seed)
        parts = []
        for chunk in _chunks([one for one in found if one.prompt_id in known]):
            new = [one for one in chunk if not one.scores]
            judged = {one.id: one for one in (await judges.reward.score(new, known) if new else ())}
            parts.append(await labeller.label([judged.get(one.id, one) for one in chunk]))
    finally:
        hold.stop()
    made = {one.id: one for part in parts for one in part.trajectories}
    whole = [made.get(one.id, changed(one, scores=())) for one in found]
    return whole, sum(part.completions for part in parts), sum(part.tokens for part in parts)


def _chunks(found: Sequence[Trajectory]) -> Iterator[list[Trajectory]]:
    """In chunks of about CHUNK, groups whole."""
    groups: dict[str, list[Trajectory]] = {}
    for one in found:
        groups.setdefault(one.group_id or one.id, []).append(one)
    chunk: list[Trajectory] = []
    for members in groups.values():
        if chunk and len(chunk) + len(members) > CHUNK:
            yield chunk
            chunk = []
        chunk += members
    if chunk:
        yield chunk


def _tell(kind: str, **facts: Any) -> None:
    print(f"{kind}: {', '.join(f'{key} {value}' for key, value in facts.items())}")
