"""What a step asks its writers for: the rounds in which strands follow each other, and each response's contexts.

Round 1 is written from prompts alone; a strand with a parent is written once that parent's responses are there and
judged. Names are pure functions of stage, step, slot, round and draw; seeds of the run's seed and the name.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from orchestrator.config import Stage
from orchestrator.controls import Hint, StepPlan, segments_for, share_for
from orchestrator.ports import Demonstrations, Scorer
from orchestrator.records import Dropped, Member
from orchestrator.writing import Draw, nothing
from policies.config import Source, Strand
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Int32, Producer, ScoreEntry, Trajectory
from teachers.contexts import Facts, Unavailable, answer, context, criteria, hint, hint_tokens, render


def seed_for(*parts: object) -> int:
    """A 31-bit seed from what it is for: run seed, trajectory id, attempt."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def rounds(strands: Sequence[Strand], resting: frozenset[str]) -> list[list[int]]:
    """Indices of the strands that are collected, by round; a strand whose parent rests has nothing to follow."""
    by_name = {strand.name: strand for strand in strands}
    found: dict[int, list[int]] = {}
    for index, strand in enumerate(strands):
        line = _line(strand, by_name)
        if not any(one.name in resting for one in line):
            found.setdefault(len(line), []).append(index)
    return [found[depth] for depth in sorted(found)]


def _line(strand: Strand, by_name: Mapping[str, Strand]) -> list[Strand]:
    """The strand, its parent, its parent's parent ..."""
    line = [strand]
    while line[-1].source.parent:
        line.append(by_name[line[-1].source.parent])
    return line


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A prompt's place in a step, and what it is asked with."""

    group: str
    """Id of the group that its responses form."""
    prompt: Prompt
    round: int = 0
    """How many prompts were drawn in vain for this place before."""
    level: int = 0
    """Of the hint ladder."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Strand name -> share of the demonstration that its contexts show as a hint."""
    only: frozenset[str] = frozenset()
    """Names of the strands that are asked; empty is all that share the step's prompts."""
    each: int = 0
    """Responses that a strand gives; 0 is its `per_prompt`."""

    def count(self, strand: Strand) -> int:
        """How many responses the strand owes the slot."""
        asked = strand.name in self.only if self.only else strand.source.per_prompt > 0
        return (self.each or strand.source.per_prompt) if asked else 0


class _Asked(NamedTuple):
    """What the responses of one strand in one slot share."""

    slot: Slot
    strand: int
    members: Sequence[Member]
    """Those that the group has so far."""
    given: Trajectory | None


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """One step's plan, and what its contexts are made from."""

    stage: Stage
    strands: Sequence[Strand]
    step: int
    plan: StepPlan
    seed: int
    demonstrations: Demonstrations | None
    tokenizer: Tokenizer | None

    def draws(self, slot: Slot, index: int, members: Sequence[Member]) -> list[Draw | Dropped]:
        """What strand `index` asks for in a slot, given the members that the slot's group has so far."""
        strand, count = self.strands[index], slot.count(self.strands[index])
        parents = self.parents(strand.source, members)
        if count and strand.source.parent and not parents:
            which = "" if strand.source.parent_is == "any" else f"{strand.source.parent_is} "
            reason = f"no {which}response of {strand.source.parent} to follow"
            return [_unwritten(f"{slot.group}/{strand.name}", reason)]
        line = [parents[at % len(parents)] if parents else None for at in range(count)]
        asked = _Asked(slot, index, members, self._given(slot.prompt) if count else None)
        return [self._draw(asked, at, parent) for at, parent in enumerate(line)]

    def _given(self, prompt: Prompt) -> Trajectory | None:
        """The prompt's first demonstration."""
        return self.demonstrations.for_prompt(prompt.id, 0) if self.demonstrations else None

    def parents(self, source: Source, members: Sequence[Member]) -> list[Trajectory]:
        """The responses that the source may follow, in order."""
        if not source.parent:
            return []
        own = [one.trajectory for one in members if self.strands[one.strand].name == source.parent]
        wanted = {"any": (True, False, None), "passed": (True,), "failed": (False,)}[source.parent_is]
        return [one for one in own if len(one.tokens) and passed(one) in wanted]

    def segments(self, strand: Strand, prompt_id: str) -> int:
        """Parts of the demonstration that the strand's responses to a prompt start from."""
        return segments_for(self.plan.hints.get(strand.name, Hint()), prompt_id, seed_for(self.seed, self.stage.name))

    def _draw(self, asked: _Asked, at: int, parent: Trajectory | None) -> Draw | Dropped:
        slot, strand, given = asked.slot, self.strands[asked.strand], asked.given
        name = f"{slot.group}/{strand.name}-{at}" + (f"-hint{slot.level}" if slot.level else "")
        shown = share_for(self.plan.hints.get(strand.name, Hint()), at, slot.count(strand))
        facts = _of_parent(
            replace(
                facts_of(slot.prompt, given, share=slot.shares.get(strand.name, 0.0), criteria_share=shown),
                sibling=sibling(asked.members, parent.id if parent else ""),
            ),
            parent,
        )
        draw = Draw(name, asked.strand, slot.prompt, slot.group, facts, slot.prompt.tokens, parent=parent)
        if strand.source.turn and parent is not None:
            return self._turned(draw, strand.source, parent)
        seen = self.context(strand.source.behavior, slot.prompt, facts)
        if isinstance(seen, Unavailable):
            return _unwritten(name, seen.reason)
        front = self._front(strand, slot.prompt, given)
        if isinstance(front, Unavailable):
            return _unwritten(name, front.reason)
        return replace(draw, context=seen, hint=front)

    def context(self, template: str, prompt: Prompt, facts: Facts) -> Int32 | Unavailable:
        """The template's tokens for a prompt."""
        return context(template, prompt, facts, self._tokenizer(template)) if template else prompt.tokens

    def _turned(self, draw: Draw, source: Source, parent: Trajectory) -> Draw | Dropped:
        """The learner answers again after what the environment says of its first answer."""
        said = render(source.turn, draw.facts)
        if isinstance(said, Unavailable):
            return _unwritten(draw.name, said.reason)
        tokenizer = self._tokenizer(source.turn)
        try:
            turn = tokenizer.turn(said, ended=int(parent.tokens[-1]) in tokenizer.eos_ids)
        except ValueError as error:
            return _unwritten(draw.name, f"the turn's text has no tokens: {error}")
        return replace(draw, context=parent.behavior_context, turn=turn)

    def _front(self, strand: Strand, prompt: Prompt, given: Trajectory | None) -> Int32 | Unavailable:
        """The demonstration's first tokens, as much as the step's plan says."""
        told = self.plan.hints.get(strand.name, Hint()).prefix
        parts = self.segments(strand, prompt.id) if strand.source.prefix else 0
        if not parts or told is None:
            return nothing()
        if given is None:
            return Unavailable("the prompt has no demonstration to start from")
        return hint_tokens(given.tokens, parts / told.segments, self._tokenizer("prefix").eos_ids)

    def _tokenizer(self, reader: str) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError(f"stage {self.stage.name}: {reader[:60]!r} needs a tokenizer, and the collector has none")
        return self.tokenizer


def _unwritten(name: str, reason: str) -> Dropped:
    """What was not asked for: no response is lost by it."""
    return Dropped(name, reason, "unwritten", ())


# ---------------------------------------------------------------- facts


def facts_of(prompt: Prompt, given: Trajectory | None, *, share: float = 0.0, criteria_share: float = 0.0) -> Facts:
    """What is known of a prompt; `share` of the demonstration is shown as a hint."""
    told: str | None = ""
    if share > 0:
        told = hint(given.text, share) if given is not None else None
    return Facts(
        prompt=prompt.text,
        answer=answer(prompt.reference),
        demonstration=given.text if given is not None else None,
        hint=told,
        criteria=criteria(prompt.reference, criteria_share) if criteria_share > 0 else "",
    )


def _of_parent(facts: Facts, parent: Trajectory | None) -> Facts:
    return facts if parent is None else replace(facts, parent=parent.text, reason=said_of(parent))


def said_of(one: Trajectory) -> str | None:
    """What the verifier said of a response, in words; None where there is no verdict."""
    entry = verdict(one)
    if entry is None or entry.status != "ok":
        return None
    return entry.reason or {True: "passed", False: "failed", None: f"{entry.value:g}"}[entry.passed]


def verdict(one: Trajectory) -> ScoreEntry | None:
    """The score named `reward`."""
    return next((entry for entry in one.scores if entry.name == "reward"), None)


async def with_verdicts(
    scorer: Scorer, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]
) -> list[Trajectory]:
    """The trajectories with their scores, in order; what has its verdict already, an episode that broke off, keeps it.

    The scorer is not asked of half an episode: it would judge the model for what the environment did.
    """
    unknown = [one for one in trajectories if verdict(one) is None]
    scored = await scorer.score(unknown, prompts) if unknown else []
    found = {one.id: after for one, after in zip(unknown, scored, strict=True)}
    return [found.get(one.id, one) for one in trajectories]


def passed(one: Trajectory) -> bool | None:
    """Whether the verifier passed it; None where it did not say."""
    entry = verdict(one)
    return entry.passed if entry is not None and entry.status == "ok" else None


def sibling(members: Sequence[Member], besides: str) -> str | None:
    """The first passing response of the group that is no demonstration and not the one named `besides`."""
    others = (one.trajectory for one in members if one.trajectory.id != besides)
    return next((one.text for one in others if one.producer != Producer.DEMONSTRATION and passed(one)), None)
