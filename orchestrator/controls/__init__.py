"""Controls: pure functions (state, facts) -> (state, decision, reason). States are JSON: a checkpoint holds them."""

from orchestrator.controls.config import (
    Anneal,
    Bernoulli,
    Buffer,
    Constant,
    Control,
    Freeze,
    Gate,
    Ladder,
    Mixture,
    Prefix,
    Scaffold,
    StartWhen,
    ZeroVariance,
)
from orchestrator.controls.decide import Decision, Moment, State, decide, initial, strands_of
from orchestrator.controls.group import GroupStats, MemberStats
from orchestrator.controls.hints import Hint, segments_for, share_for
from orchestrator.controls.plan import Scope, StepPlan, plan_step
from orchestrator.controls.route import route_group, route_groups
from orchestrator.controls.routing import Routing, Routings

__all__ = [
    "Anneal",
    "Bernoulli",
    "Buffer",
    "Constant",
    "Control",
    "Decision",
    "Freeze",
    "Gate",
    "GroupStats",
    "Hint",
    "Ladder",
    "MemberStats",
    "Mixture",
    "Moment",
    "Prefix",
    "Routing",
    "Routings",
    "Scaffold",
    "Scope",
    "StartWhen",
    "State",
    "StepPlan",
    "ZeroVariance",
    "decide",
    "initial",
    "plan_step",
    "route_group",
    "route_groups",
    "segments_for",
    "share_for",
    "strands_of",
]
