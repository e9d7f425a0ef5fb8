"""Step labels by completions against success probabilities in closed form; what is asked, and what is unknown."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from actors.cluster import Actor, ActorLostError
from actors.config import Deadlines
from actors.engine import SampleRequest
from actors.in_process import start
from actors.pool import RolloutPool
from orchestrator.label_config import StepLabels
from orchestrator.step_labels import Labelled, StepLabeller, best_of
from policies.step_config import StepCut
from policies.tokens import Tokenizer
from policies.trajectory import Origin, Sampling, ScoreEntry, Trajectory
from tests.enumeration import RESPONSES, Response, table
from tests.fakes import CONTEXT, prompt, trajectory
from tests.tabular import TableSampler, TextScorer, q_value, tokenizer, words

EACH = StepCut(at="length", size=1)
POLICY = table(5)
MANY = 600


def good(text: str) -> bool:
    return text.count("a") % 2 == 1


def right(response: Response) -> bool:
    return good(words(response))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer(tmp_path_factory.mktemp("table"))


def rollout(tokens: Sequence[int], name: str = "s/0/0/r-0", **fields: Any) -> Trajectory:
    """A judged rollout of the table's; its group is its name's."""
    response = tuple(tokens)
    verdict = ScoreEntry("reward", float(right(response)), right(response))
    base: dict[str, Any] = {
        "tokens": np.asarray(tokens, np.int32),
        "text": words(response),
        "sampling": Sampling(max_tokens=3),
        "group_id": name.rsplit("/", 1)[0],
        "scores": (verdict,),
    }
    return trajectory(name, len(tokens), **{**base, **fields})


def labeller(codec: Tokenizer, sampler: Any = None, scorer: TextScorer | None = None, **config: Any) -> StepLabeller:
    settings = StepLabels(**{"steps": EACH, "completions": MANY, **config})
    return StepLabeller(
        settings, sampler or TableSampler(POLICY), scorer or TextScorer(good), {"p0": prompt()}, codec, seed=7
    )


def label(own: StepLabeller, *judged: Trajectory, spent: int = 0) -> Labelled:
    return asyncio.run(own.label(judged, spent))


def steps(one: Trajectory) -> list[ScoreEntry]:
    return [entry for entry in one.scores if entry.name == "step"]


def near(found: float, exact: float, n: int, tests: int = 100) -> None:
    """Within the bound that all of `tests` such shares keep with probability 1 - 1e-6."""
    width = NormalDist().inv_cdf(1 - 1e-6 / tests / 2) * math.sqrt(exact * (1 - exact) / n) + 1 / n
    assert abs(found - exact) <= width, (found, exact, width)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("response", [one for one in RESPONSES if len(one) == 3][:5])
def test_a_step_is_worth_the_chance_of_success_after_it(codec: Tokenizer, response: Response) -> None:
    (one,) = label(labeller(codec), rollout(response)).trajectories
    found = steps(one)
    last = 3 if response[-1] != 2 else 2  # the end token says nothing: it is of the step before
    assert [(entry.start, entry.end) for entry in found] == [(t, t + 1) for t in range(last - 1)] + [(last - 1, 3)]
    for entry in found[:-1]:
        near(entry.value, q_value(POLICY, response[: entry.end], right), MANY)
        assert entry.status == "ok" and entry.reason == f"{entry.value * MANY:.0f} of {MANY} completions"
        assert (entry.scorer, entry.scorer_version) == ("monte_carlo by learner", "3")
    assert found[-1].value == float(right(response)) and found[-1].reason == "the outcome"
    assert one.scores[0].name == "reward"


def test_a_hard_label_says_whether_any_completion_is_right(codec: Tokenizer) -> None:
    sure = table(5)
    sure[:, 0] -= 40  # it never writes an `a` again
    (one,) = label(labeller(codec, TableSampler(sure), best_of="all"), rollout((1, 0, 2))).trajectories
    assert [(entry.value, entry.passed) for entry in steps(one)] == [(0.0, False), (1.0, True)]
    (one,) = label(labeller(codec, best_of="all"), rollout((1, 0, 2))).trajectories
    assert [(entry.value, entry.passed) for entry in steps(one)] == [(1.0, True), (1.0, True)]


@pytest.mark.parametrize("best", [1, 3])
def test_progress_is_what_a_step_adds_and_adds_up_to_the_outcome_less_the_prompts_worth(
    codec: Tokenizer, best: int
) -> None:
    response, prover = (0, 1, 1), table(9)
    own = labeller(codec, TableSampler(prover), kind="progress", writer="reference", best_of=best)
    (one,) = label(own, rollout(response)).trajectories
    exact = [1 - (1 - q_value(prover, response[:t], right)) ** best for t in range(3)] + [float(right(response))]
    found = [entry.value for entry in steps(one)]
    for value, before, after in zip(found, exact, exact[1:], strict=False):
        assert abs(value - (after - before)) < 6 * best / math.sqrt(MANY)
    start = label(replace(own, config=replace_config(own, kind="monte_carlo")), rollout(response)).trajectories[0]
    q = [entry.value for entry in steps(start)]
    assert found[1:] == pytest.approx(np.diff(q), abs=1e-12), "the same completions, for the seeds are the same"
    assert sum(found) == pytest.approx(q[-1] - (q[0] - found[0]), abs=1e-12)
    near_prompt = 1 - (1 - q_value(prover, (), right)) ** best
    assert abs((q[0] - found[0]) - near_prompt) < 6 * best / math.sqrt(MANY)


def replace_config(own: StepLabeller, **changes: Any) -> StepLabels:
    return own.config.model_copy(update=changes)


def test_the_best_of_k_is_the_mean_over_all_choices_and_unbiased() -> None:
    values = [0.0, 0.3, 1.0, 0.3, -0.5]
    for count in range(1, 6):
        every = [max(some) for some in combinations(values, count)]
        assert best_of(values, count) == pytest.approx(sum(every) / len(every))
    n, p = 6, 0.35
    for count in (1, 2, 4, 6):
        chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        mean = sum(chance * best_of([1.0] * c + [0.0] * (n - c), count) for c, chance in enumerate(chances))
        assert mean == pytest.approx(1 - (1 - p) ** count)


# ---------------------------------------------------------------- what is asked


def test_completions_follow_the_very_tokens_within_what_the_response_had_left(codec: Tokenizer) -> None:
    sampler, scorer = TableSampler(POLICY), TextScorer(good)
    label(labeller(codec, sampler, scorer, completions=4, temperature=0.7), rollout((0, 1, 0)))
    assert [tuple(one.context[len(CONTEXT) :]) for one in sampler.asked] == [(0,)] * 4 + [(0, 1)] * 4
    assert [one.sampling.max_tokens for one in sampler.asked] == [2] * 4 + [1] * 4
    assert {one.sampling.temperature for one in sampler.asked} == {0.7}
    assert len({one.seed for one in sampler.asked}) == len({one.id for one in sampler.asked}) == 8
    assert all(one.text.startswith("a" if "step0" in one.id else "ab") for one in scorer.judged), "judged as wholes"
    assert len({one.group_id for one in scorer.judged}) == 2, "completions of one prefix are compared with each other"


def test_prefixes_that_are_alike_in_a_group_are_asked_once(codec: Tokenizer) -> None:
    sampler = TableSampler(POLICY)
    group = [rollout((0, 1, 0), "s/0/0/r-0"), rollout((0, 1, 1), "s/0/0/r-1"), rollout((0, 0, 2), "s/0/0/r-2")]
    other = rollout((0, 1, 0), "s/0/1/r-0")
    found = label(labeller(codec, sampler, completions=5), *group, other)
    asked = [(one.group_id, tuple(one.context[len(CONTEXT) :])) for one in sampler.asked[::5]]
    assert asked == [
        ("s/0/0/r-0~step0", (0,)),
        ("s/0/0/r-0~step1", (0, 1)),
        ("s/0/1/r-0~step0", (0,)),
        ("s/0/1/r-0~step1", (0, 1)),
    ]
    assert found.completions == 20
    first, second, third, _ = found.trajectories
    assert [entry.value for entry in steps(first)][:2] == [entry.value for entry in steps(second)][:2]
    assert steps(third)[0].value == steps(first)[0].value


def test_a_call_is_no_longer_than_its_deadline_is_for(codec: Tokenizer) -> None:
    group = [rollout((0, 1, 0), f"s/0/{at}/r-0") for at in range(4)]
    sampler = TableSampler(POLICY)
    found = label(labeller(codec, sampler, completions=100), *group)
    assert [len(call) for call in sampler.calls] == [500, 300] and found.completions == 800
    (whole,) = label(labeller(codec, completions=100), group[3]).trajectories
    assert steps(whole) == steps(found.trajectories[3]), "and nothing hangs on where it is cut"
    assert label(labeller(codec, completions=MANY), group[0]).completions == 2 * MANY, "a prefix is not parted"


def test_the_same_call_gives_the_same_labels(codec: Tokenizer) -> None:
    group = [rollout((0, 1, 0), f"s/0/0/r-{at}") for at in range(2)]
    one, two = (label(labeller(codec, completions=8), *group) for _ in range(2))
    assert [one.scores for one in one.trajectories] == [one.scores for one in two.trajectories]
    other = label(replace(labeller(codec, completions=8), seed=8), *group)
    assert steps(other.trajectories[0]) != steps(one.trajectories[0])


def test_hints_and_earlier_turns_are_part_of_the_prefix_and_of_no_step(codec: Tokenizer) -> None:
    hinted = rollout((0, 1, 0), train_mask=np.array([False, True, True]))
    hinted = replace(
        hinted, origin=np.array([Origin.HINT, 0, 0], np.int8), token_version=np.array([-1, 0, 0], np.int32)
    )
    sampler, scorer = TableSampler(POLICY), TextScorer(good)
    (one,) = label(labeller(codec, sampler, scorer, completions=2), hinted).trajectories
    assert [(entry.start, entry.end) for entry in steps(one)] == [(1, 2), (2, 3)]
    assert {tuple(asked.context[len(CONTEXT) :]) for asked in sampler.asked} == {(0, 1)}
    assert all(judged.text.startswith("ab") for judged in scorer.judged)
    said = replace(
        hinted,
        origin=np.array([0, Origin.ENVIRONMENT, 0], np.int8),
        train_mask=np.array([True, False, True]),
        token_version=np.array([0, -1, 0], np.int32),
    )
    progress = labeller(codec, sampler, scorer, completions=2, kind="progress")
    scorer.judged.clear()
    (one,) = label(progress, said).trajectories
    assert [(entry.start, entry.end) for entry in steps(one)] == [(2, 3)], "the last turn is what is judged"
    assert all(len(judged.text) <= 1 for judged in scorer.judged), "and what the verifier reads"


def test_a_stop_string_ends_what_is_judged(codec: Tokenizer) -> None:
    scorer = TextScorer(good)
    label(
        labeller(codec, scorer=scorer, completions=30), rollout((0, 1, 0), sampling=Sampling(max_tokens=3, stop=("b",)))
    )
    assert {one.text for one in scorer.judged if "step0" in one.id} <= {"a", "aa", "ab", "aaa", "aab"}
    assert {one.text for one in scorer.judged if "step1" in one.id} == {"ab"}


# ---------------------------------------------------------------- what is not known


def test_completions_without_a_verdict_are_left_out_of_the_share(codec: Tokenizer) -> None:
    scorer = TextScorer(lambda text: True, silent=("step0-0", "step0-1"))
    sampler = TableSampler(POLICY, lost=frozenset({"step0-2"}))
    (one,) = label(labeller(codec, sampler, scorer, completions=6), rollout((1, 1, 2))).trajectories
    assert (steps(one)[0].value, steps(one)[0].reason) == (1.0, "3 of 3 completions, 3 without a verdict")


def test_no_verdict_at_all_is_unknown_and_never_0(codec: Tokenizer) -> None:
    scorer = TextScorer(good, silent=("step1",))
    for kind, unknown in (("monte_carlo", [1]), ("progress", [1, 2])):
        (one,) = label(labeller(codec, scorer=scorer, completions=3, kind=kind), rollout((0, 1, 1))).trajectories
        found = steps(one)
        assert [at for at, entry in enumerate(found) if math.isnan(entry.value)] == unknown, kind
        assert all(found[at].status == "timeout" and found[at].passed is None for at in unknown)
        assert "0 of 0 completions, 3 without a verdict" in found[1].reason
    lost = TableSampler(POLICY, lost=frozenset({"step0"}))
    (one,) = label(labeller(codec, lost, completions=3), rollout((0, 1, 1))).trajectories
    assert (steps(one)[0].status, math.isnan(steps(one)[0].value)) == ("error", True)
    few = labeller(codec, scorer=TextScorer(good, silent=("step0-0",)), completions=3, best_of=3)
    assert math.isnan(steps(label(few, rollout((0, 1, 1))).trajectories[0])[0].value), "the best of 3 needs 3"


def test_a_response_without_a_verdict_is_not_completed(codec: Tokenizer) -> None:
    sampler = TableSampler(POLICY)
    lost = rollout((0, 1, 1), scores=(ScoreEntry("reward", math.nan, None, "timeout", "slow"),))
    nobody = rollout((0, 1, 1), scores=())
    given = rollout((0, 1, 1), sampling=None)
    found = label(labeller(codec, sampler), lost, nobody, given).trajectories
    assert not sampler.asked
    assert [steps(one)[0].status for one in found] == ["timeout", "unscored", "unscored"]
    assert all(math.isnan(entry.value) for one in found for entry in steps(one)[:-1])
    assert "slow" in steps(found[0])[0].reason


def test_a_reward_models_score_does_not_stand_for_the_outcome(codec: Tokenizer) -> None:
    said = (
        ScoreEntry("reward", -3.5, True, scorer="critic"),
        ScoreEntry("verdict", 1.0, True),
        ScoreEntry("step", 9.0, start=0, end=3),
    )
    (one,) = label(labeller(codec, completions=2), rollout((0, 1, 1), scores=said)).trajectories
    assert steps(one)[-1].value == 1.0 and len(steps(one)) == 3, "and earlier step scores are replaced"


# ---------------------------------------------------------------- costs


def test_the_budget_holds_and_what_is_beyond_it_is_unknown(codec: Tokenizer) -> None:
    group = [rollout(one, f"s/0/{at}/r-0") for at, one in enumerate(((0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1)))]
    sampler = TableSampler(POLICY)
    free = label(labeller(codec, sampler, completions=4), *group)
    assert free.completions == 32 == len(sampler.asked) and len(sampler.calls) == 1
    assert 32 <= free.tokens < 4 * 4 * 3, "some completions end early"
    for spent in (0, 5):
        for budget in range(1, 60):
            found = label(labeller(codec, completions=4, tokens=budget), *group, spent=spent)
            assert found.tokens <= max(budget - spent, 0)
            known = [not any(math.isnan(entry.value) for entry in steps(one)) for one in found.trajectories]
            assert known == sorted(known, reverse=True), "in order, and a response whole or not at all"
            if found.trajectories[0].scores != free.trajectories[0].scores:
                assert budget - spent < 12, "4 completions of 2 and of 1 token at most surely fit into 12"
                assert steps(found.trajectories[0])[0].status == "unscored"
                assert f"{budget} tokens for labels" in steps(found.trajectories[0])[0].reason
    tight = label(labeller(codec, completions=4, tokens=free.tokens + 12), *group)
    assert [one.scores for one in tight.trajectories] == [one.scores for one in free.trajectories], "in waves"


class Mortal:
    """A table's sampler as an actor that dies in its first call."""

    def __init__(self, lives: bool) -> None:
        self.inner, self.lives = TableSampler(POLICY), lives

    async def generate(self, requests: Sequence[SampleRequest]) -> list[Trajectory]:
        if not self.lives:
            raise ActorLostError("rollout-0", "it was killed")
        return await self.inner.generate(requests)


def test_a_dead_sampler_is_replaced_and_asked_again(codec: Tokenizer) -> None:
    events: list[str] = []

    async def whole() -> Labelled:
        hold = start("run")

        def spawn(lives: bool) -> Actor:
            return hold.spawn(Mortal, lives, role="rollout", index=0)

        def tell(kind: str, **facts: Any) -> None:
            events.append(kind)

        pool = RolloutPool(lambda index: spawn(True), [spawn(False)], Deadlines(), tell, hold.kill)
        found = await labeller(codec, pool, completions=8).label([rollout((0, 1, 0))])
        hold.stop()
        return found

    found = asyncio.run(whole())
    assert events == ["rollout_restart"]
    assert steps(found.trajectories[0]) == steps(
        label(labeller(codec, completions=8), rollout((0, 1, 0))).trajectories[0]
    )


def test_best_of_more_than_are_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="best_of is 9, and 8 completions"):
        StepLabels(best_of=9)
