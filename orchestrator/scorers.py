"""The scorers of a run, and the models that they ask: one actor a model, or several, shared by all scorers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from actors.cluster import Actor, Hold
from actors.judge_replica import JudgeReplica
from actors.scalar_replica import ScalarReplica
from actors.scorer import REWARD, ScorerReplica
from actors.scorer_pool import ScorerPool
from orchestrator.config import Pipeline, verifiers_of
from orchestrator.held_out import HELD_OUT
from orchestrator.processes import environment, threads
from verifiers.config import AnyVerifier
from verifiers.kinds import compares, wanted
from verifiers.served import Wanted

RESTARTS = 1
"""Times that a model's actor is started again when it dies; verdicts that it owed, or owes after that, are errors."""

Judging = Mapping[str, Sequence[Actor]]
"""The replicas of each model that the verifier asks, by `Wanted.name`."""


@dataclass(frozen=True, slots=True)
class Scorers:
    """The run's scorers, and the models that they ask."""

    reward: ScorerPool
    held_out: ScorerPool | None
    """Of the verifier that nothing trains on, where the pipeline has one."""
    judging: "Judging"
    """The models that they ask."""

    @property
    def models(self) -> list[Actor]:
        """The actors of all those models."""
        return [actor for actors in self.judging.values() for actor in actors]

    @property
    def actors(self) -> list[Actor]:
        """All of them, for somebody to wait until they answer."""
        return [*self.reward.replicas, *(self.held_out.replicas if self.held_out else ()), *self.models]


def scorers(pipeline: Pipeline, hold: Hold, on_event: Callable[..., None]) -> Scorers:
    """Spawn the scorers and the models that they ask."""
    judging = judging_models(pipeline, hold)

    def pool(verifier: AnyVerifier, role: str, name: str) -> ScorerPool:
        return _pool(pipeline, hold, on_event, judging, (verifier, role, name))

    held_out = pipeline.held_out_verifier
    return Scorers(
        pool(pipeline.verifier, "scorer", REWARD),
        pool(held_out, "held-out", HELD_OUT) if held_out else None,
        judging,
    )


def _pool(
    pipeline: Pipeline,
    hold: Hold,
    on_event: Callable[..., None],
    judging: Judging,
    what: tuple[AnyVerifier, str, str],
) -> ScorerPool:
    """Scorers of a verifier, in a role, whose entries bear a name."""
    (verifier, role, name), config = what, pipeline.resources.scorer

    def spawn(index: int) -> Actor:
        models = shared(judging, hold, index)
        return hold.spawn(
            ScorerReplica,
            verifier,
            config.timeout,
            role=role,
            index=index,
            env=environment(1),
            kwargs={"models": models, "name": name},
        )

    return ScorerPool(
        spawn,
        [spawn(index) for index in range(config.replicas)],
        config.timeout,
        on_event,
        hold.kill,
        start=pipeline.resources.deadlines.start,
        compares=compares(verifier),
        name=name,
        signed=(verifier.kind, ""),
    )


def shared(judging: Judging, hold: Hold, index: int) -> dict[str, Any]:
    """Of each model, the replica that the scorer or environment number `index` asks."""
    return {name: hold.share(actors[index % len(actors)]) for name, actors in judging.items()}


def judging_models(pipeline: Pipeline, hold: Hold) -> Judging:
    """Spawn `resources.judge.replicas` of every model that the verifier asks; they are numbered across all of them."""
    found, numbers = dict[str, Sequence[Actor]](), iter(range(1 << 16))
    for one in _wanted(pipeline):
        spawn = partial(_spawn, pipeline, hold, one)
        found[one.name] = [spawn(next(numbers)) for _ in range(pipeline.resources.judge.replicas)]
    return found


def _wanted(pipeline: Pipeline) -> tuple[Wanted, ...]:
    return tuple(dict.fromkeys(one for verifier in verifiers_of(pipeline).values() for one in wanted(verifier)))


def _spawn(pipeline: Pipeline, hold: Hold, one: Wanted, index: int) -> Actor:
    config = pipeline.resources.judge
    count = threads(config.threads, config.replicas * len(_wanted(pipeline)), pipeline.model)
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
