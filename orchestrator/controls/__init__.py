"""Controls: pure functions (state, facts) -> (state, decision, reason). States are JSON: a checkpoint holds them."""

from orchestrator.controls.choice import candidates
from orchestrator.controls.config import (
    Alternate,
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
from orchestrator.controls.decide import Decision, decide, initial, strands_of, watched
from orchestrator.controls.group import GroupStats, MemberStats
from orchestrator.controls.hints import Hint, segments_for, share_for
from orchestrator.controls.moment import Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.plan import Scope, StepPlan, plan_step
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from orchestrator.controls.reaching import asks_reach
from orchestrator.controls.route import route_group, route_groups
from orchestrator.controls.routing import Routing, Routings

__all__ = [
    "Alternate",
    "Anneal",
    "Bernoulli",
    "Bottleneck",
    "Buffer",
    "Constant",
    "Control",
    "Curriculum",
    "Decision",
    "Freeze",
    "Gate",
    "GroupStats",
    "Hint",
    "Ladder",
    "MemberStats",
    "Mixture",
    "Moment",
    "Place",
    "Prefix",
    "Routing",
    "Routings",
    "Scaffold",
    "Scope",
    "Shares",
    "StartWhen",
    "State",
    "StepPlan",
    "ZeroVariance",
    "asks_reach",
    "candidates",
    "decide",
    "initial",
    "plan_step",
    "route_group",
    "route_groups",
    "segments_for",
    "share_for",
    "strands_of",
    "watched",
]
