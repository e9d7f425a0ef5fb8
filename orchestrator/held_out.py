"""A verifier that nothing trains on, beside the one that rewards: where the policy learns to please, they part.

The gap is the mean over responses of reward minus held-out score. Responses to one prompt resemble each other, so its
error is taken between prompts (Liang and Zeger 1986, the cluster-robust variance of a mean, with G / (G - 1)).
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2s
from statistics import NormalDist
from typing import Any

from actors.pool import asked
from actors.scorer_pool import ScorerPool
from orchestrator.ports import Scorer
from policies.prompt import Prompt
from policies.trajectory import Producer, ScoreEntry, Trajectory, reward

HELD_OUT = "held_out"
"""Name of the entry; its parts go under `held_out/PART`."""

CONFIDENCE = 0.95
"""Of the intervals that are shown."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The scorer's port with a second verifier behind it, on a share of the policy's own responses."""

    scorer: Scorer
    verifier: ScorerPool
    share: float

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The same trajectories with their scores, and with the held-out ones last; in order."""
        places = [at for at, one in enumerate(trajectories) if self._judged(one)]
        items = [asked(trajectories[at], prompts[trajectories[at].prompt_id]) for at in places]
        scored, held = await asyncio.gather(self.scorer.score(trajectories, prompts), self.verifier.judge(items))
        for at, entries in zip(places, held, strict=True):
            whole = (entry for entry in entries if entry.start is None)
            scored[at] = replace(scored[at], scores=(*scored[at].scores, *whole))
        return scored

    def _judged(self, one: Trajectory) -> bool:
        whole = self.verifier.compares  # then a group is judged whole, or not at all
        return one.producer is Producer.ROLLOUT and chosen(one.group_id if whole else one.id, self.share)


def chosen(name: str, share: float) -> bool:
    """Whether a response is among the share: by its name alone, so that a resumed run judges the same ones."""
    return int.from_bytes(blake2s(name.encode(), digest_size=8).digest()) < share * 2**64


def is_held_out(entry: ScoreEntry) -> bool:
    """Whether the held-out verifier said it: no context, no credit and no selection may know."""
    return entry.name == HELD_OUT or entry.name.startswith(f"{HELD_OUT}/")


@dataclass(frozen=True, slots=True)
class Gap:
    """Sums over prompts of (responses n, sum s of reward minus held-out score); they add up."""

    prompts: int = 0
    responses: int = 0
    sum: float = 0.0
    squares: float = 0.0
    """Of s."""
    products: float = 0.0
    """Of s and n."""
    sizes: float = 0.0
    """Squares of n."""

    def __add__(self, other: "Gap") -> "Gap":
        return Gap(*(mine + theirs for mine, theirs in zip(_values(self), _values(other), strict=True)))

    @property
    def mean(self) -> float:
        """Mean over responses; NaN of none."""
        return self.sum / self.responses if self.responses else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN of fewer than two prompts."""
        if self.prompts < 2:
            return math.nan
        mean = self.mean
        between = self.squares - 2 * mean * self.products + mean * mean * self.sizes
        return math.sqrt(max(between, 0.0) * self.prompts / (self.prompts - 1)) / self.responses

    @property
    def half_width(self) -> float:
        """Half of the mean's 95 % interval."""
        return quantile(self.prompts - 1, CONFIDENCE) * self.error


def _values(gap: Gap) -> list[Any]:
    return list(asdict(gap).values())


def quantile(freedom: int, confidence: float) -> float:
    """Two-sided quantile of Student's t by its expansion in 1 / freedom (Abramowitz and Stegun 26.7.5); NaN below 1."""
    if freedom < 1:
        return math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / math.pow(freedom, power) for power, term in enumerate(terms))


def gap_of(trajectories: Iterable[Trajectory]) -> Gap:
    """Of the responses that both verifiers gave a verdict on."""
    prompts: dict[str, list[float]] = {}
    for one in trajectories:
        difference = reward(one) - held_out(one)
        if math.isfinite(difference):
            prompts.setdefault(one.prompt_id, []).append(difference)
    sums = [(len(own), math.fsum(own)) for own in prompts.values()]
    return Gap(
        len(sums),
        sum(n for n, _ in sums),
        math.fsum(s for _, s in sums),
        math.fsum(s * s for _, s in sums),
        math.fsum(s * n for n, s in sums),
        float(sum(n * n for n, _ in sums)),
    )


def held_out(one: Trajectory) -> float:
    """The held-out score; NaN where there is none."""
    return next((entry.value for entry in one.scores if entry.name == HELD_OUT and entry.status == "ok"), math.nan)


def facts(rollouts: Sequence[Trajectory]) -> dict[str, Any]:
    """What a step's row says of it; nothing where no held-out verifier was asked."""
    if not any(is_held_out(entry) for one in rollouts for entry in one.scores):
        return {}
    gap = gap_of(rollouts)
    scores = [score for one in rollouts if math.isfinite(score := held_out(one))]
    return {
        "held_out_mean": math.fsum(scores) / len(scores) if scores else math.nan,
        "held_out_gap": gap.mean,
        "held_out_gap_low": gap.mean - gap.half_width,
        "held_out_gap_high": gap.mean + gap.half_width,
        "gap": asdict(gap),
    }
