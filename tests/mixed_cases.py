"""What the parity tests of interleaved, guided, refining and teaching methods share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator import recipes
from orchestrator.controls import GroupStats, MemberStats, Scope, State, StepPlan, initial, plan_step, route_group
from orchestrator.recipes import Recipe
from policies.trajectory import Origin, Trajectory
from tests import paper_oracles as paper
from tests.paper_parts import groups, likeliest, logps_of, mean, slots
from tests.parity_case import Case, Floats, log_softmax
from tests.recipe_bridge import Found, agrees, trajectory
from tests.rl_cases import recorded

SEEDS = (0, 1)
ROWS, GROUP = 10, 5
TEACHER = {"teacher": "some/folder"}


def mixed(seed: int, *, given: int = 1, failed: bool = False, **options: Any) -> Case:
    """Two groups of five, of which the last `given` are demonstrations, one of them right and one wrong.

    Rewards are 1 or 0; `failed`: none of the second group's rollouts passes.
    """
    rng = np.random.default_rng(seed)
    case = paper.random_case(seed, rows=ROWS, group=GROUP, **options)
    rewards_B = rng.integers(0, 2, ROWS).astype(np.float64)
    rewards_B[:2], rewards_B[[4, 9]] = (1.0, 0.0), (seed % 2, 1 - seed % 2)
    rewards_B[5:9] = 0.0 if failed else (0.0, 1.0, *rewards_B[7:9])
    off_B = np.arange(ROWS) % GROUP >= GROUP - given
    return replace(case, rewards_B=rewards_B, off_B=off_B, behavior_BT=recorded(case.behavior_BT))


def of(case: Case) -> list[int]:
    """Rollouts are the first strand's, demonstrations the second's."""
    return [int(off) for off in case.off_B]


def small(seed: int, **options: Any) -> Case:
    """Where losses are of whole distributions, whose slopes cost one loss for each logit."""
    case = paper.random_case(seed, **{"rows": 4, "slots": 4, "vocabulary": 7, "group": 2, **options})
    return replace(case, behavior_BT=recorded(case.behavior_BT))


# ---------------------------------------------------------------- losses of logits


def follows(said: Found, loss: Callable[[Floats], float], case: Case) -> None:
    """Loss and gradient are those of the papers' loss of the logits [B, T, V]."""
    agrees(said, loss(case.logits_BTV), paper.logits_slope(loss, case), case)


def with_entropy(loss: Callable[[Floats], float], case: Case, bonus: float, rows: Sequence[int]) -> Any:
    """A loss of log-probabilities, less `bonus` x the mean entropy of these rows' tokens: a loss of logits."""

    def total(logits_BTV: Floats) -> float:
        logps = log_softmax(logits_BTV)
        entropy_BT = -(np.exp(logps) * logps).sum(-1)
        own = [float(entropy_BT[i, t]) for i in rows for t in slots(case, i)]
        return loss(logps_of(case, logits_BTV)) - bonus * mean(own)

    return total


def separable(case: Case, k: int) -> bool:
    """Whether the teacher's and the policy's k likeliest tokens differ somewhere."""
    pairs = [(case.teacher_logits_BTV[i, t], case.logits_BTV[i, t]) for i, t in np.argwhere(case.mask_BT)]
    return any(set(likeliest(theirs, k)) != set(likeliest(ours, k)) for theirs, ours in pairs)


# ---------------------------------------------------------------- controls


def planned(
    name: str, step: int, states: Sequence[State] | None = None, *, seed: int = 0, steps: int = 600, **parameters: Any
) -> tuple[Recipe, StepPlan]:
    """The recipe, and what its controls say of a step."""
    recipe = recipes.load(name, **parameters)
    return recipe, plan(recipe, step, states, seed=seed, steps=steps)


def plan(
    recipe: Recipe, step: int, states: Sequence[State] | None = None, *, seed: int = 0, steps: int = 600
) -> StepPlan:
    """What a recipe's controls say of a step."""
    scope = Scope(steps, tuple(one.name for one in recipe.strands))
    before = [initial(one) for one in recipe.controls] if states is None else states
    return plan_step(recipe.controls, before, step, {}, seed, scope)


def routed(recipe: Recipe, case: Case) -> tuple[tuple[State, ...], np.ndarray]:
    """The controls' states after the case's groups, and the rows [B] that go on."""
    states = tuple(initial(one) for one in recipe.controls)
    kept_B = np.ones(len(case.off_B), bool)
    for number, group in enumerate(groups(case)):
        names = [recipe.strands[int(case.off_B[i])].name for i in group]
        members = tuple(
            MemberStats(name, float(case.rewards_B[i]), bool(case.rewards_B[i] > 0.5), compared=not case.off_B[i])
            for name, i in zip(names, group, strict=True)
        )
        states, words = route_group(recipe.controls, states, GroupStats(f"g{number}", f"p{number}", members))
        kept_B[group] = [name not in words.without for name in names]
    return states, kept_B


# ---------------------------------------------------------------- hints


def hinted(case: Case, row: int, hint_BT: np.ndarray, *, trained: bool) -> Trajectory:
    """The row as a response that starts from a part of a demonstration, which nobody sampled."""
    size = int(case.mask_BT[row].sum())
    hint = hint_BT[row, :size]
    return trajectory(
        replace(case, off_B=np.zeros_like(case.off_B)),
        row,
        origin=np.where(hint, Origin.HINT, Origin.LEARNER).astype(np.int8),
        token_version=np.where(hint, -1, 0).astype(np.int32),
        behavior_logps=np.where(hint, np.nan, case.behavior_BT[row, :size]).astype(np.float32),
        train_mask=~hint | trained,
    )
