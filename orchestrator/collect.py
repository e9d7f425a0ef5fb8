"""Sources: who writes a step's trajectories, in which order, and what is said of them before credit.

    slots (prompts of the step) -> rounds of strands: ask writers, join what is given, judge -> route -> again, or frame

A step's groups are a pure function of (run seed, stage, step), of the controls' states and of the weights: no cursor to
save, nothing to lose. Asking again, with a hint or for another prompt, is bounded by the controls.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from actors.engine import SampleRequest
from actors.meter import metered
from orchestrator.asking import Asking, Slot, rounds, seed_for, verdict
from orchestrator.config import Stage
from orchestrator.controls import Control, GroupStats, StepPlan, asks_reach
from orchestrator.framing import framed
from orchestrator.given import Giving, Shelves, is_given
from orchestrator.judging import judged_strands
from orchestrator.needs import reads_steps
from orchestrator.ports import Demonstrations, Labelled, Policy, Preferences, Sampler, Scorer
from orchestrator.prepared import Prepared
from orchestrator.reach import reach
from orchestrator.records import Collected, Dropped, Group, LabelCosts, Member
from orchestrator.replay import Replay
from orchestrator.routes import Pass, Routed, never_settled, route, stats_of
from orchestrator.slots import Drawing
from orchestrator.spans import in_tokens
from orchestrator.step_labels import StepLabeller
from orchestrator.writing import Draw, judged, record, request
from policies.config import Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Origin, Sampling, Trajectory

ROUNDS = 64
"""Passes after which a step stops asking again, whatever its controls say."""


@dataclass(slots=True)
class Tally:
    """What a step's collection cost and lost."""

    dropped: list[Dropped] = field(default_factory=list)
    seen: dict[str, Trajectory] = field(default_factory=dict)
    strand_of: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    missing: int = 0
    generating: float = 0.0
    scoring: float = 0.0
    labels: LabelCosts = field(default_factory=LabelCosts)


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
    policy: Policy | None = None
    """The learner, asked for the probability of known good responses; only a control that reads reach needs it."""
    version: Callable[[], int] | None = None
    """The policy's, when a step is drawn; only a source that asks how far behind a past one is needs it."""
    labeller: StepLabeller | None = None
    """Labels the steps of what was judged, for strands whose credit reads them."""

    @property
    def shelves(self) -> Shelves:
        """Everything that was written before the step."""
        return Shelves(self.demonstrations, self.preferences, self.labelled, self.replay, self.prepared)

    @property
    def drawing(self) -> Drawing:
        """Which prompts a step has."""
        return Drawing(self.prompts, self.by_id, self.seed)

    def remember(self, examples: Sequence[Example]) -> None:
        """What a step trains on is what later steps replay, and what the ledger holds of it."""
        if self.replay is not None:
            self.replay.remember(one.trajectory for one in examples)

    async def collect(self, recipe: Recipe, step: int, plan: StepPlan) -> Collected:
        """Everything that step `step` (counted within the stage, from 0) may train on."""
        with metered() as bill:
            return replace(await self._collect(recipe, step, plan), bill=bill)

    async def _collect(self, recipe: Recipe, step: int, plan: StepPlan) -> Collected:
        asking = Asking(recipe.stage, recipe.strands, step, plan, self.seed, self.demonstrations, self.tokenizer)
        tally, routed = Tally(), Routed(plan.states)
        judges = judged_strands(recipe.strands, recipe.controls)
        drawing, firsts = self.drawing, dict[str, Group]()
        slots = drawing.slots(asking)
        for number in range(ROUNDS):
            groups = await _Round(self, asking, judges, tally).run(slots, firsts, whole=number == 0)
            segments = {slot.group: most for slot in slots if (most := _segments(asking, slot)) is not None}
            now = Pass({slot.group: slot for slot in slots}, groups, firsts, segments)
            stats = await self._stats(recipe, routed, now)
            route(recipe.controls, recipe.strands, now, routed, stats, step)
            firsts = {slot.group: first for slot, first in routed.again}
            slots = [slot for slot, _ in routed.again]
            slots += [drawing.elsewhere(asking, slot) for slot in routed.elsewhere]
            if not slots:
                break
        tally.dropped += [never_settled(group) for _, group in routed.again]
        return self._collected(asking, routed, tally)

    async def _stats(self, recipe: Recipe, routed: Routed, now: Pass) -> list[GroupStats]:
        """What controls are told of a pass's groups, with reach where one asks for it."""
        stats = stats_of(recipe.strands, now)
        asked = [at for at, one in enumerate(stats) if asks_reach(recipe.controls, routed.states, one)]
        reached = await reach([stats[at].prompt for at in asked], self.demonstrations, self.policy)
        for at, probability in zip(asked, reached, strict=True):
            stats[at] = replace(stats[at], reach=probability)
        return stats

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
            verdicts=dict(routed.verdicts),
            dropped=(*routed.dropped, *tally.dropped),
            seen=tuple(tally.seen.values()),
            strand_of=tally.strand_of,
            tokens_generated=tally.tokens,
            missing_demonstrations=tally.missing,
            seconds_generate=tally.generating,
            seconds_score=tally.scoring,
            labels=tally.labels,
        )


def _sampled(one: Trajectory) -> int:
    """Tokens that a writer wrote: what an environment said between them is not among them."""
    return int(np.count_nonzero(one.origin != Origin.ENVIRONMENT))


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
        everybody = [one for members in groups.values() for one in members]
        self.tally.seen |= {one.trajectory.id: one.trajectory for one in everybody}
        self.tally.strand_of |= {one.trajectory.id: one.strand for one in everybody}
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
        self.tally.tokens += sum(_sampled(one) for one in found.values())
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
        reading = [reads_steps(strand) for strand in self.asking.strands]
        await self._label([(members, place) for members, place in open_ if reading[members[place].strand]])

    async def _label(self, judged: Sequence[tuple[list[Member], int]]) -> None:
        """Label the steps of members that were just judged."""
        if self.collector.labeller is None or not judged:
            return
        began = time.perf_counter()
        asked = [members[place].trajectory for members, place in judged]
        found = await self.collector.labeller.label(asked, self.tally.labels.tokens)
        for (members, place), one in zip(judged, found.trajectories, strict=True):
            members[place] = replace(members[place], trajectory=one)
        costs = LabelCosts(found.completions, found.tokens, time.perf_counter() - began)
        self.tally.labels = self.tally.labels.plus(costs)


def _unchanged(slot: Slot, firsts: Mapping[str, Group], strands: Sequence[Strand]) -> list[Member]:
    """When a slot is drawn again with a hint, the first group's members of all other strands."""
    first = firsts.get(slot.group)
    return [one for one in first.members if strands[one.strand].name not in slot.only] if first else []
