"""The bottleneck control: per prompt, what keeps the policy from solving it decides where its data come from.

    unknown     nothing was seen                       reinforce looks
    unreached   solve rate and reach are low           imports; at each `look`-th import reinforce beside it
    unreliable  solved now and then, or within reach   reinforce
    mastered    solved nearly always                   rests, is looked at again after `recheck` steps; or distil
    lost        mastered once, no longer               replay beside reinforce

A demonstration is judged like any response. One that fails brings nothing in: it does not train, and its prompt, if
nobody solves it, rests between looks. Reach is asked of those that passed alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

from orchestrator.controls.evidence import Evidence
from orchestrator.controls.group import Count, GroupStats, count
from orchestrator.controls.moment import Memory, Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Bottleneck
from orchestrator.controls.routing import SILENT, Routing

Kind = Literal["unknown", "unreached", "unreliable", "mastered", "lost"]
ORDER: tuple[Kind, ...] = ("unknown", "unreached", "unreliable", "mastered", "lost")
IDLE = 8
UNHEARD = 4
"""Imports asked for without an answer after which a prompt counts as one that has nothing to import."""


class Entry(NamedTuple):
    """What is remembered of a prompt; JSON as a list."""

    kind: Kind = "unknown"
    passed: float = 0.0
    failed: float = 0.0
    looked: int = -1
    """Step of the last look by fresh responses; -1 for none."""
    imports: int = 0
    """Since that look."""
    held: bool = False
    """Whether it was mastered once."""
    barren: bool = False
    """Whether there is nothing good to import."""
    asked: int = 0
    """Imports asked for since one came."""

    @property
    def evidence(self) -> Evidence:
        """Of its solve rate."""
        return Evidence(self.passed, self.failed)


Kept = Sequence[Any]
"""An entry as a state has it. What is asked of every candidate reads it in place: to make an entry of each costs more
than the rest of the decision."""
NEW: Kept = Entry()
KIND, LOOKED, BARREN = (Entry._fields.index(name) for name in ("kind", "looked", "barren"))


def entry_of(known: dict[str, Any], prompt: str) -> Entry:
    """What `known` (of a state) says of the prompt."""
    return Entry(*known[prompt]) if prompt in known else Entry()


# ---------------------------------------------------------------- before a step


def choose(
    control: Bottleneck, state: State, now: Moment, drawn: Sequence[str], count: int
) -> tuple[State, tuple[Place, ...], str]:
    """At most `count` of the drawn prompts that do not rest, each with the strands that its class needs."""
    known: dict[str, Any] = state["prompts"]
    entries = {prompt: known.get(prompt, NEW) for prompt in drawn}
    rising = (prompt for prompt, kept in entries.items() if not _rests(control, kept, now.step))
    awake = [(prompt, entry_of(known, prompt)) for prompt in islice(rising, count)]
    places = [Place(prompt, _strands(control, one)) for prompt, one in awake]
    spare = _spare(control, entries, awake, count)
    places += [Place(prompt, frozenset({control.distil or control.reinforce})) for prompt in spare]
    asked = {
        prompt: list(one._replace(asked=one.asked + 1))
        for prompt, one in awake
        if one.kind == "unreached" and not one.barren
    }
    after = {**state, "prompts": {**known, **asked}} if asked else state
    return after, tuple(places), _said(control, entries, awake, spare)


def _rests(control: Bottleneck, kept: Kept, step: int) -> bool:
    """What is mastered, and what nobody solves and nothing good is known of, is looked at every `recheck` steps."""
    idle = kept[KIND] == "mastered" or (kept[KIND] == "unreached" and kept[BARREN])
    return bool(idle and step - kept[LOOKED] < control.recheck)


def _strands(control: Bottleneck, one: Entry) -> frozenset[str]:
    if one.kind == "unreached" and not one.barren:
        # a look beside the import: the visit is not lost when the look finds nothing
        looks = (
            one.imports >= control.look or one.asked >= UNHEARD
        )  # nothing came: only a look can tell that it did not
        return frozenset({control.imports, control.reinforce} if looks else {control.imports})
    if one.kind == "lost":
        return frozenset({control.replay or control.imports, control.reinforce})
    return frozenset({control.reinforce})


def _spare(
    control: Bottleneck, entries: Mapping[str, Kept], awake: Sequence[tuple[str, Entry]], count: int
) -> list[str]:
    """Who fills places that nobody needs: mastered prompts, longest unseen first, to distil.

    Without `distil` the step is smaller, but never empty: where everybody rests, one in `IDLE` is looked at.
    """
    room = count - len(awake) if control.distil else (0 if awake else max(1, count // IDLE))
    chosen = {prompt for prompt, _ in awake}
    idle = [prompt for prompt in entries if prompt not in chosen] if room else []
    if control.distil and awake:  # what is out of reach and has nothing good to import has nothing to distil either
        idle = [prompt for prompt in idle if entries[prompt][KIND] == "mastered"]
    return sorted(idle, key=lambda prompt: entries[prompt][LOOKED])[:room]


def _said(
    control: Bottleneck,
    entries: Mapping[str, Kept],
    awake: Sequence[tuple[str, Entry]],
    spare: Sequence[str],
) -> str:
    """`12 of 64 candidates: 2 unknown, 7 unreached, 3 unreliable; 40 of them are mastered`."""
    taken, there = Counter(one.kind for _, one in awake), Counter(kept[KIND] for kept in entries.values())
    told = ", ".join(f"{taken[kind]} {kind}" for kind in ORDER if taken[kind]) or "nobody needs it"
    candidates = ", ".join(f"{there[kind]} {kind}" for kind in ORDER if there[kind])
    filled = f"; {len(spare)} that rest fill the step" if spare else ""
    return f"{len(awake)} prompts: {told}{filled}; of {len(entries)} candidates {candidates}"


# ---------------------------------------------------------------- after a group is scored


def asks_reach(control: Bottleneck, state: State, group: GroupStats) -> bool:
    """Whether the probability of the prompt's known good response would tell more than the group's verdicts do.

    Where a good one was imported and no fresh response passed: then samples alone cannot say whether it is in reach.
    """
    imported = count(group, control.imports)
    return imported.responses > 0 and not imported.failed and not _fresh(control, group).passed


def observe(control: Bottleneck, memory: Memory, group: GroupStats, step: int) -> Routing:
    """Take a group's verdicts and reach as evidence; `memory` is changed in place. Says when the class changes."""
    known: dict[str, Any] = memory["prompts"]
    before = entry_of(known, group.prompt)
    fresh = _fresh(control, group)
    imported = count(group, control.imports)
    bad = imported.failed == imported.responses > 0
    if not (fresh.known or imported.responses):
        return SILENT
    seen = _seen(control, before, fresh, imported, step)
    reached = control.reach > 0 and group.reach >= control.reach  # an unknown reach says nothing
    kind = _kind(control, seen, reached)
    after = seen if kind == seen.kind else seen._replace(kind=kind, held=seen.held or kind == "mastered")
    if reached and before.kind == "unreached" and kind == "unreliable":
        after = after._replace(passed=0.0, failed=0.0, imports=0)  # those verdicts were of a policy that did not reach
    known[group.prompt] = list(after)
    return _routing(control, group, before, after, bad=bad)


def _fresh(control: Bottleneck, group: GroupStats) -> Count:
    """Verdicts on the bare prompt: what a hint or a prefix helped says nothing of it."""
    if group.segments:
        return Count(control.reinforce, 0, 0, 0)
    bare = replace(group, members=group.first, level=0) if group.level else group
    return count(bare, control.reinforce)


def _seen(control: Bottleneck, before: Entry, fresh: Count, imported: Count, step: int) -> Entry:
    """The entry once the group's verdicts are counted; its class is still the one that it had."""
    kind, passed, failed, looked, imports, held, barren, asked = before
    if fresh.known:
        now = before.evidence.after(fresh.passed, fresh.failed, control.decay)
        passed, failed, looked, imports = round(now.passed, 6), round(now.failed, 6), step, 0
    if imported.responses:
        barren, asked = imported.failed == imported.responses, 0
        imports += not barren
    elif asked >= UNHEARD:
        barren = True
    return Entry(kind, passed, failed, looked, imports, held, barren, asked)


class _Marks(NamedTuple):
    """What the classes are told by."""

    mastered: float
    lost: float
    unreached: float
    sure: float


def _kind(control: Bottleneck, one: Entry, reached: bool) -> Kind:
    """The class that the evidence is sure of, else the one it has: between the two lies what keeps it from flapping."""
    marks = _Marks(control.mastered, control.lost, control.unreached, control.confidence)
    return _told_by(marks, Evidence(round(one.passed, 3), round(one.failed, 3)), one.kind, one.held, reached)


@lru_cache(maxsize=1 << 16)
def _told_by(marks: _Marks, evidence: Evidence, kind: Kind, held: bool, reached: bool) -> Kind:
    """Few are met, again and again: a group's class costs one look-up."""
    if evidence.seen and evidence.surely_above(marks.mastered, marks.sure):
        return "mastered"
    if held and evidence.seen and evidence.surely_below(marks.lost, marks.sure):
        return "lost"
    if not reached and evidence.seen and not held and evidence.surely_below(marks.unreached, marks.sure):
        return "unreached"
    return "unreliable" if _leaves(marks, evidence, kind, reached) else kind


def _leaves(marks: _Marks, evidence: Evidence, kind: Kind, reached: bool) -> bool:
    """Whether the evidence contradicts the class that the prompt has."""
    match kind:
        case "mastered":
            return evidence.surely_below(marks.mastered, marks.sure)
        case "unreached":
            return reached or evidence.surely_above(marks.unreached, marks.sure)
        case "lost":
            return evidence.surely_above(marks.lost, marks.sure)
        case _:
            return bool(evidence.seen) or reached


def _routing(control: Bottleneck, group: GroupStats, before: Entry, after: Entry, *, bad: bool) -> Routing:
    if before.kind == after.kind and not bad:
        return SILENT
    leaving = frozenset({control.imports}) if bad else frozenset[str]()
    told = [f"{group.prompt}'s {control.imports} failed and does not train"] if bad else []
    if before.kind != after.kind:
        reach = "" if group.reach != group.reach else f", reach {group.reach:.3g}"
        counted = f"{after.passed:.3g} of {after.passed + after.failed:.3g} verdicts passed{reach}"
        told.append(f"{group.prompt} was {before.kind} and is {after.kind}: {counted}")
    return Routing(reason="; ".join(told), without=leaving)
