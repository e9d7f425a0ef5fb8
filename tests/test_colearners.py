"""Co-learners: whose records they read, what they give back, and that they learn it, beside the policy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.config import Learner
from actors.learner import LearnerRank
from actors.local import LocalLearner, local_parts
from orchestrator import companions
from orchestrator.companions import Companion, examples_for, rewarded
from orchestrator.recipes.schema import CoLearner
from policies.config import ConstantCredit, Optimizer, Reduce, Set, Source, Strand, Term
from policies.example import Example
from policies.model_folder import materialise
from policies.trajectory import Origin, Preference, Producer, reward
from tests.fakes import FakeScorer, prompt, trajectory
from tests.learner_world import TINY
from verifiers.config import AnswerVerifier


def strand(name: str, *, terms: bool = True, **kernel: Any) -> Strand:
    fit = Term(name="fit", kernel=Set(score="head", reference=False, **kernel), reduce=Reduce(kind="token"))
    source = Source(producer="rollout", per_prompt=2)
    return Strand(name=name, source=source, credit=ConstantCredit(), terms=(fit,) if terms else ())


POLICY = (strand("pupil", terms=False), strand("book", terms=False), strand("other", terms=False))
VALUE = strand("pupil", link="value", unit="token")
CRITIC = CoLearner(name="critic", role="critic", strands=(VALUE,), optimizer=Optimizer(learning_rate=1e-3), warmup=2)
JUDGE = CoLearner(
    name="judge",
    role="reward",
    strands=(strand("book", terms=False, link="logistic", beta=1.0), strand("pupil", link="logistic", beta=1.0)),
    optimizer=Optimizer(learning_rate=1e-3),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def scalar(folder: Path, config: CoLearner) -> Companion:
    rank = LearnerRank(folder, TINY, Learner(engine="torch", threads=1), seed=3, head="scalar")
    return Companion(config, LocalLearner(rank))


def written(name: str, group: str, *, given: bool, seed: int = 0) -> Example:
    """Learners write low tokens and books high ones, so that a judge can tell."""
    draw = np.random.default_rng([seed, *name.encode()])
    low, high = (30, 50) if given else (2, 22)
    tokens = draw.integers(low, high, 6).astype(np.int32)
    who = {"origin_of": Origin.DEMONSTRATION, "producer": Producer.DEMONSTRATION} if given else {}
    one = trajectory(name, 6, tokens=tokens, group_id=group, **who)
    return Example(one, int(given), np.ones(6, np.float32))


def group(number: int, seed: int = 0) -> list[Example]:
    name = f"g{number}"
    return [
        *(written(f"{name}-{index}", name, given=False, seed=seed) for index in range(3)),
        written(f"{name}-book", name, given=True, seed=seed),
    ]


# ---------------------------------------------------------------- records


def test_a_critic_reads_its_strands_returns_and_nothing_else():
    batch = [replace(one, targets=np.arange(6, dtype=np.float32)) for one in group(0)]
    batch[1] = replace(batch[1], targets=np.full(6, np.nan, np.float32))
    batch[2] = replace(batch[2], targets=None)
    found = examples_for(CRITIC, POLICY, [*batch, replace(batch[0], strand=2)])
    assert [(one.trajectory.id, one.strand) for one in found] == [("g0-0", 0)]
    assert found[0].targets is batch[0].targets


def test_a_reward_model_is_to_tell_the_books_from_the_pupils():
    mixed, alone = group(0), group(1)[:3]
    found = examples_for(JUDGE, POLICY, [*mixed, *alone])
    assert [(one.trajectory.id, one.strand) for one in found] == [(one.trajectory.id, 1) for one in mixed]
    assert [one.trajectory.preference for one in found] == [Preference("g0", label) for label in (0.0, 0.0, 0.0, 1.0)]


def test_given_preference_sets_stay_as_they_are():
    given = Preference("set", 1.0, margin=2.0)
    one = replace(group(0)[0], trajectory=replace(group(0)[0].trajectory, preference=given))
    (found,) = examples_for(JUDGE, POLICY, [one])
    assert found.trajectory.preference == given and found.strand == 1


def test_the_policy_rests_while_a_co_learner_trains_alone(folder: Path):
    pair = [scalar(folder, CRITIC), scalar(folder, JUDGE)]
    assert [companions.policy_rests(pair, step) for step in range(4)] == [True, True, False, False]
    assert not companions.policy_rests([], 0)


# ---------------------------------------------------------------- learning


async def test_a_critic_foresees_and_learns_the_returns(folder: Path):
    critic = scalar(folder, CRITIC)
    await critic.learner.begin_stage(CRITIC.strands, CRITIC.optimizer, 40)
    batch = group(0)
    records = [one.trajectory for one in batch]
    before = await companions.values([critic], records)
    assert list(before) == [one.id for one in records] and await companions.values([], records) == {}
    again = await critic.learner.values([records[1].train_context], [records[1].tokens])
    np.testing.assert_allclose(before["g0-1"], again[0], atol=1e-6)
    taught = [replace(one, targets=np.full(6, 0.7, np.float32)) for one in batch]
    for _ in range(40):
        facts = companions.facts(await companions.train([critic], POLICY, taught, 1))
    after = await companions.values([critic], records)
    assert np.abs(after["g0-1"] - 0.7).max() < 0.05 < np.abs(before["g0-1"] - 0.7).min()
    assert facts["learners/critic/tokens"] == 18 and facts["learners/critic/loss"] < 2e-3


async def test_a_reward_model_scores_the_books_higher_and_its_score_is_the_reward(folder: Path):
    judge = scalar(folder, JUDGE)
    await judge.learner.begin_stage(JUDGE.strands, JUDGE.optimizer, 30)
    for step in range(30):
        batch = [one for number in range(3) for one in group(number, seed=step)]
        await companions.train([judge], POLICY, batch, 1)
    fresh = [one.trajectory for one in group(9, seed=99)]
    scorer = rewarded(FakeScorer(unknown=frozenset({"g9-1"})), [scalar(folder, CRITIC), judge], lambda: 30)
    scored = await scorer.score(fresh, {"p0": prompt()})
    scores = await judge.learner.scores([one.train_context for one in fresh], [one.tokens for one in fresh])
    assert [reward(one) for one in scored] == pytest.approx(scores, abs=1e-6)
    assert reward(scored[3]) > max(reward(one) for one in scored[:3]) + 1
    for one, passed in zip(scored, (True, None, True, False), strict=True):
        first, verdict = one.scores
        assert (first.name, first.passed, first.scorer, first.scorer_version) == ("reward", passed, "judge", "30")
        assert verdict.name == "verdict" and verdict.passed is passed


async def test_without_a_reward_model_the_scorer_is_itself(folder: Path):
    scorer = FakeScorer()
    assert rewarded(scorer, [scalar(folder, CRITIC)], lambda: 0) is scorer
    judge = scalar(folder, JUDGE)
    blank = trajectory("blank", 0)
    (scored,) = await rewarded(scorer, [judge], lambda: 0).score([blank], {"p0": prompt()})
    assert np.isnan(reward(scored)) and scored.scores[0].status == "error"
    assert await rewarded(scorer, [judge], lambda: 0).score([], {}) == []


async def test_nobody_trains_on_nothing(folder: Path):
    critic, judge = scalar(folder, CRITIC), scalar(folder, JUDGE)
    for one in (critic, judge):
        await one.learner.begin_stage(one.config.strands, one.config.optimizer, 1)
    found = await companions.train([critic, judge], POLICY, group(0), 1)  # no returns: the critic has nothing
    assert list(found) == ["judge"]


async def test_one_process_holds_every_role(folder: Path):
    parts = local_parts(folder, TINY, AnswerVerifier(), seed=3, companions=("critic",), frozen=("teacher",))
    critic, teacher = parts.companions["critic"], parts.frozen["teacher"]
    await teacher.update_weights(parts.learner.rank.export_weights(0))
    one = group(0)[0].trajectory
    hidden, head = (await teacher.hidden([one.train_context], [one.tokens]))[0], await teacher.head()
    assert hidden.shape == (6, 64) and head.shape == (53, 64)
    await parts.learner.attach_head("teacher", head)
    assert (await critic.values([one.train_context], [one.tokens]))[0].shape == (6,)
    with pytest.raises(RuntimeError, match="language model has no values"):
        await parts.learner.scores([one.train_context], [one.tokens])
    await teacher.close()
