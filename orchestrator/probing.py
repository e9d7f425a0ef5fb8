"""Probes: responses on held-out prompts, drawn from the policy that the engines serve; they never touch the weights.

`probe` is the look at a cadence: one greedy response and `probe.samples` sampled ones for each prompt. `measure` is the
look at the ends of stages: every set, up to `handoff.probe_samples` for each prompt, and fewer where the answer is
clear. Seeds are those of every other probe of the run (a prompt and a draw), so that probes compare draw by draw.

Prompts go in bundles, each of which is drawn, judged and drawn again by itself: verdicts on one are given while the
engines write the others, and no prompt waits for another bundle's longest response.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from actors.engine import SampleRequest
from actors.scorer import REWARD, STEP
from orchestrator.asking import facts_of, passed, seed_for, verdict, with_verdicts
from orchestrator.config import Probe, SamplingConfig
from orchestrator.handoff_config import Handoff
from orchestrator.ports import Sampler, Scorer
from orchestrator.probe_plans import plan_for
from orchestrator.probes.sequential import Plan
from orchestrator.probes.snapshot import Int64, SetName
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Int32, Sampling, Trajectory, reward
from teachers.contexts import Unavailable, context
from verifiers.config import AnyVerifier
from verifiers.final_answers import final_answer
from verifiers.kinds import compares

BUNDLE = 32
"""Prompts that are drawn for and judged together."""

GREEDY = -1
"""Number of the greedy draw."""

SOUND = 0.5
"""Least value of a step that a process verifier approves."""


class Looks(Protocol):
    """After how many responses to a prompt one looks whether it is done, and whether it is."""

    @property
    def looks(self) -> tuple[int, ...]:
        """Rising; the last is the most that a prompt gets."""

    def stopped(self, n_P: Int64, c_P: Int64) -> npt.NDArray[np.bool_]:
        """[P] of n verdicts, c of which passed."""


@dataclass(frozen=True, slots=True, eq=False)
class ProbeSet:
    """Prompts to measure on, and who writes and judges there."""

    name: SetName
    prompts: Sequence[Prompt]
    by_id: Mapping[str, Prompt]
    sampler: Sampler
    contexts: Mapping[str, Int32] = field(default_factory=dict)
    """Prompt id -> the context that it is asked under, where that is not its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What `measure` drew."""

    rows: list[dict[str, Any]]
    """As `probe_files.PROBE_SCHEMA` has them, without step and stage; sets, prompts and draws in order."""
    own: tuple[Trajectory, ...]
    """The first sampled response to each prompt of the set `probe`."""
    passed: tuple[Trajectory, ...]
    """The first response to each of these prompts that passed."""


@dataclass(frozen=True, slots=True)
class Prober:
    """Measures the policy that the engines serve."""

    sets: Sequence[ProbeSet]
    scorer: Scorer
    config: Probe
    handoff: Handoff
    verifier: AnyVerifier
    seed: int
    looks: Looks | None = None
    """When a prompt is done, in place of what `handoff` says."""

    async def probe(self, sampling: SamplingConfig) -> list[dict[str, Any]]:
        """A row for each response on the set `probe`: one greedy response and `probe.samples` sampled ones."""
        found = await self._drawn(self.sets[0], sampling, Plan.fixed(self.config.samples), _nobody)
        return [self._row(self.sets[0], one) for one in found]

    async def measure(self, sampling: SamplingConfig, tell: Callable[[int, int], None] | None = None) -> Measured:
        """Every set. `tell` is told how many prompts are done, of how many."""
        looks = plan_for(self.handoff, self.verifier) if self.looks is None or compares(self.verifier) else self.looks
        count = _Counted(sum(len(own.prompts) for own in self.sets), tell)
        drawn = await asyncio.gather(*(self._drawn(own, sampling, looks, count) for own in self.sets))
        rows = [self._row(own, one) for own, found in zip(self.sets, drawn, strict=True) for one in found]
        sampled = [one for one in (drawn[0] if drawn else []) if number(one) > GREEDY and len(one.tokens)]
        return Measured(rows, _first(sampled), _first([one for one in sampled if passed(one)]))

    async def _drawn(
        self, own: ProbeSet, sampling: SamplingConfig, looks: Looks, tell: Callable[[int], None]
    ) -> list[Trajectory]:
        """The set's responses with their verdicts, by prompt and draw."""
        bundles = [own.prompts[at : at + BUNDLE] for at in range(0, len(own.prompts), BUNDLE)]
        parts = await asyncio.gather(*(self._bundle(own, bundle, sampling, looks, tell) for bundle in bundles))
        place = {prompt.id: at for at, prompt in enumerate(own.prompts)}
        found = (one for part in parts for one in part)
        return sorted(found, key=lambda one: (place[one.prompt_id], number(one)))

    async def _bundle(
        self,
        own: ProbeSet,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        looks: Looks,
        tell: Callable[[int], None],
    ) -> list[Trajectory]:
        """One bundle, look after look, until each of its prompts is done."""
        found: list[Trajectory] = []
        open_ = list(prompts)
        n, c, drawn = (dict.fromkeys((one.id for one in prompts), 0) for _ in range(3))
        for place, look in enumerate(looks.looks):
            requests = []
            for one in open_:
                # a verdict that is missing is drawn for again: looks are at numbers of verdicts
                more = range(drawn[one.id] if place else GREEDY, drawn[one.id] + max(look - n[one.id], 0))
                requests += [self._request(own, one, draw, sampling) for draw in more]
                drawn[one.id] = more.stop
            judged = await with_verdicts(self.scorer, await own.sampler.generate(requests), own.by_id)
            found += judged
            for response in judged:
                if number(response) > GREEDY and (said := passed(response)) is not None:
                    n[response.prompt_id] += 1
                    c[response.prompt_id] += said
            counts = (np.array([table[one.id] for one in open_], np.int64) for table in (n, c))
            done = looks.stopped(*counts)
            tell(int(done.sum()))
            open_ = [one for one, stopped in zip(open_, done, strict=True) if not stopped]
            if not open_:
                break
        tell(len(open_))
        return found

    def _request(self, own: ProbeSet, prompt: Prompt, draw: int, sampling: SamplingConfig) -> SampleRequest:
        temperature = self.config.temperature if draw > GREEDY else 0.0
        decoding = Sampling(temperature, 1.0, -1, sampling.max_tokens, sampling.stop)
        where = "probe" if own.name == "probe" else f"probe/{own.name}"
        name = f"{where}/{prompt.id}/{'greedy' if draw == GREEDY else draw}"
        context = own.contexts.get(prompt.id, prompt.tokens)
        # the group is for verifiers that compare a prompt's responses
        return SampleRequest(name, context, decoding, seed_for(self.seed, name), prompt.id, f"{where}/{prompt.id}")

    def _row(self, own: ProbeSet, one: Trajectory) -> dict[str, Any]:
        outcome = verdict(one)
        return {
            "set": own.name,
            "prompt_id": one.prompt_id,
            "prompt": own.by_id[one.prompt_id].text,
            "family": own.by_id[one.prompt_id].family,
            "greedy": number(one) == GREEDY,
            "draw": number(one),
            "passed": outcome.passed if outcome else None,
            "sound": sound(one),
            "value": reward(one),
            "status": outcome.status if outcome else "unscored",
            "answer": final_answer(self.verifier, one.text),
            "context": len(one.behavior_context),
            "tokens": one.tokens_generated,
            "text": one.text,
        }


class Scaffold(NamedTuple):
    """The probe's prompts that can be asked with help, and under which contexts."""

    prompts: list[Prompt]
    contexts: dict[str, Int32]


def scaffolded(template: str, prompts: Sequence[Prompt], tokenizer: Tokenizer) -> Scaffold:
    """Each prompt under the template; those for which it has no value (an answer, say) are left out."""
    made = {one.id: context(template, one, facts_of(one, None), tokenizer) for one in prompts} if template else {}
    contexts = {name: found for name, found in made.items() if not isinstance(found, Unavailable)}
    return Scaffold([one for one in prompts if one.id in contexts], contexts)


def number(one: Trajectory) -> int:
    """Which draw of its prompt it is."""
    name = one.id.rpartition("/")[2]
    return GREEDY if name == "greedy" else int(name)


def sound(one: Trajectory) -> bool | None:
    """Whether a process verifier approved every step of it; None where none did judge."""
    steps = [entry for entry in one.scores if entry.start is not None and entry.name in (STEP, REWARD)]
    known = [entry.value for entry in steps if entry.status == "ok" and not math.isnan(entry.value)]
    return all(value >= SOUND for value in known) if steps and len(known) == len(steps) else None


@dataclass(slots=True)
class _Counted:
    """Prompts that are done."""

    total: int
    tell: Callable[[int, int], None] | None
    done: int = 0

    def __call__(self, more: int) -> None:
        self.done += more
        if self.tell is not None and more:
            self.tell(self.done, self.total)


def _nobody(_: int) -> None:
    """Nobody asks how far it is."""


def _first(found: Iterable[Trajectory]) -> tuple[Trajectory, ...]:
    """Each prompt's first."""
    first: dict[str, Trajectory] = {}
    for one in found:
        first.setdefault(one.prompt_id, one)
    return tuple(first.values())
