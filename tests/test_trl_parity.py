"""The objective's losses and gradients beside TRL's own code, on two cases in float64, to 1e-6."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.config import Clip, Div, Identity, Point, Set, SoftGate, Term
from policies.objective import evaluate_logps
from policies.slots import PolicyView
from tests import trl_oracles as trl
from tests.paper_process import halves, step_bce
from tests.paper_reward import value_loss
from tests.parity_batch import (
    CHOSEN,
    CLIP,
    NLL,
    agrees,
    baseline,
    batch,
    gradient,
    kto_columns,
    ones,
    strand,
    term,
    weight,
)
from tests.parity_case import Case, Floats, random_case, slope

CASES = [random_case(seed, rows=10, group=5) for seed in (1, 2)]
WIDE = 12
"""All tokens but one: with the bucket for the last, the whole vocabulary."""

# ---------------------------------------------------------------- TRL: loss and gradient

B = 0.2
PAIRS: dict[str, tuple[tuple[Term, ...], Callable[[Case], trl.Answer]]] = {
    "dpo": ((term(Set(beta=B)),), lambda c: trl.dpo(c, beta=B)),
    "hinge": ((term(Set(beta=B, link="hinge")),), lambda c: trl.dpo(c, "hinge", beta=B)),
    "ipo": ((term(Set(beta=B, link="square", aggregate="mean")),), lambda c: trl.dpo(c, "ipo", beta=B)),
    "ipo, summed": ((term(Set(beta=B, link="square")),), lambda c: trl.online_dpo(c, "ipo", beta=B)),
    "exo": ((term(Set(beta=B, link="exo", smoothing=0.1)),), lambda c: trl.dpo(c, "exo_pair", beta=B, smoothing=0.1)),
    "nca": ((term(Set(beta=B, link="nca")),), lambda c: trl.dpo(c, "nca_pair", beta=B)),
    "robust": (
        (term(Set(beta=B, link="robust", smoothing=0.1)),), lambda c: trl.dpo(c, "robust", beta=B, smoothing=0.1)
    ),
    "sppo": ((term(Set(beta=B, link="sppo")),), lambda c: trl.dpo(c, "sppo_hard", beta=B)),
    "apo zero": ((term(Set(beta=B, link="apo_zero")),), lambda c: trl.dpo(c, "apo_zero", beta=B)),
    "apo down": ((term(Set(beta=B, link="apo_down")),), lambda c: trl.dpo(c, "apo_down", beta=B)),
    "discopop": ((term(Set(beta=B, link="discopop")),), lambda c: trl.dpo(c, "discopop", beta=B)),
    "aot": ((term(Set(beta=B, link="aot", smoothing=0.1)),), lambda c: trl.dpo(c, "aot", beta=B, smoothing=0.1)),
    "aot unpaired": ((term(Set(beta=B, link="aot_unpaired")),), lambda c: trl.dpo(c, "aot_unpaired", beta=B)),
    "dpo, mean": ((term(Set(beta=B, aggregate="mean")),), lambda c: trl.dpo(c, "sigmoid_norm", beta=B)),
    "cdpo": (
        (term(Set(beta=B, smoothing=0.1, reference=False)),), lambda c: trl.tpo(c, beta=B, smoothing=0.1)
    ),
    "ld-dpo": ((term(Set(beta=B, tail=0.3)),), lambda c: trl.dpo(c, beta=B, tail=0.3)),
    "wpo": ((term(Set(beta=B, weighted=True)),), lambda c: trl.dpo(c, beta=B, weighted=True)),
    "forward f-dpo": (
        (term(Set(beta=B, divergence="forward_kl")),), lambda c: trl.dpo(c, beta=B, divergence="forward_kl")
    ),
    "js f-dpo": (
        (term(Set(beta=B, divergence="jensen_shannon")),), lambda c: trl.dpo(c, beta=B, divergence="js_divergence")
    ),
    "simpo": (
        (term(Set(beta=2.5, margin=1.375, aggregate="mean", reference=False)),),
        lambda c: trl.cpo(c, "simpo", beta=2.5, alpha=0.0, gamma=1.375),
    ),
    "rpo": (
        (term(Set(beta=B)), term(NLL, only=CHOSEN, by=0.5)),
        lambda c: trl.dpo(c, ("sigmoid", "sft"), weights=(1.0, 0.5), beta=B),
    ),
    "cpo": ((term(Set(beta=B, reference=False)), term(NLL, only=CHOSEN)), lambda c: trl.cpo(c, beta=B)),
    "orpo": (
        (term(NLL, only=CHOSEN), term(Set(link="odds", aggregate="mean", reference=False, beta=1.0), by=0.1)),
        lambda c: trl.orpo(c, beta=0.1),
    ),
    "sft": ((term(NLL),), trl.sft),
    "dft": ((term(NLL, weight("probability")),), lambda c: trl.sft(c, "dft")),
    "top-k and bucket": (
        (term(Div(form="forward", target="teacher", top_k=4)),), lambda c: trl.divergence(c, beta=0, top_k=4)
    ),
    "top-k alone": (
        (term(Div(form="forward", target="teacher", top_k=4, tail="renormalise")),),
        lambda c: trl.divergence(c, beta=0, top_k=4, tail=False),
    ),
}  # fmt: skip
"""Preferences, imitation and distributions: all read advantage 1."""

POLICY: dict[str, tuple[tuple[Term, ...], Callable[[Case], trl.Answer]]] = {
    "grpo": ((term(CLIP, reduce="sequence"),), lambda c: trl.grpo(c, high=0.28)),
    "dapo": ((term(CLIP),), lambda c: trl.grpo(c, "dapo", high=0.28)),
    "dr grpo": ((term(CLIP, reduce="batch_length"),), lambda c: trl.grpo(c, "dr_grpo", high=0.28)),
    "luspo": ((term(CLIP, reduce="sequence_sum"),), lambda c: trl.grpo(c, "luspo", high=0.28)),
    "k3": (
        (term(CLIP, reduce="sequence"), term(Div(form="k3"), reduce="sequence", by=0.04)),
        lambda c: trl.grpo(c, high=0.28, beta=0.04),
    ),
    "gspo": (
        (term(Point(level="geometric", shape=Clip(low=0.03, high=0.04)), reduce="sequence"),),
        lambda c: trl.grpo(c, level="sequence", low=0.03, high=0.04),
    ),
    "sapo": ((term(Point(shape=SoftGate()), reduce="sequence"),), lambda c: trl.grpo(c, "sapo")),
    "cispo": ((term(NLL, weight("clipped_ratio", high=1.2)),), lambda c: trl.grpo(c, "cispo", high=1.2)),
    "gmpo": ((term(Point(level="geometric", log_clip=0.4, shape=Identity()), reduce="sequence"),), trl.gmpo),
    "rloo": ((term(Point(level="sequence", shape=Clip()), reduce="sequence"),), trl.rloo),
    "80/20": ((term(CLIP, weight("top_entropy", share=0.3)),), lambda c: trl.grpo(c, "dapo", high=0.28, quantile=0.3)),
    "entropy": (
        (term(CLIP), term(Div(form="entropy", target="uniform"), by=0.1)),
        lambda c: trl.grpo(c, "dapo", high=0.28, entropy=0.1),
    ),
    "tis": (
        (term(CLIP, weight("truncated_importance", cap=1.3)),),
        lambda c: trl.grpo(c, "dapo", high=0.28, mode="token_truncate", cap=1.3),
    ),
    "tis of sequences": (
        (term(CLIP, weight("truncated_importance", level="sequence", cap=1.3)),),
        lambda c: trl.grpo(c, "dapo", high=0.28, mode="sequence_truncate", cap=1.3),
    ),
    "icepop": (
        (term(CLIP, weight("masked_importance", cap=1.3)),),
        lambda c: trl.grpo(c, "dapo", high=0.28, mode="token_mask", cap=1.3, floor=1 / 1.3),
    ),
    "mis": (
        (term(CLIP, weight("masked_importance", level="sequence", cap=2.0)),),
        lambda c: trl.grpo(c, "dapo", high=0.28, mode="sequence_mask", cap=2.0, floor=0.5),
    ),
}


@pytest.mark.parametrize("case", CASES, ids=["1", "2"])
@pytest.mark.parametrize("name", [*PAIRS, *POLICY])
def test_a_kernel_is_trls(name: str, case: Case) -> None:
    terms, run = {**PAIRS, **POLICY}[name]
    of = batch(case, ones(case)) if name in PAIRS else batch(case)
    loss, found, _ = gradient(strand(*terms), case, of)
    want = run(case)
    assert agrees(found, want.gradient_BTV)
    assert loss == pytest.approx(want.loss, rel=1e-6)


def test_kto_is_trls() -> None:
    for case in CASES:
        of, terms = batch(case, **kto_columns(case)), [term(Set(link="kto", desirable=1.2, undesirable=0.7))]
        loss, found, _ = gradient(strand(*terms), case, of, {"s/t0/kto": baseline(case)})
        want = trl.kto(case, desirable=1.2, undesirable=0.7)
        assert agrees(found, want.gradient_BTV)
        assert loss == pytest.approx(want.loss, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_aot_sorts_policy_and_reference_apart(smoothing: float) -> None:
    """A reference that ranks the pairs otherwise than the policy does: sorted, they are not the pairs of DPO."""
    for drawn in CASES:
        case = replace(drawn, reference_logits_BTV=drawn.reference_logits_BTV[::-1].copy())
        loss, found, _ = gradient(strand(term(Set(beta=B, link="aot", smoothing=smoothing))), case, batch(case))
        want = trl.dpo(case, "aot", beta=B, smoothing=smoothing)
        assert loss == pytest.approx(want.loss)
        assert agrees(found, want.gradient_BTV)
        assert not agrees(trl.dpo(case, beta=B).gradient_BTV, trl.dpo(case, "aot", beta=B).gradient_BTV, 1e-2)


def test_the_alpha_divergence_is_trls_as_far_as_its_float32_goes() -> None:
    for case in CASES:
        _, found, _ = gradient(strand(term(Set(beta=B, divergence="alpha"))), case, batch(case))
        assert agrees(found, trl.dpo(case, beta=B, divergence="alpha_divergence").gradient_BTV, 1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_whole_vocabulary_is_gkds(beta: float) -> None:
    for case in CASES:
        of = batch(case, top_k=WIDE)
        loss, found, _ = gradient(strand(term(Div(form="jsd", target="teacher", beta=beta, top_k=WIDE))), case, of)
        assert agrees(found, trl.gkd(case, beta=beta).gradient_BTV)
        assert loss == pytest.approx(trl.gkd(case, beta=beta).loss)


def test_parity_fails_where_a_number_is_off() -> None:
    case = CASES[0]
    _, found, _ = gradient(strand(term(Set(beta=0.201))), case, batch(case))
    assert not agrees(found, trl.dpo(case, beta=B).gradient_BTV)
    _, found, _ = gradient(strand(term(CLIP)), case, batch(case))
    assert not agrees(found, trl.grpo(case, high=0.28).gradient_BTV)


def test_every_oracle_says_something_of_its_own() -> None:
    """Two links that happen to agree on a case would hide one taken for the other."""
    for case in CASES:
        for table in (PAIRS, POLICY):
            found = {name: run(case).gradient_BTV for name, (_, run) in table.items()}
            alike = [
                (a, b)
                for a, b in itertools.combinations(found, 2)
                if np.abs(found[a] - found[b]).max() < 1e-5 * np.abs(found[a]).max()
            ]
            assert alike == []


# ---------------------------------------------------------------- scalar heads


def head(case: Case, scores_BT: Floats, kernel: Set, **columns: torch.Tensor) -> tuple[float, Floats]:
    """The loss of a scalar head's outputs, and its gradient by them."""
    live = torch.tensor(scores_BT, requires_grad=True)
    found = evaluate_logps(strand(term(kernel)), batch(case, **columns), PolicyView(logps_BT=live, scalar=True))
    return float(found.loss.detach()), torch.autograd.grad(found.loss, [live])[0].numpy()


def test_reward_models_are_trls() -> None:
    for case in CASES:
        scores = np.random.default_rng(0).normal(size=case.mask_BT.shape)
        last, rows = case.mask_BT.sum(1) - 1, np.arange(len(case.mask_BT))
        margins = np.abs(case.advantages_B[: len(rows) // 2])
        for given in (None, margins):
            kernel = Set(score="head", beta=1.0, reference=False, row_margin=given is not None)
            loss, found = head(case, scores, kernel, margin_B=torch.tensor(np.tile(margins, 2)))
            want_loss, want = trl.reward(scores[rows, last], given)
            assert loss == pytest.approx(want_loss)
            assert found[rows, last] == pytest.approx(want)
            assert np.abs(found).sum() == pytest.approx(np.abs(want).sum())


def test_critics_and_step_labels_are_the_papers() -> None:
    case = CASES[0]
    scores, old, returns = np.random.default_rng(0).normal(size=(3, *case.mask_BT.shape))
    columns = {"targets_BT": torch.tensor(returns), "old_values_BT": torch.tensor(old)}
    for clip in (None, 0.5):
        kernel = Set(link="value", score="head", unit="token", clip=clip)
        loss, found = head(case, scores, kernel, **columns)
        want = slope(lambda x, clip=clip: value_loss(case, x, old, returns, clip=clip), scores, case.mask_BT)
        assert loss == pytest.approx(value_loss(case, scores, old, returns, clip=clip))
        assert agrees(found, want)
    labels = np.where(halves(case) == 0, (returns > 0).astype(np.float64), np.nan)
    loss, found = head(
        case, scores, Set(link="bce", score="head", unit="token", beta=1.0), targets_BT=torch.tensor(labels)
    )
    assert loss == pytest.approx(step_bce(case, scores, labels))
    assert agrees(found, slope(lambda x: step_bce(case, x, labels), scores, case.mask_BT))
