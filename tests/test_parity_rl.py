"""Group methods against TRL's own code, from rewards to gradient: TRL's advantages, then TRL's loss.

TRL has GRPO, Dr. GRPO, DAPO, CISPO, SAPO, GSPO, GMPO and RLOO. g is held to the papers' closed forms beside it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trl.rewards import get_soft_overlong_punishment

from tests import paper_coefficients as closed
from tests import paper_oracles as paper
from tests import trl_oracles as trl
from tests.parity_case import Case, Floats
from tests.recipe_bridge import agrees, apply
from tests.rl_cases import SEEDS, by_sampler, drawn, given, has_g
from tests.trl_setting import Answer

Parameters = dict[str, Any]
TRLS_TAU = float(np.float32(1.05))
"""TRL holds SAPO's temperatures in float32; the papers' test has 1.05 itself."""


def by_group(case: Case, scale: str = "group") -> Case:
    return given(case, trl.grpo_advantages(case, scale))


GRPO: dict[str, tuple[str, Parameters, Callable[[Case], Answer]]] = {
    "grpo": ("grpo", {}, lambda case: trl.grpo(by_group(case))),
    "grpo, narrow": ("grpo", {"clip": 0.05}, lambda case: trl.grpo(by_group(case), low=0.05, high=0.05)),
    "grpo, kl": ("grpo", {"kl": 0.04}, lambda case: trl.grpo(by_group(case), beta=0.04)),
    "grpo, dual clip": ("grpo", {"dual": 1.3}, lambda case: trl.grpo(by_group(case), delta=1.3)),
    "grpo, entropy": ("grpo", {"entropy": 0.3}, lambda case: trl.grpo(by_group(case), entropy=0.3)),
    "grpo, 80/20": ("grpo", {"top_entropy": 0.23}, lambda case: trl.grpo(by_group(case), quantile=0.23)),
    "dr_grpo": ("dr_grpo", {"length": 9}, lambda case: trl.grpo(by_group(case, "none"), "dr_grpo", length=9)),
    "dr_grpo, default length": ("dr_grpo", {}, lambda case: trl.grpo(by_group(case, "none"), "dr_grpo", length=3000)),
    "dr_grpo, dual clip": (
        "dr_grpo",
        {"length": 7, "dual": 1.3},
        lambda case: trl.grpo(by_group(case, "none"), "dr_grpo", length=7, delta=1.3),
    ),
    "dapo": ("dapo", {"overlong": "count"}, lambda case: trl.grpo(by_group(case), "dapo", high=0.28)),
    "dapo, dual clip": ("dapo", {"dual": 1.4}, lambda case: trl.grpo(by_group(case), "dapo", high=0.28, delta=1.4)),
    "dapo, entropy": ("dapo", {"entropy": 0.1}, lambda case: trl.grpo(by_group(case), "dapo", high=0.28, entropy=0.1)),
    "dapo, 80/20": (
        "dapo",
        {"top_entropy": 0.31},
        lambda case: trl.grpo(by_group(case), "dapo", high=0.28, quantile=0.31),
    ),
    "gspo": ("gspo", {}, lambda case: trl.grpo(by_group(case), level="sequence", low=3e-4, high=4e-4)),
    "gspo, wide": (
        "gspo",
        {"low": 0.1, "high": 0.15},
        lambda case: trl.grpo(by_group(case), level="sequence", low=0.1, high=0.15),
    ),
    "gmpo": ("gmpo", {}, lambda case: trl.gmpo(by_group(case))),
    "gmpo, narrow": ("gmpo", {"clip": 0.1}, lambda case: trl.gmpo(by_group(case), low=0.1, high=0.1)),
    "cispo": ("cispo", {}, lambda case: trl.grpo(by_group(case), "cispo", high=5.0)),
    "cispo, low cap": ("cispo", {"high": 1.1}, lambda case: trl.grpo(by_group(case), "cispo", high=1.1)),
    "sapo": ("sapo", {"tau_negative": TRLS_TAU}, lambda case: trl.grpo(by_group(case), "sapo")),
    "sapo, steep": (
        "sapo",
        {"tau_positive": 2.0, "tau_negative": 3.0},
        lambda case: trl.grpo(by_group(case), "sapo", taus=(2.0, 3.0)),
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", GRPO)
def test_a_group_method_is_trls(name: str, seed: int) -> None:
    recipe, parameters, oracle = GRPO[name]
    case = drawn(seed)
    want = oracle(case)
    agrees(apply(recipe, case, **parameters), want.loss, want.gradient_BTV, case)


TRLS: dict[str, tuple[Parameters, Parameters]] = {
    "truncated, token": ({}, {"mode": "token_truncate"}),
    "truncated, sequence": ({"correction_level": "sequence"}, {"mode": "sequence_truncate"}),
    "icepop, token": ({}, {"mode": "token_mask", "floor": 1 / 1.3}),
    "icepop, sequence": ({"correction_level": "sequence"}, {"mode": "sequence_mask", "floor": 1 / 1.3}),
}
OF = {
    "grpo": ("grpo", "group", {}),
    "dr_grpo": ("dr_grpo", "none", {"length": 9}),
    "dapo": ("dapo", "group", {"high": 0.28}),
    "cispo": ("cispo", "group", {"high": 5.0}),
    "gspo": ("grpo", "group", {"level": "sequence", "low": 0.1, "high": 0.1}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("recipe", OF)
@pytest.mark.parametrize("name", TRLS)
def test_a_correction_for_the_sampler_is_trls(name: str, recipe: str, seed: int) -> None:
    parameters, options = TRLS[name]
    loss, scale, ours = OF[recipe]
    case = drawn(seed)
    want = trl.grpo(by_group(case, scale), loss, cap=1.3, **options, **ours)
    same = {key: value for key, value in ours.items() if key != "level"}
    kind = name.split(",")[0]
    said = apply(recipe, case, correction=kind, correction_cap=1.3, **parameters, **same)
    agrees(said, want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_entropy_bonus_reads_every_token_beside_the_mask(seed: int) -> None:
    """TRL gives the bonus to the masked tokens alone where both are on; the bonus's own paper knows no mask."""
    case = drawn(seed)
    credit = by_group(case)
    both, bonus, plain = trl.grpo(credit, quantile=0.23), trl.grpo(credit, entropy=0.3), trl.grpo(credit)
    said = apply("grpo", case, entropy=0.3, top_entropy=0.23)
    agrees(
        said,
        both.loss + bonus.loss - plain.loss,
        both.gradient_BTV + bonus.gradient_BTV - plain.gradient_BTV,
        case,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_overlong_responses_lose_reward_as_trls_do(seed: int) -> None:
    case = drawn(seed)
    punish = get_soft_overlong_punishment(6, 4)
    lengths = case.mask_BT.sum(1)
    lost_B = np.array(punish([[0] * n for n in lengths]))
    assert len(set(lost_B)) > 3, "lengths on both sides of the cache, and beyond the budget"
    shaped = by_group(replace(case, rewards_B=case.rewards_B + lost_B))
    want = trl.grpo(shaped, "dapo", high=0.28)
    agrees(apply("dapo", case, length=6, cache=4), want.loss, want.gradient_BTV, case)


@pytest.mark.parametrize("kl", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_is_trls(seed: int, kl: float) -> None:
    case = drawn(seed)
    want = trl.rloo(given(case, trl.rloo_advantages(by_sampler(case), beta=kl)))
    agrees(apply("rloo", case, kl=kl), want.loss, want.gradient_BTV, case)


# ---------------------------------------------------------------- g


def k3_too(case: Case) -> Floats:
    return closed.ppo(case) + 0.04 * closed.k3(case)


CLOSED: dict[str, tuple[str, Parameters, Callable[[Case], Floats], str]] = {
    "grpo": ("grpo", {}, closed.ppo, "sequence"),
    "grpo, kl": ("grpo", {"kl": 0.04}, k3_too, "sequence"),
    "dr_grpo": ("dr_grpo", {"length": 9}, closed.ppo, "batch_length"),
    "dapo": ("dapo", {}, lambda case: closed.ppo(case, high=0.28), "token"),
    "gspo": ("gspo", {}, closed.gspo, "sequence"),
    "gspo, wide": ("gspo", {"low": 0.1, "high": 0.1}, lambda case: closed.gspo(case, low=0.1, high=0.1), "sequence"),
    "cispo, verl's": ("cispo", {"low": 0.8, "high": 1.2}, closed.cispo, "token"),
    "sapo": ("sapo", {}, closed.sapo, "sequence"),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CLOSED)
def test_g_is_the_closed_form(name: str, seed: int) -> None:
    recipe, parameters, g, reduce = CLOSED[name]
    case = drawn(seed)
    credit = by_group(case, "none" if recipe == "dr_grpo" else "group")
    has_g(apply(recipe, case, **parameters), g(credit) * closed.share(case, reduce))


@pytest.mark.parametrize("seed", SEEDS)
def test_rloos_g_is_the_whole_responses_ratio_on_each_token(seed: int) -> None:
    case = drawn(seed)
    a_B = given(case, trl.rloo_advantages(by_sampler(case), beta=0.05)).advantages_B
    ratio_B = np.exp(((case.logps_BT - case.old_BT) * case.mask_BT).sum(1))
    inside_B = np.where(a_B > 0, ratio_B <= 1.2, ratio_B >= 0.8)
    assert inside_B.any() and not inside_B.all()
    has_g(apply("rloo", case), (a_B * ratio_B * inside_B)[:, None] * closed.share(case, "sequence_sum"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_papers_agree_where_they_are_another_source(seed: int) -> None:
    case = drawn(seed)
    credit = by_group(case)
    for name, loss in {
        "gmpo": paper.reward.gmpo,
        "gspo": paper.reward.gspo,
        "sapo": paper.reward.sapo,
    }.items():
        g_BT = paper.g_of(lambda c, loss=loss: loss(credit, c), case)
        said = apply(name, case)
        agrees(said, loss(credit, case.logps_BT), paper.through_softmax(g_BT, case), case)
        has_g(said, g_BT)
