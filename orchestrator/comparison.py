"""Runs or checkpoints side by side, measured on the same prompts: a function of the runs' files.

Everything is told against the first one. A run's probes draw each prompt's n-th response with the same seed, and two
checkpoints are asked the same prompts: differences are paired prompt by prompt, and intervals are over prompts.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from orchestrator import budget, costs
from orchestrator.comparison_sets import compared, has
from orchestrator.comparison_sides import Side, sides
from orchestrator.config_difference import differences
from orchestrator.handoff_files import action, handoffs, role
from orchestrator.json_lines import plain
from orchestrator.probes import reach, scores
from orchestrator.probes.snapshot import SetName
from orchestrator.study_checks import below_ruler
from orchestrator.summary import time_split, token_shares
from policies.bad_input import BadInput

SETS: tuple[SetName, ...] = ("probe", "scaffolded", "shifted", "guard")


def document(
    references: Sequence[str], *, confidence: float | None = None, epsilon: float | None = None
) -> dict[str, Any]:
    """The comparison as JSON values; unknown figures are null, and parts that a run cannot give, too.

    `references`: run directories, each with `@STEP` or `@STAGE` where it is not the last probe that is meant.
    `confidence` and `epsilon` are those of the first run's pipeline by default. {I} is value, low, high.

    {"version": 1, "confidence", "epsilon",
     "runs": [{"label", "directory", "name", "status", "seed", "step": of the probe | null, "stage": its stage | null,
               "steps": done, "missing": [what it cannot give, and why], "spent": {unit: amount}, "seconds": {part: s},
               "cost": `costs.of_run` | null of a checkpoint before the run's last step,
               "shares": {writer: share of trained tokens}, "decisions": {"steps", "changes", "last"},
               "handoffs": {stage: {"role", "action"}}}],
     "sets": {name: {"prompts": how many all have, "left_out": [prompts of each run that others lack],
              "runs": [{"pass_at_k": [{"k", I}], "greedy": {I}, "n": verdicts, "tokens"} | null],
              "differences": [null, {"pass_at_k": [{"k", I}], "greedy": {I}} | null ...],
              "solved": [null, {"both", "only_first", "only_this", "neither", "undecided": counts,
                                "ids": {"only_first": [ids], "only_this": [ids]}} | null ...],
              "answers": {"draws": counted a prompt, "prompts", "distinct": [{I} | null],
                          "differences": [null, {I} | null ...]} | null}},
     "reach": [null, `probes.reach.document` with the first run as before and this one as after | null ...],
     "config": [{"key", "values": [each run's]}] of the keys that differ,
     "notes": [sentences that a reader must know]}

    BadInput: fewer than two, no such run or step, or not one prompt in common although all were probed.
    """
    found = sides(list(references))
    level = _level(found[0].history.config, confidence, epsilon)
    sets = {name: compared(name, found, *level) for name in SETS if sum(has(one, name) for one in found) > 1}
    if sets and not any(one["prompts"] for one in sets.values()):
        raise BadInput([_nothing_shared(found)])
    config = differences([one.history.config for one in found])
    told = {
        "version": 1,
        "confidence": level[0],
        "epsilon": level[1],
        "runs": [_about(one) for one in found],
        "sets": {name: one for name, one in sets.items() if one["prompts"]},
        "reach": [None, *(_reach(found[0], one, *level) for one in found[1:])],
        "config": [{"key": key, "values": values} for key, values in config.items() if key not in ("name", "variants")],
        "notes": [*_of_prompts(sets, found), *_of_rulers(config), *_of_seeds(found)],
    }
    return plain(told)  # type: ignore[no-any-return]


def _level(config: Mapping[str, Any], confidence: float | None, epsilon: float | None) -> tuple[float, float]:
    handoff = config.get("handoff") or {}
    return confidence or float(handoff.get("confidence") or 0.95), epsilon or float(handoff.get("epsilon") or 0.05)


# ---------------------------------------------------------------- one run


def _about(one: Side) -> dict[str, Any]:
    history, rows = one.history, one.rows
    return {
        "label": one.label,
        "directory": str(history.run.root),
        "name": history.config.get("name", ""),
        "status": history.status,
        "seed": history.config.get("seed"),
        "step": one.step,
        "stage": one.snapshot.stage if one.snapshot else None,
        "steps": len(history.steps),
        "missing": list(one.missing),
        "spent": budget.spent(rows),
        "seconds": time_split(rows),
        "cost": costs.of_run(history) if len(rows) == len(history.steps) else None,
        "shares": token_shares(rows),
        "decisions": _decisions(one),
        "handoffs": _handoffs(one),
    }


def _decisions(one: Side) -> dict[str, Any]:
    """How many steps were decided, how often with another reason than the step before, and the last reason."""
    rows = [row for row in one.history.decisions if one.step is None or int(row.get("step") or 0) <= one.step]
    reasons = [str(row.get("reason", "")) for row in rows]
    changes = sum(before != after for before, after in pairwise(reasons))
    return {"steps": len(reasons), "changes": changes, "last": reasons[-1] if reasons else None}


def _handoffs(one: Side) -> dict[str, Any]:
    """Stage -> what its handoff named and did, of the stages that had ended by then."""
    found = {}
    for told in handoffs(one.history.run):
        last = (told.get("measured") or {}).get("after")
        if one.step is None or last is None or last <= one.step:
            found[str(told["stage"])] = {"role": role(told), "action": action(told)}
    return found


# ---------------------------------------------------------------- reach


def _reach(first: Side, other: Side, confidence: float, epsilon: float) -> dict[str, Any] | None:
    """The bank's trajectories that both runs were asked, the first as before and the other as after."""
    if first.snapshot is None or other.snapshot is None:
        return None
    rows = [scores.under(one.snapshot.scored, "bank", "after") for one in (first, other) if one.snapshot]
    pairs = [
        (mine, rows[1][name])
        for name, mine in rows[0].items()
        if name in rows[1] and mine.tokens.tolist() == rows[1][name].tokens.tolist()
    ]
    return reach.document(pairs, epsilon=epsilon, confidence=confidence)


# ---------------------------------------------------------------- notes


def _nothing_shared(found: Sequence[Side]) -> str:
    where = [repr((one.history.config.get("prompts") or {}).get("probe")) for one in found]
    told = "; ".join(f"{one.label}: {source}" for one, source in zip(found, where, strict=True))
    fix = "give the runs the same prompts.probe, or `braid probe` both on one file"
    return f"compare: the runs were measured on different prompts, none of which they share ({told}); {fix}"


def _of_prompts(sets: Mapping[SetName, Mapping[str, Any]], found: Sequence[Side]) -> list[str]:
    notes = []
    for name, one in sets.items():
        lost = [f"{count} of {side.label}" for count, side in zip(one["left_out"], found, strict=True) if count]
        if lost:
            told = f"compared on the {one['prompts']} prompts that all have; left out: {', '.join(lost)}"
            notes.append(f"{name}: {told}.")
        never = [side.label for side in found if not has(side, name)]
        notes += [f"{name}: {', '.join(never)} was not asked it."] if never else []
    return notes


def _of_rulers(config: Mapping[str, Any]) -> list[str]:
    """Keys by which the same responses could be judged otherwise."""
    keys = [key for key in config if below_ruler(key) and not key.startswith("prompts.")]
    drawn = ("sampling.max_tokens", "sampling.stop")
    keys += [key for key in config if key.startswith("stages.") and key.endswith(drawn)]
    return [f"Not measured alike: {', '.join(keys)} differ."] if keys else []


def _of_seeds(found: Sequence[Side]) -> list[str]:
    runs = {one.history.run.root for one in found}
    if len(runs) == 1:
        return ["Checkpoints of one run: intervals are over prompts."]
    return ["Intervals are over prompts: what another seed of the same pipeline would have given is not in them."]
