"""Which plan a probe of a run was drawn by: what its counts mean depends on when its draws could end."""

from functools import cache

from orchestrator.config import Pipeline
from orchestrator.history import History
from orchestrator.probes.sequential import Plan, plan
from verifiers.kinds import compares


def plan_at(history: History, pipeline: Pipeline, step: int) -> Plan:
    """The plan of the probe after `step`: the handoff's at the ends of stages and at the start, else fixed."""
    handoff = pipeline.handoff
    if not at_end(history, step):
        return Plan.fixed(pipeline.probe.samples)
    if not handoff.sequential or compares(pipeline.verifier):
        return Plan.fixed(handoff.probe_samples)
    return _plan(handoff.probe_samples, handoff.epsilon, handoff.confidence)


def at_end(history: History, step: int) -> bool:
    """Whether a stage ended with this step, or the run began there: the probe is of every set, and of many draws."""
    if step == 0:
        return True
    for place, span in enumerate(history.stages):
        if span.last == step:
            later = place + 1 < len(history.stages)
            return later or span.last - span.first + 1 >= span.planned or history.status == "finished"
    return False


_plan = cache(plan)
