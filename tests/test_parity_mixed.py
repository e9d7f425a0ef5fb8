"""Imitation and reward in one step, from rewards and controls to loss, gradient and g: the papers' formulas."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator.controls import Scope, plan_step
from policies.trajectory import Origin, Trajectory
from tests import paper_oracles as paper
from tests.mixed_cases import SEEDS, follows, hinted, mixed, of, planned, routed, with_entropy
from tests.paper_mixed import own_rows
from tests.paper_parts import centred, off_rows, on_rows
from tests.parity_case import Case, Floats
from tests.recipe_bridge import apply, batch_of, found, own, trajectory
from tests.rl_cases import given, has_g, holds, recorded

Parameters = dict[str, Any]
LENGTH = {"length": 9}

# ---------------------------------------------------------------- LUFFY


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("demonstrations", [1, 2])
@pytest.mark.parametrize("gamma", [0.1, 0.4])
def test_luffy_is_the_papers(gamma: float, demonstrations: int, seed: int) -> None:
    case = mixed(seed, given=demonstrations)
    said = apply("luffy", case, of(case), **LENGTH, entropy=0.0, gamma=gamma, demonstrations=demonstrations)
    holds(said, lambda c: paper.mixed.luffy(case, c, gamma=gamma), case)
    signal = replace(case, advantages_B=centred(case))
    closed = paper.coefficients.luffy_off(signal, gamma=gamma) * paper.coefficients.share(case, "length")
    np.testing.assert_allclose(said.coefficient_BT[case.off_B], closed[case.off_B], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_luffys_defaults_are_its_length_and_its_entropy_bonus_on_rollouts(seed: int) -> None:
    case = mixed(seed, slots=4, vocabulary=5)
    loss = with_entropy(lambda c: 9 / 8192 * paper.mixed.luffy(case, c), case, 0.001, on_rows(case))
    follows(apply("luffy", case, of(case)), loss, case)


# ---------------------------------------------------------------- HPT

HPT: dict[str, tuple[Parameters, Parameters]] = {
    "defaults": ({}, {}),
    "Llama's gate": ({"at_most": 2}, {"gate": 2}),
    "the small model's": ({"sft": 0.3}, {"coefficient": 0.3}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", HPT)
def test_hpts_gate_sends_each_prompt_one_way_and_each_way_is_the_papers(name: str, seed: int) -> None:
    parameters, options = HPT[name]
    case = mixed(seed, failed=True)
    recipe, _ = planned("hpt", 0, **parameters)
    _, kept_B = routed(recipe, case)
    imitate, explore = paper.mixed.hpt_routes(case, options.get("gate", 0))
    assert np.flatnonzero(kept_B).tolist() == sorted(imitate + explore) and 9 in imitate
    said = apply("hpt", case, of(case), columns={"mask_BT": case.mask_BT & kept_B[:, None]}, **LENGTH, **parameters)
    holds(said, lambda c: paper.mixed.hpt(case, c, imitated="token", **options), case)


@pytest.mark.parametrize("passed", [0.0, 1.0])
def test_an_hpt_step_of_one_kind_alone_is_that_kind_alone(passed: float) -> None:
    case = mixed(0)
    case = replace(case, rewards_B=np.where(np.arange(10) % 5 == 0, passed, 0.0))
    recipe, _ = planned("hpt", 0)
    _, kept_B = routed(recipe, case)
    rows = on_rows(case) if passed else off_rows(case)
    assert np.flatnonzero(kept_B).tolist() == rows
    said = apply("hpt", case, of(case), columns={"mask_BT": case.mask_BT & kept_B[:, None]}, **LENGTH)
    holds(said, lambda c: paper.mixed.hpt(case, c, imitated="token"), case)


# ---------------------------------------------------------------- SRFT

SRFT: dict[str, tuple[Parameters, Parameters]] = {
    "defaults": ({}, {}),
    "the code's sign": ({"entropy_sign": 1.0}, {"sign": 1.0}),
    "other weights": ({"imitation": 0.2, "positive": 0.7}, {"sft_weight": 0.2, "self_weight": 0.7}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SRFT)
def test_srft_is_the_papers(name: str, seed: int) -> None:
    parameters, options = SRFT[name]
    case = mixed(seed)
    said = apply("srft", case, of(case), **parameters)
    holds(said, lambda c: paper.mixed.srft(case, c, together=True, reduce="token", **options), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_srfts_parts_over_their_own_rows_differ_by_a_factor_for_each(seed: int) -> None:
    """Right and wrong rollouts share a normaliser; the other reading weighs each by rollouts' tokens over its own."""
    case = mixed(seed)
    right = [i for i in on_rows(case) if case.rewards_B[i] > 0]
    wrong = [i for i in on_rows(case) if case.rewards_B[i] <= 0]
    tokens, passed, failed = (int(case.mask_BT[rows].sum()) for rows in (on_rows(case), right, wrong))
    said = apply("srft", case, of(case), positive=0.1 * tokens / passed, negative=tokens / failed)
    holds(said, lambda c: paper.mixed.srft(case, c, reduce="token"), case)


# ---------------------------------------------------------------- CHORD

CHORD: dict[str, tuple[Parameters, Parameters]] = {
    "mu": ({}, {"warmup": 0, "decay": 200, "start": 0.9, "end": 0.05}),
    "phi": ({"phi": True, "peak": 0.1, "floor": 0.1}, {"warmup": 0, "decay": 200, "start": 0.1, "end": 0.1}),
    "the example": (
        {"warmup": 200, "decay": 400, "peak": 0.5, "floor": 0.02, "clip": 0.1},
        {"warmup": 200, "decay": 400, "start": 0.5, "end": 0.02},
    ),
}


def drawn_apart(case: Case) -> list[Trajectory]:
    """Demonstrations on prompts of their own, as those that a step draws: each is a group by itself."""
    return [trajectory(case, i, **({"group_id": f"d{i}"} if case.off_B[i] else {})) for i in range(len(case.off_B))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", [0, 37, 200, 431, 599])
@pytest.mark.parametrize("name", CHORD)
def test_chord_is_the_papers_at_every_step(name: str, step: int, seed: int) -> None:
    parameters, schedule = CHORD[name]
    case = mixed(seed)
    _, plan = planned("chord", step, **parameters)
    mu, clip = paper.mixed.chord_mu(step, **schedule), parameters.get("clip", 0.2)
    said = apply("chord", case, of(case), rows=drawn_apart(case), coefficients=plan.coefficients, **parameters)
    phi = bool(parameters.get("phi"))
    holds(said, lambda c: paper.mixed.chord(case, c, mu=mu, phi=phi, low=clip, high=clip), case)
    assert plan.rest == ({"demonstrations"} if mu == 0 else frozenset())


def test_chords_phi_is_p_times_what_is_left_of_it() -> None:
    case = mixed(0)
    said = apply("chord", case, of(case), phi=True, coefficients={"rollouts": 0.0})
    has_g(said, paper.coefficients.chord_phi(case) * paper.coefficients.share(case, "token", off_rows(case)))


# ---------------------------------------------------------------- ReLIFT and MIFO


def buffered(name: str, case: Case, size: int, **parameters: Any) -> tuple[dict[str, float], Any]:
    """What the controls say of the step after one with the case's groups."""
    recipe, first = planned(name, 0, size=size, **parameters)
    assert first.rest == {"demonstrations"}, "the buffer is empty at first"
    states, kept_B = routed(recipe, case)
    assert kept_B.all()
    names = tuple(one.name for one in recipe.strands)
    return dict(first.coefficients), plan_step(recipe.controls, states, 1, {}, 0, Scope(600, names))


def unsolved(seed: int) -> Case:
    """Nothing of either group passed."""
    case = mixed(seed)
    return replace(case, rewards_B=np.where(case.off_B, 1.0, 0.0))


@pytest.mark.parametrize("seed", SEEDS)
def test_relifts_two_kinds_of_step_are_the_papers(seed: int) -> None:
    case = mixed(seed, slots=4, vocabulary=5)
    explore, still = buffered("relift", case, 1)
    assert still.rest == {"demonstrations"}, "every prompt passed once"
    loss = with_entropy(lambda c: paper.mixed.relift(case, c, imitate=False), case, 0.001, on_rows(case))
    follows(apply("relift", case, of(case), coefficients=explore, **LENGTH), loss, case)
    hopeless = unsolved(seed)
    _, waiting = buffered("relift", hopeless, 3)
    assert waiting.rest == {"demonstrations"}, "two of three wait"
    _, full = buffered("relift", hopeless, 2)
    assert full.rest == {"rollouts"} and full.only_prompts == {"demonstrations": ("p0", "p1")}
    said = apply("relift", hopeless, of(hopeless), coefficients=full.coefficients)
    holds(said, lambda c: paper.mixed.relift(hopeless, c, imitate=True), hopeless)


@pytest.mark.parametrize("seed", SEEDS)
def test_relift_without_its_entropy_bonus_has_the_papers_g(seed: int) -> None:
    case = mixed(seed)
    explore, _ = buffered("relift", case, 1)
    said = apply("relift", case, of(case), coefficients=explore, entropy=0.0, **LENGTH)
    holds(said, lambda c: paper.mixed.relift(case, c, imitate=False), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_mifos_two_kinds_of_step_are_the_papers(share: float, seed: int) -> None:
    case = mixed(seed)
    explore, _ = buffered("mifo", case, 1)
    a = centred(case, own_rows(case), 1e-4)
    said = apply("mifo", case, of(case), coefficients=explore, tokens=share)
    holds(said, lambda c: paper.reward.ppo(case, c, recorded(a), rows=on_rows(case)), case)
    hopeless = unsolved(seed)
    _, full = buffered("mifo", hopeless, 2)
    assert full.freeze is not None and (full.freeze.strand, full.freeze.share) == ("demonstrations", 0.5)
    imitated = apply("mifo", hopeless, of(hopeless), coefficients=full.coefficients, tokens=share)
    holds(imitated, lambda c: paper.mixed.mifo_step(hopeless, c, share=share), hopeless)


# ---------------------------------------------------------------- UFT

UFT: dict[str, tuple[Parameters, Parameters]] = {
    "defaults": ({}, {}),
    "heavier": ({"nll": 0.5, "kl": 0.3, "clip": 0.1}, {"nll": 0.5, "beta": 0.3, "low": 0.1, "high": 0.1}),
    "no imitation (R3)": ({"nll": 0.0}, {"nll": 0.0}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tokens", [0, 2])
@pytest.mark.parametrize("name", UFT)
def test_uft_is_the_papers(name: str, tokens: int, seed: int) -> None:
    parameters, options = UFT[name]
    case = own(mixed(seed))
    hint_BT = paper.mixed.hints(case, tokens) & (tokens > 0)
    rows = [hinted(case, i, hint_BT, trained=True) for i in range(10)]
    origin_BT = np.where(hint_BT, int(Origin.HINT), int(Origin.LEARNER)).astype(np.int8)
    said = apply("uft", case, rows=rows, columns={"origin_BT": origin_BT}, **parameters)
    compared = given(case, centred(case, eps=1e-4))
    holds(said, lambda c: paper.mixed.uft(compared, c, hint_BT, **options), case)


# ---------------------------------------------------------------- GRAO


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta", "lam"), [(0.5, 0.5), (1.0, 0.0), (0.0, 0.7), (1.0, 2.0)])
def test_graos_two_terms_are_its_three(beta: float, lam: float, seed: int) -> None:
    """(1 + lambda) x the rollouts' mean and (beta + lambda / G) x the demonstration's: the literal formula.

    The identity needs advantages that sum to 0, which those of a record do to float32's last bit: it is held to with
    the same advantages in float64, and g of the recorded ones beside it.
    """
    case = mixed(seed)
    parameters = {"rollouts": 4, "beta": beta, "lam": lam}

    def literal(c: Floats) -> float:
        return paper.mixed.grao(case, c, beta=beta, lam=lam)

    said = apply("grao", case, of(case), **parameters)
    has_g(said, paper.g_of(literal, case))
    a_BT = centred(case, eps=1e-4)[:, None] * np.ones(case.mask_BT.shape)
    given_BT = said.batch.advantages_BT.numpy()
    np.testing.assert_allclose(given_BT[case.mask_BT], a_BT[case.mask_BT], rtol=1e-6)
    recipe, _ = planned("grao", 0, **parameters)
    holds(found(recipe, batch_of(case, of(case), a_BT), case.logits_BTV), literal, case)


def test_graos_identity_needs_the_number_of_rollouts() -> None:
    case = mixed(0)
    said = apply("grao", case, of(case), rollouts=8)
    assert abs(said.loss - paper.mixed.grao(case, case.logps_BT, beta=0.5)) > 1e-3


# ---------------------------------------------------------------- guided rollouts


def grpo(case: Case, **options: Any) -> Callable[[Floats], float]:
    """GRPO on every row of the group, whatever its context showed."""
    compared = own_rows(case) if options.get("own") else list
    a = recorded(centred(case, compared, 1e-4))
    return lambda c: paper.mixed.guided(case, c, advantages=a, **options)


GUIDED: dict[str, tuple[str, Parameters, Parameters]] = {
    "sage": ("sage", {}, {"reduce": "token"}),
    "sage, symmetric": ("sage", {"high": 0.2}, {"reduce": "token", "high": 0.2}),
    "scaf_grpo": ("scaf_grpo", {}, {"high": 0.2}),
    "scaf_grpo, narrow": ("scaf_grpo", {"clip": 0.05}, {"low": 0.05, "high": 0.05}),
    "ruscarl": ("ruscarl", {}, {"high": 0.2, "beta": 0.001}),
    "ruscarl, held": ("ruscarl", {"kl": 0.3}, {"high": 0.2, "beta": 0.3}),
    "template_rl": ("template_rl", {}, {"high": 0.2}),
    "template_rl, without the outline": ("template_rl", {"context": "recompute"}, {"high": 0.2}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", GUIDED)
def test_a_guided_method_is_grpo_on_what_it_wrote(name: str, seed: int) -> None:
    recipe, parameters, options = GUIDED[name]
    case = own(mixed(seed))
    holds(apply(recipe, case, **parameters), grpo(case, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_a_hint_prefix_is_in_front_of_the_loss_and_not_in_it(tokens: int, seed: int) -> None:
    case = own(mixed(seed))
    hint_BT = paper.mixed.hints(case, tokens) & (tokens > 0)
    rows = [hinted(case, i, hint_BT, trained=False) for i in range(10)]
    origin_BT = np.where(hint_BT, int(Origin.HINT), int(Origin.LEARNER)).astype(np.int8)
    written = replace(case, mask_BT=case.mask_BT & ~hint_BT)
    said = apply("hint_prefix", case, rows=rows, columns={"origin_BT": origin_BT, "mask_BT": written.mask_BT})
    holds(said, grpo(written, high=0.2), case)
    assert not said.coefficient_BT[hint_BT].any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", [0, 30, 100])
def test_expo_is_grpo_and_a_falling_weight_on_explanations(step: int, seed: int) -> None:
    case = mixed(seed)
    _, plan = planned("expo", step)
    weight = 0.1 * max(0.0, 1 - step / 100)
    assert plan.coefficients["explanations"] == pytest.approx(weight)
    said = apply("expo", case, of(case), coefficients=plan.coefficients)
    holds(said, grpo(case, own=True, nll=weight, high=0.2, imitated="token"), case)
