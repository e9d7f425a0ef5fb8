"""Advantages against closed forms; unknown rewards are left out and named."""

import math
import subprocess
import sys

import numpy as np
import pytest

from policies.config import ConstantCredit, GroupCredit, TeacherGap
from policies.credit import assign, is_own_rollout
from policies.trajectory import Origin, Producer, ScoreEntry, Trajectory
from tests import oracles
from tests.test_trajectory import demonstration, trajectory


def scored(value: float, size: int = 3, demo: bool = False) -> Trajectory:
    status = "timeout" if math.isnan(value) else "ok"
    return (demonstration if demo else trajectory)(size, scores=(ScoreEntry("reward", value, status=status),))


def firsts(credit: GroupCredit, group: list[Trajectory]) -> list[float]:
    """One number a trajectory, after checking that every token has it."""
    found = assign(credit, group).advantages
    for one, member in zip(found, group, strict=True):
        assert one.dtype == np.float32
        assert len(one) == len(member.tokens)
        assert np.all(one == one[0])
    return [float(one[0]) for one in found]


REWARDS = [1.0, 0.0, 0.25, 1.0, 0.5]
GROUP = [scored(value, size) for size, value in enumerate(REWARDS, start=1)]


@pytest.mark.parametrize(
    ("credit", "want"),
    [
        (GroupCredit(baseline="zero"), REWARDS),
        (GroupCredit(baseline="mean"), [r - np.mean(REWARDS) for r in REWARDS]),
        (GroupCredit(scale="std", eps=1e-4), oracles.grpo_advantages(REWARDS, 1e-4)),
        (GroupCredit(baseline="leave_one_out"), oracles.rloo_advantages(REWARDS)),
        (GroupCredit(scale="mean"), [(r - 0.55) / 0.55 for r in REWARDS]),  # MaxRL
    ],
)
def test_group_advantages_are_the_papers(credit: GroupCredit, want: list[float]) -> None:
    np.testing.assert_allclose(firsts(credit, GROUP), want, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["none", "std", "mean"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_group_without_spread_is_exactly_zero(baseline: str, scale: str, value: float) -> None:
    credit = GroupCredit(baseline=baseline, scale=scale)  # type: ignore[arg-type]
    assert firsts(credit, [scored(value) for _ in range(3)]) == [0.0, 0.0, 0.0]


def test_the_mean_scale_of_nothing_earned_is_zero() -> None:
    assert firsts(GroupCredit(scale="mean"), [scored(-1.0), scored(0.5)]) == [0.0, 0.0]


def test_a_group_of_one_says_which_of_two_it_is() -> None:
    assert firsts(GroupCredit(lone="zero"), [scored(0.7)]) == [0.0]
    assert firsts(GroupCredit(lone="reward"), [scored(0.75)]) == [0.75]
    assert firsts(GroupCredit(baseline="zero", lone="zero"), [scored(0.75)]) == [0.75]  # no statistics, nothing lone


def test_scope_says_whose_rewards_count() -> None:
    """LUFFY's group: rollouts that failed, and a demonstration that did not."""
    group = [scored(0.0), scored(0.5), scored(1.0, demo=True)]
    np.testing.assert_allclose(firsts(GroupCredit(scope="all"), group), [-0.5, 0.0, 0.5])
    np.testing.assert_allclose(firsts(GroupCredit(scope="on_policy"), group), [-0.25, 0.25, 0.75])
    own = GroupCredit(scope="on_policy", baseline="leave_one_out")
    np.testing.assert_allclose(firsts(own, group), [-0.5, 0.5, 0.75])


def test_a_demonstration_beside_rollouts_without_spread_is_not_divided_by_eps() -> None:
    group = [scored(0.0), scored(0.0), scored(1.0, demo=True)]
    assert firsts(GroupCredit(scope="on_policy", scale="std"), group) == [0.0, 0.0, 1.0]


def test_unknown_rewards_are_left_out_and_named() -> None:
    group = [scored(1.0), scored(math.nan), scored(0.0), trajectory(2)]
    found = assign(GroupCredit(), group)
    assert found.excluded == (1, 3)
    assert [one.tolist() for one in found.advantages] == [[0.5] * 3, [0.0] * 3, [-0.5] * 3, [0.0] * 2]
    assert assign(GroupCredit(), [scored(math.nan)] * 2).excluded == (0, 1)


def test_own_rollouts_are_the_learners_alone() -> None:
    tool = np.array([0, Origin.ENVIRONMENT, 0], np.int8)
    version, mask = np.array([3, -1, 3], np.int32), np.array([True, False, True])
    assert is_own_rollout(trajectory(3, origin=tool, token_version=version, train_mask=mask))
    hinted = np.array([Origin.HINT, 0, 0], np.int8)
    assert not is_own_rollout(trajectory(3, origin=hinted, token_version=np.array([-1, 3, 3], np.int32)))
    assert not is_own_rollout(trajectory(3, producer=Producer.REPLAY))
    assert not is_own_rollout(demonstration())


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
    teacher = np.array([-0.5, -0.1, -3.0], np.float32)
    assert assign(TeacherGap(scale=2.0), [one], teacher_logps=[teacher]).advantages[0].tolist() == [1.0, 0.0, -2.0]


def test_a_teacher_gap_without_its_views_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'run/7' needs 4 teacher log-probabilities, got none; have a teacher"):
        assign(TeacherGap(), [trajectory()])
    with pytest.raises(ValueError, match=r"'demo/1' has 3 trained tokens whose behavior or teacher .* unknown"):
        assign(TeacherGap(), [demonstration()], teacher_logps=[np.zeros(3, np.float32)])


def test_the_host_side_needs_no_torch() -> None:
    code = "import policies.arrow, policies.credit, policies.reduce, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
