"""The role that a stage mainly played: expansion, reshaping or consolidation; "undecided" where the evidence is mixed.

After the survey (arXiv 2604.07941, Table 2). A role is a claim about behaviour, so it is read from measurements;
where text and targets came from (`Facts`) only says which explanations are possible:

* consolidation: the stage had something to consolidate (a teacher, an earlier checkpoint, its own scaffolded self), the
  policy moved at least half of the way to it, and what the bare policy gained it gained on that way;
* expansion: the gain on prompts that were outside effective support is more than `gain.DOMINANT` times that inside;
* reshaping: the other way round.

Attrition is no role. Each clause is a bound of an interval; where one is open, so is the role.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.probes.gain import Gain
from orchestrator.probes.intervals import UNKNOWN, Interval

Name = Literal["expansion", "reshaping", "consolidation", "undecided"]
Answer = Literal["yes", "no", "open"]

FULLY_RETAINED = 0.9
"""Less of an earlier stage's support than this, with confidence, speaks against consolidation."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the stage's training data and targets came from, and how it was probed, as ledger and recipe have it; None:
    unknown."""

    supplied: bool | None = None
    """It trained on text that the policy did not write: demonstrations, hints, others' traces."""
    teacher: bool | None = None
    """A teacher or an earlier checkpoint gave targets or text."""
    scaffold: bool | None = None
    """It trained the bare prompt's policy on what was written under a scaffold."""
    retained: Interval = UNKNOWN
    """Share of an earlier stage's solved prompts that are solved still."""
    temperature: float = 1.0
    """Of the probe's draws. Scores are at temperature 1: at another, a good trajectory's probability bounds no pass
    rate, and own rollouts are not of the policy that is scored."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the policy is from what it may consolidate, on its own states; UNKNOWN where nobody measured it."""

    before: Interval = UNKNOWN
    after: Interval = UNKNOWN
    change: Interval = UNKNOWN
    """after - before: below 0, it came closer."""
    half: Interval = UNKNOWN
    """before - 2 after: above 0, at least half of the way is done."""
    quarter: Interval = UNKNOWN
    """3 before - 4 after: below 0, less than a quarter is."""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """Pass rates with help and without; UNKNOWN where the pipeline has no scaffold."""

    before: Interval = UNKNOWN
    """Gap: scaffolded - bare."""
    after: Interval = UNKNOWN
    closed: Interval = UNKNOWN
    """before - after: what the bare policy gained on the scaffolded one."""
    lead: Interval = UNKNOWN
    """closed - the rise of the scaffolded policy itself: above 0, the bare gain is mostly the closing of the gap."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the role is read from."""

    gain: Gain
    facts: Facts = Facts()
    teacher_kl: Distance = Distance()
    """KL(policy || teacher) per token, nats."""
    teacher_choice: Distance = Distance()
    """Share of positions at which policy and teacher would greedily choose differently."""
    scaffold: Scaffold = Scaffold()
    drift: Interval = UNKNOWN
    """KL(after || before) per token on after's states."""
    reached: Interval = UNKNOWN
    """Change in the share of a good trajectory that the policy follows by itself."""
    opened: Interval = UNKNOWN
    """Share of the good trajectories of which every action became available."""
    closed: Interval = UNKNOWN
    """Share of them of which some action no longer is."""


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of evidence."""

    evidence: str
    value: Interval | bool


@dataclass(frozen=True, slots=True)
class Finding:
    """The role's name and what speaks for and against it; of an undecided one, what speaks for any and why none."""

    name: Name
    for_: tuple[Item, ...] = field(default=())
    against: tuple[Item, ...] = field(default=())


def named(evidence: Evidence) -> Finding:
    """The dominant role, or "undecided"."""
    name = _name(evidence)
    spoken = {role: _for(role, evidence) for role in ("expansion", "reshaping", "consolidation")}
    if name == "undecided":
        return Finding(name, tuple(one for items in spoken.values() for one in items), _open(evidence))
    others = tuple(one for role, items in spoken.items() if role != name for one in items)
    return Finding(name, tuple(spoken[name]), (*others, *_against(name, evidence)))


def document(finding: Finding) -> dict[str, Any]:
    """{"name", "for": [{"evidence", "value": Interval or bool}], "against": [the same]}."""

    def items(of: tuple[Item, ...]) -> list[dict[str, Any]]:
        return [{"evidence": one.evidence, "value": _plain(one.value)} for one in of]

    return {"name": finding.name, "for": items(finding.for_), "against": items(finding.against)}


def _name(evidence: Evidence) -> Name:
    match _consolidated(evidence):
        case "yes":
            return "consolidation"
        case "open":
            return "undecided"
        case "no":
            return _by_gain(evidence.gain)


def _by_gain(gain: Gain) -> Name:
    """Which part of the gain leads, with confidence."""
    if not gain.total.low > 0:
        return "undecided"
    if gain.expansion.low > 0 and gain.expansion_lead.low > 0 and gain.expansion.value > abs(gain.reshaping.value):
        return "expansion"
    if gain.reshaping.low > 0 and gain.reshaping_lead.low > 0:
        return "reshaping"
    return "undecided"


def _consolidated(evidence: Evidence) -> Answer:
    """Whether the stage's work was to take over what something else could do already."""
    answers = {_by_teacher(evidence), _by_scaffold(evidence)}
    if evidence.gain.total.high < 0 and answers != {"no"}:
        return "open"  # what it took over did not carry
    return "yes" if "yes" in answers else "open" if "open" in answers else "no"


def _by_teacher(evidence: Evidence) -> Answer:
    if evidence.facts.teacher is False:
        return "no"
    known = [one for one in (evidence.teacher_kl, evidence.teacher_choice) if one.half.known]
    if not known:
        return "open" if evidence.facts.teacher else "no"
    if any(one.change.low > 0 for one in known) or not any(one.change.high < 0 for one in known):
        return "no"
    if any(one.half.low > 0 for one in known):
        return "yes" if evidence.facts.teacher else "open"
    return "no" if all(one.quarter.high < 0 for one in known) else "open"


def _by_scaffold(evidence: Evidence) -> Answer:
    if evidence.facts.scaffold is False:
        return "no"
    gap = evidence.scaffold
    if not gap.closed.known:
        return "open" if evidence.facts.scaffold else "no"
    if gap.before.high <= 0 or gap.closed.high < 0 or gap.lead.high < 0:
        return "no"
    closes = gap.before.low > 0 and gap.closed.low > 0
    if not evidence.facts.scaffold:
        return "open" if closes else "no"
    return "yes" if closes and gap.lead.low > 0 and evidence.gain.total.low > 0 else "open"


def _for(role: str, evidence: Evidence) -> list[Item]:
    """What speaks for a role."""
    gain, facts, gap = evidence.gain, evidence.facts, evidence.scaffold
    kl, choice = evidence.teacher_kl, evidence.teacher_choice
    told: list[tuple[bool, str, Interval | bool]]
    match role:
        case "expansion":
            told = [
                (gain.expansion.low > 0, "gain on prompts that were outside effective support", gain.expansion),
                (evidence.opened.low > 0, "good trajectories of which every action became available", evidence.opened),
                (facts.supplied is True, "it trained on text that the policy did not write", True),
            ]
        case "reshaping":
            told = [
                (gain.reshaping.low > 0, "gain on prompts that were within effective support already", gain.reshaping),
                (facts.supplied is False, "it trained on what the policy wrote itself", True),
            ]
        case _:
            told = [
                (kl.change.high < 0, "it came closer to the teacher on its own states (KL per token)", kl.change),
                (choice.change.high < 0, "it chooses more often as the teacher does", choice.change),
                (gap.closed.low > 0, "the bare policy gained on the scaffolded one", gap.closed),
                (facts.retained.low > FULLY_RETAINED, "an earlier stage's support is retained", facts.retained),
            ]
    return [Item(text, value) for said, text, value in told if said]


def _against(role: Name, evidence: Evidence) -> list[Item]:
    """What speaks against the named role, besides what speaks for others."""
    gain, facts = evidence.gain, evidence.facts
    told: list[tuple[bool, str, Interval | bool]] = [
        (gain.attrition.high < 0, "loss on prompts that left effective support", gain.attrition),
        (evidence.closed.low > 0, "good trajectories of which an action is no longer available", evidence.closed),
        (gain.reshaping.high < 0, "loss within effective support", gain.reshaping),
    ]
    match role:
        case "expansion":
            told.append((facts.supplied is False, "nothing was supplied that the policy did not write itself", True))
            told.append((evidence.reached.high < 0, "good trajectories are followed less far", evidence.reached))
        case "reshaping":
            told.append((facts.supplied is True, "it trained on text that the policy did not write", True))
        case "consolidation":
            told.append((facts.retained.high < FULLY_RETAINED, "an earlier stage's support was lost", facts.retained))
        case "undecided":
            pass
    return [Item(text, value) for said, text, value in told if said]


def _open(evidence: Evidence) -> tuple[Item, ...]:
    """Why no role is named."""
    gain, facts = evidence.gain, evidence.facts
    teacher, scaffold = _by_teacher(evidence), _by_scaffold(evidence)
    changed = gain.total.low > 0
    told: list[tuple[bool, str, Interval | bool]] = [
        (not gain.total.known, "no pass rates before and after", False),
        (gain.total.known and not changed, "no gain in pass rate is shown", gain.total),
        (changed and not gain.expansion_lead.low > 0, "expansion does not lead reshaping", gain.expansion_lead),
        (changed and not gain.reshaping_lead.low > 0, "reshaping does not lead expansion", gain.reshaping_lead),
        (teacher == "open" and facts.teacher is None, "whether the teacher trained it is unknown", False),
        (teacher == "open" and facts.teacher is True, "how far it went to the teacher", evidence.teacher_kl.half),
        (scaffold == "open", "whether the gain is the scaffold's, taken over", evidence.scaffold.lead),
    ]
    return (*(Item(text, value) for said, text, value in told if said), *_against("undecided", evidence))


def _plain(value: Interval | bool) -> Any:
    match value:
        case bool():
            return value
        case Interval(middle, low, high):
            return {"value": middle, "low": low, "high": high}
