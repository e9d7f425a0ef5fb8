"""Reward methods that TRL has not, against the papers' formulas: from rewards to loss, gradient and g."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator import recipes
from policies.credit import assign
from policies.objective import evaluate_logps
from policies.slots import PolicyView
from policies.trajectory import FinishReason, Sampling
from tests import paper_oracles as paper
from tests.paper_parts import centred, on_rows, saturated, slots
from tests.parity_case import Case, Floats
from tests.recipe_bridge import Found, apply, batch_of, own, trajectory, views
from tests.rl_cases import (
    SEEDS,
    by_sampler,
    corrected,
    correction,
    drawn,
    given,
    holds,
    of_rows,
    past,
    recorded,
    replayed,
)

Parameters = dict[str, Any]

# ---------------------------------------------------------------- one strand


def maxrl(case: Case, c: Floats) -> float:
    return paper.reward.ppo(case, c, recorded(paper.reward.maxrl_advantages(case)), reduce="token")


def opo(case: Case, c: Floats) -> float:
    return paper.reward.reinforce(case, c, recorded(paper.reward.opo_advantages(case)))


def gpg(case: Case, c: Floats) -> float:
    return paper.reward.reinforce(case, c, recorded(paper.reward.gpg_advantages(case)))


def reinforce_pp(case: Case, c: Floats, kl: float = 0.01, whiten: bool = True) -> float:
    return paper.reward.ppo(case, c, paper.reward.reinforce_pp_advantages(by_sampler(case), kl=kl, whiten=whiten))


def reinforce_pp_baseline(case: Case, c: Floats, kl: float = 0.01) -> float:
    less = replace(case, rewards_B=centred(case))
    return reinforce_pp(less, c, kl)


ONE: dict[str, tuple[str, Parameters, Callable[[Case, Floats], float]]] = {
    "dr_grpo": ("dr_grpo", {"length": 9}, paper.reward.dr_grpo),
    "maxrl": ("maxrl", {}, maxrl),
    "opo": ("opo", {}, opo),
    "gpg": ("gpg", {}, gpg),
    "reinforce_pp": ("reinforce_pp", {}, reinforce_pp),
    "reinforce_pp, kl": ("reinforce_pp", {"kl": 0.2}, lambda case, c: reinforce_pp(case, c, 0.2)),
    "reinforce_pp, no kl": ("reinforce_pp", {"kl": 0.0}, lambda case, c: reinforce_pp(case, c, 0.0)),
    "reinforce_pp, baseline": ("reinforce_pp", {"baseline": "mean"}, reinforce_pp_baseline),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ONE)
def test_a_method_of_one_strand_is_the_papers(name: str, seed: int) -> None:
    recipe, parameters, loss = ONE[name]
    case = drawn(seed)
    holds(apply(recipe, case, **parameters), lambda c: loss(case, c), case)


@pytest.mark.parametrize("recipe", ["maxrl", "gpg"])
def test_a_group_without_a_signal_gives_nothing(recipe: str) -> None:
    """MaxRL: nothing passed; GPG: it counts among the groups but not among those that differ."""
    case = drawn(0)
    case = replace(case, rewards_B=np.where(np.arange(10) < 5, 0.0, case.rewards_B))
    said = apply(recipe, case)
    assert np.abs(said.coefficient_BT[:5]).max() == 0
    holds(said, lambda c: {"maxrl": maxrl, "gpg": gpg}[recipe](case, c), case)


@pytest.mark.parametrize("kl", [0.0, 0.1])
@pytest.mark.parametrize("seed", SEEDS)
def test_remax_is_the_papers(seed: int, kl: float) -> None:
    case = drawn(seed)
    greedy_B = np.arange(10) % 5 == 2
    rows = [trajectory(case, i, sampling=Sampling(temperature=0.0 if greedy_B[i] else 1.0)) for i in range(10)]
    advantages_B = paper.reward.remax_advantages(case, greedy_B)
    suffix = paper.reward.reinforce_pp_advantages(
        replace(by_sampler(case), rewards_B=advantages_B), kl=kl, whiten=False
    )
    trained = [i for i in range(10) if not greedy_B[i]]
    said = apply("remax", case, greedy_B.astype(int), rows=rows, kl=kl)
    holds(
        said,
        lambda c: paper.reward.reinforce(case, c, recorded(suffix), reduce="sequence_sum", rows=trained),
        case,
    )


# ---------------------------------------------------------------- corrections


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("kind", ["truncated", "masked", "icepop"])
def test_grpos_corrections_are_the_papers(kind: str, level: str, seed: int) -> None:
    case = drawn(seed)
    case = given(case, centred(case, eps=1e-4))
    cap = 1.3 if level != "sequence" else 2.0
    w_BT = correction(case, kind, level, cap)
    assert w_BT[case.mask_BT].min() < w_BT[case.mask_BT].max()
    said = apply("grpo", case, correction=kind, correction_level=level, correction_cap=cap)
    holds(said, lambda c: corrected(case, c, w_BT), case)


@pytest.mark.parametrize("kind", ["truncated", "masked", "icepop"])
def test_dapos_and_ppos_corrections_are_the_papers(kind: str) -> None:
    case = drawn(0)
    w_BT = correction(case, kind, "token", 1.3)
    credit = given(case, centred(case, eps=1e-4))
    said = apply("dapo", case, correction=kind, correction_cap=1.3)
    holds(said, lambda c: corrected(credit, c, w_BT, reduce="token", high=0.28), case)
    values_BT = recorded(np.random.default_rng(5).normal(size=case.mask_BT.shape))
    plain = apply("ppo", case, values_BT=values_BT)
    weighed = apply("ppo", case, values_BT=values_BT, correction=kind, correction_cap=1.3)
    np.testing.assert_allclose(weighed.coefficient_BT, w_BT * plain.coefficient_BT, rtol=1e-9, atol=1e-15)


# ---------------------------------------------------------------- DAPO's cut responses


@pytest.mark.parametrize("seed", SEEDS)
def test_dapo_masks_cut_responses_that_still_serve_their_group(seed: int) -> None:
    case, cut = drawn(seed), [1, 7]
    rows = [
        trajectory(case, i, finish_reason=FinishReason.LENGTH if i in cut else FinishReason.STOP) for i in range(10)
    ]
    a = recorded(centred(case, eps=1e-4))
    kept = [i for i in range(10) if i not in cut]
    said = apply("dapo", case, rows=rows, overlong="mask")
    holds(said, lambda c: paper.reward.ppo(case, c, a, high=0.28, reduce="token", rows=kept), case)


# ---------------------------------------------------------------- PPO and its critic


def ppo(case: Case, values_BT: Floats, c: Floats, *, whiten: bool = True, **options: Any) -> float:
    clip = {key: options.pop(key) for key in ("low", "high", "dual") if key in options}
    a_BT, _ = paper.reward.gae(by_sampler(case), values_BT, **options)
    a_BT = paper.reward.whitened(case, a_BT) if whiten else recorded(a_BT)
    return paper.reward.ppo(case, c, a_BT, reduce="token", **clip)


PPO: dict[str, tuple[Parameters, Parameters]] = {
    "defaults": ({}, {}),
    "narrow": ({"clip": 0.05}, {"low": 0.05, "high": 0.05}),
    "discounted": ({"gamma": 0.9, "lam": 0.8, "kl": 0.2}, {"gamma": 0.9, "lam": 0.8, "kl": 0.2}),
    "one step": ({"lam": 0.0}, {"lam": 0.0}),
    "no kl, unwhitened": ({"kl": 0.0, "whiten": False}, {"kl": 0.0, "whiten": False}),
    "dual clip": ({"dual": 1.3}, {"dual": 1.3}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PPO)
def test_ppo_is_the_papers(name: str, seed: int) -> None:
    parameters, options = PPO[name]
    case = drawn(seed)
    values_BT = recorded(np.random.default_rng(seed).normal(size=case.mask_BT.shape))
    said = apply("ppo", case, values_BT=values_BT, **parameters)
    holds(said, lambda c: ppo(case, values_BT, c, **options), case)


def critic(case: Case, old_BT: Floats, new_BT: Floats, **parameters: Any) -> tuple[float, Floats, Floats]:
    """The co-learner's loss, its gradient by the values, and the returns that the credit gave it."""
    recipe = recipes.load("ppo", **parameters)
    (learner,) = recipe.learners
    targets_BT = np.full(case.mask_BT.shape, np.nan)
    for start in range(0, len(targets_BT), case.group_size):
        members = range(start, start + case.group_size)
        said = assign(
            learner.strands[0].credit, [trajectory(case, i) for i in members], [views(case, i, old_BT) for i in members]
        )
        assert said.targets is not None
        for i, own_targets in zip(members, said.targets, strict=True):
            targets_BT[i, : len(own_targets)] = own_targets
    batch = batch_of(case, [0] * len(targets_BT), 0 * old_BT, targets_BT=targets_BT, old_values_BT=old_BT)
    values = torch.from_numpy(new_BT.copy()).requires_grad_()
    found = evaluate_logps(learner.strands, batch, PolicyView(values, scalar=True))
    (gradient,) = torch.autograd.grad(found.loss, [values])
    return float(found.loss.detach()), gradient.numpy(), targets_BT


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("clip", [0.2, 0.05])
def test_ppos_critic_is_the_papers(clip: float, seed: int) -> None:
    case, rng = drawn(seed), np.random.default_rng(seed)
    old_BT = recorded(rng.normal(size=case.mask_BT.shape))
    new_BT = old_BT + 0.3 * rng.normal(size=old_BT.shape)
    loss, gradient_BT, targets_BT = critic(case, old_BT, new_BT, value_clip=clip)
    _, returns_BT = paper.reward.gae(by_sampler(case), old_BT)
    np.testing.assert_allclose(targets_BT[case.mask_BT], returns_BT[case.mask_BT], rtol=1e-6, atol=1e-6)
    assert np.isnan(targets_BT[~case.mask_BT]).all()

    def wanted(values_BT: Floats) -> float:
        return paper.reward.value_loss(case, values_BT, old_BT, recorded(returns_BT), clip=clip)

    assert loss == pytest.approx(wanted(new_BT), rel=1e-6)
    slope_BT = paper.slope(wanted, new_BT, case.mask_BT)
    np.testing.assert_allclose(gradient_BT, slope_BT, rtol=1e-6, atol=1e-6 * np.abs(slope_BT).max())
    assert (slope_BT[case.mask_BT] == 0).any(), "some values are held by the clip"


# ---------------------------------------------------------------- past rollouts


def each(case: Case, strand_B: Sequence[int], loss: Callable[[Case, Floats], float]) -> Callable[[Floats], float]:
    """The sum of both strands' losses, each over its own rows alone."""
    strands = [[i for i, of in enumerate(strand_B) if of == index] for index in (0, 1)]
    return lambda c: sum(loss(of_rows(case, rows), c[rows]) for rows in strands)


def with_past(name: str, case: Case, **parameters: Any) -> Found:
    """A recipe of fresh and past rollouts on a `replayed` case."""
    rows = [past(case, i) for i in range(len(case.off_B))]
    return apply(name, own(case), case.off_B.astype(int), rows=rows, **parameters)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("seed", SEEDS)
def test_topr_is_the_papers(seed: int, threshold: float, level: str) -> None:
    case = replayed(seed)
    signs = given(case, np.where(case.rewards_B > threshold, 1.0, -1.0))
    said = with_past("topr", case, threshold=threshold, level=level)
    holds(said, each(signs, case.off_B.astype(int), partial(paper.reward.topr, level=level)), case)


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("seed", SEEDS)
def test_opmd_is_trinitys(seed: int, tau: float) -> None:
    case = replayed(seed)
    credit = given(case, centred(case))
    loss = each(credit, case.off_B.astype(int), lambda part, c: paper.reward.opmd(part, c, tau=tau))
    holds(with_past("opmd", case, tau=tau), loss, case)


REPO: dict[str, tuple[Parameters, Parameters]] = {
    "defaults": ({}, {}),
    "half": ({"weight": 0.5}, {"replay": 0.5}),
    "narrow": ({"clip": 0.05}, {"low": 0.05, "high": 0.05}),
    "kl": ({"kl": 0.1}, {"beta": 0.1}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", REPO)
def test_repo_is_the_papers(name: str, seed: int) -> None:
    """Past rollouts by the log-probabilities recorded when they were written, whatever the learner's are today."""
    parameters, options = REPO[name]
    case = replayed(seed)
    recording = replace(case, old_BT=np.where(case.off_B[:, None], case.behavior_BT, case.old_BT))
    a_B = recorded(centred(case, eps=1e-4))
    holds(with_past("repo", case, **parameters), lambda c: paper.reward.repo(recording, c, a_B, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_repo_may_measure_each_kind_among_itself(seed: int) -> None:
    """The authors' split: fresh rollouts by fresh ones' rewards, past ones by past ones'."""
    case = replayed(seed)
    recording = replace(case, old_BT=np.where(case.off_B[:, None], case.behavior_BT, case.old_BT))
    fresh = centred(case, lambda rows: [i for i in rows if not case.off_B[i]], eps=1e-4)
    replays = centred(case, lambda rows: [i for i in rows if case.off_B[i]], eps=1e-4)
    a_B = recorded(np.where(case.off_B, replays, fresh))
    assert np.abs(a_B - recorded(centred(case, eps=1e-4))).max() > 0.1
    holds(with_past("repo", case, normalise="strand"), lambda c: paper.reward.repo(recording, c, a_B), case)


EXGRPO: dict[str, Parameters] = {"defaults": {}, "a fifth": {"share": 0.2}, "flatter": {"gamma": 0.5}}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", EXGRPO)
def test_exgrpo_is_the_papers(name: str, seed: int) -> None:
    """(1 - share) x A r of fresh tokens + share x A f(exp(c - recorded)) of past ones: two means, and no clip."""
    options = {"share": 0.5, "gamma": 0.1, **EXGRPO[name]}
    case = replayed(seed)
    a_B = recorded(centred(case, eps=1e-4))

    def loss(c: Floats) -> float:
        fresh = paper.reward.unclipped(case, c, a_B, rows=on_rows(case))
        old = [(i, t) for i in range(len(a_B)) if case.off_B[i] for t in slots(case, i)]
        shaped = [a_B[i] * saturated(math.exp(c[i, t] - case.behavior_BT[i, t]), options["gamma"]) for i, t in old]
        return (1 - options["share"]) * fresh - options["share"] * sum(shaped) / len(old)

    holds(with_past("exgrpo", case, **EXGRPO[name]), loss, case)
