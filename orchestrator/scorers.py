"""The scorers of a run, and the models that they ask."""

from collections.abc import Callable

from actors.cluster import Hold
from actors.pool import ScorerPool
from actors.scorer import ScorerReplica
from orchestrator.config import Pipeline
from orchestrator.processes import environment

SCORER_GRACE = 15.0
"""Seconds past the scorer's own time-out, which gives back the verdicts that were ready; ours would lose them all."""


def scorer_pool(pipeline: Pipeline, hold: Hold, on_event: Callable[..., None]) -> ScorerPool:
    """Spawn the scorers."""
    config = pipeline.resources.scorer
    replicas = [
        hold.spawn(ScorerReplica, pipeline.verifier, config.timeout, role="scorer", index=index, env=environment(1))
        for index in range(config.replicas)
    ]
    return ScorerPool(replicas, config.timeout + SCORER_GRACE, on_event)
