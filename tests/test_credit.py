"""Advantages against the papers' estimators; unknown supervision is left out and named."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import credit as credit_module
from policies.config import (
    ConstantCredit,
    Gae,
    GroupCredit,
    PartCredit,
    ProcessCredit,
    SignCredit,
    TeacherGap,
    TurnCredit,
)
from policies.credit import Views, assign, is_own_rollout, needs_views, over_step
from policies.credit_token import gae
from policies.trajectory import FinishReason, Origin, Producer, Sampling, ScoreEntry, Trajectory
from tests import oracles_credit as papers
from tests.credit_cases import CASES, GROUP, REWARDS, VIEWS, agrees, greedy_group, scored, spans, step_agrees
from tests.test_trajectory import demonstration, trajectory


def demo(value: float) -> Trajectory:
    return demonstration(3, scores=(ScoreEntry("reward", value),))


def firsts(credit: GroupCredit | SignCredit, group: list[Trajectory]) -> list[float]:
    """One number a trajectory, after checking that every token has it."""
    found = assign(credit, group).advantages
    for one, member in zip(found, group, strict=True):
        assert one.dtype == np.float32
        assert len(one) == len(member.tokens)
        assert np.all(one == one[0])
    return [float(one[0]) for one in found]


@pytest.mark.parametrize("name", CASES)
def test_advantages_are_the_papers(name: str) -> None:
    agrees(credit_module, CASES[name])


def test_a_step_is_whitened_and_rescaled_as_the_papers_do() -> None:
    step_agrees(credit_module)


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "length_mean"])
@pytest.mark.parametrize("scale", ["none", "std", "mean"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_group_without_spread_is_exactly_zero(baseline: str, scale: str, value: float) -> None:
    credit = GroupCredit(baseline=baseline, scale=scale)  # type: ignore[arg-type]
    assert firsts(credit, [scored(value, size) for size in (1, 4, 3)]) == [0.0, 0.0, 0.0]


def test_the_mean_scale_of_nothing_earned_is_zero() -> None:
    assert firsts(GroupCredit(scale="mean"), [scored(-1.0), scored(0.5)]) == [0.0, 0.0]


def test_a_group_of_one_says_which_of_two_it_is() -> None:
    assert firsts(GroupCredit(lone="zero"), [scored(0.7)]) == [0.0]
    assert firsts(GroupCredit(lone="reward"), [scored(0.75)]) == [0.75]
    assert firsts(GroupCredit(baseline="zero", lone="zero"), [scored(0.75)]) == [0.75]  # no statistics, nothing lone


def test_scope_says_whose_rewards_count() -> None:
    """LUFFY's group: rollouts that failed, and a demonstration that did not."""
    group = [scored(0.0), scored(0.5), demo(1.0)]
    np.testing.assert_allclose(firsts(GroupCredit(scope="all"), group), [-0.5, 0.0, 0.5])
    np.testing.assert_allclose(firsts(GroupCredit(scope="on_policy"), group), [-0.25, 0.25, 0.75])
    own = GroupCredit(scope="on_policy", baseline="leave_one_out")
    np.testing.assert_allclose(firsts(own, group), [-0.5, 0.5, 0.75])


def test_a_demonstration_beside_rollouts_without_spread_is_not_divided_by_eps() -> None:
    group = [scored(0.0), scored(0.0), demo(1.0)]
    assert firsts(GroupCredit(scope="on_policy", scale="std"), group) == [0.0, 0.0, 1.0]


def test_unknown_rewards_are_left_out_and_named() -> None:
    group = [scored(1.0), scored(math.nan), scored(0.0), trajectory(2)]
    found = assign(GroupCredit(), group)
    assert found.excluded == (1, 3)
    assert found.reasons == {1: "no reward: timeout", 3: "no reward: unscored"}
    assert [one.tolist() for one in found.advantages] == [[0.5] * 3, [0.0] * 3, [-0.5] * 3, [0.0] * 2]
    assert assign(GroupCredit(), [scored(math.nan)] * 2).excluded == (0, 1)
    assert assign(SignCredit(), group).excluded == (1, 3)
    assert firsts(SignCredit(), group) == [1.0, 0.0, -1.0, 0.0]


def test_a_lone_response_is_compared_with_the_greedy_one() -> None:
    greedy, other = Sampling(temperature=0.0), Sampling()
    pair = [scored(1.0, sampling=other), scored(0.25, sampling=greedy)]
    assert firsts(GroupCredit(baseline="greedy"), pair) == [0.75, 0.0]


@pytest.mark.parametrize("spread", ["sequence", "suffix"])
def test_without_a_greedy_reward_the_group_is_left_out_with_a_reason(spread: str) -> None:
    credit = GroupCredit(baseline="greedy", kl=0.1, kl_spread=spread)  # type: ignore[arg-type]
    absent = assign(credit, GROUP, VIEWS)
    assert absent.excluded == (0, 1, 2, 3, 4)
    assert set(absent.reasons.values()) == {"no greedy response with a known reward to compare with"}
    assert not any(one.any() for one in absent.advantages)
    silent = [greedy_group()[0], scored(math.nan, sampling=Sampling(temperature=0.0))]
    assert assign(GroupCredit(baseline="greedy"), silent).reasons[1] == "no reward: timeout"


def test_a_parent_without_judged_children_is_left_out() -> None:
    group = [scored(1.0, id="p"), scored(math.nan, id="c", parent_id="p")]
    found = assign(GroupCredit(value="children"), group)
    assert found.reasons == {
        0: "none of its 1 children has a known reward",
        1: "none of its 0 children has a known reward",
    }


def test_a_cut_response_serves_the_statistics_and_does_not_train() -> None:
    group = [scored(1.0, finish_reason=FinishReason.LENGTH), scored(0.0, finish_reason=FinishReason.STOP)]
    found = assign(GroupCredit(truncated="mask"), group)
    assert found.masked == (0,)
    assert found.excluded == ()
    assert [float(one[0]) for one in found.advantages] == [0.5, -0.5]
    assert assign(GroupCredit(truncated="count"), group).masked == ()


def test_the_environments_tokens_make_no_response_overlong() -> None:
    credit = GroupCredit(baseline="zero", overlong={"length": 4, "cache": 2})  # type: ignore[arg-type]
    gap = np.array([0, Origin.ENVIRONMENT, Origin.ENVIRONMENT, 0], np.int8)
    version = np.where(gap == Origin.LEARNER, 3, -1).astype(np.int32)
    one = scored(1.0, 4, origin=gap, token_version=version, train_mask=gap == Origin.LEARNER)
    assert firsts(credit, [one, scored(1.0, 4)]) == [1.0, 0.0]


def test_a_penalty_without_its_reference_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"credit group: trajectory 't0' needs 4 reference log-probabilities, got none"
    ):
        assign(GroupCredit(kl=0.1), GROUP)
    with pytest.raises(ValueError, match="5 trajectories, but views of 1"):
        assign(GroupCredit(), GROUP, VIEWS[:1])


def test_own_rollouts_are_the_learners_alone() -> None:
    tool = np.array([0, Origin.ENVIRONMENT, 0], np.int8)
    version, mask = np.array([3, -1, 3], np.int32), np.array([True, False, True])
    assert is_own_rollout(trajectory(3, origin=tool, token_version=version, train_mask=mask))
    hinted = np.array([Origin.HINT, 0, 0], np.int8)
    assert not is_own_rollout(trajectory(3, origin=hinted, token_version=np.array([-1, 3, 3], np.int32)))
    assert not is_own_rollout(trajectory(3, producer=Producer.REPLAY))
    assert not is_own_rollout(demonstration())


# ---------------------------------------------------------------- properties

rewards = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, -1.0]), min_size=2, max_size=6)
baselines = st.sampled_from(["mean", "leave_one_out", "length_mean"])
scales = st.sampled_from(["none", "std"])


def sized(values: list[float]) -> list[Trajectory]:
    return [scored(value, 1 + index % 3) for index, value in enumerate(values)]


@given(rewards, baselines, scales, st.randoms(use_true_random=False))
def test_the_order_of_a_group_does_not_matter(values: list[float], baseline: str, scale: str, random: object) -> None:
    credit = GroupCredit(baseline=baseline, scale=scale)  # type: ignore[arg-type]
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    group = sized(values)
    moved = firsts(credit, [group[index] for index in order])
    np.testing.assert_allclose(moved, np.array(firsts(credit, group))[order], rtol=1e-5, atol=1e-6)


@given(rewards, baselines, scales, st.floats(-5, 5))
def test_a_constant_on_all_rewards_changes_nothing(values: list[float], baseline: str, scale: str, more: float) -> None:
    credit = GroupCredit(baseline=baseline, scale=scale)  # type: ignore[arg-type]
    lifted = firsts(credit, sized([value + more for value in values]))
    np.testing.assert_allclose(lifted, firsts(credit, sized(values)), rtol=1e-4, atol=1e-5)


@given(rewards, baselines, scales, st.integers(0, 6))
def test_an_unknown_member_changes_nothing_for_the_others(
    values: list[float], baseline: str, scale: str, place: int
) -> None:
    credit = GroupCredit(baseline=baseline, scale=scale)  # type: ignore[arg-type]
    group = sized(values)
    at = min(place, len(group))
    found = firsts(credit, [*group[:at], scored(math.nan, 9), *group[at:]])
    assert found[at] == 0.0
    assert found[:at] + found[at + 1 :] == firsts(credit, group)


def expected_gradient(credit: GroupCredit, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The credit's expected gradient over all groups of n, and the gradient of the expected reward.

    Two tokens out of two: logits of the first, and of the second after each first.
    """
    logits = np.array([[0.3, -0.2], [0.7, 0.1], [-0.5, 0.4]])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    outcome = {(0, 0): 1.0, (0, 1): 0.2, (1, 0): -0.5, (1, 1): 0.6}
    chance = {(a, b): p[0, a] * p[1 + a, b] for a, b in outcome}

    def score(a: int, b: int) -> np.ndarray:
        grad = np.zeros((3, 2))
        grad[0] = np.eye(2)[a] - p[0]
        grad[1 + a] = np.eye(2)[b] - p[1 + a]
        return grad

    true = sum(chance[y] * outcome[y] * score(*y) for y in outcome)
    found = np.zeros((3, 2))
    for group in itertools.product(outcome, repeat=n):
        advantages = firsts(credit, [scored(outcome[y], 2) for y in group])
        weight = math.prod(chance[y] for y in group) / n
        found += weight * sum(a * score(*y) for a, y in zip(advantages, group, strict=True))
    return found, np.asarray(true)


@pytest.mark.parametrize("n", [2, 3])
def test_leave_one_out_is_unbiased_and_the_mean_shrinks_by_a_known_factor(n: int) -> None:
    found, true = expected_gradient(GroupCredit(baseline="leave_one_out"), n)
    np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-7)
    found, true = expected_gradient(GroupCredit(baseline="mean"), n)
    np.testing.assert_allclose(found, (n - 1) / n * true, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- imitation, teacher, critic


def test_imitation_is_a_constant() -> None:
    found = assign(ConstantCredit(value=0.5), [demonstration(2), trajectory(0)])
    assert [one.tolist() for one in found.advantages] == [[0.5, 0.5], []]
    assert found.excluded == ()


def test_the_teacher_gap_is_per_token_and_zero_where_nothing_is_trained() -> None:
    one = trajectory(
        3,
        behavior_logps=np.array([-1.0, np.nan, -2.0], np.float32),
        train_mask=np.array([True, False, True]),
    )
    views = Views(teacher_logps=np.array([-0.5, -0.1, -3.0], np.float32))
    assert assign(TeacherGap(scale=2.0), [one], [views]).advantages[0].tolist() == [1.0, 0.0, -2.0]


def test_a_teacher_gap_without_its_views_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'run/7' needs 4 teacher log-probabilities, got none; have its model"):
        assign(TeacherGap(), [trajectory()])
    with pytest.raises(ValueError, match=r"'demo/1' has 3 trained tokens whose behavior log-probabilities are unknown"):
        assign(TeacherGap(), [demonstration()], [Views(teacher_logps=np.zeros(3, np.float32))])
    with pytest.raises(ValueError, match="needs 4 reference log-probabilities"):
        assign(TeacherGap(extrapolation=1.25), [trajectory()], [Views(teacher_logps=np.zeros(4, np.float32))])


def test_a_teacher_needs_a_reward_only_for_its_outcome() -> None:
    views = [Views(teacher_logps=np.zeros(3, np.float32))] * 2
    group = [scored(math.nan), scored(1.0)]
    assert assign(TeacherGap(), group, views).excluded == ()
    found = assign(TeacherGap(outcome=1.0), group, views)
    assert found.excluded == (0,)
    assert not found.advantages[0].any()
    assert found.advantages[1].tolist() == (-group[1].behavior_logps).tolist()  # alone: the mean is its own


@given(st.integers(1, 6), st.floats(0.1, 1.0), st.floats(0.0, 1.0), st.integers(0, 99))
def test_gae_is_the_double_sum_whatever_is_observed_between(size: int, gamma: float, lam: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values, earned, trained = draw.normal(size=size), draw.normal(size=size), draw.random(size) < 0.7
    found = gae(earned, values, trained, gamma=gamma, lam=lam)
    want = papers.gae_sum(earned[trained].tolist(), values[trained].tolist(), gamma, lam)
    np.testing.assert_allclose(found[trained], want, rtol=1e-9, atol=1e-12)
    assert not found[~trained].any()


def test_a_critic_learns_nothing_of_what_nobody_judged() -> None:
    views = [Views(values=np.zeros(3, np.float32))] * 2
    found = assign(Gae(kl=0.0), [scored(math.nan), scored(1.0)], views)
    assert found.excluded == (0,)
    assert found.targets is not None
    assert np.isnan(found.targets[0]).all()
    np.testing.assert_allclose(found.targets[1], [0.95**2, 0.95, 1.0], rtol=1e-6)
    with pytest.raises(ValueError, match="credit gae: trajectory 'run/7' needs 3 values, got none"):
        assign(Gae(kl=0.0), [scored(1.0)])


# ---------------------------------------------------------------- spans


@pytest.mark.parametrize(
    ("credit", "name"), [(ProcessCredit(), "step"), (TurnCredit(), "turn"), (PartCredit(kl=0.0), "part")]
)
def test_a_response_with_an_unknown_span_is_left_out_and_counts_for_nothing(
    credit: ProcessCredit | TurnCredit | PartCredit, name: str
) -> None:
    known = [scored(0.0, 4, scores=spans(name, (0, 2, a), (2, 4, b))) for a, b in ((1.0, 0.0), (0.5, -1.0))]
    late = ScoreEntry(name, math.nan, status="timeout", start=2, end=4)
    unknown = scored(0.0, 4, scores=(*spans(name, (0, 2, 1.0)), late))
    bare = scored(1.0, 4)
    found = assign(credit, [known[0], unknown, known[1], bare])
    assert found.reasons == {1: f"no {name} score at token 2: timeout", 3: f"no scores named {name} with a span"}
    assert found.excluded == (1, 3)
    assert not found.advantages[1].any()
    assert not found.advantages[3].any()
    alone = assign(credit, known)
    assert [one.tolist() for one in alone.advantages] == [found.advantages[i].tolist() for i in (0, 2)]
    assert any(one.any() for one in alone.advantages)


def test_equal_spans_are_exactly_zero() -> None:
    group = [scored(0.1, 4, scores=spans("step", (0, 2, 0.1), (2, 4, 0.1))) for _ in range(3)]
    assert not any(one.any() for one in assign(ProcessCredit(), group).advantages)
    turns = [scored(0.1, 4, scores=spans("turn", (0, 2, 0.1), (2, 4, 0.7))) for _ in range(3)]
    assert not any(one.any() for one in assign(TurnCredit(), turns).advantages)


def test_a_single_turn_has_made_no_progress() -> None:
    group = [scored(0.0, 2, scores=spans("turn", (0, 2, value))) for value in (1.0, 0.5)]
    found = assign(TurnCredit(baseline="zero", first=0.0), group)
    assert [one.tolist() for one in found.advantages] == [[1.0, 1.0], [0.5, 0.5]]


def test_tokens_between_turns_are_worth_nothing() -> None:
    one = scored(0.0, 5, scores=spans("turn", (0, 2, 1.0), (3, 5, 1.0)))
    assert assign(TurnCredit(baseline="zero"), [one]).advantages[0].tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]


def test_a_span_outside_its_response_is_refused() -> None:
    with pytest.raises(ValueError, match=r"score 'step' spans \[1, 4\) of 3 tokens; want 0 <= start < end <= tokens"):
        assign(ProcessCredit(), [scored(0.0, 3, scores=spans("step", (1, 4, 1.0)))])


# ---------------------------------------------------------------- the step, and what is read


def test_a_step_without_spread_is_exactly_zero_and_an_empty_one_is_empty() -> None:
    credit, group = GroupCredit(batch="whiten"), [scored(1.0), scored(1.0)]
    same = [np.full(3, 0.1, np.float32)] * 2
    assert not any(one.any() for one in over_step(credit, same, group, ["a", "b"]))
    assert over_step(credit, [], [], []) == []
    none = GroupCredit(batch="nonzero")
    assert not any(one.any() for one in over_step(none, [np.zeros(3, np.float32)] * 2, group, ["a", "b"]))


def test_credits_that_ask_for_nothing_leave_the_step_alone() -> None:
    given_ = [np.array([1.0, -2.0, 0.5], np.float32)] * 5
    for credit in (GroupCredit(), Gae(whiten=False), ConstantCredit(), TeacherGap()):
        assert over_step(credit, given_, [scored(value) for value in REWARDS], ["a"] * 5) == given_


@pytest.mark.parametrize(
    ("credit", "want"),
    [
        (ConstantCredit(), set()),
        (SignCredit(), {"rewards"}),
        (GroupCredit(), {"rewards"}),
        (GroupCredit(kl=0.1), {"rewards", "reference_logps", "behavior_logps"}),
        (TeacherGap(), {"teacher_logps", "behavior_logps"}),
        (TeacherGap(extrapolation=1.25), {"teacher_logps", "behavior_logps", "reference_logps"}),
        (TeacherGap(outcome=1.0), {"teacher_logps", "behavior_logps", "rewards"}),
        (Gae(), {"rewards", "values", "reference_logps", "behavior_logps"}),
        (Gae(kl=0.0), {"rewards", "values"}),
        (PartCredit(), {"rewards", "reference_logps", "behavior_logps"}),
        (ProcessCredit(), {"rewards"}),
        (TurnCredit(), {"rewards"}),
    ],
)
def test_a_credit_says_what_it_reads(credit: GroupCredit, want: set[str]) -> None:
    assert needs_views(credit) == want


def test_the_host_side_needs_no_torch() -> None:
    modules = "policies.arrow, policies.credit, policies.reduce, policies.select"
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
