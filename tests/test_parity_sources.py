"""Methods that are their data: the rows that a paper's rule keeps, and the loss and gradient of these rows.

The rules are written here a second time, on a case's rewards and likelihoods; the recipes keep through the loop's own
preparation and selection. Who imitates what was kept does it as TRL's SFT, to 1e-6.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import recipes
from orchestrator.prepared import Prepared
from policies.select import choose
from policies.trajectory import ScoreEntry, Trajectory
from teachers.contexts import reads
from tests import trl_oracles as trl
from tests.mixed_cases import TEACHER
from tests.paper_parts import groups, mean, slots
from tests.parity_case import Case
from tests.recipe_bridge import apply, trajectory
from tests.rl_cases import is_trls, of_rows
from tests.source_cases import LETTERS, PROMPTS, World, drawn, text

Rule = Callable[[Case, list[int]], Sequence[int]]
"""The case and a prompt's rows to the rows that are kept."""


def by_rule(case: Case, rule: Rule) -> list[int]:
    """What the rule keeps, prompt by prompt."""
    return [row for group in groups(case) for row in rule(case, group)]


def trains(
    name: str, case: Case, kept: Sequence[Trajectory], rows: list[int], *, loss: str = "nll", **parameters: Any
) -> None:
    """The recipe's strand, on the records that it kept, is TRL's SFT of the rule's rows."""
    mine = replace(of_rows(case, rows), off_B=np.ones(len(rows), bool))
    said = apply(name, mine, rows=kept, **parameters)
    is_trls(said, trl.sft(mine, loss), mine)


def only(found: dict[str, Prepared]) -> Prepared:
    (one,) = found.values()
    return one


# ---------------------------------------------------------------- attempts in turn


def first_passed(case: Case, rows: Sequence[int], most: int = 1) -> list[int]:
    return [i for i in rows if case.rewards_B[i] == 1][:most]


def in_turn(attempts: int, samples: int, *, falls_back: bool) -> Rule:
    """The first response that passed at the first attempt at which any did; else the demonstration, or nothing."""

    def rule(case: Case, group: list[int]) -> list[int]:
        for attempt in range(attempts):
            found = first_passed(case, group[attempt * samples : (attempt + 1) * samples])
            if found:
                return found
        return [group[-1]] if falls_back else []

    return rule


TURNS: dict[str, tuple[str, int, int, bool, dict[str, Any]]] = {
    "sdft": ("sdft", 1, 1, True, {}),
    "s3ft": ("s3ft", 2, 1, True, {}),
    "mind_the_gap": ("mind_the_gap", 2, 4, True, {}),
    "mind_the_gap, weighted": ("mind_the_gap", 2, 1, True, {"samples": 1, "weighted": True}),
    "star": ("star", 2, 1, False, {}),
    "star, two tries": ("star", 2, 2, False, {"samples": 2}),
}
"""The recipe; attempts, responses of each, and whether a demonstration stands in; its parameters."""


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", TURNS)
def test_own_answers_come_before_guided_ones_and_these_before_the_experts(name: str, seed: int, tmp_path: Path) -> None:
    recipe, attempts, samples, falls_back, parameters = TURNS[name]
    case = drawn(seed, attempts * samples + 1)
    if samples == 4:  # with eight tries nearly everything passes: one prompt in three is hard, one is hard unaided
        kind, place = np.divmod(np.arange(len(case.rewards_B)), 9)
        hard = (kind % 3 == 0) | ((kind % 3 == 1) & (place < 4))
        case = replace(case, rewards_B=np.where(hard, 0.0, case.rewards_B))
    world = World(case, samples)
    kept = only(world.prepared(recipe, tmp_path, **parameters)).kept
    rule = by_rule(case, in_turn(attempts, samples, falls_back=falls_back))
    assert world.rows(kept) == rule
    routes = {(row % case.group_size) // samples for row in rule}
    assert routes == set(range(attempts + falls_back)), "every route is taken by some prompt"
    assert len({one.prompt_id for one in kept}) == (PROMPTS if falls_back else len(kept))
    assert {LETTERS.decode(one.train_context) for one in kept} == {text(int(one.prompt_id[1:])) for one in kept}
    trains(recipe, case, kept, rule, loss="dft" if parameters.get("weighted") else "nll", **parameters)


@pytest.mark.parametrize(
    ("name", "shown", "alone"),
    [
        ("sdft", "demonstration", False),
        ("s3ft", "demonstration", True),
        ("mind_the_gap", "demonstration", True),
        ("star", "answer", True),
    ],
)
def test_a_guided_attempt_sees_what_the_paper_shows_and_the_first_sees_nothing(
    name: str, shown: str, alone: bool, tmp_path: Path
) -> None:
    """Only prompts that failed by themselves are asked again."""
    parameters = {"samples": 1} if "samples" in recipes.file(name).parameters else {}
    case = drawn(0, 3)
    world = World(case)
    world.prepared(name, tmp_path, **parameters)
    told = {
        "demonstration": [f"book{3 * i + 2}" for i in range(PROMPTS)],
        "answer": [f"answer is {i + 1}" for i in range(PROMPTS)],
    }
    first, guided = world.asked[: PROMPTS * alone], world.asked[PROMPTS * alone :]
    assert first == [text(i) for i in range(PROMPTS * alone)]
    failed = [i for i in range(PROMPTS) if not alone or case.rewards_B[3 * i] == 0]
    assert [text(i) in asked and told[shown][i] in asked for i, asked in zip(failed, guided, strict=True)] == [
        True
    ] * len(failed)
    assert 0 < len(failed) < PROMPTS or not alone
    assert not any("book" in asked for asked in world.asked if shown == "answer"), "the answer, not the solution"


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("cap", [2, 10, 0])
def test_rest_em_keeps_what_passed_up_to_its_cap(cap: int, seed: int, tmp_path: Path) -> None:
    case = drawn(seed, 12)
    world = World(case, 12, given=0)
    kept = only(world.prepared("rest_em", tmp_path, samples=12, cap=cap)).kept
    rule = by_rule(case, lambda one, group: first_passed(one, group, cap or 12))
    assert world.rows(kept) == rule
    assert len(rule) < case.rewards_B.sum() or cap != 2, "the cap bites"
    trains("rest_em", case, kept, rule)


@pytest.mark.parametrize("seed", [0, 1])
def test_rests_threshold_rises_along_the_stage(seed: int, tmp_path: Path) -> None:
    case = drawn(seed, 8)
    case = replace(case, rewards_B=np.random.default_rng(seed).integers(0, 9, len(case.rewards_B)) / 8)
    world = World(case, 8, given=0)
    whole = only(world.prepared("rest", tmp_path, threshold=0.1, threshold_end=0.8))
    sizes = []
    for step in (0, 5, 10):
        level = 0.1 + step / 10 * (0.8 - 0.1)
        kept = [one for i in range(PROMPTS) for one in whole.for_prompt(f"p{i}", 99, step / 10)]
        rule = by_rule(case, lambda one, group, level=level: [i for i in group if one.rewards_B[i] > level])
        assert sorted(world.rows(kept)) == rule
        trains("rest", case, kept, world.rows(kept))
        sizes.append(len(rule))
    assert sizes[0] > sizes[1] > sizes[2] > 0


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("keep", [1, 3])
def test_raft_keeps_the_best_of_each_prompt(keep: int, seed: int) -> None:
    case = drawn(seed, 6)
    case = replace(case, rewards_B=np.random.default_rng(seed).permutation(len(case.rewards_B)) / 64)
    recipe = recipes.load("raft", rollouts=6, keep=keep)
    records = [trajectory(case, i) for i in range(len(case.rewards_B))]
    kept_rows = [
        group[at]
        for group in groups(case)
        for at in choose(recipe.strands[0].source.select, [records[i] for i in group]).kept
    ]
    rule = by_rule(case, lambda one, group: sorted(sorted(group, key=lambda i: -one.rewards_B[i])[:keep]))
    assert kept_rows == rule
    trains("raft", case, [records[i] for i in kept_rows], rule, rollouts=6, keep=keep)


# ---------------------------------------------------------------- rankings


@pytest.mark.parametrize("seed", [0, 1])
def test_grape_keeps_the_likeliest_by_the_token(seed: int, tmp_path: Path) -> None:
    case = drawn(seed, 4)
    world = World(case, given=4)
    kept = only(world.prepared("grape", tmp_path)).kept

    def of(score: Callable[[Sequence[float]], float]) -> list[int]:
        def likelihood(i: int) -> float:
            return score([float(case.logps_BT[i, t]) for t in slots(case, i)])

        return by_rule(case, lambda one, group: [max(group, key=likelihood)])

    assert world.rows(kept) == of(mean)
    assert of(mean) != of(sum), "by the token is not by the response"
    assert not world.asked
    trains("grape", case, kept, of(mean))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_superfiltering_keeps_the_share_that_the_prompt_helps_least_but_helps(
    share: float, seed: int, tmp_path: Path
) -> None:
    case = drawn(seed, 2)
    world = World(case, given=2)
    kept = only(world.prepared("superfiltering", tmp_path, share=share)).kept
    ratios: dict[int, float] = {}
    for i in range(len(case.mask_BT)):
        if len(slots(case, i)) > 1:
            with_prompt = math.exp(-mean([float(case.logps_BT[i, t]) for t in slots(case, i)]))
            without = math.exp(-mean([float(case.reference_BT[i, t]) for t in slots(case, i)[1:]]))
            ratios[i] = with_prompt / without
    helped = sorted((i for i in ratios if ratios[i] < 1), key=lambda i: -ratios[i])
    rule = sorted(helped[: math.ceil(share * len(case.mask_BT))])
    assert 0 < len(helped) < len(ratios)
    assert world.rows(kept) == rule
    trains("superfiltering", case, kept, rule)


# ---------------------------------------------------------------- teachers, contexts


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("keep", ["passed", "all"])
@pytest.mark.parametrize(
    ("name", "parameters", "written"),
    [
        ("sequence_distillation", {**TEACHER, "context": "{{ prompt }} think"}, " think"),
        ("context_distillation", {}, "\n\nReason step by step, check each step, then state the answer."),
    ],
)
def test_what_was_written_under_a_context_trains_without_it(
    name: str, parameters: dict[str, Any], written: str, keep: str, seed: int, tmp_path: Path
) -> None:
    case = drawn(seed, 3)
    world = World(case, 3, given=0)
    kept = only(world.prepared(name, tmp_path, samples=3, keep=keep, **parameters)).kept
    rule = by_rule(case, lambda one, group: group if keep == "all" else first_passed(one, group, 3))
    assert world.rows(kept) == rule
    asked = {text(i) + written for i in range(PROMPTS)}
    assert set(world.asked) == asked
    for one in kept:
        plain = text(int(one.prompt_id[1:]))
        assert (LETTERS.decode(one.behavior_context), LETTERS.decode(one.train_context)) == (plain + written, plain)
    trains(name, case, kept, rule, samples=3, keep=keep, **parameters)


@pytest.mark.parametrize("seed", [0, 1])
def test_step_by_step_is_two_tasks_told_apart_by_their_prefix(seed: int, tmp_path: Path) -> None:
    """Labels are the demonstrations; rationales are the teacher's, where they passed."""
    case = drawn(seed, 2)
    world = World(case)
    prepared = world.prepared("step_by_step", tmp_path, **TEACHER)
    passed = [i for i in range(PROMPTS) if case.rewards_B[2 * i] == 1]
    assert world.rows(prepared["rationales"].kept) == [2 * i for i in passed]
    assert all(f"answer is {i + 1}" in asked for i, asked in enumerate(world.asked))
    members = [one for group in world.collected("step_by_step", prepared, **TEACHER).groups for one in group.members]
    seen = {(one.strand, one.trajectory.prompt_id, LETTERS.decode(one.trajectory.train_context)) for one in members}
    labels = {(0, f"p{i}", f"[label] {text(i)}") for i in range(PROMPTS)}
    assert seen == labels | {(1, f"p{i}", f"[rationale] {text(i)}") for i in passed}
    rows = world.rows([one.trajectory for one in members])
    assert {row % 2 for row, one in zip(rows, members, strict=True) if one.strand == 0} == {1}
    mine = replace(of_rows(case, rows), off_B=np.ones(len(rows), bool))
    said = apply("step_by_step", mine, [one.strand for one in members], **TEACHER)
    parts = [[at for at, one in enumerate(members) if one.strand == strand] for strand in (0, 1)]
    want = [trl.sft(of_rows(mine, part)) for part in parts]
    assert said.loss == pytest.approx(sum(one.loss for one in want), rel=1e-6)


def test_steerlm_shows_the_scorers_word_to_the_loss() -> None:
    case = drawn(0, 1)
    scores = (ScoreEntry("helpfulness", 4.0), ScoreEntry("verbosity", 1.5))
    world = World(case, known={"scores": scores})
    members = [one for group in world.collected("steerlm", {}).groups for one in group.members]
    contexts = [LETTERS.decode(one.trajectory.train_context) for one in members]
    rows = world.rows([one.trajectory for one in members])
    assert sorted(rows) == list(range(PROMPTS))
    told = [f"helpfulness 4.0, verbosity 1.5, reward {case.rewards_B[i]}" for i in rows]
    assert contexts == [f"{text(i)}\n\nAttributes: {one}" for i, one in zip(rows, told, strict=True)]
    assert [LETTERS.decode(one.trajectory.behavior_context) for one in members] == [text(i) for i in rows]
    trains("steerlm", case, [one.trajectory for one in members], rows)


def test_the_templates_read_what_the_papers_show() -> None:
    shown = {"sdft": "demonstration", "s3ft": "demonstration", "mind_the_gap": "demonstration", "star": "answer"}
    for name, variable in shown.items():
        (strand,) = recipes.load(name).strands
        assert strand.source.prepare is not None
        assert reads(strand.source.prepare.attempts[-1]) == {"prompt", variable}
