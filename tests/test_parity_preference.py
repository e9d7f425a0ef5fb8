"""Preference recipes to loss, gradient and g: TRL's trainers where they have the method, else the papers' formulas."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator import recipes
from policies.select import choose
from policies.trajectory import Origin
from tests import paper_coefficients as closed
from tests import paper_preference as preference
from tests import trl_oracles as trl
from tests.paper_parts import groups
from tests.parity_case import Case, Floats
from tests.recipe_bridge import Found, apply, batch_of, found, own, pairs, trajectory
from tests.rl_cases import SEEDS, drawn, has_g, holds, is_trls, of_rows

Parameters = dict[str, Any]


def paired(name: str, case: Case, **parameters: Any) -> Found:
    """The recipe on pairs: row i was chosen over row i + B/2."""
    return apply(name, case, columns=pairs(case), **parameters)


def far(seed: int, scale: float) -> Case:
    """A reference as far away as scores of more than 1 / (2 beta) need, so that every bend of a link is passed."""
    case = drawn(seed)
    rng = np.random.default_rng(seed + 11)
    return replace(case, reference_logits_BTV=case.logits_BTV + scale * rng.normal(size=case.logits_BTV.shape))


# ---------------------------------------------------------------- DPO

LOSSES: dict[str, tuple[Parameters, str, Parameters]] = {
    "sigmoid": ({}, "sigmoid", {}),
    "beta": ({"beta": 0.7}, "sigmoid", {"beta": 0.7}),
    "hinge": ({"loss": "hinge", "beta": 0.4}, "hinge", {"beta": 0.4}),
    "robust": ({"loss": "robust", "smoothing": 0.1}, "robust", {"smoothing": 0.1}),
    "robust, sure": ({"loss": "robust"}, "robust", {}),
    "ipo": ({"loss": "ipo"}, "ipo", {}),
    "ipo, beta": ({"loss": "ipo", "beta": 0.5}, "ipo", {"beta": 0.5}),
    "apo zero": ({"loss": "apo_zero"}, "apo_zero", {}),
    "apo down": ({"loss": "apo_down"}, "apo_down", {}),
    "nca": ({"loss": "nca"}, "nca_pair", {}),
    "sppo": ({"loss": "sppo"}, "sppo_hard", {}),
    "aot": ({"loss": "aot"}, "aot", {}),
    "aot, doubted": ({"loss": "aot", "smoothing": 0.2}, "aot", {"smoothing": 0.2}),
    "exo": ({"loss": "exo", "smoothing": 0.1}, "exo_pair", {"smoothing": 0.1}),
    "exo, more doubt": ({"loss": "exo", "smoothing": 0.3, "beta": 0.5}, "exo_pair", {"smoothing": 0.3, "beta": 0.5}),
    "discopop": ({"loss": "discopop"}, "discopop", {}),
    "tail": ({"tail": 0.3}, "sigmoid", {"tail": 0.3}),
    "no tail": ({"tail": 0.0, "loss": "hinge"}, "hinge", {"tail": 0.0}),
    "tail, ipo": ({"tail": 0.3, "loss": "ipo"}, "ipo", {"tail": 0.3}),
    "weighted": ({"weighted": True}, "sigmoid", {"weighted": True}),
    "weighted, exo": (
        {"weighted": True, "loss": "exo", "smoothing": 0.1}, "exo_pair", {"weighted": True, "smoothing": 0.1}
    ),
    "forward": ({"divergence": "forward_kl"}, "sigmoid", {"divergence": "forward_kl"}),
    "jensen shannon": ({"divergence": "jensen_shannon"}, "sigmoid", {"divergence": "js_divergence"}),
    "forward, hinge": ({"divergence": "forward_kl", "loss": "hinge"}, "hinge", {"divergence": "forward_kl"}),
    "jensen shannon, ipo": (
        {"divergence": "jensen_shannon", "loss": "ipo"}, "ipo", {"divergence": "js_divergence"}
    ),
    "aot, tail": ({"loss": "aot", "tail": 0.2}, "aot", {"tail": 0.2}),
}  # fmt: skip
"""The recipe's parameters; TRL's loss and its options."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOSSES)
def test_dpo_is_trls(name: str, seed: int) -> None:
    parameters, loss, options = LOSSES[name]
    case = far(seed, 0.7)
    is_trls(paired("dpo", case, **parameters), trl.dpo(case, loss, **options), case)


def test_every_loss_of_dpo_is_tried_and_no_two_agree() -> None:
    tried = {parameters.get("loss", "sigmoid") for parameters, _, _ in LOSSES.values()}
    assert tried == set(recipes.file("dpo").parameters["loss"].choices)
    case = far(0, 0.7)
    losses = [trl.dpo(case, loss, **options).loss for loss, options in {k: o for _, k, o in LOSSES.values()}.items()]
    assert min(np.diff(sorted(losses))) > 1e-6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("nll", [1.0, 0.005])
def test_dpo_with_likelihood_is_trls_rpo(nll: float, seed: int) -> None:
    case = drawn(seed)
    want = trl.dpo(case, ("sigmoid", "sft"), weights=(1.0, nll))
    is_trls(paired("dpo", case, nll=nll), want, case)
    want = trl.dpo(case, ("ipo", "sft"), weights=(1.0, nll))
    is_trls(paired("dpo", case, nll=nll, loss="ipo"), want, case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "jensen_shannon", "alpha"])
def test_dpos_divergences_are_the_papers(divergence: str, seed: int) -> None:
    case = drawn(seed)
    for order in (0.5, 0.2) if divergence == "alpha" else (0.5,):
        said = paired("dpo", case, divergence=divergence, divergence_alpha=order, beta=0.3)
        holds(said, lambda c, order=order: preference.f_dpo(case, c, divergence, beta=0.3, order=order), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_the_alpha_divergence_is_trls(seed: int) -> None:
    """As far as TRL's float32 goes."""
    case = drawn(seed)
    want = trl.dpo(case, divergence="alpha_divergence", alpha=0.2)
    said = paired("dpo", case, divergence="alpha", divergence_alpha=0.2)
    assert said.loss == pytest.approx(want.loss, rel=1e-5)
    scale = float(np.abs(want.gradient_BTV).max())
    np.testing.assert_allclose(said.gradient_BTV, want.gradient_BTV, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("seed", SEEDS)
def test_dpos_doubt_and_discount_are_the_papers(seed: int) -> None:
    case = drawn(seed)
    holds(paired("dpo", case, smoothing=0.1), lambda c: preference.cdpo(case, c, smoothing=0.1), case)
    holds(paired("dpo", case, tail=0.5), lambda c: preference.ld_dpo(case, c, tail=0.5), case)
    has_g(paired("dpo", case, beta=0.3), closed.dpo(case, beta=0.3) / (len(case.mask_BT) // 2))


# ---------------------------------------------------------------- KTO


def labelled(seed: int, *, drawn_to: float = 0.0) -> tuple[Case, Case, dict[str, Any]]:
    """A step of six labelled rows and four mismatched ones; its labelled rows as TRL reads them; the columns.

    `drawn_to` moves the reference's opinion of the mismatched rows, so that their mean score has either sign.
    """
    case = drawn(seed)
    reference = case.reference_logits_BTV.copy()
    hot = np.eye(case.logits_BTV.shape[-1])[case.tokens_BT]
    reference[6:] = (case.logits_BTV + drawn_to * hot)[6:]
    case = replace(case, reference_logits_BTV=reference, labels_B=np.arange(10) % 3 != 1)
    z = np.mean([preference.gain(case, case.logps_BT, i) for i in range(6, 10)])
    theirs = replace(of_rows(case, range(6)), mismatched_B=np.full(6, z))
    labels = np.where(np.arange(10) < 6, case.labels_B.astype(float), np.nan)
    return case, theirs, {"label_B": labels}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "parameters",
    [{}, {"beta": 0.5}, {"desirable": 1.3, "undesirable": 0.6}],
    ids=["defaults", "beta", "weights"],
)
@pytest.mark.parametrize("drawn_to", [-1.0, 1.0], ids=["z above 0", "z at 0"])
def test_kto_is_trls(drawn_to: float, parameters: Parameters, seed: int) -> None:
    case, theirs, columns = labelled(seed, drawn_to=drawn_to)
    assert (theirs.mismatched_B[0] > 0) == (drawn_to < 0)
    want = trl.kto(theirs, **parameters)
    gradient_BTV = np.zeros_like(case.logits_BTV)
    gradient_BTV[:6] = want.gradient_BTV
    said = apply("kto", case, columns=columns, **parameters)
    is_trls(said, trl.Answer(want.loss, gradient_BTV), case)
    assert not said.coefficient_BT[6:].any(), "mismatched rows serve the baseline alone"
    g_BT = np.zeros_like(said.coefficient_BT)
    g_BT[:6] = closed.kto(theirs, **parameters) / 6
    has_g(said, g_BT)


def test_ktos_baseline_may_be_the_whole_steps() -> None:
    """A micro-batch of labelled rows alone, with the statistic of the step they are part of."""
    case, theirs, columns = labelled(0, drawn_to=-1.0)
    recipe = recipes.load("kto")
    part = batch_of(theirs, [0] * 6, np.ones(theirs.mask_BT.shape), label_B=columns["label_B"][:6])
    z = float(theirs.mismatched_B[0])
    said = found(recipe, part, theirs.logits_BTV, statistics={"rows/utility/kto": z})
    is_trls(said, trl.kto(theirs), theirs)
    assert apply("kto", case, columns=columns).loss == pytest.approx(said.loss, rel=1e-12)


# ---------------------------------------------------------------- no reference


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("odds", [0.1, 1.0])
def test_orpo_is_trls(odds: float, seed: int) -> None:
    case = drawn(seed)
    is_trls(paired("orpo", case, odds=odds), trl.orpo(case, beta=odds), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("parameters", "options"),
    [({}, {}), ({"beta": 0.4, "nll": 0.3}, {"beta": 0.4, "alpha": 0.3}), ({"nll": 0.0}, {"alpha": 0.0})],
    ids=["defaults", "other factors", "no likelihood"],
)
def test_cpo_is_trls(parameters: Parameters, options: Parameters, seed: int) -> None:
    case = drawn(seed)
    is_trls(paired("cpo", case, **parameters), trl.cpo(case, **options), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta", "ratio"), [(2.5, 0.55), (2.0, 0.8), (10.0, 0.3), (2.0, 0.0)])
def test_simpo_is_trls_without_its_likelihood(beta: float, ratio: float, seed: int) -> None:
    case = drawn(seed)
    want = trl.cpo(case, "simpo", beta=beta, alpha=0.0, gamma=beta * ratio)
    said = paired("simpo", case, beta=beta, ratio=ratio)
    is_trls(said, want, case)
    has_g(said, closed.simpo(case, beta=beta, margin=beta * ratio) / (len(case.mask_BT) // 2))


# ---------------------------------------------------------------- any convex link


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.1, 0.6])
@pytest.mark.parametrize("link", ["logistic", "hinge", "square", "exponential"])
def test_gpo_is_the_papers(link: str, beta: float, seed: int) -> None:
    case = far(seed, 0.7)
    said = paired("gpo", case, link=link, beta=beta)
    holds(said, lambda c: preference.gpo(case, c, link, beta=beta), case)


@pytest.mark.parametrize("seed", SEEDS)
def test_gpos_links_are_trls(seed: int) -> None:
    case = far(seed, 0.7)
    is_trls(paired("gpo", case), trl.dpo(case), case)
    is_trls(paired("gpo", case, link="hinge", beta=0.4), trl.dpo(case, "hinge", beta=0.4), case)
    is_trls(paired("gpo", case, link="square"), trl.online_dpo(case, "ipo"), case)


# ---------------------------------------------------------------- pairs of one's own responses


def judged(name: str, case: Case, **parameters: Any) -> tuple[Found, Case, list[int]]:
    """The recipe on the pairs that its selection makes of the case's groups; these rows, chosen first; their numbers.

    Rewards are case.rewards_B, and above a half a response passed.
    """
    recipe = recipes.load(name, **parameters)
    (select,) = [one.source.select for one in recipe.strands if one.terms]
    rows = [trajectory(own(case), i) for i in range(len(case.mask_BT))]
    chosen, rejected = [], []
    set_B, label_B = np.full(len(rows), -1), np.full(len(rows), np.nan)
    for number, group in enumerate(groups(case)):
        made = choose(select, [rows[i] for i in group])
        for at, one in made.preferences.items():
            (chosen if one.label else rejected).append(group[at])
            set_B[group[at]], label_B[group[at]] = number, one.label
    columns = {"set_B": set_B, "label_B": label_B, "mask_BT": case.mask_BT & (set_B >= 0)[:, None]}
    if case.off_B.any():
        origin = np.where(case.off_B[:, None], int(Origin.TEACHER), int(Origin.LEARNER)) + 0 * case.tokens_BT
        columns["origin_BT"] = origin.astype(np.int8)
    said = apply(name, own(case), columns=columns, **parameters)
    order = [*chosen, *rejected]
    return said, of_rows(case, order), order


def spread(case: Case, order: Sequence[int], of_order: Floats) -> Floats:
    """What belongs to these rows, at their places in the case; 0 elsewhere."""
    out = np.zeros((len(case.mask_BT), *of_order.shape[1:]))
    out[list(order)] = of_order
    return out


def scored(seed: int, group: int = 2, groups: int = 4) -> Case:
    """Rewards of eighths, all different in a group; in every group someone passed and someone did not."""
    case = drawn(seed, rows=group * groups, group=group)
    rng = np.random.default_rng(seed)
    low, high = rng.permutation(4), 5 + np.stack([rng.permutation(4) for _ in range(groups)])
    rewards = [rng.permutation([low[one % 4], *high[one, : group - 1]]) / 8 for one in range(groups)]
    return replace(case, rewards_B=np.concatenate(rewards))


def by_hand(case: Case, best: Callable[[list[int]], tuple[int, int]]) -> list[int]:
    """Rows of the pairs that a rule makes, chosen first."""
    made = [best(group) for group in groups(case)]
    return [won for won, _ in made] + [lost for _, lost in made]


def extremes(case: Case) -> Callable[[list[int]], tuple[int, int]]:
    """The highest and the lowest reward."""
    return lambda group: (
        max(group, key=lambda i: case.rewards_B[i]),
        min(group, key=lambda i: case.rewards_B[i]),
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize(
    ("name", "loss", "beta"),
    [("online_dpo", "sigmoid", 0.1), ("online_dpo", "sigmoid", 0.5), ("ipo_md", "ipo", 0.1), ("ipo_md", "ipo", 0.5)],
)
def test_online_preferences_are_trls(name: str, loss: str, beta: float, group: int, seed: int) -> None:
    case = scored(seed, group)
    said, picked, order = judged(name, case, rollouts=group, beta=beta)
    assert order == by_hand(case, extremes(case))
    want = trl.online_dpo(picked, loss, beta=beta)
    is_trls(said, trl.Answer(want.loss, spread(case, order, want.gradient_BTV)), case)


def test_a_margin_in_reward_keeps_close_pairs_out_of_online_dpo() -> None:
    case = replace(scored(0), rewards_B=np.array([0.9, 0.1, 0.5, 0.45, 0.2, 0.7, 0.3, 0.3]))
    said, picked, order = judged("online_dpo", case, margin=0.25)
    assert order == [0, 5, 1, 4]
    want = trl.online_dpo(picked)
    is_trls(said, trl.Answer(want.loss, spread(case, order, want.gradient_BTV)), case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("parameters", [{}, {"beta": 0.4, "nll": 0.2}], ids=["defaults", "other factors"])
def test_iterative_rpo_is_the_papers(parameters: Parameters, seed: int) -> None:
    """A passed and a failed response, whatever the rewards beside: the first of each."""
    case = scored(seed, 4)

    def first(group: list[int]) -> tuple[int, int]:
        passed = [case.rewards_B[i] > 0.5 for i in group]
        return group[passed.index(True)], group[passed.index(False)]

    said, picked, order = judged("iterative_rpo", case, rollouts=4, **parameters)
    assert order == by_hand(case, first)

    def loss(c: Floats) -> float:
        return preference.iterative_rpo(picked, c[order], **parameters)

    holds(said, loss, case)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("alpha", [1e-5, 0.3])
def test_xpo_is_the_papers(alpha: float, seed: int) -> None:
    """One response of each pair is the reference's: chosen in some pairs, rejected in others."""
    case = scored(seed)
    rows = by_hand(case, extremes(case))
    case = replace(case, off_B=np.isin(np.arange(8), [rows[0], rows[2], rows[5], rows[7]]))
    said, picked, order = judged("xpo", case, alpha=alpha)
    assert order == rows
    theirs = [at for at, row in enumerate(order) if case.off_B[row]]
    assert theirs == [0, 2, 5, 7]
    holds(said, lambda c: preference.xpo(picked, c[order], theirs, alpha=alpha), own(case))


def test_xpos_bonus_takes_from_what_the_reference_would_say() -> None:
    case = replace(scored(0), off_B=np.arange(8) % 2 == 1)
    with_bonus, without = (judged("xpo", case, alpha=alpha)[0].coefficient_BT for alpha in (0.3, 0.0))
    np.testing.assert_allclose((with_bonus - without)[case.off_B[:, None] & case.mask_BT], -0.3 / 4)
    np.testing.assert_array_equal(with_bonus[~case.off_B], without[~case.off_B])
