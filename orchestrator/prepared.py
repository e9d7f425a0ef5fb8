"""Data that a stage writes or chooses once, when it begins, by the policy that it begins with (Source.prepare).

The result is a file of the run directory: a resumed stage reads it back, and its draws are pure functions of the step.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from orchestrator.asking import facts_of, passed, seed_for, with_verdicts
from orchestrator.config import Stage
from orchestrator.ports import Demonstrations, FrozenModel, Sampler, Scorer
from orchestrator.records import Dropped
from orchestrator.spans import in_tokens
from orchestrator.writing import Draw, judged, record, request
from policies.config import Prepare, Strand
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Int32, Producer, Sampling, Trajectory, reward
from teachers.contexts import Unavailable, context
from teachers.draws import draw

CHUNK = 512
"""Responses asked for at a time: a deadline is for a call, and a data set may be large."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What was kept, and from which of it a step draws."""

    prepare: Prepare
    kept: tuple[Trajectory, ...]
    by_prompt: Mapping[str, tuple[Trajectory, ...]]

    @classmethod
    def of(cls, prepare: Prepare, kept: Sequence[Trajectory]) -> "Prepared":
        """Group what was kept by its prompt."""
        by_prompt: dict[str, list[Trajectory]] = defaultdict(list)
        for one in kept:
            by_prompt[one.prompt_id].append(one)
        return cls(prepare, tuple(kept), {name: tuple(found) for name, found in by_prompt.items()})

    def for_prompt(self, prompt_id: str, count: int, progress: float) -> list[Trajectory]:
        """The prompt's first `count`; `progress` is 0 at the stage's first step and 1 at its last."""
        return self._standing(self.by_prompt.get(prompt_id, ()), progress)[:count]

    def at_step(self, step: int, count: int, seed: int, progress: float) -> list[Trajectory]:
        """`count` of all, epoch by epoch through a seeded order."""
        standing = self._standing(self.kept, progress)
        return [standing[index] for index in draw(len(standing), step, count, seed)] if standing else []

    def _standing(self, found: Sequence[Trajectory], progress: float) -> list[Trajectory]:
        """Those above the threshold of the moment (ReST, arXiv 2308.08998, lets it rise)."""
        prepare = self.prepare
        if prepare.keep != "above" or prepare.threshold_end is None:
            return list(found)
        level = prepare.threshold + progress * (prepare.threshold_end - prepare.threshold)
        return [one for one in found if reward(one) > level]


@dataclass(frozen=True, slots=True, eq=False)
class Preparing:
    """One strand's preparation: who writes, who judges, who ranks."""

    stage: Stage
    strand: Strand
    prompts: Sequence[Prompt]
    demonstrations: Demonstrations | None
    writer: Sampler | None
    """None where nobody writes."""
    scorer: Scorer
    ranker: FrozenModel | None
    """The policy that the stage begins with."""
    tokenizer: Tokenizer
    sampling: Sampling
    seed: int
    on_drop: Callable[[Dropped], None]

    @property
    def prepare(self) -> Prepare:
        """What the strand asks for."""
        found = self.strand.source.prepare
        assert found is not None, f"strand {self.strand.name} prepares nothing"
        return found

    async def run(self) -> list[Trajectory]:
        """Write, judge, keep and rank. ValueError when nothing is left: a stage cannot train on nothing."""
        kept = await self._written() if self.prepare.writer != "nobody" else self._as_they_are()
        if self.prepare.otherwise == "demonstration":
            for prompt in self.prompts:
                kept[prompt.id] = kept.get(prompt.id) or self._demonstrations(prompt)
        flat = [one for prompt in self.prompts for one in kept.get(prompt.id, [])]
        chosen = await self._ranked(flat)
        self._leave(flat, chosen, f"prepare.rank is {self.prepare.rank}, and others come before it")
        if not chosen:
            raise ValueError(
                f"stage {self.stage.name}, strand {self.strand.name}: nothing was kept of what was prepared for "
                f"{len(self.prompts)} prompts; raise prepare.samples, lower its threshold, or set "
                "`otherwise: demonstration`"
            )
        return chosen

    def _as_they_are(self) -> dict[str, list[Trajectory]]:
        return {prompt.id: self._demonstrations(prompt) for prompt in self.prompts}

    def _demonstrations(self, prompt: Prompt) -> list[Trajectory]:
        """All that the pipeline has for a prompt."""
        found: list[Trajectory] = []
        while self.demonstrations and (one := self.demonstrations.for_prompt(prompt.id, len(found))) is not None:
            found.append(one)
        return found

    async def _written(self) -> dict[str, list[Trajectory]]:
        """Each attempt on the prompts for which the earlier ones kept nothing."""
        kept: dict[str, list[Trajectory]] = {}
        for attempt, template in enumerate(self.prepare.attempts):
            left = (prompt for prompt in self.prompts if not kept.get(prompt.id))
            draws = (one for prompt in left for one in self._draws(prompt, template, attempt))
            found: dict[str, list[Trajectory]] = defaultdict(list)
            while some := list(islice(draws, CHUNK)):
                for one in await self._judged(some):
                    found[one.prompt_id].append(one)
            for name, ones in found.items():
                kept[name] = self._kept(ones)
                self._leave(
                    ones, kept[name], f"prepare.keep is {self.prepare.keep}, of a prompt at most {self._most()}"
                )
        return kept

    def _most(self) -> str:
        return str(self.prepare.cap) if self.prepare.cap else "all"

    def _leave(self, found: Sequence[Trajectory], kept: Sequence[Trajectory], reason: str) -> None:
        """Tell of those that were written and not kept; a demonstration stays where it came from."""
        names = {one.id for one in kept}
        for one in found:
            if one.id not in names and one.producer != Producer.DEMONSTRATION:
                self.on_drop(Dropped(one.id, reason, "select"))

    def _draws(self, prompt: Prompt, template: str, attempt: int) -> list[Draw]:
        name = f"{self.stage.name}/prepared/{self.strand.name}/{prompt.id}/{attempt}"
        facts = facts_of(prompt, self.demonstrations.for_prompt(prompt.id, 0) if self.demonstrations else None)
        seen = context(template, prompt, facts, self.tokenizer)
        if isinstance(seen, Unavailable):
            self.on_drop(Dropped(name, seen.reason, "unwritten", ()))
            return []
        return [Draw(f"{name}-{at}", 0, prompt, "", facts, seen) for at in range(self.prepare.samples)]

    async def _judged(self, draws: Sequence[Draw]) -> list[Trajectory]:
        """A chunk of draws, written and scored; what has no tokens is left out, with its reason."""
        assert self.writer is not None, "somebody writes"
        source = self.strand.source
        as_asked = source.model_copy(update={"producer": self._producer()})
        asked = [request(one, self.sampling, seed_for(self.seed, one.name)) for one in draws]
        written = await self.writer.generate(asked)
        records = [record(one, as_asked, got, self.tokenizer) for one, got in zip(draws, written, strict=True)]
        whole = [(d, r) for d, r in zip(draws, records, strict=True) if len(r.tokens)]
        for lost in records:
            if not len(lost.tokens):
                self.on_drop(Dropped(lost.id, f"no tokens: {lost.finish_reason}", "no_tokens"))
        if source.context_shift != "keep":
            whole = [(d, replace(r, train_context=d.prompt.tokens)) for d, r in whole]
        plain = [replace(r, teacher_context=d.prompt.tokens) for d, r in whole]
        scored = await with_verdicts(self.scorer, plain, {d.prompt.id: d.prompt for d, _ in whole})
        return [
            judged(one, in_tokens(one, after.scores, self.tokenizer), None)
            for one, after in zip(plain, scored, strict=True)
        ]

    def _producer(self) -> str:
        return "teacher" if self.prepare.writer == "teacher" else "rollout"

    def _kept(self, found: Sequence[Trajectory]) -> list[Trajectory]:
        """What the rule lets stand of one prompt's responses, the cap's worth: in order, or by reward for `above`."""
        prepare = self.prepare
        lowest = min(prepare.threshold, prepare.threshold if prepare.threshold_end is None else prepare.threshold_end)
        match prepare.keep:
            case "passed":
                standing = [one for one in found if passed(one)]
            case "above":
                standing = sorted((one for one in found if reward(one) > lowest), key=lambda one: -reward(one))
            case "all":
                standing = list(found)
        return standing[: prepare.cap or len(standing)]

    # ------------------------------------------------------------ ranking

    async def _ranked(self, flat: list[Trajectory]) -> list[Trajectory]:
        match self.prepare.rank:
            case "none":
                return flat
            case "likelihood":
                return likeliest(flat, await self._mean([(one.train_context, one.tokens) for one in flat]))
            case "ifd":
                return hardest(flat, await self._difficulty(flat), self.prepare.share)

    async def _difficulty(self, flat: list[Trajectory]) -> list[float]:
        """Instruction-following difficulty ppl(y|x) / ppl(y) (arXiv 2402.00530); NaN for a single token.

        Without an instruction the first token has no probability of its own, so ppl(y) is over those after it.
        """
        given = await self._mean([(one.train_context, one.tokens) for one in flat])
        longer = [index for index, one in enumerate(flat) if len(one.tokens) > 1]
        alone = await self._mean([(flat[index].tokens[:1], flat[index].tokens[1:]) for index in longer])
        without = dict(zip(longer, alone, strict=True))
        return [math.exp(without[index] - mean) if index in without else math.nan for index, mean in enumerate(given)]

    async def _mean(self, pairs: Sequence[tuple[Int32, Int32]]) -> list[float]:
        """Mean log-probability a token of (context, tokens)."""
        if self.ranker is None:
            raise ValueError(f"strand {self.strand.name}: prepare.rank needs the reference, and it was never started")
        found: list[float] = []
        for low in range(0, len(pairs), CHUNK):
            some = pairs[low : low + CHUNK]
            scores = await self.ranker.logprobs([c for c, _ in some], [t for _, t in some], 0)
            found += [float(np.mean(one.logps)) for one in scores]
        return found


def likeliest(flat: Sequence[Trajectory], means: Sequence[float]) -> list[Trajectory]:
    """Each prompt's candidate with the highest mean log-probability (GRAPE, arXiv 2502.04194)."""
    best: dict[str, int] = {}
    for index, one in enumerate(flat):
        held = best.setdefault(one.prompt_id, index)
        if means[index] > means[held]:
            best[one.prompt_id] = index
    return [flat[index] for index in best.values()]


def hardest(flat: Sequence[Trajectory], difficulty: Sequence[float], share: float) -> list[Trajectory]:
    """The share of the data with the highest difficulty below 1, in the data's order."""
    standing = [index for index, value in enumerate(difficulty) if value < 1]
    ranked = sorted(standing, key=lambda index: -difficulty[index])[: math.ceil(share * len(flat))]
    return [flat[index] for index in sorted(ranked)]
