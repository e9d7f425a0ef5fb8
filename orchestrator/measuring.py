"""Start what measures a checkpoint, draw, judge, and score the bank: one implementation for whoever measures now.

A run measures itself with the same prober while its engines are up (orchestrator/measuring_run.py); here engines are
started on a folder's weights, and nothing trains.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from actors import cluster, in_process
from actors.pool import RolloutPool
from actors.sampler import SamplerReplica
from orchestrator.bank import by_rule, judged, read_bank
from orchestrator.config import Pipeline
from orchestrator.environments import environment_pool, playing
from orchestrator.forcing import forced, standing
from orchestrator.ports import Sampler, Scorer
from orchestrator.probe_files import sampled
from orchestrator.probes.snapshot import Scored, Snapshot
from orchestrator.probing import Looks, Measured, Prober, ProbeSet, scaffolded
from orchestrator.processes import environment, threads
from orchestrator.scorers import scorers
from orchestrator.subject import Subject, chosen
from policies.bad_input import BadInput
from policies.prompt import Prompt
from policies.trajectory import Trajectory

Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much is measured."""

    samples: int
    prompts: int
    """Most prompts; of more, so many evenly through their order."""
    bank: int = 0
    """Most good trajectories that are scored; 0 asks for none."""
    looks: Looks | None = None
    """When a prompt is done; None: after `samples` responses."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What was measured."""

    snapshot: Snapshot
    rows: list[dict[str, Any]]
    """As `probe_files.PROBE_SCHEMA` has them, without step and stage."""
    seconds: float
    """Of drawing, judging and scoring; the start is not counted."""


def measure(subject: Subject, wanted: Wanted, progress: "Countdown") -> Taken:
    """Start the actors, measure, and end them. BadInput where no response got a verdict."""
    return asyncio.run(_measured(subject, wanted, progress))


async def _measured(subject: Subject, wanted: Wanted, progress: "Countdown") -> Taken:
    name = f"{subject.folder.name[:20]}-measured"
    progress.say("starting the engines")
    hold = (in_process.start if progress.in_process else cluster.start)(name)
    try:
        parts = await start(subject, hold, progress.event)
        began = time.monotonic()
        taken = await _taken(subject, wanted, parts, progress)
        return replace(taken, seconds=time.monotonic() - began)
    finally:
        hold.stop()


# ---------------------------------------------------------------- what is started


@dataclass(frozen=True, slots=True)
class Standing:
    """Actors that serve a checkpoint and judge what it writes."""

    rollouts: RolloutPool
    sampler: Sampler
    """The rollout engines, in the pipeline's environment where it has one."""
    scorer: Scorer


async def start(subject: Subject, hold: cluster.Hold, tell: Tell) -> Standing:
    """Spawn rollout engines with the folder's weights, scorers and what these ask; wait until all answer."""
    pipeline = subject.pipeline
    pool = rollouts(pipeline, hold, subject.folder, tell)
    judges = scorers(pipeline, hold, tell)
    own = environment_pool(pipeline, hold, tell, judges.judging)
    actors = [*pool.replicas, *judges.actors, *(own.replicas if own else ())]
    deadline = pipeline.resources.deadlines.start
    await asyncio.gather(
        *(cluster.wait(one.ready(), deadline=deadline, what=f"starting {one.name}", actor=one.name) for one in actors)
    )
    sampler: Sampler = pool
    if own is not None:
        sampler = playing(pipeline, pool, own, subject.tokenizer, subject.prompts.by_id)
    return Standing(pool, sampler, judges.reward)


def rollouts(pipeline: Pipeline, hold: cluster.Hold, folder: Path, tell: Tell) -> RolloutPool:
    """The rollout engines, serving the folder's weights."""
    config, deadlines = pipeline.resources.rollout, pipeline.resources.deadlines
    count = threads(config.threads, config.replicas, pipeline.model)

    def spawn(index: int) -> cluster.Actor:
        return hold.spawn(
            SamplerReplica,
            str(folder),
            pipeline.model,
            config.model_copy(update={"threads": count}),
            pipeline.model.context,
            pipeline.name,
            "folder",
            role="rollout",
            index=index,
            gpus=config.gpus,
            env=environment(count, config.engine, config.gpus),
        )

    return RolloutPool(spawn, [spawn(index) for index in range(config.replicas)], deadlines, tell, hold.kill)


# ---------------------------------------------------------------- what is measured


async def _taken(subject: Subject, wanted: Wanted, parts: Standing, progress: "Countdown") -> Taken:
    prompts = chosen(subject.prompts, wanted.prompts)
    prober = _prober(subject, wanted, parts, prompts)
    progress.begin()
    drawn = await prober.measure(subject.pipeline.stages[-1].sampling, progress)
    _judged(drawn)
    scored: list[Scored] = []
    if wanted.bank:
        progress.say("scoring good trajectories")
        scored = await _scored(subject, wanted.bank, parts, drawn, prompts)
    names = dict.fromkeys(str(row["set"]) for row in drawn.rows)
    sets = {name: sampled([row for row in drawn.rows if row["set"] == name]) for name in names}
    return Taken(Snapshot(subject.step, "measured", sets, tuple(scored)), drawn.rows, 0.0)


def _prober(subject: Subject, wanted: Wanted, parts: Standing, prompts: Sequence[Prompt]) -> Prober:
    pipeline = subject.pipeline
    handoff = pipeline.handoff.model_copy(update={"probe_samples": wanted.samples, "sequential": False})
    by_id = subject.prompts.by_id
    sets = [ProbeSet("probe", prompts, by_id, parts.sampler)]
    helped = scaffolded(pipeline.handoff.scaffold, prompts, subject.tokenizer)
    if helped.prompts:
        sets.append(ProbeSet("scaffolded", helped.prompts, by_id, parts.sampler, helped.contexts))
    return Prober(sets, parts.scorer, pipeline.probe, handoff, pipeline.verifier, pipeline.seed, wanted.looks)


def _judged(drawn: Measured) -> None:
    """A verifier that says nothing of any response measures nothing."""
    if drawn.rows and all(row["passed"] is None for row in drawn.rows):
        said = sorted({str(row["status"]) for row in drawn.rows})
        fix = "look at the references and at --verifier, or raise its timeout"
        raise BadInput(
            [f"--verifier: gave no verdict on any of {len(drawn.rows)} responses (got {', '.join(said)}); {fix}"]
        )


async def _scored(
    subject: Subject, most: int, parts: Standing, drawn: Measured, prompts: Sequence[Prompt]
) -> list[Scored]:
    """The bank and the policy's own responses, as the policy itself finds them."""
    bank = await _bank(subject, most, parts.scorer, drawn, prompts)
    known = {**{one.prompt_id: subject.prompts.by_id[one.prompt_id] for one in drawn.own}}
    books = (subject.prompts.by_id, subject.shown.by_id)
    for one in bank:
        found = next((book[one.prompt_id] for book in books if one.prompt_id in book), None)
        if found is not None:
            known[one.prompt_id] = found
    good = [standing(replace(one, scores=()), known[one.prompt_id]) for one in bank if one.prompt_id in known]
    own = [standing(replace(one, scores=()), known[one.prompt_id]) for one in drawn.own[:most]]
    judge = parts.rollouts.logprobs
    return [*await forced(good, "bank", "after", judge), *await forced(own, "after", "after", judge)]


async def _bank(
    subject: Subject, most: int, scorer: Scorer, drawn: Measured, prompts: Sequence[Prompt]
) -> Sequence[Trajectory]:
    """Good trajectories: by rule, then demonstrations of the prompts measured, then the run's own bank, then others'
    demonstrations, then what the policy got right. Those that are made or given are judged first."""
    made = by_rule(subject.pipeline, prompts, subject.tokenizer)
    if made:
        return await judged(made, scorer, subject.prompts.by_id, most)
    given = _shown(subject, prompts)
    if given:
        return await judged(given, scorer, subject.shown.by_id, most)
    kept = () if subject.home is None else read_bank(subject.home)
    if kept:
        return kept[:most]
    others = _shown(subject, chosen(subject.shown, most))
    return await judged(others, scorer, subject.shown.by_id, most) if others else drawn.passed[:most]


def _shown(subject: Subject, prompts: Sequence[Prompt]) -> list[Trajectory]:
    """The first demonstration of each of these prompts that has one."""
    shown = subject.demonstrations
    found = [] if shown is None else [shown.for_prompt(one.id, 0) for one in prompts]
    return [one for one in found if one is not None and len(one.tokens)]


# ---------------------------------------------------------------- progress


LINE_SECONDS = 2.0


@dataclass(slots=True)
class Countdown:
    """Says how far a measurement is and how long it takes, on stderr."""

    in_process: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _began: float = field(default_factory=time.monotonic)
    _last: float = 0.0

    def begin(self) -> None:
        """Drawing begins."""
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """A line."""
        print(text, file=self.stream, flush=True)

    def event(self, kind: str, **facts: Any) -> None:
        """What befell an actor."""
        self.say(f"{kind}: {', '.join(f'{key} {value}' for key, value in facts.items())}")

    def __call__(self, done: int, total: int) -> None:
        """So many prompts are done; lines come no closer than two seconds, but for the last."""
        now = time.monotonic()
        if done < total and now - self._last < LINE_SECONDS:
            return
        self._last = now
        left = (now - self._began) / done * (total - done) if done else 0.0
        self.say(f"measured {done} of {total} prompts" + (f", about {left:.0f} s left" if done < total else ""))
