"""Schedules of our own over the papers' losses: what each strand pulls is SFT's and GRPO's, in the shares decided."""

from functools import partial

import pytest

from policies.trajectory import Trajectory
from tests import paper_oracles as paper
from tests import trl_oracles as trl
from tests.mixed_cases import SEEDS, mixed, of, planned
from tests.paper_mixed import own_rows
from tests.paper_parts import centred, off_rows, on_rows
from tests.parity_case import Case, Floats
from tests.recipe_bridge import agrees, apply, trajectory
from tests.rl_cases import given, holds


def drawn_apart(case: Case) -> list[Trajectory]:
    """Demonstrations on prompts of their own: each is a group by itself."""
    return [trajectory(case, i, **({"group_id": f"d{i}"} if case.off_B[i] else {})) for i in range(len(case.off_B))]


def grpo(case: Case, c: Floats) -> float:
    """GRPO over the rollouts' tokens (arXiv 2402.03300, its mean over tokens)."""
    return paper.reward.ppo(case, c, centred(case, own_rows(case), 1e-4), low=0.2, high=0.2, rows=on_rows(case))


def sft(case: Case, c: Floats) -> float:
    """Mean negative log-likelihood of the demonstrations' tokens."""
    return paper.imitation.sft(case, c, rows=off_rows(case))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("name", ["mix", "bottleneck"])
def test_both_strands_pull_as_the_papers_do(name: str, weight: float, seed: int) -> None:
    case = mixed(seed)
    said = apply(name, case, of(case), rows=drawn_apart(case), sft=weight)
    holds(said, lambda c: grpo(case, c) + weight * sft(case, c), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_prompts_past_successes_are_imitated(seed: int) -> None:
    """The third strand: the same likelihood, on what the learner wrote itself."""
    case = mixed(seed)
    replayed = [2 * one for one in of(case)]
    holds(apply("bottleneck", case, replayed, rows=drawn_apart(case)), lambda c: grpo(case, c) + sft(case, c), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("turns", [(1, 1), (2, 3)])
def test_alternate_is_one_papers_loss_in_each_step(turns: tuple[int, int], seed: int) -> None:
    case = mixed(seed)
    first, second = turns
    for step in range(2 * sum(turns)):
        _, plan = planned("alternate", step, sft_steps=first, rl_steps=second)
        said = apply("alternate", case, of(case), rows=drawn_apart(case), coefficients=plan.coefficients)
        imitates = step % (first + second) < first
        holds(said, partial(sft if imitates else grpo, case), case)
        assert plan.rest == ({"rollouts"} if imitates else {"demonstrations"})


@pytest.mark.parametrize("seed", SEEDS)
def test_curriculums_loss_is_trls_grpo(seed: int) -> None:
    case = paper.random_case(seed, rows=8, group=4)
    case = given(case, trl.grpo_advantages(case, "group"))
    want = trl.grpo(case)
    agrees(apply("curriculum_grpo", case), want.loss, want.gradient_BTV, case)
