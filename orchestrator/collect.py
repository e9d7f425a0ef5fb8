"""Sources: who writes a step's trajectories, in which order, and what is said of them before credit.

    slots (prompts of the step) -> rounds of strands: ask writers, join what is given, judge -> route -> again, or frame

A step's groups are a pure function of (run seed, stage, step), of the controls' states and of the weights: no cursor to
save, nothing to lose. Asking again, with a hint or for another prompt, is bounded by the controls.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from actors.engine import SampleRequest
from orchestrator.asking import Asking, Slot, rounds, seed_for, verdict
from orchestrator.config import Stage
from orchestrator.controls import Control, StepPlan
from orchestrator.framing import framed
from orchestrator.given import Giving, Shelves, is_given
from orchestrator.judging import judged_strands
from orchestrator.ports import Demonstrations, Labelled, Preferences, Sampler, Scorer
from orchestrator.prepared import Prepared
from orchestrator.prompts import at_step
from orchestrator.records import Collected, Dropped, Group, Member
from orchestrator.replay import Replay
from orchestrator.routes import Pass, Routed, route
from orchestrator.spans import in_tokens
from orchestrator.writing import Draw, judged, record, request
from policies.config import Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Sampling, Trajectory

ROUNDS = 64
"""Passes after which a step stops asking again, whatever its controls say."""


def group_name(stage: Stage, step: int, slot: int) -> str:
    """The group of prompt `slot` at a step of a stage."""
    return f"{stage.name}/{step:06d}/{slot:04d}"


@dataclass(slots=True)
class Tally:
    """What a step's collection cost and lost."""

    dropped: list[Dropped] = field(default_factory=list)
    seen: dict[str, Trajectory] = field(default_factory=dict)
    tokens: int = 0
    missing: int = 0
    generating: float = 0.0
    scoring: float = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the collector reads of a stage."""

    stage: Stage
    strands: Sequence[Strand]
    controls: Sequence[Control] = ()


@dataclass(frozen=True, slots=True)
class Collector:
    """Asks the sources for a step's trajectories and the scorer for what they are worth."""

    sampler: Sampler
    scorer: Scorer
    prompts: Sequence[Prompt]
    by_id: Mapping[str, Prompt]
    demonstrations: Demonstrations | None
    seed: int
    tokenizer: Tokenizer | None = None
    """Only templates, turns and prefixes need one."""
    writers: Mapping[str, Sampler] = field(default_factory=dict)
    """Frozen models that write, by the producer's name: teacher, reference."""
    preferences: Preferences | None = None
    labelled: Labelled | None = None
    replay: Replay | None = None
    prepared: Mapping[str, Prepared] = field(default_factory=dict)
    """Strand name -> what was prepared for it when the stage began."""
    longest: int = 0
    """Most tokens of context and response that the model reads; 0 is no limit."""

    @property
    def shelves(self) -> Shelves:
        """Everything that was written before the step."""
        return Shelves(self.demonstrations, self.preferences, self.labelled, self.replay, self.prepared)

    def remember(self, examples: Sequence[Example]) -> None:
        """What a step trains on is what later steps replay, and what the ledger holds of it."""
        if self.replay is not None:
            self.replay.remember(one.trajectory for one in examples)

    async def collect(self, recipe: Recipe, step: int, plan: StepPlan) -> Collected:
        """Everything that step `step` (counted within the stage, from 0) may train on."""
        asking = Asking(recipe.stage, recipe.strands, step, plan, self.seed, self.demonstrations, self.tokenizer)
        tally, routed = Tally(), Routed(plan.states)
        judges = judged_strands(recipe.strands, recipe.controls)
        slots, firsts = self._slots(asking), dict[str, Group]()
        for number in range(ROUNDS):
            groups = await _Round(self, asking, judges, tally).run(slots, firsts, whole=number == 0)
            segments = {slot.group: most for slot in slots if (most := _segments(asking, slot)) is not None}
            now = Pass({slot.group: slot for slot in slots}, groups, firsts, segments)
            route(recipe.controls, recipe.strands, now, routed)
            firsts = {slot.group: first for slot, first in routed.again}
            slots = [slot for slot, _ in routed.again]
            slots += [self._elsewhere(asking, slot) for slot in routed.elsewhere]
            if not slots:
                break
        return self._collected(asking, routed, tally)

    def _collected(self, asking: Asking, routed: Routed, tally: Tally) -> Collected:
        """The groups that go on, under their training contexts, in the order of their slots."""
        kept: list[Group] = []
        for group in sorted(routed.kept, key=lambda one: one.id):
            prompt = self.by_id.get(group.members[0].trajectory.prompt_id)
            made, lost = framed(asking, group, prompt, self.longest)
            tally.dropped += lost
            kept += [made] if made.members else []
        return Collected(
            step=asking.step,
            groups=tuple(kept),
            plan=asking.plan,
            states=routed.states,
            routed=tuple(routed.reasons),
            dropped=(*routed.dropped, *tally.dropped),
            seen=tuple(tally.seen.values()),
            tokens_generated=tally.tokens,
            missing_demonstrations=tally.missing,
            seconds_generate=tally.generating,
            seconds_score=tally.scoring,
        )

    # ------------------------------------------------------------ slots

    def _slots(self, asking: Asking) -> list[Slot]:
        """The step's prompts, then those of strands that have prompts of their own."""
        stage, strands, plan = asking.stage, asking.strands, asking.plan
        active = [strand for strand in strands if strand.name not in plan.rest]
        shared = frozenset(one.name for one in active if one.source.per_prompt and one.name not in plan.only_prompts)
        slots: list[Slot] = []
        if shared:
            chosen = self._prompts(stage, asking.step, stage.prompts_per_step)
            slots = [Slot(group_name(stage, asking.step, at), one, only=shared) for at, one in enumerate(chosen)]
        for strand in active:
            slots += self._own_slots(asking, strand)
        return slots

    def _own_slots(self, asking: Asking, strand: Strand) -> list[Slot]:
        """A strand's prompts of its own: those that a control chose, or one for each response of a writer's step."""
        source, stem = strand.source, f"{asking.stage.name}/{asking.step:06d}/{strand.name}"
        only = frozenset({strand.name})
        if strand.name in asking.plan.only_prompts:
            chosen = [self.by_id[name] for name in asking.plan.only_prompts[strand.name]]
            each = source.per_prompt or 1
        elif source.per_step and not is_given(strand):
            seed = seed_for(self.seed, asking.stage.name, strand.name, "prompts")
            chosen = at_step(self.prompts, asking.step, source.per_step, seed)
            each = 1
        else:
            return []
        return [Slot(f"{stem}-{at:04d}", one, only=only, each=each) for at, one in enumerate(chosen)]

    def _prompts(self, stage: Stage, step: int, count: int, *more: object) -> list[Prompt]:
        return at_step(self.prompts, step, count, seed_for(self.seed, stage.name, "prompts", *more))

    def _elsewhere(self, asking: Asking, slot: Slot) -> Slot:
        """Another prompt in the slot's place: a function of the slot and of how often it was drawn in vain."""
        number = slot.round + 1
        stem = slot.group.partition("~")[0]
        (prompt,) = self._prompts(asking.stage, asking.step, 1, stem, number)
        return replace(slot, group=f"{stem}~{number}", prompt=prompt, round=number, level=0, shares={})


def _segments(asking: Asking, slot: Slot) -> int | None:
    """Parts of the demonstration that the slot's prefixed responses start from; None without such a strand."""
    own = [one for one in asking.strands if one.source.prefix and slot.count(one)]
    return asking.segments(own[0], slot.prompt.id) if own else None


@dataclass(frozen=True, slots=True)
class _Round:
    """One pass over slots: every round of strands, asked and judged."""

    collector: Collector
    asking: Asking
    judges: frozenset[int]
    tally: Tally

    async def run(self, slots: Sequence[Slot], firsts: Mapping[str, Group], *, whole: bool) -> list[Group]:
        """The slots' groups; with `whole`, also those that strands draw for the step as a whole."""
        asking, strands = self.asking, self.asking.strands
        giving = Giving(self.collector.shelves, asking.stage, asking.step, self.collector.seed)
        groups = {slot.group: _unchanged(slot, firsts, strands) for slot in slots}
        for indices in rounds(strands, asking.plan.rest):
            draws: list[Draw] = []
            for slot in slots:
                for index in indices:
                    draws += self._of_slot(giving, slot, index, groups[slot.group])
            for index in indices if whole else []:
                own = strands[index]
                if is_given(own) and own.name not in asking.plan.only_prompts:
                    groups |= dict(giving.for_step(index, own))
            for draw, one in zip(draws, await self._write(draws), strict=True):
                groups[draw.group].append(Member(one, draw.strand, draw.facts, draw.parent))
            await self._judge(groups)
        self.tally.seen |= {one.trajectory.id: one.trajectory for members in groups.values() for one in members}
        return [
            Group(name, tuple(sorted(members, key=lambda one: one.strand)))
            for name, members in groups.items()
            if members
        ]

    def _of_slot(self, giving: Giving, slot: Slot, index: int, members: list[Member]) -> list[Draw]:
        """Put a slot's given members into its group; what is to be written comes back."""
        strand = self.asking.strands[index]
        if is_given(strand):
            found, missing = giving.for_slot(slot, index, strand)
            members += found
            self.tally.missing += missing
            return []
        asked = self.asking.draws(slot, index, members)
        self.tally.dropped += [one for one in asked if isinstance(one, Dropped)]
        return [one for one in asked if isinstance(one, Draw)]

    async def _write(self, draws: Sequence[Draw]) -> list[Trajectory]:
        """Ask every writer at once; records in the order of the draws."""
        began = time.perf_counter()
        shares: dict[str, list[int]] = {}
        for place, draw in enumerate(draws):
            shares.setdefault(self.asking.strands[draw.strand].source.producer, []).append(place)
        answers = await asyncio.gather(
            *(self._writer(name).generate([self._request(draws[at]) for at in share]) for name, share in shares.items())
        )
        found: dict[int, Trajectory] = {}
        for share, answer in zip(shares.values(), answers, strict=True):
            found |= dict(zip(share, answer, strict=True))
        self.tally.generating += time.perf_counter() - began
        self.tally.tokens += sum(len(one.tokens) for one in found.values())
        strands, tokenizer = self.asking.strands, self.collector.tokenizer
        return [record(one, strands[one.strand].source, found[at], tokenizer) for at, one in enumerate(draws)]

    def _writer(self, producer: str) -> Sampler:
        if producer == "rollout":
            return self.collector.sampler
        if producer not in self.collector.writers:
            raise ValueError(f"a source's producer is {producer}, and no {producer} was started that can write")
        return self.collector.writers[producer]

    def _request(self, draw: Draw) -> SampleRequest:
        config, source = self.asking.stage.sampling, self.asking.strands[draw.strand].source
        temperature = config.temperature if source.temperature is None else source.temperature
        sampling = Sampling(temperature, config.top_p, config.top_k, config.max_tokens, config.stop)
        return request(draw, sampling, seed_for(self.collector.seed, draw.name))

    async def _judge(self, groups: dict[str, list[Member]]) -> None:
        """Judge every member, not judged yet, of the groups in which somebody's verdict is read."""
        began = time.perf_counter()
        open_ = [
            (members, place)
            for members in groups.values()
            if any(one.strand in self.judges for one in members)
            for place, one in enumerate(members)
            if verdict(one.trajectory) is None
        ]
        if not open_:
            return
        asked = [members[place].trajectory for members, place in open_]
        scored = await self.collector.scorer.score(asked, self.collector.by_id)
        for (members, place), before, after in zip(open_, asked, scored, strict=True):
            own = members[place]
            told = in_tokens(before, after.scores, self.collector.tokenizer)
            members[place] = replace(own, trajectory=judged(before, told, own.parent))
        self.tally.scoring += time.perf_counter() - began


def _unchanged(slot: Slot, firsts: Mapping[str, Group], strands: Sequence[Strand]) -> list[Member]:
    """When a slot is drawn again with a hint, the first group's members of all other strands."""
    first = firsts.get(slot.group)
    return [one for one in first.members if strands[one.strand].name not in slot.only] if first else []
