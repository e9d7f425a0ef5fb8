"""`Watch`: alarms from the rows of metrics.jsonl alone, so that a resumed run rebuilds what it had counted.

Over the ceiling of verdicts that are not given the run ends, for what is left would teach chance. A score that never
differs teaches nothing, and a reward that outgrows the held-out score teaches to please: these are told once, until
they are over, and end the run where `health.alarm` says so.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.config import Pipeline
from orchestrator.health_config import Health
from orchestrator.held_out import Gap, quantile
from orchestrator.legality.silence import compares
from verifiers import health
from verifiers.health import Failure, Tallies, Tally, Who

Row = Mapping[str, Any]

WHOLE = "reward"

SURE = 0.99
"""Confidence of the interval by which a gap has grown: it is looked at in every step."""


class UnhealthyVerifierError(RuntimeError):
    """The verifiers are not to be trusted; the message says whose, how much, and shows responses."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that was found in a step."""

    kind: str
    """Of the event."""
    text: str
    facts: Mapping[str, Any]
    ends: bool
    """Whether the run is to end."""


@dataclass(slots=True)
class Recent:
    """The newest tallies of one scorer that together count enough."""

    enough: int
    count: Callable[[Tally], int]
    kept: deque[Tally] = field(default_factory=deque)

    def add(self, tally: Tally) -> Tally | None:
        """The sum of those kept; None while they are too few."""
        self.kept.append(tally)
        total = sum(map(self.count, self.kept))
        while total - self.count(self.kept[0]) >= self.enough:
            total -= self.count(self.kept.popleft())
        return sum(self.kept, Tally()) if total >= self.enough else None


@dataclass(slots=True)
class Drift:
    """The gap between reward and held-out score: the run's first, and its newest."""

    enough: int
    first: Gap = field(default_factory=Gap)
    newest: deque[Gap] = field(default_factory=deque)

    def add(self, gap: Gap) -> tuple[Gap, Gap] | None:
        """Both; None while either has too few responses."""
        if self.first.responses < self.enough:
            self.first += gap
            return None
        self.newest.append(gap)
        total = sum(one.responses for one in self.newest)
        while total - self.newest[0].responses >= self.enough:
            total -= self.newest.popleft().responses
        return (self.first, sum(self.newest, Gap())) if total >= self.enough else None


@dataclass(slots=True)
class Watch:
    """Looks at a run's rows, in order."""

    config: Health
    demanding: bool = True
    """Whether a response without a verdict is a fault; not where the verifier has nothing to compare with."""
    told: set[str] = field(default_factory=set)
    """What was said already and goes on."""
    unknown: dict[Who, Recent] = field(default_factory=dict)
    constant: dict[Who, Recent] = field(default_factory=dict)
    drift: Drift = field(init=False)

    def __post_init__(self) -> None:
        self.drift = Drift(max(2, round(self.config.window * self.config.held_out_share)))

    def remember(self, rows: Iterable[Row]) -> None:
        """Count what an earlier attempt at the run had seen; what it told is not told again."""
        for row in rows:
            self.step(row)

    def step(self, row: Row) -> list[Alarm]:
        """What the step's row gives cause to tell: what was told before and goes on only if it ends the run."""
        looked = dict(self._looked(row))
        found = {what: alarm for what, alarm in looked.items() if alarm is not None}
        new = [alarm for what, alarm in found.items() if alarm.ends or what not in self.told]
        self.told = (self.told - looked.keys()) | found.keys()
        return new

    def _looked(self, row: Row) -> Iterator[tuple[str, Alarm | None]]:
        """Each thing that could be looked at, and what there is to tell of it."""
        tallies = health.read(row.get("scorers") or ())
        for who, tally in tallies.items():
            whose = f"{who.name} {who.scorer} {who.version}"
            unknown = self.unknown.setdefault(who, Recent(self.config.window, lambda one: one.asked)).add(tally)
            yield f"failing {whose}", self._failing(who, unknown, tallies) if unknown else None
            same = self.constant.setdefault(who, Recent(self.config.constant_after, lambda one: one.verdicts)).add(
                tally
            )
            yield f"constant {whose}", self._constant(who, same) if same else None
        if row.get("gap"):
            both = self.drift.add(Gap(**row["gap"]))
            yield "gap", self._parted(*both) if both else None

    def _failing(self, who: Who, tally: Tally, step: Tallies) -> Alarm | None:
        if not self.demanding or tally.unknown_share <= self.config.unknown_ceiling:
            return None
        shares = _shares(tally)
        text = (
            f"{_named(who)} gave no verdict on {tally.unknown_share:.0%} of the last {tally.asked} responses ({shares})"
        )
        ends = who.name == WHOLE
        if ends:
            others = [
                f"{_named(other)}: {_shares(own)}" for other, own in step.items() if other != who and own.failures
            ]
            text += f", and health.unknown_ceiling is {self.config.unknown_ceiling:g}"
            text += "".join(f"\n  part {one}" for one in others)
            text += "".join(f"\n  {_shown(failure)}" for failure in tally.failures)
        facts = {"counts": dict(tally.counts), "examples": [_shown(one) for one in tally.failures]}
        return Alarm("scorer_failing", text, _facts(who, facts), ends)

    def _constant(self, who: Who, tally: Tally) -> Alarm | None:
        if not tally.constant:
            return None
        text = f"{_named(who)} gave {tally.low:g} to each of the last {tally.verdicts} responses it judged"
        facts = {"value": tally.low, "verdicts": tally.verdicts}
        return Alarm("scorer_constant", text, _facts(who, facts), self._stops)

    def _parted(self, first: Gap, newest: Gap) -> Alarm | None:
        """Whether the gap has surely grown by more than it may; once told, it is over when it surely no longer has."""
        freedom = min(first.prompts, newest.prompts) - 1
        growth, width = newest.mean - first.mean, quantile(freedom, SURE) * math.hypot(first.error, newest.error)
        doubt = -width if "gap" in self.told else width
        if not growth - doubt > self.config.held_out_gap:  # NaN is no alarm
            return None
        text = (
            f"the reward outgrows the held-out score: their gap is {newest.mean:.3g}, was {first.mean:.3g} at first, "
            f"{growth:.3g} ± {width:.2g} more; health.held_out_gap is {self.config.held_out_gap:g}"
        )
        facts = {"first": first.mean, "newest": newest.mean, "growth": growth, "half_width": width}
        return Alarm("held_out_gap", text, facts, self._stops)

    @property
    def _stops(self) -> bool:
        return self.config.alarm == "stop"


def watch_of(pipeline: Pipeline) -> Watch:
    """The run's. A verifier that has nothing to compare with gives no verdict, and that is no fault of its own."""
    referenced = getattr(pipeline.prompts.train, "reference", "") is not None
    return Watch(pipeline.health, demanding=referenced or not compares(pipeline.verifier))


def verdict_facts(tallies: Tallies) -> dict[str, Any]:
    """What a step's row says of its scorers."""
    if not tallies:
        return {}
    whole = sum((own for who, own in tallies.items() if who.name == WHOLE), Tally())
    return {
        "scorers": health.rows(tallies),
        "unknown_share": whole.unknown_share,
        "verdict_seconds_p50": whole.seconds(0.5),
        "verdict_seconds_p99": whole.seconds(0.99),
    }


def _named(who: Who) -> str:
    scorer = f"{who.scorer} {who.version}".strip() or "unsigned"
    return f"verifier {scorer}" if who.name == WHOLE else f"{who.name} (verifier {scorer})"


def _shares(tally: Tally) -> str:
    """`12 % timeout, 3 % error`."""
    counts = sorted(
        ((count, name) for name, count in tally.counts.items() if name not in ("ok", "skipped")), reverse=True
    )
    return ", ".join(f"{count / tally.asked:.0%} {name}" for count, name in counts if tally.asked)


def _shown(failure: Failure) -> str:
    return f"{failure.id}: {failure.status}, {failure.reason}; the response was {failure.response!r}"


def _facts(who: Who, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": who.name, "scorer": who.scorer, "version": who.version, **facts}
