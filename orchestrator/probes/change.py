"""What changed between two checkpoints: the handoff's `change`, a function of two snapshots and plain facts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.probes import clusters, curves, divergence, gain, reach, role, scores
from orchestrator.probes.clusters import Terms
from orchestrator.probes.gain import Gain
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.role import Distance, Evidence, Facts, Scaffold
from orchestrator.probes.scores import Pair
from orchestrator.probes.sequential import Plan, counts, matched
from orchestrator.probes.snapshot import Sampled, Scored, SetName, Snapshot, Who

PASS_AT = 8
"""Besides pass@1, the largest k whose gain is divided: what a few tries reach."""

NOTHING = Sampled((), (), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), (), ())


@dataclass(frozen=True, slots=True)
class Asked:
    """How the snapshots are read."""

    epsilon: float
    confidence: float
    plan: Plan | None = None
    """What ended the draws."""
    comparable: bool = True
    """Draws and scores are of the same policy: both at temperature 1."""


def document(
    before: Snapshot,
    after: Snapshot,
    *,
    epsilon: float,
    confidence: float,
    facts: Facts | None = None,
    plan: Plan | None = None,
) -> dict[str, Any]:
    """What the stage between two snapshots changed. Intervals are {"value", "low", "high"}; NaN is unknown.

    `plan` is what ended the draws at both checkpoints, `facts` where the stage's data came from.

    reach: `reach.document` of the bank, null without one. divergence: `divergence.document`. gain: {"k", "prompts",
    "total", "expansion", "reshaping", "attrition", "outside", "expansion_share", "reshaping_share": Interval, ..}: of
    pass@1; the four parts sum to the total. gain_at_k: the same of a larger k, at most 8, null where draws tell none.
    role: `role.document`. distance: {"teacher_kl", "teacher_choice": {"before", "after", "change", ..}, "scaffold":
    {"before", "after", "closed", ..}: Interval}: how far the policy is from what it may take over.

    Parts that were not measured are null or NaN; nothing is needed but the two snapshots.
    """
    facts = facts or Facts()
    asked, bank = Asked(epsilon, confidence, plan, facts.temperature == 1.0), paired_bank(before, after)
    found = evidence(before, after, asked, facts)
    reached = reach.document(bank, epsilon=epsilon, confidence=confidence)
    told = divergence.document(after.scored, confidence=confidence)
    if not asked.comparable:
        told["warnings"].append(f"own rollouts were drawn at temperature {facts.temperature:g} and scored at 1")
    more = _gain(before, after, bank, asked)
    return {
        "reach": reached,
        "divergence": told,
        "gain": asdict(found.gain),
        "gain_at_k": asdict(more) if more.k > 1 else None,
        "role": role.document(role.named(found)),
        "distance": {
            "teacher_kl": asdict(found.teacher_kl),
            "teacher_choice": asdict(found.teacher_choice),
            "scaffold": asdict(found.scaffold),
        },
    }


def evidence(before: Snapshot, after: Snapshot, asked: Asked, facts: Facts) -> Evidence:
    """What the role is read from."""
    epsilon, confidence, bank = asked.epsilon, asked.confidence, paired_bank(before, after)
    drift = divergence.divergence(scores.paired(after.scored, "after", "after", "before"), confidence)
    opened, closed, reached = _availability(bank, epsilon, confidence)
    return Evidence(
        _gain(before, after, bank, asked, 1),
        facts,
        _distance(after.scored, divergence.apart, confidence),
        _distance(after.scored, _other_choices, confidence),
        _scaffold(before, after, asked),
        drift.per_token,
        reached,
        opened,
        closed,
    )


def paired_bank(before: Snapshot, after: Snapshot) -> list[Pair]:
    """The bank under both models: as the later snapshot has both, else each snapshot's own."""
    if pairs := scores.paired(after.scored, "bank", "before", "after"):
        return pairs
    earlier = scores.under(before.scored, "bank", "after") or scores.under(before.scored, "bank", "before")
    later = scores.under(after.scored, "bank", "after")
    return [
        (row, later[name])
        for name, row in earlier.items()
        if name in later and np.array_equal(row.tokens, later[name].tokens)
    ]


def _gain(before: Snapshot, after: Snapshot, bank: Sequence[Pair], asked: Asked, k: int | None = None) -> Gain:
    """Of the prompts of set probe, whose rates are at least the probability of their good trajectories.

    Without k, of the largest that the draws tell, `PASS_AT` at most.
    """
    drawn = [one.sets.get("probe", NOTHING) for one in (before, after)]
    rows = matched(*drawn)
    least = [np.zeros(len(one)) for one in rows]
    place = {drawn[0].prompts[at]: row for row, at in enumerate(rows[0].tolist())}
    for pair in bank if asked.comparable else ():
        for bounds, row in zip(least, pair, strict=True):
            if (at := place.get(row.prompt)) is not None:
                bounds[at] = max(bounds[at], float(np.exp(reach.log_reach(row)[-1])))
    first, last = (counts(one, asked.plan).rows(at) for one, at in zip(drawn, rows, strict=True))
    if k is None:
        k = max((one for one in curves.steps(first, last) if one <= PASS_AT), default=1)
    known = (least[0], least[1])
    return gain.decompose(first, last, known, epsilon=asked.epsilon, confidence=asked.confidence, k=k)


def _availability(bank: Sequence[Pair], epsilon: float, confidence: float) -> tuple[Interval, Interval, Interval]:
    """Shares of good trajectories of which every action became available, or one no longer is; change in reach."""
    if not bank:
        return UNKNOWN, UNKNOWN, UNKNOWN
    prompts, ones = [one.prompt for one, _ in bank], np.ones(len(bank))
    inside = np.array([[scores.logps(row).min() >= np.log(epsilon) for row in pair] for pair in bank])
    opened, closed = ~inside[:, 0] & inside[:, 1], inside[:, 0] & ~inside[:, 1]
    followed = [([reach.followed(pair[at]) for pair in bank], ones, prompts) for at in range(2)]
    return (
        clusters.share((opened.astype(float), ones, prompts), confidence=confidence),
        clusters.share((closed.astype(float), ones, prompts), confidence=confidence),
        clusters.difference(*followed, confidence=confidence),
    )


def _other_choices(pairs: Sequence[Pair]) -> Terms:
    """Positions at which the two would choose differently."""
    same, sizes, prompts = divergence.agreeing(pairs)
    return np.subtract(sizes, same), sizes, prompts


def _distance(scored: Sequence[Scored], measure: Callable[[Sequence[Pair]], Terms], confidence: float) -> Distance:
    """To the teacher, of before and after, each on its own rollouts; UNKNOWN unless both were scored by it."""
    own: tuple[Who, Who] = ("before", "after")
    first, second = (measure(scores.paired(scored, who, who, "teacher")) for who in own)
    if not np.sum(first[1]) or not np.sum(second[1]):
        return Distance()
    return Distance(
        clusters.ratio(first, confidence=confidence),
        clusters.ratio(second, confidence=confidence),
        clusters.difference(first, second, confidence=confidence),
        clusters.difference(_times(2, second), first, confidence=confidence),
        clusters.difference(_times(4, second), _times(3, first), confidence=confidence),
    )


def _times(factor: float, terms: Terms) -> Terms:
    return factor * np.asarray(terms[0], np.float64), terms[1], terms[2]


def _scaffold(before: Snapshot, after: Snapshot, asked: Asked) -> Scaffold:
    """Gaps between the prompts bare and scaffolded, over those that were drawn in all four ways."""
    names: tuple[SetName, SetName] = ("probe", "scaffolded")
    ways = [_rates(one.sets.get(name, NOTHING), asked.plan) for one in (before, after) for name in names]
    prompts = [name for name in ways[0] if all(name in one for one in ways[1:])]
    if not prompts:
        return Scaffold()
    bare0, helped0, bare1, helped1 = (np.array([one[name] for name in prompts]) for one in ways)

    def mean(values: Any) -> Interval:
        return clusters.ratio((values, np.ones(len(prompts)), prompts), confidence=asked.confidence)

    closed = (helped0 - bare0) - (helped1 - bare1)
    return Scaffold(mean(helped0 - bare0), mean(helped1 - bare1), mean(closed), mean(closed - (helped1 - helped0)))


def _rates(found: Sampled, plan: Plan | None) -> Mapping[str, float]:
    """Prompt -> unbiased pass rate, of the prompts that have one."""
    rates = curves.estimates(counts(found, plan), 1)
    return {name: float(rate) for name, rate in zip(found.prompts, rates, strict=True) if not np.isnan(rate)}
