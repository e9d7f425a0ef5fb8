"""What was decided for a step, why, and by which facts: the row of decisions.jsonl, and the same in a few words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.config import Stage
from orchestrator.controls import StepPlan
from orchestrator.controls.bottleneck import entry_of
from orchestrator.controls.hints import Hint
from orchestrator.records import Collected
from policies.config import Strand

OUTCOME = ("reward_mean", "accuracy", "share_learner", "share_demonstration", "on_policy_share")
"""Figures of the step itself that stand beside its decision."""
ALL = "all"
"""For whom a prompt is that no strand is named for."""


def decision_row(
    stage: Stage, strands: Sequence[Strand], collected: Collected, row: Mapping[str, Any]
) -> dict[str, Any]:
    """What was decided for a step, why, and the facts it stood on.

    `facts` are those of the last finished step, as the controls saw them when they planned; times are left out, so that
    the row is the same whenever the decision is. `outcome` is this step's.
    """
    plan = collected.plan
    sources = ", ".join(_source(strand) for strand in strands if strand.name not in plan.rest)
    return {
        "step": row["step"],
        "stage": stage.name,
        "plan": {
            "recipe": stage.recipe.kind,
            "sources": sources,
            "coefficients": {strand.name: plan.coefficients.get(strand.name, 1.0) for strand in strands},
            "rest": sorted(plan.rest),
            "places": places(plan),
            "classes": classes(plan),
            "own_prompts": {name: len(prompts) for name, prompts in plan.only_prompts.items()},
            "hints": {name: shows(hint) for name, hint in plan.hints.items()},
        },
        "reason": "; ".join(plan.reasons) or f"recipe {stage.recipe.kind} holds its strands fixed: {sources}",
        "controls": [{"control": kind, "word": word} for kind, word in plan.words],
        "routed": list(collected.routed),
        "verdicts": dict(collected.verdicts),
        "facts": {key: value for key, value in plan.facts.items() if "seconds" not in key},
        "outcome": {key: row[key] for key in OUTCOME},
    }


def _source(strand: Strand) -> str:
    count = strand.source.per_prompt
    told = f"{count} a prompt" if count else f"{strand.source.per_step} a step"
    return f"{strand.name}: {strand.source.producer} {told}"


def places(plan: StepPlan) -> dict[str, int]:
    """The set of strands that a prompt is for, as `a+b` -> prompts of the step; empty where controls choose none."""
    named = Counter("+".join(sorted(place.only)) or ALL for place in plan.places or ())
    return dict(sorted(named.items()))


def classes(plan: StepPlan) -> dict[str, int]:
    """The bottleneck's class -> prompts of the step that are of it; empty without that control."""
    found: Counter[str] = Counter()
    for (kind, _), state in zip(plan.words, plan.states, strict=False):
        if kind == "bottleneck":
            found.update(entry_of(state["prompts"], place.prompt).kind for place in plan.places or ())
    return dict(sorted(found.items()))


def shows(hint: Hint) -> dict[str, Any]:
    """What a strand's contexts show, without what is known of single prompts."""
    told: dict[str, Any] = {}
    if (prefix := hint.prefix) is not None:
        told |= {"prefix": prefix.schedule, "segments": prefix.segments}
        told |= {"share": prefix.share} if prefix.schedule == "cosine" else {"parts": prefix.parts}
    if hint.scaffold is not None:
        told["rubric"] = hint.scaffold.share
    return told


# ---------------------------------------------------------------- in short


def in_short(plan: StepPlan, verdicts: Mapping[str, int]) -> str:
    """`sft step: 8 waited`, `sft 0.43, rl 0.57`, `unreached 10, unreliable 18`, `groups: 2 hinted, 1 without rl`.

    Empty where nothing departs from the recipe. `verdicts` are those of `Collected`.
    """
    waited = [f"{name} step: {len(prompts)} waited" for name, prompts in plan.only_prompts.items()]
    chosen = classes(plan) or {name: count for name, count in places(plan).items() if name != ALL}
    scaled = {name: factor for name, factor in plan.coefficients.items() if factor not in (0.0, 1.0)}
    resting = [] if waited else [f"{name} rests" for name in sorted(plan.rest)]
    counted = ", ".join(f"{name} {count}" for name, count in chosen.items())
    factors = ", ".join(f"{name} {factor:.3g}" for name, factor in scaled.items())
    hints = [_hint(name, hint) for name, hint in plan.hints.items()]
    routed = ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items()) if name != "kept")
    groups = f"groups: {routed}" if routed else ""
    return "; ".join(told for told in (*waited, counted, factors, *resting, *hints, groups) if told)


def _hint(name: str, hint: Hint) -> str:
    """Only what changes from step to step."""
    prefix = f"prefix {hint.prefix.share:.3g}" if hint.prefix and hint.prefix.schedule == "cosine" else ""
    rubric = f"rubric {hint.scaffold.share:.3g}" if hint.scaffold else ""
    shown = " ".join(told for told in (prefix, rubric) if told)
    return f"{name} {shown}" if shown else ""
