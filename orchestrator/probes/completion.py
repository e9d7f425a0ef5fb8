"""What one stage did to a set of prompts, at the level of completions: the key `completion` of a handoff."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.probes import answers, cot, curves, rates, support
from orchestrator.probes.intervals import Interval
from orchestrator.probes.sequential import Counts, Plan, counts, matched
from orchestrator.probes.snapshot import Sampled, Snapshot


def document(
    before: Snapshot | None,
    after: Snapshot,
    *,
    epsilon: float,
    confidence: float,
    plan: Plan | None = None,
    set_name: str = "probe",
) -> dict[str, Any] | None:
    """As JSON values (NaN where unknown); None where the set was not drawn after. `plan` is what ended the draws at
    both checkpoints. An Interval is {"value", "low", "high"}.

    pass_at_k       [{"k", "before", "after", "change", "samples_change"}]: Intervals over the distribution of prompts,
                    the last over the samples of exactly these prompts; all but "after" null without `before`
    support         null without `before`, else {"expanded", "retained", "attrited", "undecided": [ids], "absent": how
                    many, "rates": {"srr", "ndr", "sds", "nscr"} of effective support, "solved": {"k", the same four of
                    solved in k draws, "by_chance": numbers that the same policy drawn twice would show} or null}
    answers         `probes.answers.document`, or null
    cot_pass_at_k   [{"k", "before", "after"}] or null where no process verifier judged
    samples         {"prompts", "before", "after": verdicts that count, "most": of one prompt, "unknown": responses
                    without a verdict after, "tokens": generated after}
    """
    now = after.sets.get(set_name)
    if now is None:
        return None
    then = before.sets.get(set_name) if before is not None else None
    rows = matched(then, now) if then is not None else None
    last = counts(now, plan) if rows is None else counts(now, plan).rows(rows[1])
    first = counts(then, plan).rows(rows[0]) if then is not None and rows is not None else None
    ids = [now.prompts[at] for at in rows[1].tolist()] if rows is not None else []
    return {
        "pass_at_k": _after_alone(last, confidence) if first is None else _pass_at_k(first, last, confidence),
        "support": None if first is None else _support(ids, first, last, epsilon, confidence),
        "answers": answers.document(then, now, confidence=confidence),
        "cot_pass_at_k": _cot(then, now, confidence, plan),
        "samples": _samples(now, first, last),
    }


def _after_alone(after: Counts, confidence: float) -> list[dict[str, Any]]:
    ks = curves.steps(after)
    none = {"before": None, "change": None, "samples_change": None}
    found = curves.curve(after, ks, confidence=confidence)
    return [{"k": k, "after": asdict(one), **none} for k, one in zip(ks, found, strict=True)]


def _pass_at_k(before: Counts, after: Counts, confidence: float) -> list[dict[str, Any]]:
    ks = curves.steps(before, after)
    figures = {
        "before": curves.curve(before, ks, confidence=confidence),
        "after": curves.curve(after, ks, confidence=confidence),
        "change": curves.change(before, after, ks, confidence=confidence),
        "samples_change": curves.change(before, after, ks, confidence=confidence, over="samples"),
    }
    return [{"k": k} | {name: asdict(all_[at]) for name, all_ in figures.items()} for at, k in enumerate(ks)]


def _support(ids: Sequence[str], before: Counts, after: Counts, epsilon: float, confidence: float) -> dict[str, Any]:
    found = support.change(before, after, epsilon=epsilon, confidence=confidence)
    named = {
        name: [ids[at] for at in where.tolist()]
        for name, where in (
            ("expanded", found.expanded),
            ("retained", found.retained),
            ("attrited", found.attrited),
            ("undecided", found.undecided),
        )
    }
    effective = asdict(rates.effective(found, confidence=confidence))
    return {**named, "absent": len(found.absent), "rates": effective, "solved": _solved(before, after, confidence)}


def _solved(before: Counts, after: Counts, confidence: float) -> dict[str, Any] | None:
    """At half the largest k, for which chance can be told from change."""
    ks = curves.steps(before, after)
    if not ks:
        return None
    k = max(ks[-1] // 2, 1)
    first, last = (asdict(rates.by_chance(side, k)) for side in (before, after))
    chance = {name: (first[name] + last[name]) / 2 for name in first}
    return {"k": k, **asdict(rates.solved(before, after, k, confidence=confidence)), "by_chance": chance}


def _cot(then: Sampled | None, now: Sampled, confidence: float, plan: Plan | None) -> list[dict[str, Any]] | None:
    ks = cot.steps(now, plan)
    if not ks:
        return None
    last = cot.curve(now, ks, confidence=confidence, plan=plan)
    first: Sequence[Interval | None] = [None] * len(ks)
    if then is not None and then.sound_P is not None:
        first = cot.curve(then, ks, confidence=confidence, plan=plan)
    return [
        {"k": k, "before": None if a is None else asdict(a), "after": asdict(b)}
        for k, a, b in zip(ks, first, last, strict=True)
    ]


def _samples(now: Sampled, before: Counts | None, after: Counts) -> dict[str, Any]:
    return {
        "prompts": len(after.n_P),
        "before": None if before is None else int(before.n_P.sum()),
        "after": int(after.n_P.sum()),
        "most": int(after.n_P.max(initial=0)),
        "unknown": int(now.unknown_P.sum()),
        "tokens": now.tokens,
    }
