"""Probes on held-out prompts: one greedy response and some sampled ones for each; they never touch the weights."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.engine import SampleRequest
from orchestrator.asking import seed_for, with_verdicts
from orchestrator.config import Probe, SamplingConfig
from orchestrator.ports import Sampler, Scorer
from policies.prompt import Prompt
from policies.trajectory import Sampling, Trajectory, reward


@dataclass(frozen=True, slots=True)
class Prober:
    """Measures the policy that the engines serve."""

    sampler: Sampler
    scorer: Scorer
    prompts: Sequence[Prompt]
    by_id: Mapping[str, Prompt]
    config: Probe
    seed: int

    async def probe(self, sampling: SamplingConfig) -> list[dict[str, Any]]:
        """A row for each response. The seeds are those of every other probe of the run, so that probes compare."""
        requests = [request for prompt in self.prompts for request in self._requests(prompt, sampling)]
        scored = await with_verdicts(self.scorer, await self.sampler.generate(requests), self.by_id)
        return [self._row(one) for one in scored]

    def _requests(self, prompt: Prompt, sampling: SamplingConfig) -> Iterable[SampleRequest]:
        for draw in range(-1, self.config.samples):
            temperature = self.config.temperature if draw >= 0 else 0.0
            decoding = Sampling(temperature, 1.0, -1, sampling.max_tokens, sampling.stop)
            name = f"probe/{prompt.id}/{'greedy' if draw < 0 else draw}"
            group = f"probe/{prompt.id}"  # for verifiers that compare a prompt's responses
            yield SampleRequest(name, prompt.tokens, decoding, seed_for(self.seed, name), prompt.id, group)

    def _row(self, one: Trajectory) -> dict[str, Any]:
        name = one.id.rpartition("/")[2]
        outcome = next((score for score in one.scores if score.name == "reward"), None)
        return {
            "prompt_id": one.prompt_id,
            "family": self.by_id[one.prompt_id].family,
            "set": "probe",
            "greedy": one.sampling is not None and one.sampling.temperature == 0.0,
            "draw": -1 if name == "greedy" else int(name),
            "passed": outcome.passed if outcome else None,
            "value": reward(one),
            "status": outcome.status if outcome else "unscored",
            "tokens": len(one.tokens),
            "text": one.text,
        }


def accuracy(rows: Iterable[Mapping[str, Any]], *, greedy: bool) -> tuple[float, int]:
    """Share passed among the responses that have a verdict, and how many those are; NaN of none."""
    verdicts = [bool(row["passed"]) for row in rows if row["greedy"] is greedy and row["passed"] is not None]
    return (math.fsum(verdicts) / len(verdicts) if verdicts else math.nan), len(verdicts)
