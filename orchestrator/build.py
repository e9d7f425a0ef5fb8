"""From a pipeline to running parts: the model folder, the prompts, and every actor that the stages need."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from actors import cluster
from actors.cluster import Actor, Cluster
from actors.frozen import FrozenReplica
from actors.learner_seat import LearnerSeat
from actors.pool import FrozenPool, LearnerPool, RayPublisher, RolloutPool, ScorerPool
from actors.sampler import SamplerReplica
from actors.scorer import ScorerReplica
from actors.vllm_environment import environment as vllm_environment
from orchestrator.collect import Collector
from orchestrator.config import Pipeline
from orchestrator.data import read as read_data
from orchestrator.load import recipe_of
from orchestrator.loop import StageRun
from orchestrator.ports import Demonstrations
from orchestrator.probing import Prober
from policies.config import Model, TinyModel
from policies.model_folder import materialise
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from teachers.labels import LabelSet
from teachers.preferences import PreferenceSet
from teachers.streams import Report

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Nothing a run starts reaches for a hub or reports home, and threads that wait do not take a core from the others."""

SCORER_GRACE = 15.0
"""Seconds past the scorer's own time-out, which gives back the verdicts that were ready; ours would lose them all."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads before anything is started: bad input ends here."""

    folder: Path
    tokenizer: Tokenizer
    train: tuple[Prompt, ...]
    probe: tuple[Prompt, ...]
    demonstrations: Demonstrations | None
    stages: tuple[StageRun, ...]
    preferences: PreferenceSet | None = None
    labels: LabelSet | None = None
    reports: tuple[Report, ...] = ()
    """What became of the rows of the files that were read."""

    @property
    def by_id(self) -> dict[str, Prompt]:
        """Every prompt of the run."""
        return {prompt.id: prompt for prompt in (*self.train, *self.probe)}


@dataclass(slots=True)
class Parts:
    """The run's actors behind the loop's ports."""

    cluster: Cluster
    learner: LearnerPool
    rollouts: RolloutPool
    publisher: RayPublisher
    scorer: ScorerPool
    reference: FrozenPool | None
    teachers: Mapping[int, FrozenPool]
    """Stage index -> its teacher."""

    def collector(self, inputs: Inputs, pipeline: Pipeline, stage: int) -> Collector:
        """The sources of a stage, wired."""
        frozen = {"teacher": self.teachers.get(stage), "reference": self.reference}
        return Collector(
            self.rollouts,
            self.scorer,
            inputs.train,
            inputs.by_id,
            inputs.demonstrations,
            pipeline.seed,
            inputs.tokenizer,
            {name: model for name, model in frozen.items() if model is not None},
            inputs.preferences,
            inputs.labels,
            longest=pipeline.model.context,
        )

    def prober(self, inputs: Inputs, pipeline: Pipeline) -> Prober:
        """The probe, wired."""
        return Prober(self.rollouts, self.scorer, inputs.probe, inputs.by_id, pipeline.probe, pipeline.seed)


def stage_runs(pipeline: Pipeline) -> tuple[StageRun, ...]:
    """Each stage with its recipe expanded."""
    runs = []
    for index, stage in enumerate(pipeline.stages):
        recipe = recipe_of(stage.recipe)
        runs.append(StageRun(index, stage, recipe.strands, recipe.controls, recipe.teacher))
    return tuple(runs)


def read_inputs(pipeline: Pipeline, directory: Path, base: Path) -> Inputs:
    """Everything the run reads, checked: BadInput names file, key, value and fix. Starts nothing."""
    folder = materialise(pipeline.model, directory / "model", base)
    tokenizer = Tokenizer.load(folder)
    stages = stage_runs(pipeline)
    data = read_data(pipeline, [strand for stage in stages for strand in stage.strands], tokenizer, base)
    return Inputs(
        folder,
        tokenizer,
        data.train,
        data.probe,
        data.demonstrations,
        stages,
        data.preferences,
        data.labels,
        data.reports,
    )


def threads(asked: int | None, replicas: int, model: Model) -> int:
    """CPU threads of one replica: as asked; one for a tiny model; else the machine's cores shared by the replicas.

    A tiny model's time goes into Python and small kernels: a second thread waits for the first, and takes its core
    from the other actors.
    """
    if asked is None and isinstance(model, TinyModel):
        return 1
    return asked or max(1, (os.cpu_count() or 1) // replicas)


def _environment(count: int, engine: str = "torch", gpus: float = 0) -> dict[str, str]:
    return {**QUIET, "OMP_NUM_THREADS": str(count), **(vllm_environment(count, gpus) if engine == "vllm" else {})}


async def start_parts(
    pipeline: Pipeline, inputs: Inputs, hold: Cluster, on_event: Callable[..., None], say: Callable[[str], None]
) -> Parts:
    """Spawn every actor at once and wait until each answers; the slowest sets the time."""
    resources, deadlines = pipeline.resources, pipeline.resources.deadlines
    spawn_rollout = partial(_spawn_rollout, hold, pipeline, inputs)
    learner = LearnerPool(
        [_spawn_learner(hold, pipeline, inputs, rank) for rank in range(resources.learner.replicas)], deadlines
    )
    rollouts = RolloutPool(
        spawn_rollout,
        [spawn_rollout(index) for index in range(resources.rollout.replicas)],
        deadlines,
        on_event,
        hold.kill,
    )
    scorers = [
        hold.spawn(
            ScorerReplica,
            pipeline.verifier,
            resources.scorer.timeout,
            role="scorer",
            index=index,
            env=_environment(1),
        )
        for index in range(resources.scorer.replicas)
    ]
    scorer = ScorerPool(scorers, resources.scorer.timeout + SCORER_GRACE, on_event)
    reference, teachers = _frozen_pools(hold, pipeline, inputs)
    frozen = [actor for pool in (reference, *teachers.values()) if pool for actor in pool.replicas]
    await asyncio.gather(
        _all_answer([*learner.ranks, *rollouts.replicas, *scorers, *frozen], deadlines.start, say),
        learner.open(loopback=hold.private),
    )
    return Parts(hold, learner, rollouts, RayPublisher(learner, rollouts), scorer, reference, teachers)


async def _all_answer(actors: list[Actor], deadline: float, say: Callable[[str], None]) -> None:
    """Wait for each actor's first answer; the first that fails ends the start with its own error."""
    waiting = {actor.name.rsplit("/", 1)[-1] for actor in actors}

    async def answer(actor: Actor) -> None:
        await cluster.wait(actor.ready(), deadline=deadline, what=f"starting {actor.name}", actor=actor.name)
        waiting.discard(actor.name.rsplit("/", 1)[-1])
        if waiting:
            say(f"waiting for {', '.join(sorted(waiting))}")

    say(f"starting {', '.join(sorted(waiting))}")
    await asyncio.gather(*(answer(actor) for actor in actors))


def _spawn_rollout(hold: Cluster, pipeline: Pipeline, inputs: Inputs, index: int) -> Actor:
    config = pipeline.resources.rollout
    count = threads(config.threads, config.replicas, pipeline.model)
    return hold.spawn(
        SamplerReplica,
        str(inputs.folder),
        pipeline.model,
        config,
        pipeline.model.context,
        pipeline.name,
        role="rollout",
        index=index,
        gpus=config.gpus,
        env=_environment(count, config.engine, config.gpus),
    )


def _spawn_learner(hold: Cluster, pipeline: Pipeline, inputs: Inputs, rank: int) -> Actor:
    config = pipeline.resources.learner
    count = threads(config.threads, config.replicas, pipeline.model)
    return hold.spawn(
        LearnerSeat,
        inputs.folder,
        pipeline.model,
        config.model_copy(update={"threads": count}),
        rank,
        pipeline.seed,
        role="learner",
        index=rank,
        gpus=config.gpus,
        env=_environment(count),
    )


def _frozen_pools(hold: Cluster, pipeline: Pipeline, inputs: Inputs) -> tuple[FrozenPool | None, dict[int, FrozenPool]]:
    """One pool for the reference if any stage reads it, and one for each stage's teacher."""
    from orchestrator.assemble import wants_reference, wants_teacher

    config, deadlines = pipeline.resources.frozen, pipeline.resources.deadlines
    counter = iter(range(1 << 16))

    def pool(folder: str) -> FrozenPool:
        replicas = [
            hold.spawn(
                FrozenReplica,
                folder,
                pipeline.model,
                config,
                pipeline.model.context,
                role="frozen",
                index=next(counter),
                gpus=config.gpus,
                env=_environment(threads(config.threads, config.replicas, pipeline.model), config.engine, config.gpus),
            )
            for _ in range(config.replicas)
        ]
        return FrozenPool(replicas, deadlines)

    referred = any(wants_reference(strand) for stage in inputs.stages for strand in stage.strands)
    teachers = {
        stage.index: pool(str(stage.teacher))
        for stage in inputs.stages
        if stage.teacher and any(wants_teacher(strand) for strand in stage.strands)
    }
    return (pool(str(inputs.folder)) if referred else None), teachers
