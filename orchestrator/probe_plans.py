"""Which plan a probe of a run was drawn by: what its counts mean depends on when its draws could end."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.config import Pipeline, Probe
from orchestrator.handoff_config import Handoff
from orchestrator.history import History
from orchestrator.probes.sequential import Plan, plan
from verifiers.config import AnyVerifier, Verifier
from verifiers.kinds import compares


def plan_at(history: History, step: int) -> Plan | None:
    """The plan of the probe after `step`: the handoff's at the ends of stages and at the start, else fixed.

    None of a run whose configuration says it in another version's words: its draws count as if their number was fixed.
    """
    try:
        handoff = Handoff.model_validate(history.config.get("handoff") or {})
        probe = Probe.model_validate(history.config.get("probe") or {})
        verifier = _VERIFIER.validate_python(_or_default(history.config, "verifier"))
    except ValidationError:
        return None
    if not at_end(history, step):
        return Plan.fixed(probe.samples)
    return plan_for(handoff, verifier)


def plan_for(handoff: Handoff, verifier: AnyVerifier) -> Plan:
    """When a prompt is done at the ends of stages; a verifier that compares a prompt's responses needs all at once."""
    if not handoff.sequential or compares(verifier):
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


def _or_default(config: Any, key: str) -> Any:
    return config.get(key) or Pipeline.model_fields[key].default


_plan = cache(plan)
_VERIFIER: TypeAdapter[Any] = TypeAdapter(Verifier)
