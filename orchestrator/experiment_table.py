"""What an experiment came to: each variant's figure over seeds and prompts, and its difference to the baseline's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator import budget
from orchestrator.experiment_measures import Figure, figure
from orchestrator.handoff_files import action, handoffs, role
from orchestrator.history import History, read_history
from orchestrator.json_lines import plain
from orchestrator.probes.crossed import Crossed, crossed
from orchestrator.probes.snapshot import Float64
from orchestrator.study import Study
from orchestrator.study_checks import changed
from orchestrator.study_facts import Claim, claim

NEAR = 0.05
"""Share of a budget that a run may fall short of it and count as having spent as much as the others."""
ENDED = ("finished", "stopped")
"""A run whose last probe is its last; stopped: by a contract."""
MANY = 4
"""More seeds than this say by themselves how much seeds matter."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of the experiment as it stands."""

    seed: int
    directory: str
    """Below the experiment's."""
    status: str
    step: int | None
    """Of the last probe."""
    spent: Mapping[str, float]
    """Unit of budgets -> what the steps have cost."""
    roles: Mapping[str, str]
    """Stage -> the role that its handoff names."""
    contract: Mapping[str, str]
    """Stage -> what was done about its contract; absent where all held."""
    claim: Claim
    values: Mapping[str, float]
    missing: str
    """Why it counts in no figure; empty where it counts."""


def document(study: Study) -> dict[str, Any]:
    """The table as JSON values; unknown figures are null. A function of the files, while runs go on too.

    {"version": 1, "name", "study", "measure", "k": int | null, "confidence",
     "comparisons": how many intervals the correction (Bonferroni) is for, "seeds": [...], "baseline",
     "budget": {"unit", "amount": null where the baseline sets it} | null,
     "variants": [
       {"name", "changes": {key: [baseline's value, this one's]}, "value": Interval,
        "difference": Interval | null, "seeds", "prompts": how many the figures are over,
        "between_seeds": share of the variance that seeds bring | null,
        "verdict": baseline | better | worse | undecided | unmeasured,
        "claim": {"verdict": kept | broken | unknown, "told"},
        "runs": [{"seed", "directory", "status", "step": of its last probe, "value": its mean | null,
                  "spent": {unit: amount}, "roles": {stage: role}, "contract": {stage: action},
                  "claim": as above, "missing": why it does not count, or ""}]}],
     "notes": [sentences that a reader of the table must know]}
    """
    found = {place: _history(study, *place) for place in study.runs}
    ran = {name: [_ran(study, name, seed, found) for seed in study.experiment.seeds] for name in study.variants}
    rows = [_row(study, name, ran) for name in study.variants]
    asked = study.experiment
    return plain(  # type: ignore[no-any-return]
        {
            "version": 1,
            "name": study.base.name,
            "study": asked.study,
            "measure": asked.measure,
            "k": study.base.handoff.probe_samples if asked.measure == "pass_at_k" else None,
            "confidence": study.base.handoff.confidence,
            "comparisons": len(study.variants) - 1,
            "seeds": asked.seeds,
            "baseline": study.baseline,
            "budget": study.base.budget.model_dump() if study.base.budget else None,
            "variants": rows,
            "notes": [*_of_seeds(asked.seeds), *_of_budgets(study, ran), *_of_claims(rows)],
        }
    )


def _row(study: Study, name: str, ran: Mapping[str, Sequence[Ran]]) -> dict[str, Any]:
    confidence, own = study.base.handoff.confidence, ran[name]
    value = crossed(_table(own), confidence=confidence, span=(0.0, 1.0))
    claims = [one.claim for one in own]
    told = next((one for one in claims if one.verdict == "broken"), claims[0])
    row = {
        "name": name,
        "changes": _changes(study, name),
        "value": asdict(value.interval),
        "difference": None,
        "seeds": value.seeds,
        "prompts": value.prompts,
        "between_seeds": value.between_seeds,
        "verdict": "baseline",
        "claim": asdict(told),
        "runs": [_told(one) for one in own],
    }
    if name == study.baseline:
        return row
    share = (1.0 - confidence) / (len(study.variants) - 1)
    apart = crossed(_apart(ran[study.baseline], own), confidence=1.0 - share, span=(-1.0, 1.0))
    return row | {
        "difference": asdict(apart.interval),
        "seeds": apart.seeds,
        "prompts": apart.prompts,
        "between_seeds": apart.between_seeds,
        "verdict": verdict(apart),
    }


def verdict(apart: Crossed) -> str:
    """What an interval of differences says; a single prompt or none says nothing."""
    interval = apart.interval
    if not interval.known:
        return "unmeasured"
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "undecided"


def _table(own: Sequence[Ran]) -> Float64:
    """[seeds, prompts] of the runs that count."""
    known = [one.values for one in own if not one.missing]
    prompts = list(dict.fromkeys(prompt for values in known for prompt in values))
    return np.array([[values.get(prompt, math.nan) for prompt in prompts] for values in known]).reshape(
        len(known), len(prompts)
    )


def _apart(base: Sequence[Ran], own: Sequence[Ran]) -> Float64:
    """[seeds, prompts] of differences, of the seeds with which both runs count."""
    pairs = [(a.values, b.values) for a, b in zip(base, own, strict=True) if not a.missing and not b.missing]
    prompts = list(dict.fromkeys(prompt for a, _ in pairs for prompt in a))
    found = [[b.get(prompt, math.nan) - a.get(prompt, math.nan) for prompt in prompts] for a, b in pairs]
    return np.array(found).reshape(len(pairs), len(prompts))


def _told(one: Ran) -> dict[str, Any]:
    known = [value for value in one.values.values() if not math.isnan(value)]
    row = asdict(one) | {"value": math.fsum(known) / len(known) if known else None}
    del row["values"]
    return row


def _changes(study: Study, name: str) -> dict[str, list[Any]]:
    return changed(study.variants[study.baseline], study.variants[name])


# ---------------------------------------------------------------- one run


def _history(study: Study, name: str, seed: int) -> History | None:
    return None if study.status(name, seed) == "not started" else read_history(study.place(name, seed))


def _ran(study: Study, name: str, seed: int, found: Mapping[tuple[str, int], History | None]) -> Ran:
    history, where = found[name, seed], str(study.place(name, seed).relative_to(study.root))
    if history is None:
        nothing = Claim("unknown", "it has not begun")
        return Ran(seed, where, "not started", None, {}, {}, {}, nothing, {}, "not started")
    said = _figure(study, name, history)
    return Ran(
        seed,
        where,
        history.status,
        said.step,
        budget.spent(history.steps),
        *_handoffs(history),
        claim(study.experiment, found[study.baseline, seed], history),
        said.values,
        said.missing if history.status in ENDED else history.status,
    )


def _figure(study: Study, name: str, history: History) -> Figure:
    """The run's figure; a probe that is written just now, or damaged, is a reason and no end of the table."""
    try:
        return figure(history, study.variants[name], study.experiment)
    except (OSError, ValueError) as error:
        return Figure(None, missing=f"its probe cannot be read: {error}")


def _handoffs(history: History) -> tuple[dict[str, str], dict[str, str]]:
    """(stage -> role, stage -> what a contract did), in the order of the stages."""
    found = handoffs(history.run)
    roles = {str(one["stage"]): named for one in found if (named := role(one))}
    return roles, {str(one["stage"]): did for one in found if (did := action(one))}


# ---------------------------------------------------------------- notes


def _of_seeds(seeds: Sequence[int]) -> list[str]:
    if len(seeds) == 1:
        return ["One seed: intervals are over prompts alone and say nothing of what another seed would have given."]
    told = "Intervals are over seeds and prompts at once (two-way random effects, Satterthwaite's degrees of freedom)"
    few = "" if len(seeds) > MANY else "; with so few seeds they are wide where seeds matter, a guide and no promise"
    return [f"{told}{few}."]


def _of_budgets(study: Study, ran: Mapping[str, Sequence[Ran]]) -> list[str]:
    """Runs that spent clearly less than the others they are compared with."""
    shared = study.base.budget
    if shared is None:
        return ["No shared budget: what each variant spent stands beside its figure."] if _unequal(ran) else []
    notes = []
    for name, own in ran.items():
        for base, one in zip(ran[study.baseline], own, strict=True):
            limit = shared.amount or base.spent.get(shared.unit, math.nan)
            spent = one.spent.get(shared.unit, math.nan)
            if one.status == "finished" and spent < (1 - NEAR) * limit:
                told = f"{spent:,.4g} of {limit:,.4g} {shared.unit.replace('_', ' ')}"
                notes.append(f"{name}, seed {one.seed}: its stages ended at {told}; give them more steps.")
    return notes


def _unequal(ran: Mapping[str, Sequence[Ran]]) -> bool:
    spent = [one.spent.get("trained_tokens", 0.0) for own in ran.values() for one in own if one.status == "finished"]
    return bool(spent) and min(spent) < (1 - NEAR) * max(spent)


def _of_claims(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    broken = [row for row in rows if row["claim"]["verdict"] == "broken"]
    return [f"{row['name']} is not what the study claims: {row['claim']['told']}." for row in broken]
