"""What a run measures of its own policy: probes at their cadence, and everything before the first stage and after each.

At a stage's end the engines serve the policy as the stage left it; they draw and score with it, then hold the weights
that the stage found, long enough to score with these, and the newest again. Nothing is restarted, and nobody else asks
the engines then: a stage's last step leaves no request in flight.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from orchestrator.bank import by_rule, judged, of_training, read_bank, write_bank
from orchestrator.build import Inputs, Parts
from orchestrator.config import Pipeline
from orchestrator.forcing import Standing, again, forced, once_more, standing
from orchestrator.loop import StageRun
from orchestrator.probe_files import read_scored, write_probe, write_scored
from orchestrator.probes.snapshot import Scored, Who
from orchestrator.probing import Measured
from orchestrator.progress import clock
from orchestrator.run_directory import RunDirectory
from orchestrator.spans import in_tokens
from orchestrator.views import EVERYBODY
from policies.trajectory import Trajectory

Rows = list[dict[str, Any]]

OWN = 128
"""Most of the policy's own responses that models are asked about, one a prompt: each is read by up to three models, and
on a CPU to read a response costs more than to draw one of many."""


SECONDS = 2.0
"""Between two words on how far a measurement is."""


@dataclass(slots=True)
class _Telling:
    """How far a measurement is, and how long it will take if the rest is like what is done."""

    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self.said >= SECONDS:
            self.said = now
            left = (now - self.began) / done * (total - done)
            self.say(f"measuring: {done} of {total} prompts, {clock(left)} left")


@dataclass(slots=True)
class Measuring:
    """The probes of one run."""

    run: RunDirectory
    pipeline: Pipeline
    inputs: Inputs
    parts: Parts
    say: Callable[[str], None]
    """Told what is being done."""
    found: tuple[Any, int] | None = None
    """Weights that the stage found, by reference, and their version."""
    bank: tuple[Trajectory, ...] = ()

    async def at_cadence(self, stage: StageRun, step: int) -> Rows:
        """The small probe inside a stage."""
        rows = await self.parts.prober(self.inputs, self.pipeline).probe(stage.config.sampling)
        write_probe(self.run, step, stage.config.name, rows)
        return rows

    async def at_end(self, stage: StageRun, step: int, before: int) -> Rows:
        """Everything, after a stage, or before the first one (`step` 0); written to the run's files.

        `before`: the step whose policy this one is compared with.
        """
        prober = self.parts.prober(self.inputs, self.pipeline)
        drawn = await prober.measure(stage.config.sampling, _Telling(self.say))
        await self._fill_bank(drawn)
        scored = await self._scored(stage, (before, step), drawn)
        write_probe(self.run, step, stage.config.name, drawn.rows)
        write_scored(self.run, step, stage.config.name, scored)
        return drawn.rows

    # ------------------------------------------------------------ the bank

    async def _fill_bank(self, drawn: Measured) -> None:
        """Read it, or make it once: later checkpoints are asked about the same trajectories."""
        count = self.pipeline.handoff.bank
        self.bank = self.bank or read_bank(self.run)
        if self.bank or not count:
            return
        self.bank = await self._given(count) or drawn.passed[:count]
        if self.bank:
            write_bank(self.run, self.bank)

    async def _given(self, count: int) -> tuple[Trajectory, ...]:
        inputs, scorer = self.inputs, self.parts.scorer.aside()
        made = by_rule(self.pipeline, inputs.probe[: 2 * count], inputs.tokenizer)
        if made:
            return await judged(made, scorer, inputs.probe.by_id, count)
        given = of_training(inputs.train, inputs.demonstrations, 2 * count, self.pipeline.seed)
        return await judged(given, scorer, inputs.train.by_id, count)

    # ------------------------------------------------------------ teacher forcing

    async def _scored(self, stage: StageRun, steps: tuple[int, int], drawn: Measured) -> list[Scored]:
        """The bank and own rollouts, under the policy as it is, as the stage found it, and the teacher."""
        rollouts = self.parts.rollouts
        own = [self._standing(one) for one in drawn.own[:OWN]]
        bank = [self._standing(one) for one in self.bank]
        rows = [
            *await forced(bank, "bank", "after", rollouts.logprobs),
            *await forced(own, "after", "after", rollouts.logprobs),
        ]
        if steps[1] == 0 or self.found is None:
            return rows
        last = self._last(steps[0])
        by_id = self.inputs.probe.by_id
        earlier = [once_more(one, by_id[one.prompt]) for one in last if one.writer == "after"]
        rows += again([one for one in last if one.writer == "bank"], "bank", "before")
        rows += again([one for one in last if one.writer == "after"], "before", "before")
        rows += await forced(earlier, "before", "after", rollouts.logprobs)
        newest = (rollouts.weights, rollouts.version)
        await rollouts.update(*self.found)
        try:
            rows += await forced(own, "after", "before", rollouts.logprobs)
        finally:
            await rollouts.update(*newest)
        return rows + await self._taught(stage, own, earlier)

    def _last(self, step: int) -> list[Scored]:
        """What the snapshot of that step says of its own checkpoint."""
        return [one for one in read_scored(self.run, step) if one.model == "after"]

    async def _taught(self, stage: StageRun, own: Sequence[Standing], earlier: Sequence[Standing]) -> list[Scored]:
        """The stage's teachers, each asked about its own families' prompts, on both policies' rollouts."""
        rows: list[Scored] = []
        teachers = self.parts.frozen.teachers(stage.index)
        for family, teacher in teachers.items():
            for writer, responses in (("after", own), ("before", earlier)):
                theirs = [one for one in responses if _teaches(family, one.family, teachers)]
                rows += await forced(theirs, cast(Who, writer), "teacher", teacher.logprobs)
        return rows

    def _standing(self, one: Trajectory) -> Standing:
        """With the spans of its steps over tokens: a verifier gives them over characters."""
        told = replace(one, scores=in_tokens(one, one.scores, self.inputs.tokenizer))
        known = self.inputs.probe.by_id.get(one.prompt_id)
        return standing(told, known or self.inputs.train.by_id[one.prompt_id])


def _teaches(family: str, of: str, teachers: Mapping[str, Any]) -> bool:
    return of == family or (family == EVERYBODY and of not in teachers)
