"""How often a policy solves each prompt, and which ones it gained or lost since: with the doubt that counts leave."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scipy import stats

from actors.local import LocalParts, local_parts
from benchmarks.planted_families import FAMILIES, Task, prompts_of
from orchestrator.config import Probe, SamplingConfig
from orchestrator.handoff_config import Handoff
from orchestrator.probing import Prober, ProbeSet
from orchestrator.recipes import load
from policies.config import HfModel, Optimizer
from policies.tokens import Tokenizer
from verifiers.config import AnswerVerifier

VERIFIER = AnswerVerifier(marker="")
MAX_TOKENS = 5
SAMPLING = SamplingConfig(max_tokens=MAX_TOKENS)
REACHED, HELD = 0.1, 0.5
"""Solve rates: a prompt is within the policy's support above the first; one held above the second can be lost."""
CONFIDENCE = 0.95
"""Of each one-sided bound."""


class Solved(NamedTuple):
    """Verdicts on one prompt."""

    passed: int
    samples: int
    """At temperature 1."""
    greedy: bool

    @property
    def rate(self) -> float:
        """Share of the samples that passed."""
        return self.passed / self.samples


class Accuracy(NamedTuple):
    """Means over prompts."""

    sampled: float
    greedy: float


class Support(NamedTuple):
    """Numbers of prompts."""

    gained: int
    """Credibly out of the start's support (below `REACHED`), now credibly within it."""
    lost: int
    """Credibly solved more often than not at the start (`HELD`), now credibly not."""


def bounds(one: Solved) -> tuple[float, float]:
    """One-sided lower and upper bounds of the solve rate, exact for a binomial (Clopper and Pearson, 1934)."""
    passed, failed = one.passed, one.samples - one.passed
    low = float(stats.beta.ppf(1 - CONFIDENCE, passed, failed + 1)) if passed else 0.0
    high = float(stats.beta.ppf(CONFIDENCE, passed + 1, failed)) if failed else 1.0
    return low, high


def support(before: Mapping[str, Solved], after: Mapping[str, Solved]) -> Support:
    """What the second policy solves that the first did not, and the reverse; both were asked the same prompts."""
    pairs = [(bounds(before[name]), bounds(after[name])) for name in before]
    gained = sum(was[1] < REACHED < now[0] for was, now in pairs)
    lost = sum(now[1] < HELD < was[0] for was, now in pairs)
    return Support(gained, lost)


def by_family(tasks: Sequence[Task], solved: Mapping[str, Solved]) -> dict[str, Accuracy]:
    """Family -> accuracy; `all` is over every prompt."""
    groups = {name: [solved[one.id] for one in tasks if one.family == name] for name in FAMILIES}
    groups["all"] = [solved[one.id] for one in tasks]
    return {
        name: Accuracy(sum(one.rate for one in found) / len(found), sum(one.greedy for one in found) / len(found))
        for name, found in groups.items()
    }


async def measure(model: HfModel, tasks: Sequence[Task], seed: int, samples: int) -> dict[str, Solved]:
    """Verdicts on every prompt by the model of a folder."""
    folder = Path(model.path)
    parts = local_parts(folder, model, VERIFIER, seed=seed)
    await parts.learner.begin_stage(load("sft").strands, Optimizer(), 1)
    await parts.publish(0)
    try:
        return await asked(parts, tasks, Tokenizer.load(folder), seed, samples)
    finally:
        await parts.sampler.close()


async def asked(
    parts: LocalParts, tasks: Sequence[Task], tokenizer: Tokenizer, seed: int, samples: int
) -> dict[str, Solved]:
    """Verdicts on every prompt by the policy that is served: `samples` responses at temperature 1, and a greedy one."""
    prompts = prompts_of(tasks, tokenizer)
    by_id = {one.id: one for one in prompts}
    own = ProbeSet("probe", prompts, by_id, parts.sampler)
    prober = Prober([own], parts.scorer, Probe(samples=samples), Handoff(), AnswerVerifier(), seed)
    passed, greedy = dict.fromkeys(by_id, 0), dict.fromkeys(by_id, False)
    for row in await prober.probe(SAMPLING):
        if row["greedy"]:
            greedy[row["prompt_id"]] = bool(row["passed"])
        else:
            passed[row["prompt_id"]] += bool(row["passed"])
    return {name: Solved(passed[name], samples, greedy[name]) for name in by_id}
