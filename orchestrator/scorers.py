"""The scorers of a run, and the models that they ask: one actor a model, or several, shared by all scorers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import assert_never

from actors.cluster import Actor, Hold
from actors.judge_replica import JudgeReplica
from actors.scalar_replica import ScalarReplica
from actors.scorer import ScorerReplica
from actors.scorer_pool import ScorerPool
from orchestrator.config import Pipeline
from orchestrator.processes import environment, threads
from verifiers.kinds import compares, wanted
from verifiers.served import Wanted

RESTARTS = 1
"""Times that a model's actor is started again when it dies; verdicts that it owed, or owes after that, are errors."""

Judging = Mapping[str, Sequence[Actor]]
"""The replicas of each model that the verifier asks, by `Wanted.name`."""


def scorer_pool(pipeline: Pipeline, hold: Hold, on_event: Callable[..., None]) -> tuple[ScorerPool, list[Actor]]:
    """Spawn the scorers and the models that they ask; returns both, for somebody to wait until they answer."""
    config = pipeline.resources.scorer
    judging = judging_models(pipeline, hold)

    def spawn(index: int) -> Actor:
        return hold.spawn(
            ScorerReplica,
            pipeline.verifier,
            config.timeout,
            role="scorer",
            index=index,
            env=environment(1),
            kwargs={"models": {name: hold.share(actors[index % len(actors)]) for name, actors in judging.items()}},
        )

    replicas = [spawn(index) for index in range(config.replicas)]
    models = [actor for actors in judging.values() for actor in actors]
    start = pipeline.resources.deadlines.start
    whole = compares(pipeline.verifier)
    return ScorerPool(spawn, replicas, config.timeout, on_event, hold.kill, start, whole), models


def judging_models(pipeline: Pipeline, hold: Hold) -> Judging:
    """Spawn `resources.judge.replicas` of every model that the verifier asks; they are numbered across all of them."""
    found, numbers = dict[str, Sequence[Actor]](), iter(range(1 << 16))
    for one in wanted(pipeline.verifier):
        spawn = partial(_spawn, pipeline, hold, one)
        found[one.name] = [spawn(next(numbers)) for _ in range(pipeline.resources.judge.replicas)]
    return found


def _spawn(pipeline: Pipeline, hold: Hold, one: Wanted, index: int) -> Actor:
    config = pipeline.resources.judge
    count = threads(config.threads, config.replicas * len(wanted(pipeline.verifier)), pipeline.model)
    own = config.model_copy(update={"threads": count})
    spawn = partial(hold.spawn, _class_of(one), one.path, own, role="judge", index=index, gpus=config.gpus)
    engine = config.engine if one.role == "judge" else "torch"
    return spawn(env=environment(count, engine, config.gpus), restarts=RESTARTS)


def _class_of(one: Wanted) -> type:
    """What serves a model of the role."""
    match one.role:
        case "reward" | "process" | "preference":
            return ScalarReplica
        case "judge":
            return JudgeReplica
        case _:
            assert_never(one.role)
