"""Refinement, turns, parts and critiques, from scores to loss, gradient and g: the papers' formulas."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator import recipes
from orchestrator.assemble import Assembled, assemble
from orchestrator.records import Group, Member
from orchestrator.views import Models
from policies.trajectory import Origin, Producer, ScoreEntry, Trajectory
from tests import paper_oracles as paper
from tests.mixed_cases import SEEDS, follows, mixed, of, with_entropy
from tests.paper_parts import on_rows, slots
from tests.parity_case import Case, Floats
from tests.recipe_bridge import Found, apply, batch_of, found, own, trajectory
from tests.rl_cases import by_sampler, drawn, holds, of_rows, recorded, scored

Parameters = dict[str, Any]

# ---------------------------------------------------------------- Critique-GRPO


def refined(case: Case) -> list[Trajectory]:
    """The off rows are the learner's own revisions, sampled under a critique that the loss does not see."""
    told = {"producer": Producer.REVISION, "parent_id": "t0", "behavior_context": np.array([1, 2, 3], np.int32)}
    return [trajectory(own(case), i, **(told if case.off_B[i] else {})) for i in range(len(case.off_B))]


def critiqued(case: Case, **parameters: Any) -> Found:
    """Revisions are the second strand's; every token is the learner's and its sampling probability is known."""
    columns = {
        "origin_BT": np.full(case.mask_BT.shape, int(Origin.LEARNER), np.int8),
        "behavior_logps_BT": case.behavior_BT,
    }
    return apply("critique_grpo", case, of(case), rows=refined(case), columns=columns, **parameters)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("refinements", [1, 2])
@pytest.mark.parametrize("gamma", [0.1, 0.4])
def test_critique_grpo_is_the_papers(gamma: float, refinements: int, seed: int) -> None:
    case = mixed(seed, given=refinements)
    said = critiqued(case, length=9, entropy=0.0, gamma=gamma, refinements=refinements)
    holds(said, lambda c: paper.mixed.critique_grpo(case, c, gamma=gamma), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_critique_grpos_defaults_are_its_length_and_its_bonus_on_first_responses(seed: int) -> None:
    case = mixed(seed, slots=4, vocabulary=5)
    loss = with_entropy(lambda c: 9 / 8192 * paper.mixed.critique_grpo(case, c), case, 0.001, on_rows(case))
    follows(critiqued(case), loss, case)


# ---------------------------------------------------------------- Constitutional AI


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("revisions", [1, 2])
def test_constitutional_ai_imitates_the_revisions_and_nothing_else(revisions: int, seed: int) -> None:
    """SL-CAI fine-tunes on revised responses, by likelihood (arXiv 2212.08073, section 3.1)."""
    case = mixed(seed, given=revisions)
    columns = {"origin_BT": np.full(case.mask_BT.shape, int(Origin.LEARNER), np.int8)}
    said = apply("constitutional_ai", case, of(case), rows=refined(case), columns=columns, revisions=revisions)
    revised = [row for row, off in enumerate(case.off_B) if off]
    holds(said, lambda c: paper.imitation.sft(case, c, rows=revised), case)


# ---------------------------------------------------------------- S2R


def parted(case: Case, seed: int) -> tuple[np.ndarray, list[list[float]]]:
    """Which part each token is of, and whether each part is right: one to three runs of tokens in a row."""
    rng = np.random.default_rng(seed)
    parts_BT, correct = np.full(case.mask_BT.shape, -1), []
    for i in range(len(parts_BT)):
        count = min(1 + i % 3, len(slots(case, i)))
        for part, tokens in enumerate(np.array_split(slots(case, i), count)):
            parts_BT[i, tokens] = part
        correct.append([float(x) for x in rng.integers(0, 2, count)])
    return parts_BT, correct


S2R: dict[str, tuple[Parameters, float, Parameters]] = {
    "defaults": ({}, 0.05, {}),
    "no kl": ({"kl": 0.0}, 0.0, {}),
    "narrow, held": ({"clip": 0.05, "kl": 0.4}, 0.4, {"low": 0.05, "high": 0.05}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", S2R)
def test_s2r_is_the_papers(name: str, seed: int) -> None:
    """The penalty reads the sampler's log-probabilities; tokens are averaged, where the authors average parts."""
    parameters, kl, clip = S2R[name]
    case = drawn(seed)
    parts_BT, correct = parted(case, seed)
    a_BT = recorded(paper.process.s2r_advantages(by_sampler(case), parts_BT, correct, kl=kl))
    rows = scored(case, parts_BT, correct, name="part")
    said = apply("s2r", case, rows=rows, columns={"part_BT": parts_BT.astype(np.int32)}, **parameters)
    holds(said, lambda c: paper.process.s2r(case, c, parts_BT, a_BT, reduce="token", **clip), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_s2r_on_parts_and_rows_of_one_length_is_the_code(seed: int) -> None:
    case = drawn(seed, slots=6)
    case = replace(case, mask_BT=np.ones_like(case.mask_BT))
    parts_BT = np.tile([0, 0, 1, 1, 2, 2], (10, 1))
    correct = [[float(x) for x in row] for row in np.random.default_rng(seed).integers(0, 2, (10, 3))]
    a_BT = recorded(paper.process.s2r_advantages(by_sampler(case), parts_BT, correct, kl=0.05))
    rows = scored(case, parts_BT, correct, name="part")
    said = apply("s2r", case, rows=rows, columns={"part_BT": parts_BT.astype(np.int32)})
    holds(said, lambda c: paper.process.s2r(case, c, parts_BT, a_BT), case)


# ---------------------------------------------------------------- SCoRe


def two_turns(seed: int) -> tuple[Case, np.ndarray, list[tuple[float, float]]]:
    """Rows of two answers, and each answer's reward in quarters."""
    case = drawn(seed)
    mask_BT = case.mask_BT.copy()
    mask_BT[:, :2] = True
    case = replace(case, mask_BT=mask_BT)
    rewards = np.random.default_rng(seed).integers(0, 5, (10, 2)) / 4
    return case, paper.process.halves(case), [(float(a), float(b)) for a, b in rewards]


SCORE: dict[str, tuple[Parameters, int, Parameters, Parameters]] = {
    "stage two": ({}, 2, {}, {}),
    "stage one": ({"stage": "one"}, 1, {}, {}),
    "code": ({"stage": "one", "first_kl": 0.25}, 1, {}, {"beta": 0.25}),
    "no bonus, held": ({"bonus": 0.0, "kl": 0.3}, 2, {"bonus": 0.0}, {"beta": 0.3}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SCORE)
def test_score_is_the_papers(name: str, seed: int) -> None:
    parameters, stage, credit, loss = SCORE[name]
    case, turns_BT, rewards = two_turns(seed)
    a_BT = recorded(paper.process.score_advantages(case, turns_BT, rewards, stage=stage, **credit))
    rows = scored(case, turns_BT, rewards, name="turn")
    said = apply("score", case, [1] * 10, rows=rows, columns={"part_BT": turns_BT.astype(np.int32)}, **parameters)
    options = {"stage": stage, "reduce": "sequence_sum", **loss}
    holds(said, lambda c: paper.process.score(case, c, turns_BT, a_BT, **options), case)


def test_stage_one_pulls_on_the_first_turn_by_its_kl_alone() -> None:
    case, turns_BT, rewards = two_turns(0)
    rows = scored(case, turns_BT, rewards, name="turn")
    columns = {"part_BT": turns_BT.astype(np.int32)}
    said = apply("score", case, [1] * 10, rows=rows, columns=columns, stage="one")
    first_BT = turns_BT == 0
    closed_BT = 0.1 * paper.coefficients.k2(case) * paper.coefficients.share(case, "sequence_sum")
    np.testing.assert_allclose(said.coefficient_BT[first_BT], closed_BT[first_BT], rtol=1e-6, atol=1e-12)
    free = apply("score", case, [1] * 10, rows=rows, columns=columns, stage="one", first_kl=0.0)
    assert not free.coefficient_BT[first_BT].any() and free.coefficient_BT[turns_BT == 1].any()


# ---------------------------------------------------------------- SCOP

SOLUTIONS, CRITIQUES, CORRECTIONS = [0, 1, 2], [3, 4, 5], [6, 7, 8, 9, 10, 11]


def criticised(case: Case, seed: int) -> tuple[list[Trajectory], list[float]]:
    """Twelve rows of one prompt: solutions, a critique of each, two corrections after each; and their rewards.

    Critiques bear a verdict of their own, as a group that is judged is judged whole: it counts for nothing.
    """
    rewards = [float(x) for x in np.random.default_rng(seed).integers(0, 2, 12)]
    rewards[6:10] = [1.0, 0.0, 0.0, 0.0]
    rewards[:2] = [1.0, 0.0]
    parent = [""] * 3 + [f"t{i}" for i in SOLUTIONS] + [f"t{CRITIQUES[(i - 6) // 2]}" for i in CORRECTIONS]
    rows = [
        trajectory(
            case,
            i,
            group_id="g",
            prompt_id="p",
            parent_id=parent[i],
            producer=Producer.REVISION if parent[i] else Producer.ROLLOUT,
            scores=(ScoreEntry("reward", rewards[i], rewards[i] > 0.5),),
        )
        for i in range(12)
    ]
    return rows, rewards


def worth(rewards: list[float]) -> tuple[list[float], list[float]]:
    """What each solution and each critique earns, by the paper."""
    children = [[rewards[2 * at + 6], rewards[2 * at + 7]] for at in range(3)]
    return rewards[:3], paper.process.scop_rewards([rewards[i] for i in CRITIQUES], children)


def scop_loss(case: Case, rewards: list[float], c: Floats, clip: float = 0.2) -> float:
    """GRPO among solutions by their rewards, and among critiques by their children's."""
    total = 0.0
    for rows, own_worth in zip((SOLUTIONS, CRITIQUES), worth(rewards), strict=True):
        part = replace(of_rows(case, rows), rewards_B=np.array(own_worth), group_size=3)
        if clip == 0.2:
            total += paper.process.scop(part, c[rows], own_worth)
        else:
            total += paper.mixed.guided(part, c[rows], low=clip, high=clip)
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("clip", [0.2, 0.05])
def test_scop_is_the_papers(clip: float, seed: int) -> None:
    case = drawn(2 * seed, rows=12, group=12)
    rows, rewards = criticised(case, seed)
    strand_B = [0] * 3 + [1] * 3 + [2] * 6
    said = apply("scop", case, strand_B, rows=rows, clip=clip)
    holds(said, lambda c: scop_loss(case, rewards, c, clip), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_scops_credit_in_the_loop_is_the_bridges(seed: int) -> None:
    """Assembly compares solutions with solutions and critiques with critiques; corrections stand aside."""
    case = drawn(2 * seed, rows=12, group=12)
    rows, rewards = criticised(case, seed)
    recipe = recipes.load("scop")
    members = tuple(Member(one, min(i // 3, 2)) for i, one in enumerate(rows))
    made: Assembled = asyncio.run(assemble(recipe.strands, [Group("g", members)], Models()))
    assert [one.trajectory.id for one in made.aside] == [f"t{i}" for i in CORRECTIONS] and made.dropped == ()
    advantages_BT = np.zeros(case.mask_BT.shape)
    for one in made.examples:
        advantages_BT[int(one.trajectory.id[1:]), : len(one.advantages)] = one.advantages
    said = found(recipe, batch_of(case, [0] * 3 + [1] * 3 + [2] * 6, advantages_BT), case.logits_BTV)
    holds(said, lambda c: scop_loss(case, rewards, c), case)


def test_a_critique_without_corrections_has_no_worth_and_does_not_train() -> None:
    case = drawn(0, rows=12, group=12)
    rows, _ = criticised(case, 0)
    rows = [replace(one, parent_id="t3") if one.parent_id == "t5" else one for one in rows]
    said = apply("scop", case, [0] * 3 + [1] * 3 + [2] * 6, rows=rows)
    assert not said.coefficient_BT[5].any() and said.coefficient_BT[3].any() and said.coefficient_BT[4].any()
