"""What a stage cost: tokens, seconds by role, FLOPs and money, for each sample that counted and each point gained.

A function of the run's files: rows of metrics.jsonl (`bills`), events, and the probes' Parquet files. A resumed run
counts every step once; what undone steps had cost is told apart, as `lost`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.bills import added
from orchestrator.history import History, StageSpan
from orchestrator.json_lines import Row, plain
from orchestrator.probes.cost import KINDS, by_kind, each, gain_in_words, per_point, priced
from orchestrator.probes.intervals import Interval
from orchestrator.progress import number
from orchestrator.shapes import Sizes, read_sizes


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a stage, priced."""

    seconds: float
    """Wall time; NaN where nobody took it."""
    roles: Mapping[str, float]
    work: Sequence[Mapping[str, Any]]
    flops: Mapping[str, float]
    """Kind -> FLOPs; NaN where they are not known."""
    price: float

    @property
    def total(self) -> float:
        """FLOPs of all kinds."""
        return math.fsum(self.flops.values())

    def tokens(self, kind: str) -> int:
        """Drawn, scored or trained."""
        return sum(int(one["tokens"]) for one in self.work if one["kind"] == kind)

    def row(self) -> dict[str, Any]:
        """One line of the document's table."""
        return {
            "seconds": self.seconds,
            "tokens_generated": self.tokens("generate"),
            "tokens_scored": self.tokens("score"),
            "tokens_trained": self.tokens("train"),
            "flops": self.total,
            "price": self.price,
        }


def document(history: History, span: StageSpan, handoff: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The key `cost` of a stage's handoff, as JSON values; unknown is None. `handoff`: what is known of it so far.

    parts: training, preparation (sources made before its first step), lost (steps that a resume undid), probes, all
        -> {seconds, tokens_generated, tokens_scored, tokens_trained, flops, price}. seconds is wall time.
    work: `role kind`, or `role model kind` for other models than the policy -> {sequences, positions, tokens, flops}.
    flops: kind -> FLOPs (`probes.cost`). seconds: role -> seconds in which it was asked. price_held: all priced roles
        for the stage's whole time, busy or not; None without `prices`.
    samples: trained (responses that trained), passed (own rollouts that passed) -> {responses, flops, seconds, price}
        each; the probes' share is left out, for it measures and does not train.
    point: {gain: Interval of pass@1, flops, seconds, price: Interval a point, said}; null where no gain is sure.
    scaffold: `scaffold_cost.scaffolded`, or None where the probe is not drawn under one.
    said: what is not known, and why.
    """
    from orchestrator.scaffold_cost import scaffolded  # a summary needs neither probes nor the configuration

    sizes, prices = read_sizes(history), history.config.get("prices") or {}
    parts = _parts(history, span, sizes, prices)
    spent = _joined([parts["training"], parts["preparation"], parts["lost"]], sizes, prices)
    whole = _joined([spent, parts["probes"]], sizes, prices)
    found = {
        "parts": {**{name: part.row() for name, part in parts.items()}, "all": whole.row()},
        "work": _by_role(whole, sizes),
        "flops": {**whole.flops, "total": whole.total},
        "seconds": {**whole.roles, "wall": whole.seconds},
        "price_held": priced(dict.fromkeys(prices, whole.seconds), prices),
        "samples": _samples(_steps(history, span), spent),
        "point": _point(spent, handoff or {}),
        "scaffold": scaffolded(history, handoff or {}, sizes, spent.total),
        "said": _said(history, span, sizes, whole),
    }
    shown: dict[str, Any] = plain(found)
    return shown


def of_run(history: History) -> dict[str, float]:
    """What all stages cost together: flops, seconds, price, and flops for each response that trained."""
    sizes, prices = read_sizes(history), history.config.get("prices") or {}
    spent, probes = list[Part](), list[Part]()
    for span in history.stages:
        parts = _parts(history, span, sizes, prices)
        spent += [parts["training"], parts["preparation"], parts["lost"]]
        probes.append(parts["probes"])
    training, measuring = _joined(spent, sizes, prices), _joined(probes, sizes, prices)
    whole = _joined([training, measuring], sizes, prices)
    return {
        "flops": whole.total,
        "flops_training": training.total,
        "flops_probes": measuring.total,
        "price": whole.price,
        "flops_each_trained": each(training.total, _trained(history.steps)),
        "flops_each_passed": each(training.total, int(sum(number(row, "passed", 0.0) for row in history.steps))),
    }


# ---------------------------------------------------------------- parts


def _parts(history: History, span: StageSpan, sizes: Sizes, prices: Mapping[str, float]) -> dict[str, Part]:
    def part(rows: Sequence[Row], seconds: float) -> Part:
        return _priced(rows, seconds, sizes, prices)

    steps, probes = _steps(history, span), [row for row in history.probes if row.get("stage") == span.name]
    made = [event for event in history.events if event["kind"] == "work" and event.get("stage") == span.name]
    lost = [
        one
        for event in history.events
        if event["kind"] == "resumed"
        for one in event.get("lost") or ()
        if one["stage"] == span.name
    ]
    return {
        "training": part(steps, sum(number(row, "seconds", 0.0) for row in steps)),
        "preparation": part(made, sum(number(row, "seconds", 0.0) for row in made)),
        "lost": part(lost, sum(number(row, "seconds", 0.0) for row in lost)),
        "probes": part(probes, sum(number(row, "seconds_probe") for row in probes)),
    }


def _steps(history: History, span: StageSpan) -> list[Row]:
    return [row for row in history.steps if row["stage"] == span.name]


def _priced(rows: Sequence[Row], seconds: float, sizes: Sizes, prices: Mapping[str, float]) -> Part:
    told = added(row if "seconds_by_role" in row else row | {"seconds_by_role": _older(row)} for row in rows)
    known = all("work" in row for row in rows)
    flops = by_kind(told["work"], sizes.shapes, sizes.passes) if known else dict.fromkeys(KINDS, math.nan)
    roles = told["seconds_by_role"]
    return Part(seconds, roles, told["work"], flops, priced(roles, prices))


def _older(row: Row) -> dict[str, float]:
    """Seconds by role, of a row that was written before roles were timed."""
    keys = {"rollout": "seconds_generate", "scorer": "seconds_score", "learner": "seconds_train"}
    keys["publish"] = "seconds_publish"
    return {role: number(row, key) for role, key in keys.items() if row.get(key)}


def _joined(parts: Sequence[Part], sizes: Sizes, prices: Mapping[str, float]) -> Part:
    told = added({"work": part.work, "seconds_by_role": part.roles} for part in parts)
    flops = {kind: math.fsum(part.flops[kind] for part in parts) for kind in KINDS}
    seconds = math.fsum(part.seconds for part in parts)
    return Part(seconds, told["seconds_by_role"], told["work"], flops, priced(told["seconds_by_role"], prices))


def _by_role(part: Part, sizes: Sizes) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for one in part.work:
        whose = "" if one["model"] == "policy" else f"{one['model']} "
        counts = {key: one[key] for key in ("sequences", "positions", "tokens")}
        found[f"{one['role']} {whose}{one['kind']}"] = {**counts, "flops": sizes.flops([one])}
    return found


# ---------------------------------------------------------------- for what


def _samples(steps: Sequence[Row], spent: Part) -> dict[str, dict[str, float]]:
    counts = {"trained": _trained(steps), "passed": int(sum(number(row, "passed", 0.0) for row in steps))}
    return {
        name: {
            "responses": count,
            "flops": each(spent.total, count),
            "seconds": each(spent.seconds, count),
            "price": each(spent.price, count),
        }
        for name, count in counts.items()
    }


def _trained(steps: Iterable[Row]) -> int:
    """Responses with a token that trained."""
    ways = [row.get("funnel") or {} for row in steps]
    return sum(int(way.get("trained") or 0) - int(way.get("masked") or 0) for way in ways)


def _point(spent: Part, handoff: Mapping[str, Any]) -> dict[str, Any]:
    gain = gained(handoff)
    told = {name: per_point(cost, gain) for name, cost in _money(spent).items()}
    return {"gain": _shown(gain), **{name: _shown(one) for name, one in told.items()}, "said": gain_in_words(gain)}


def _money(part: Part) -> dict[str, float]:
    return {"flops": part.total, "seconds": part.seconds, "price": part.price}


def gained(handoff: Mapping[str, Any]) -> Interval:
    """The change of pass@1 over the stage."""
    from orchestrator.contracts import interval

    rows = (handoff.get("completion") or {}).get("pass_at_k") or ()
    return interval(next((row.get("change") for row in rows if row.get("k") == 1), None))


def _shown(one: Interval) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _said(history: History, span: StageSpan, sizes: Sizes, whole: Part) -> list[str]:
    """What is not known, and why."""
    models = {str(one["model"]) for one in whole.work}
    told = [f"FLOPs of {name} are not known: {why}" for name, why in sizes.unknown.items() if name in models]
    rows = _steps(history, span)
    if any("work" not in row for row in rows):
        told.append("FLOPs are not known: some steps were written by a version that did not count them")
    broken = [event for event in history.events if event["kind"] == "resumed" and _within(event, span)]
    if broken:
        told.append(f"{len(broken)} times a resume began here; what the step then in hand had cost is not known")
    if sizes.judges:
        told.append(f"tokens of {', '.join(sizes.judges)} are not counted; their time is the scorer's")
    return told


def _within(event: Row, span: StageSpan) -> bool:
    return span.first - 1 <= int(event.get("step") or 0) < span.last
