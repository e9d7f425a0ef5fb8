"""The prober: which draws it asks for, when it stops, and what its rows add up to."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from actors.engine import SampleRequest, TokenScores
from orchestrator.config import Probe, SamplingConfig
from orchestrator.forcing import forced, standing
from orchestrator.handoff_config import Handoff
from orchestrator.probe_facts import accuracies
from orchestrator.probe_files import sampled
from orchestrator.probes.sequential import Plan
from orchestrator.probing import Prober, ProbeSet, plan_for
from policies.prompt import Prompt
from policies.trajectory import Origin, ScoreEntry, Trajectory
from tests.fakes import trajectory
from verifiers.config import AnswerVerifier, MathVerifier
from verifiers.final_answers import final_answer

PROMPTS = tuple(
    Prompt(name, f"{name}?", np.array([1, 2], np.int32), '"1"', "few") for name in ("never", "always", "half")
)
BY_ID = {one.id: one for one in PROMPTS}


@dataclass
class Writer:
    """Writes one token; remembers every request's name."""

    asked: list[str] = field(default_factory=list)

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        self.asked += [one.id for one in requests]
        return [replace(trajectory(), id=one.id, prompt_id=one.prompt_id, text="#1") for one in requests]


@dataclass
class Judge:
    """Passes `always`, every other draw of `half`, and nothing of `never`; unknown for the draws that it is told."""

    unknown: frozenset[str] = frozenset()

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        return [replace(one, scores=(self.verdict(one),)) for one in trajectories]

    def verdict(self, one: Trajectory) -> ScoreEntry:
        if one.id in self.unknown:
            return ScoreEntry("reward", math.nan, None, "timeout")
        draw = one.id.rpartition("/")[2]
        good = one.prompt_id == "always" or (one.prompt_id == "half" and draw != "greedy" and int(draw) % 2 == 0)
        return ScoreEntry("reward", float(good), good)


def prober(writer: Writer, judge: Judge, **handoff: object) -> Prober:
    own = ProbeSet("probe", PROMPTS, BY_ID, writer)
    return Prober([own], judge, Probe(samples=2), Handoff(**handoff), AnswerVerifier(marker="#"), 0)


async def test_a_prompt_is_drawn_until_its_plan_ends_and_greedily_once() -> None:
    writer, told = Writer(), []
    handoff = Handoff(probe_samples=64)
    plan = plan_for(handoff, AnswerVerifier())
    found = await prober(writer, Judge(), probe_samples=64).measure(SamplingConfig(), lambda *done: told.append(done))
    drawn = sampled(found.rows)
    assert drawn.prompts == ("never", "always", "half") and np.isnan(drawn.greedy_P).sum() == 0
    # an independent walk: the verdicts of each prompt one after the other, looked at where the plan looks
    for name, n in zip(drawn.prompts, drawn.n_P, strict=True):
        passes = [name == "always" or (name == "half" and at % 2 == 0) for at in range(64)]
        ends = next(
            (look for look in plan.looks if plan.stopped(np.array([look]), np.array([sum(passes[:look])]))[0]), 64
        )
        assert n == ends, name
    assert drawn.n_P[1] < drawn.n_P[0], "what always passes is clear before what never does"
    assert max(Counter(writer.asked).values()) == 1, "nothing is drawn twice"
    assert told[-1] == (3, 3)
    assert [one.prompt_id for one in found.passed] == ["always", "half"]


async def test_a_missing_verdict_is_drawn_for_again_and_counts_as_nothing() -> None:
    unknown = frozenset({"probe/always/0", "probe/never/3"})
    writer = Writer()
    found = await prober(writer, Judge(unknown), probe_samples=8, sequential=False).measure(SamplingConfig())
    drawn = sampled(found.rows)
    assert drawn.unknown_P.tolist() == [1, 1, 0] and drawn.c_P.tolist() == [0, 7, 4]
    by_plan = await replace(prober(Writer(), Judge(unknown)), looks=Plan((4, 8), (-1, -1), (5, 9))).measure(
        SamplingConfig()
    )
    assert sampled(by_plan.rows).n_P.tolist() == [8, 8, 8], "looks are at numbers of verdicts"


async def test_sampled_accuracy_is_a_mean_over_prompts_and_not_over_draws() -> None:
    handoff = Handoff(probe_samples=64)
    rows = (await prober(Writer(), Judge(), probe_samples=64).measure(SamplingConfig())).rows
    told = accuracies(rows, plan_for(handoff, AnswerVerifier()))
    pooled = np.mean([row["passed"] for row in rows if not row["greedy"]])
    assert told["greedy_accuracy"] == pytest.approx(1 / 3) and told["n"] == 3
    assert abs(told["sampled_accuracy"] - 0.5) < 0.1 < abs(pooled - 0.5), "the hard prompt has most of the draws"


async def test_tokens_of_an_environment_have_no_probability() -> None:
    others = np.array([False, True, False, False])
    one = replace(
        trajectory("episode"),
        origin=np.where(others, Origin.ENVIRONMENT, Origin.LEARNER).astype(np.int8),
        token_version=np.where(others, -1, 0).astype(np.int32),
        train_mask=~others,
        behavior_logps=np.where(others, np.nan, -0.5).astype(np.float32),
    )

    async def judge(contexts: object, tokens: Sequence[object], top_k: int) -> list[TokenScores]:
        best = np.full((4, top_k), -0.1, np.float32)
        return [TokenScores(np.full(4, -0.5, np.float32), best.astype(np.int32) + 7, best) for _ in tokens]

    (row,) = await forced([standing(one, PROMPTS[0])], "after", "before", judge)
    assert (np.isnan(row.logps) == others).all() and (np.isnan(row.best_logps) == others).all()
    assert ((row.best_ids == -1) == others).all() and (row.writer, row.model) == ("after", "before")


def test_the_final_answer_is_what_the_verifier_reads() -> None:
    assert final_answer(AnswerVerifier(marker="#"), "1+1=2;# 2 \nmore") == "2"
    assert final_answer(AnswerVerifier(marker="#"), "no answer") is None
    assert final_answer(MathVerifier(), r"so \boxed{ \frac{1}{2} }") == r"\frac{1}{2}"
