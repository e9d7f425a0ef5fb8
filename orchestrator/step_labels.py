"""Step labels by sampling: a step is worth what completions from it are worth (Math-Shepherd), or what it adds (PAV).

    a judged response -> its steps, as spans of its tokens -> for each end, `completions` more responses from there
    -> the verifier judges each as a whole -> a score named `step` on each span

Token in, token out: a completion follows the very tokens that were sampled. Prefixes that are alike within a group are
asked once; the last step is the whole response, and its label the response's own verdict. What nobody could judge is
left out of the share, and a share of nothing is unknown, never 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from actors.engine import SampleRequest
from orchestrator.asking import seed_for
from orchestrator.label_config import StepLabels
from orchestrator.needs import STEP
from orchestrator.ports import Sampler, Scorer
from orchestrator.spans import last_turn
from policies.prompt import Prompt
from policies.step_spans import step_spans
from policies.tokens import Tokenizer
from policies.trajectory import Int32, Origin, Sampling, ScoreEntry, Trajectory, changed

CHUNK = 512
"""Completions asked for at a time, of one prefix at least: a deadline is for a call, and labels are many."""

Key = tuple[str, bytes, Sampling]
"""Group, context with prefix, and how it is completed: what is alike is asked once."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """The responses with their steps' labels, and what those cost."""

    trajectories: tuple[Trajectory, ...]
    completions: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Worth:
    """What is known of a prefix."""

    value: float
    """NaN: unknown."""
    status: str
    reason: str
    version: str = ""
    """Of the policy that completed it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prefix:
    """Where completions start: the response's first `end` tokens."""

    one: Trajectory
    end: int
    number: int
    """Of the step that ends there, from 0; -1 is the prompt alone."""
    sampling: Sampling

    @property
    def context(self) -> Int32:
        """What the writer sees."""
        return np.concatenate([self.one.behavior_context, self.one.tokens[: self.end]])

    @property
    def key(self) -> Key:
        return self.one.group_id or self.one.id, self.context.tobytes(), self.sampling

    @property
    def name(self) -> str:
        """Completions of one prefix are a group of their own to a verifier that compares."""
        return f"{self.one.id}~step{self.number}"


@dataclass(slots=True)
class _Known:
    """What a call has found out so far."""

    worths: dict[Key, Worth] = field(default_factory=dict)
    completions: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StepLabeller:
    """Labels the steps of judged responses."""

    config: StepLabels
    writer: Sampler
    scorer: Scorer
    """Judges a completed response: the verifier."""
    prompts: Mapping[str, Prompt]
    tokenizer: Tokenizer
    seed: int

    async def label(self, judged: Sequence[Trajectory], spent: int = 0) -> Labelled:
        """The same responses in order, each with a score `step` on every one of its steps.

        `spent`: tokens that this step of training has drawn for labels before. Scores named `step` that a response had
        are replaced. One without a verdict of its own is not completed: its steps are as unknown as it is.
        """
        cuts = [self._cut(one) for one in judged]
        asked = [self._prefixes(one, spans) for one, spans in zip(judged, cuts, strict=True)]
        known = _Known()
        left = math.inf if self.config.tokens is None else self.config.tokens - spent
        waiting = [list(some) for some in asked if some]
        while waiting:
            wave, waiting = self._wave(waiting, known, left - known.tokens)
            if not wave:
                break
            most = max(CHUNK // self.config.completions, 1)
            for low in range(0, len(wave), most):
                await self._complete(wave[low : low + most], known)
        made = [
            self._labelled(one, spans, prefixes, known)
            for one, spans, prefixes in zip(judged, cuts, asked, strict=True)
        ]
        return Labelled(tuple(made), known.completions, known.tokens)

    # ------------------------------------------------------------ what is asked

    def _cut(self, one: Trajectory) -> list[tuple[int, int]]:
        """Its steps: the tokens of its last turn, without a hint at the front."""
        first = last_turn(one)
        while first < len(one.tokens) and one.origin[first] == Origin.HINT:
            first += 1
        return [(first + a, first + b) for a, b in step_spans(self.tokenizer, one.tokens[first:], self.config.steps)]

    def _prefixes(self, one: Trajectory, spans: Sequence[tuple[int, int]]) -> list[_Prefix]:
        """Every end of a step but the last, and for progress the beginning."""
        if not spans or one.sampling is None or outcome(one).status != "ok":
            return []
        places = [(-1, spans[0][0])] if self.config.kind == "progress" else []
        places += [(number, end) for number, (_, end) in enumerate(spans[:-1])]
        return [_Prefix(one, end, number, self._sampling(one.sampling, end - spans[0][0])) for number, end in places]

    def _sampling(self, own: Sampling, drawn: int) -> Sampling:
        """As the response was drawn, with the tokens that it had left."""
        temperature = own.temperature if self.config.temperature is None else self.config.temperature
        return replace(own, temperature=temperature, max_tokens=max(own.max_tokens - drawn, 1))

    def _wave(
        self, waiting: list[list[_Prefix]], known: _Known, left: float
    ) -> tuple[list[_Prefix], list[list[_Prefix]]]:
        """Prefixes of as many responses as surely fit into the tokens that are left, in order; and the others."""
        wave: dict[Key, _Prefix] = {}
        for at, prefixes in enumerate(waiting):
            new = {one.key: one for one in reversed(prefixes) if one.key not in known.worths and one.key not in wave}
            left -= self.config.completions * sum(one.sampling.max_tokens for one in new.values())
            if left < 0:
                return list(wave.values()), waiting[at:]
            wave |= {key: new[key] for key in reversed(new)}
        return list(wave.values()), []

    # ------------------------------------------------------------ completions

    async def _complete(self, wave: Sequence[_Prefix], known: _Known) -> None:
        """Draw and judge the completions of every prefix."""
        count = self.config.completions
        requests = [self._request(one, number) for one in wave for number in range(count)]
        written = await self.writer.generate(requests)
        known.completions += len(written)
        known.tokens += sum(len(one.tokens) for one in written)
        prefixes = [one for one in wave for _ in range(count)]
        whole = [self._whole(*each) for each in zip(prefixes, written, strict=True) if len(each[1].tokens)]
        scored = iter(await self.scorer.score(whole, self.prompts) if whole else [])
        said = [outcome(next(scored)) if len(one.tokens) else None for one in written]
        for at, prefix in enumerate(wave):
            share = slice(at * count, (at + 1) * count)
            version = next((str(one.version) for one in written[share] if one.version >= 0), "")
            known.worths[prefix.key] = replace(self._worth(said[share]), version=version)

    def _request(self, prefix: _Prefix, number: int) -> SampleRequest:
        seed = seed_for(self.seed, prefix.one.id, STEP, prefix.number, number)
        name = f"{prefix.name}-{number}"
        return SampleRequest(name, prefix.context, prefix.sampling, seed, prefix.one.prompt_id, prefix.name)

    def _whole(self, prefix: _Prefix, completion: Trajectory) -> Trajectory:
        """The completion as the verifier reads it: the text of the prefix's tokens and its own, up to a stop string."""
        tokens = np.concatenate([prefix.one.tokens[last_turn(prefix.one) : prefix.end], completion.tokens])
        text = self.tokenizer.decode(tokens)
        ends = [text.index(stop) + len(stop) for stop in prefix.sampling.stop if stop in text]
        return changed(completion, text=text[: min(ends)] if ends else text)

    def _worth(self, said: Sequence[ScoreEntry | None]) -> Worth:
        """Of one prefix, by the verdicts on its completions; None is a completion that was never written."""
        known = [value_of(one) for one in said if one is not None and one.status == "ok"]
        values = [one for one in known if not math.isnan(one)]
        wanted = len(values) if self.config.best_of == "all" else self.config.best_of
        told = f"{sum(values):g} of {len(values)} completions"
        if len(values) < len(said):
            told += f", {len(said) - len(values)} without a verdict"
        if not values or wanted > len(values):
            statuses = [one.status for one in said if one is not None and one.status != "ok"]
            return Worth(math.nan, statuses[0] if statuses else "error", told)
        return Worth(best_of(values, wanted), "ok", told)

    # ------------------------------------------------------------ labels

    def _labelled(
        self, one: Trajectory, spans: Sequence[tuple[int, int]], prefixes: Sequence[_Prefix], known: _Known
    ) -> Trajectory:
        said = outcome(one)
        last = Worth(value_of(said), said.status, "the outcome")
        unasked = Worth(
            math.nan, "unscored", f"the step had {self.config.tokens} tokens for labels, and they are spent"
        )
        if said.status != "ok":
            unasked = Worth(math.nan, said.status, f"the response has no verdict: {said.reason}")
        elif one.sampling is None:
            unasked = Worth(math.nan, "unscored", "no policy sampled the response")
        worths = {prefix.number: known.worths.get(prefix.key, unasked) for prefix in prefixes}
        ends = [worths.get(number, unasked) for number in range(len(spans) - 1)] + [last]
        starts = [worths.get(-1, unasked), *ends[:-1]]
        entries = [
            self._entry(span, end, start if self.config.kind == "progress" else None)
            for span, start, end in zip(spans, starts, ends, strict=False)
        ]
        others = [entry for entry in one.scores if entry.name != STEP]
        return changed(one, scores=(*others, *entries))

    def _entry(self, span: tuple[int, int], end: Worth, start: Worth | None) -> ScoreEntry:
        """The score of a step that ends with `end`; with `start`, of what it adds to that."""
        value = end.value if start is None else end.value - start.value
        status = end.status if start is None or end.status != "ok" else start.status
        reason = (
            end.reason if start is None else f"{end.value:.3g} ({end.reason}) after {start.value:.3g} ({start.reason})"
        )
        hard = self.config.best_of == "all" and start is None and status == "ok"
        return ScoreEntry(
            STEP,
            value if status == "ok" else math.nan,
            value > 0 if hard else None,
            status,
            reason,
            *span,
            scorer=f"{self.config.kind} by {self.config.writer}",
            scorer_version=end.version,
        )


# ---------------------------------------------------------------- values


def outcome(one: Trajectory) -> ScoreEntry:
    """The verifier's word on the whole: `verdict` where a co-learner gives the reward, else `reward`."""
    named = {entry.name: entry for entry in reversed(one.scores) if entry.start is None}
    found = named.get("verdict", named.get("reward"))
    return ScoreEntry("reward", math.nan, None, "unscored", "nobody judged it") if found is None else found


def value_of(entry: ScoreEntry) -> float:
    """1 or 0 where it passed or failed; its value where the verifier says neither; NaN where there is no verdict."""
    if entry.status != "ok":
        return math.nan
    return entry.value if entry.passed is None else float(entry.passed)


def best_of(values: Sequence[float], count: int) -> float:
    """Mean, over all choices of `count` of the n values, of the best: an unbiased estimate of the best of `count`.

    1 is the mean, n the maximum. For values 0 and 1 it is 1 - C(n - c, count) / C(n, count), which estimates
    1 - (1 - p)^count (arXiv 2107.03374, section 2.1).
    """
    n = len(values)
    if count == 1:
        return math.fsum(values) / n  # a share of 3 in 5 is 0.6 to the last bit
    ways = math.comb(n, count)
    return math.fsum(math.comb(at, count - 1) / ways * value for at, value in enumerate(sorted(values)))
