"""Controls: pure functions (state, facts) -> (state, decision, reason). States are JSON: a checkpoint holds them."""

from orchestrator.controls.config import Constant, Control, Mixture, ZeroVariance
from orchestrator.controls.decide import Decision, State, StepPlan, decide, initial, plan_step, strands_of
from orchestrator.controls.route import GroupStats, Routing, route, route_group

__all__ = [
    "Constant",
    "Control",
    "Decision",
    "GroupStats",
    "Mixture",
    "Routing",
    "State",
    "StepPlan",
    "ZeroVariance",
    "decide",
    "initial",
    "plan_step",
    "route",
    "route_group",
    "strands_of",
]
