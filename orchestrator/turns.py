"""`Playing`: a sampler whose responses are whole episodes. Token in, token out.

    generate(requests) -> begin each -> [ask the sampler for every live one -> the environment answers] ... -> records

The next context is the earlier one, the sampled tokens exactly as they were sampled, and the environment's own: nothing
that was sampled is ever tokenised again, so that the record's log-probabilities are those of its tokens. All live
episodes of a call take a turn together, which keeps a batch's draws the same each time.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.engine import SampleRequest
from actors.environments import Began, EnvironmentPool
from orchestrator.asking import seed_for
from orchestrator.ports import Sampler
from policies.prompt import Prompt
from policies.trajectory import (
    PER_TOKEN,
    FinishReason,
    Int32,
    Origin,
    Producer,
    Sampling,
    ScoreEntry,
    Trajectory,
    changed,
)
from teachers.observations import Framing
from verifiers.environment_config import TOLD
from verifiers.environments.opening import stops
from verifiers.environments.protocol import Turn
from verifiers.score import Status

TURN = "turn"
"""Name of the entries for the turns' own rewards, which credit `turn` reads."""

UNSCORED = "unscored"
"""Status of an episode whose environment gives no rewards: a verifier says what it is worth."""

OBSERVED: Mapping[str, float] = {
    "origin": Origin.ENVIRONMENT,
    "token_version": -1,
    "train_mask": False,
    "behavior_logps": math.nan,
}
"""What is recorded of an environment's tokens: nobody sampled them, and nothing is trained on them."""

UNPLAYABLE = (FinishReason.ABORT, FinishReason.ERROR)
"""A turn that ended so is not put before the environment: it is not what the model had to say."""


@dataclass(slots=True, eq=False)
class Episode:
    """One response while it is played."""

    request: SampleRequest
    sampling: Sampling
    written: list[Trajectory] = field(default_factory=list)
    """The model's turns as the sampler gave them."""
    observed: list[Int32] = field(default_factory=list)
    """Environment tokens after each turn but the last."""
    told: list[Turn] = field(default_factory=list)
    end: FinishReason | None = None
    reason: str = ""
    """Why the episode is over."""

    def size(self) -> int:
        """Tokens of the response so far."""
        return sum(len(one.tokens) for one in self.written) + sum(map(len, self.observed))

    def next_request(self, room: int) -> SampleRequest:
        """What the sampler is asked for the next turn; the first one is the request itself, id and seed."""
        number = len(self.written)
        pieces = [self.request.context]
        for one, said in zip(self.written, self.observed, strict=True):
            pieces += [one.tokens, said]
        return replace(
            self.request,
            id=f"{self.request.id}/turn-{number}" if number else self.request.id,
            context=np.concatenate(pieces).astype(np.int32),
            sampling=replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room)),
            seed=seed_for(self.request.seed, TURN, number) if number else self.request.seed,
        )

    def finish(self, end: FinishReason, reason: str) -> None:
        """The episode is over."""
        self.end, self.reason = end, reason


@dataclass(frozen=True, slots=True, eq=False)
class Playing:
    """The `Sampler` that plays episodes with what another sampler writes."""

    sampler: Sampler
    pool: EnvironmentPool
    framing: Framing
    prompts: Mapping[str, Prompt]
    longest: int
    """Most tokens of context and response that the model reads."""
    name: str = TOLD
    """Who said what the episodes' entries say: the environment's kind and version."""
    version: str = ""

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        """Every request's episode as one trajectory, in order."""
        more = stops(self.framing.environment)
        episodes = [Episode(one, _stopping(one.sampling, more)) for one in requests]
        names = [one.request.id for one in episodes]
        try:
            await self._begin(episodes)
            while live := [one for one in episodes if one.end is None]:
                await self._turn(live)
        finally:
            await asyncio.shield(self.pool.end(names))
        return [self._record(one) for one in episodes]

    async def _begin(self, episodes: Sequence[Episode]) -> None:
        began = [
            Began(one.request.id, prompt.text, prompt.reference, one.request.seed)
            for one in episodes
            for prompt in [self.prompts[one.request.prompt_id]]
        ]
        for one, refused in zip(episodes, await self.pool.begin(began), strict=True):
            if refused is not None:
                one.told.append(refused)
                one.finish(FinishReason.ERROR, refused.reason)

    async def _turn(self, live: Sequence[Episode]) -> None:
        """One turn of every live episode, then the environment's answers to those that can go on."""
        asked = [one.next_request(self._room(one)) for one in live]
        for one, written in zip(live, await self.sampler.generate(asked), strict=True):
            self._take(one, written)
        going = [one for one in live if one.end is None]
        if not going:
            return
        answers = await self.pool.step([(one.request.id, one.written[-1].text) for one in going])
        for one, turn in zip(going, answers, strict=True):
            self._answered(one, turn)

    def _take(self, one: Episode, written: Trajectory) -> None:
        one.written.append(written)
        if written.finish_reason in UNPLAYABLE:
            said = next((entry.reason for entry in written.scores if entry.reason), written.finish_reason.value)
            one.finish(written.finish_reason, said)

    def _answered(self, one: Episode, turn: Turn) -> None:
        """Put the environment's words after the turn, or end the episode and say why."""
        one.told.append(turn)
        last, own = one.written[-1], self.framing.environment
        if turn.failed:
            one.finish(FinishReason.ERROR, turn.reason)
        elif turn.done:
            one.finish(last.finish_reason, turn.reason)
        elif len(one.written) >= own.turns:
            one.finish(FinishReason.LENGTH, f"the budget of {own.turns} turns ran out")
        else:
            ended = len(last.tokens) > 0 and int(last.tokens[-1]) in self.framing.tokenizer.eos_ids
            said = self.framing.tokens(turn.observation, ended=ended)
            if self._room(one) - len(said) < 1:
                one.finish(FinishReason.LENGTH, self._full(one))
            else:
                one.observed.append(said)

    def _room(self, one: Episode) -> int:
        """Tokens that the episode may still have."""
        used, most = one.size(), self.framing.environment.tokens
        left = self.longest - len(one.request.context) - used
        return left if most is None else min(left, most - used)

    def _full(self, one: Episode) -> str:
        most = self.framing.environment.tokens
        if most is not None and most < self.longest - len(one.request.context):
            return f"the budget of {most} tokens ran out"
        return f"the model's context of {self.longest} tokens is full"

    # ------------------------------------------------------------ the record

    def _record(self, one: Episode) -> Trajectory:
        """One trajectory of all turns. Its text is the last turn's, for that is what is judged."""
        scores = self._scores(one)
        if not one.written:
            return _never_began(one, scores)
        parts = [part for pair in zip_longest(one.written, one.observed) for part in pair if part is not None]
        columns = {name: _column(parts, name) for name in PER_TOKEN}
        known = columns["token_version"][columns["token_version"] >= 0]
        return changed(
            one.written[0],
            id=one.request.id,
            version=int(known[0]) if len(known) else one.written[0].version,
            **columns,
            scores=(*scores, *(entry for turn in one.written for entry in turn.scores)),
            finish_reason=one.end or FinishReason.ERROR,
            sampling=one.sampling,
            text=one.written[-1].text,
            seconds=sum(turn.seconds for turn in one.written),
            tokens_generated=sum(turn.tokens_generated for turn in one.written),
        )

    def _scores(self, one: Episode) -> tuple[ScoreEntry, ...]:
        """What the environment said of the whole, then of each turn; of one that broke off, that nothing is known."""
        signed = (self.name, self.version)
        whole = whole_of(one)
        entries = [ScoreEntry(TOLD, *whole, None, None, *signed)]
        if one.end in UNPLAYABLE:
            # the verifier must not judge half an episode: without a verdict it is left out, with the reason
            entries.append(ScoreEntry("reward", math.nan, None, whole[2], whole[3], None, None, *signed))
        start = 0
        for number, (turn, written) in enumerate(zip(one.told, one.written, strict=False)):
            end = start + len(written.tokens)
            if end > start and (turn.reward is not None or turn.status != Status.OK) and not turn.failed:
                value = turn.reward if turn.reward is not None and turn.status == Status.OK else math.nan
                entries.append(
                    ScoreEntry(TURN, value, turn.passed, turn.status.value, turn.reason, start, end, *signed)
                )
            start = end + (len(one.observed[number]) if number < len(one.observed) else 0)
        return tuple(entries)


def whole_of(one: Episode) -> tuple[float, bool | None, str, str]:
    """Value, passed, status and reason of an episode: the sum of its turns' rewards, unknown where one of them is."""
    bad = next((turn for turn in one.told if turn.status != Status.OK), None)
    if bad is not None:
        return math.nan, None, bad.status.value, bad.reason
    if one.end in UNPLAYABLE:
        return math.nan, None, Status.ERROR.value, one.reason
    rewards = [turn.reward for turn in one.told if turn.reward is not None]
    passed = next((turn.passed for turn in reversed(one.told) if turn.passed is not None), None)
    if not rewards:
        return math.nan, passed, UNSCORED, one.reason
    return sum(rewards), passed, Status.OK.value, one.reason


def _stopping(sampling: Sampling, more: Sequence[str]) -> Sampling:
    return replace(sampling, stop=tuple(dict.fromkeys((*sampling.stop, *more))))


def _column(parts: Sequence[Trajectory | Int32], name: str) -> npt.NDArray[Any]:
    """[T] of one of the record's fields, over the model's turns and what the environment said between them."""

    def piece(part: Trajectory | Int32) -> npt.NDArray[Any]:
        if isinstance(part, Trajectory):
            found: npt.NDArray[Any] = getattr(part, name)
            return found
        return part if name == "tokens" else np.full(len(part), OBSERVED[name])

    whole: npt.NDArray[Any] = np.concatenate([piece(part) for part in parts]).astype(PER_TOKEN[name])
    return whole


def _never_began(one: Episode, scores: tuple[ScoreEntry, ...]) -> Trajectory:
    """The record of an episode that could not be started: no token, and the reason among its scores."""
    return Trajectory(
        id=one.request.id,
        prompt_id=one.request.prompt_id,
        group_id=one.request.group_id,
        producer=Producer.ROLLOUT,
        model="",
        version=-1,
        train_context=one.request.context,
        behavior_context=one.request.context,
        teacher_context=one.request.context,
        tokens=np.zeros(0, np.int32),
        origin=np.zeros(0, np.int8),
        token_version=np.zeros(0, np.int32),
        train_mask=np.zeros(0, np.bool_),
        behavior_logps=np.zeros(0, np.float32),
        scores=scores,
        finish_reason=FinishReason.ERROR,
        sampling=one.sampling,
        seed=one.request.seed,
    )
