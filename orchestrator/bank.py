"""The bank: good trajectories, fixed once for the run, that every checkpoint is asked the probability of.

Where the demonstrations are made by rule they are made for the prompts of `prompts.probe`; those of a file or a model
are the training prompts'. The verifier judges all; those that pass are kept. Without demonstrations the bank is made of
what the policy itself got right on the probe, at the first probe where it got anything right.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from orchestrator.asking import passed, seed_for, with_verdicts
from orchestrator.config import Pipeline
from orchestrator.ledger import write_parquet
from orchestrator.ports import Demonstrations, Scorer
from orchestrator.run_directory import RunDirectory
from policies.arrow import from_table, to_table
from policies.bad_input import BadInput
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Trajectory
from teachers.config import CarelessTeacher, ChainSolver, ToolCaller
from teachers.demonstrations import load
from teachers.draws import draw

SPARE = 2
"""Candidates judged for each place in the bank: some will not pass."""


def bank_file(run: RunDirectory) -> Path:
    """Where the bank lies, once it has anything."""
    return run.scored / "bank.parquet"


def read_bank(run: RunDirectory) -> tuple[Trajectory, ...]:
    """The run's bank; empty where it has none yet."""
    path = bank_file(run)
    return tuple(from_table(pq.read_table(path))) if path.is_file() else ()


def write_bank(run: RunDirectory, bank: Sequence[Trajectory]) -> None:
    """Fix the bank for the run."""
    run.scored.mkdir(exist_ok=True)
    write_parquet(bank_file(run), to_table(list(bank)))


def by_rule(pipeline: Pipeline, prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[Trajectory]:
    """Demonstrations of these prompts by the pipeline's teacher, where it works by rule; else none."""
    config = pipeline.demonstrations
    if isinstance(config, CarelessTeacher):
        config = CarelessTeacher(carelessness=0.0)
    if not isinstance(config, CarelessTeacher | ChainSolver | ToolCaller):
        return []
    room = {"seed": pipeline.seed, "context": pipeline.model.context, "environment": pipeline.environment}
    try:
        return list(load(config, prompts, tokenizer, base=Path(), **room).flat)  # type: ignore[arg-type]
    except BadInput:
        return []  # a teacher of other tasks than the probe's


def of_training(
    prompts: Sequence[Prompt], demonstrations: Demonstrations | None, count: int, seed: int
) -> list[Trajectory]:
    """The first demonstrations of `count` training prompts, or of as many as have one."""
    if demonstrations is None or not len(prompts):
        return []
    found: dict[str, Trajectory] = {}
    for at in draw(len(prompts), 0, len(prompts), seed_for(seed, "bank")):
        one = demonstrations.for_prompt(prompts[at].id, 0)
        if one is not None and len(one.tokens):
            found[prompts[at].id] = one
        if len(found) == count:
            break
    return list(found.values())


async def judged(
    candidates: Sequence[Trajectory], scorer: Scorer, prompts: Mapping[str, Prompt], count: int
) -> tuple[Trajectory, ...]:
    """The first `count` of the candidates that pass."""
    asked = [one for one in candidates if one.prompt_id in prompts][: SPARE * count]
    found = await with_verdicts(scorer, asked, prompts) if asked else []
    return tuple(one for one in found if passed(one))[:count]
