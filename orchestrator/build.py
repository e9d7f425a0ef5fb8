"""From a pipeline to running parts: the model folder, the prompts, and every actor that the stages need."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from actors import cluster
from actors.cluster import Actor, Hold
from actors.environments import EnvironmentPool
from actors.frozen import FrozenReplica
from actors.learner_seat import LearnerSeat
from actors.meter import POLICY
from actors.pool import FrozenPool, LearnerPool, RayPublisher, RolloutPool
from actors.sampler import SamplerReplica
from actors.scorer_pool import ScorerPool
from orchestrator import repairs
from orchestrator.collect import Collector
from orchestrator.companions import Companion, rewarded
from orchestrator.config import Pipeline, Stage
from orchestrator.data import read as read_data
from orchestrator.environments import environment_pool, framing_of, playing
from orchestrator.frozen_models import FrozenModels
from orchestrator.health import verdict_facts
from orchestrator.held_out import HeldOut
from orchestrator.load import recipe_of
from orchestrator.loop import StageRun
from orchestrator.needs import reads_steps
from orchestrator.ports import Demonstrations, Sampler, Scorer
from orchestrator.probes.snapshot import SetName
from orchestrator.probing import Prober, ProbeSet, scaffolded
from orchestrator.processes import environment, threads
from orchestrator.scorers import scorers
from orchestrator.step_labels import StepLabeller
from policies.bad_input import refuse
from policies.model_folder import materialise
from policies.models import Head
from policies.tokens import Tokenizer
from teachers.labels import LabelSet
from teachers.preferences import PreferenceSet
from teachers.prompt_book import PromptBook
from teachers.streams import Report
from verifiers.health import added


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads before anything is started: bad input ends here."""

    folder: Path
    tokenizer: Tokenizer
    train: PromptBook
    probe: PromptBook
    demonstrations: Demonstrations | None
    stages: tuple[StageRun, ...]
    preferences: PreferenceSet | None = None
    labels: LabelSet | None = None
    reports: tuple[Report, ...] = ()
    """What became of the rows of the files that were read."""
    shifted: PromptBook = field(default_factory=lambda: PromptBook.of(()))
    """Tasks like the probe's from elsewhere."""
    guard: PromptBook = field(default_factory=lambda: PromptBook.of(()))
    """Tasks that are not to be forgotten."""

    @property
    def writes(self) -> bool:
        """Whether the model is a language model: a scalar head is neither sampled nor probed."""
        return all(stage.head == "language" for stage in self.stages)


@dataclass(slots=True)
class Parts:
    """The run's actors behind the loop's ports."""

    cluster: Hold
    learner: LearnerPool
    rollouts: RolloutPool
    publisher: RayPublisher
    scorer: ScorerPool
    frozen: FrozenModels
    held_out: ScorerPool | None = None
    """Of the verifier that nothing trains on, where the pipeline has one."""
    environments: EnvironmentPool | None = None
    """What the policy acts in, where the pipeline has an environment."""
    learners: Mapping[str, LearnerPool] = field(default_factory=dict)
    """Co-learners of all stages, by name: one that several stages have keeps its weights between them."""

    def companions(self, stage: StageRun) -> tuple[Companion, ...]:
        """The stage's co-learners."""
        return tuple(Companion(one, self.learners[one.name]) for one in stage.learners)

    def collector(self, inputs: Inputs, pipeline: Pipeline, stage: StageRun, version: Callable[[], int]) -> Collector:
        """The sources of a stage, wired; `version` is the policy's."""
        return Collector(
            self.sampler(inputs, pipeline, inputs.train),
            self.judging(pipeline, rewarded(self.scorer, self.companions(stage), version)),
            inputs.train,
            inputs.train.by_id,
            inputs.demonstrations,
            pipeline.seed,
            inputs.tokenizer,
            self.frozen.writers(stage.index),
            inputs.preferences,
            inputs.labels,
            longest=pipeline.model.context,
            policy=self.learner,
            version=version,
            labeller=self.labeller(inputs, pipeline, stage),
        )

    def labeller(self, inputs: Inputs, pipeline: Pipeline, stage: StageRun) -> StepLabeller | None:
        """Who labels the stage's steps; None where nothing reads labels."""
        config = stage.step_labels
        if config is None:
            return None
        writers: dict[str, Sampler] = {"learner": self.rollouts, **self.frozen.writers(stage.index)}
        if config.writer not in writers:
            raise ValueError(f"step_labels.writer: {config.writer} is no model of stage {stage.config.name}")
        known = inputs.train.by_id
        return StepLabeller(config, writers[config.writer], self.scorer, known, inputs.tokenizer, pipeline.seed)

    def sampler(self, inputs: Inputs, pipeline: Pipeline, prompts: PromptBook) -> Sampler:
        """What writes responses to `prompts`: the rollout engines, in an environment where there is one."""
        if self.environments is None:
            return self.rollouts
        return playing(pipeline, self.rollouts, self.environments, inputs.tokenizer, prompts.by_id)

    def judging(self, pipeline: Pipeline, scorer: Scorer) -> Scorer:
        """The scorer, with the held-out verifier beside it where there is one."""
        return HeldOut(scorer, self.held_out, pipeline.health.held_out_share) if self.held_out else scorer

    def fared(self) -> dict[str, Any]:
        """What a step's row says of the scorers: how they fared since this was last asked."""
        pools = [self.scorer, *([self.held_out] if self.held_out else [])]
        return verdict_facts(added(pool.take() for pool in pools))

    def prober(self, inputs: Inputs, pipeline: Pipeline) -> Prober:
        """The probe, wired: each set with its own sampler, for episodes are played against a set's own references."""
        own, scaffold = pipeline.handoff, scaffolded(pipeline.handoff.scaffold, inputs.probe, inputs.tokenizer)
        sets = [ProbeSet("probe", inputs.probe, inputs.probe.by_id, self.sampler(inputs, pipeline, inputs.probe))]
        if scaffold.prompts:
            sets.append(replace(sets[0], name="scaffolded", prompts=scaffold.prompts, contexts=scaffold.contexts))
        books: dict[SetName, PromptBook] = {"shifted": inputs.shifted, "guard": inputs.guard}
        for name, book in books.items():
            if len(book):
                sets.append(ProbeSet(name, book, book.by_id, self.sampler(inputs, pipeline, book)))
        return Prober(sets, self.scorer.aside(), pipeline.probe, own, pipeline.verifier, pipeline.seed)


def stage_runs(pipeline: Pipeline, begun: tuple[int, int] = (-1, 0)) -> tuple[StageRun, ...]:
    """Each stage with its recipe expanded, and after them all the repairs that contracts may ask for, or that a run has
    `begun` (`repairs.planned`)."""
    runs = [_stage_run(pipeline, index, stage) for index, stage in enumerate(pipeline.stages)]
    for one in repairs.planned(pipeline, begun):
        repair = _stage_run(pipeline, len(runs), one.config)
        runs.append(replace(repair, repaired=runs[one.of], attempt=one.attempt))
    _one_head(runs)
    return tuple(runs)


def _stage_run(pipeline: Pipeline, index: int, stage: Stage) -> StageRun:
    recipe = recipe_of(stage.recipe)
    return StageRun(
        index,
        stage,
        recipe.strands,
        recipe.controls,
        recipe.teacher,
        recipe.learners,
        recipe.teachers,
        recipe.refresh,
        recipe.restart,
        recipe.head,
        pipeline.step_labels if any(map(reads_steps, recipe.strands)) else None,
    )


def _one_head(stages: Sequence[StageRun]) -> None:
    heads = {stage.head: stage.config.name for stage in stages}
    if len(heads) > 1:
        which = f"{heads['scalar']} trains a scalar head and {heads['language']} a language model"
        refuse([f"stages: {which}; a run has one model, so give each a pipeline of its own"])


def read_inputs(pipeline: Pipeline, directory: Path, base: Path, begun: tuple[int, int] = (-1, 0)) -> Inputs:
    """Everything the run reads, checked: BadInput names file, key, value and fix. Starts nothing.

    `begun`: the stage and the attempt at its repair where the run goes on.
    """
    folder = materialise(pipeline.model, directory / "model", base)
    tokenizer = Tokenizer.load(folder)
    framing_of(pipeline, tokenizer)
    stages = stage_runs(pipeline, begun)
    data = read_data(pipeline, [strand for stage in stages for strand in stage.strands], tokenizer, base)
    nobody = PromptBook.of(())
    probed = all(stage.head == "language" for stage in stages)
    return Inputs(
        folder,
        tokenizer,
        data.train,
        data.probe if probed else nobody,
        data.demonstrations,
        stages,
        data.preferences,
        data.labels,
        data.reports,
        data.shifted if probed else nobody,
        data.guard if probed else nobody,
    )


async def start_parts(
    pipeline: Pipeline,
    inputs: Inputs,
    hold: Hold,
    on_event: Callable[..., None],
    say: Callable[[str], None],
    folder_of: Callable[[str], Path] = Path,
) -> Parts:
    """Spawn every actor at once and wait until each answers; the slowest sets the time.

    `folder_of`: where a policy of this run lies that a teacher names, `stage:NAME` or `found:NAME`.
    """
    resources, deadlines = pipeline.resources, pipeline.resources.deadlines
    spawn_rollout = partial(_spawn_rollout, hold, pipeline, inputs)
    learner, learners = _learner_pools(hold, pipeline, inputs)
    rollouts = RolloutPool(
        spawn_rollout,
        # a scalar head writes nothing
        [spawn_rollout(index) for index in range(resources.rollout.replicas if inputs.writes else 0)],
        deadlines,
        on_event,
        hold.kill,
    )
    judging = scorers(pipeline, hold, on_event)
    environments = environment_pool(pipeline, hold, on_event, judging.judging) if inputs.writes else None
    frozen = _frozen_models(hold, pipeline, inputs, folder_of)
    models = [*judging.actors, *(actor for pool in frozen.pools.values() for actor in pool.replicas)]
    models += environments.replicas if environments else []
    pools = [learner, *learners.values()]
    ranks = [rank for pool in pools for rank in pool.ranks]
    await asyncio.gather(
        _all_answer(
            [*ranks, *rollouts.replicas, *models],
            deadlines.start,
            say,
        ),
        *(pool.open(loopback=hold.private) for pool in pools),
    )
    return Parts(
        hold,
        learner,
        rollouts,
        RayPublisher(learner, rollouts),
        judging.reward,
        frozen,
        judging.held_out,
        environments,
        learners,
    )


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


def _spawn_rollout(hold: Hold, pipeline: Pipeline, inputs: Inputs, index: int) -> Actor:
    config = pipeline.resources.rollout
    count = threads(config.threads, config.replicas, pipeline.model)
    return hold.spawn(
        SamplerReplica,
        str(inputs.folder),
        pipeline.model,
        config.model_copy(update={"threads": count}),
        pipeline.model.context,
        pipeline.name,
        role="rollout",
        index=index,
        gpus=config.gpus,
        env=environment(count, config.engine, config.gpus),
    )


def _learner_pools(hold: Hold, pipeline: Pipeline, inputs: Inputs) -> tuple[LearnerPool, dict[str, LearnerPool]]:
    """The policy's ranks, and those of every co-learner that a stage has."""
    count, deadlines = pipeline.resources.learner.replicas, pipeline.resources.deadlines

    def pool(role: str, head: Head, model: str = POLICY) -> LearnerPool:
        ranks = [_spawn_learner(hold, pipeline, inputs, rank, role, head) for rank in range(count)]
        return LearnerPool(ranks, deadlines, model=model)

    names = dict.fromkeys(one.name for stage in inputs.stages for one in stage.learners)
    beside = {name: pool(f"learner-{name}", "scalar", name) for name in names}
    return pool("learner", "language" if inputs.writes else "scalar"), beside


def _spawn_learner(
    hold: Hold, pipeline: Pipeline, inputs: Inputs, rank: int, role: str = "learner", head: Head = "language"
) -> Actor:
    config = pipeline.resources.learner
    count = threads(config.threads, config.replicas, pipeline.model)
    return hold.spawn(
        LearnerSeat,
        inputs.folder,
        pipeline.model,
        config.model_copy(update={"threads": count}),
        rank,
        pipeline.seed,
        head,
        role=role,
        index=rank,
        gpus=config.gpus,
        env=environment(count),
    )


def _frozen_models(hold: Hold, pipeline: Pipeline, inputs: Inputs, folder_of: Callable[[str], Path]) -> FrozenModels:
    """Those of every stage; replicas are numbered across all of them."""
    config, deadlines = pipeline.resources.frozen, pipeline.resources.deadlines
    count = threads(config.threads, config.replicas, pipeline.model)
    counter = iter(range(1 << 16))

    def pool(folder: str, name: str, refreshed: bool) -> FrozenPool:
        replicas = [
            hold.spawn(
                FrozenReplica,
                folder or str(inputs.folder),
                pipeline.model,
                config.model_copy(update={"threads": count}),
                pipeline.model.context,
                role="frozen",
                index=next(counter),
                gpus=config.gpus,
                env=environment(count, config.engine, config.gpus),
                kwargs={"name": Path(name).name, "refreshed": refreshed, "given": not folder},
            )
            for _ in range(config.replicas)
        ]
        return FrozenPool(replicas, deadlines, name)

    return FrozenModels.started(pool, folder_of, inputs.stages)
