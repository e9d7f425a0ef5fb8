"""The objective's gradients beside the papers' formulas, on two cases in float64, to 1e-6."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from policies.config import BoxCox, Clip, Div, Identity, Only, Parabola, Point, Saturate, Term
from policies.trajectory import Origin
from tests import paper_imitation as imitation
from tests import paper_mixed as mixed
from tests import paper_process as process
from tests import paper_reward as reward
from tests import paper_teacher as teacher
from tests.paper_parts import centred, g_of, logits_slope, off_rows, on_rows
from tests.parity_batch import CLIP, NLL, OFF, ON, agrees, batch, gradient, ones, strand, term, weight
from tests.parity_case import Case, Floats, random_case, through_softmax

CASES = [random_case(seed) for seed in (1, 2)]
WIDE = 12
"""All tokens but one: with the bucket for the last, the whole vocabulary."""


def _chord_advantages(case: Case) -> Floats:
    """Advantage 1 on demonstrations, the rollouts' own z-scores elsewhere."""
    return np.where(case.off_B, 1.0, centred(case, mixed.own_rows(case), 1e-4))


def _srft_imitation(case: Case, c: Floats) -> float:
    rows = [i for i in range(len(case.off_B)) if case.off_B[i]]
    means = [
        np.mean([-0.5 * np.exp(-case.entropy_BT[i, t]) * c[i, t] for t in range(c.shape[1]) if case.mask_BT[i, t]])
        for i in rows
    ]
    return float(np.mean(means))


def _grao_factors(case: Case) -> Floats:
    """GRAO's factors on each row's mean log-probability, as advantages: beta 1, lambda .5."""
    a = centred(case, eps=1e-4)
    out = np.where(case.off_B, a, 1.5 * a)
    for i in np.flatnonzero(case.off_B):
        own = list(range(i + 1 - case.group_size, i))
        out[i] -= 0.5 * np.mean(a[own])
    return out


def _gae(case: Case) -> Floats:
    values = np.random.default_rng(0).normal(size=case.mask_BT.shape)
    return reward.whitened(case, reward.gae(case, values)[0])


SAMPLED: dict[str, tuple[tuple[Term, ...], Callable[[Case, Floats], float], Callable[[Case], Floats]]] = {
    "psft": ((term(CLIP),), imitation.psft, ones),
    "beyond likelihood": (
        (term(Point(denominator="one", shape=BoxCox(alpha=0.5))),),
        lambda case, c: imitation.beyond_log_likelihood(case, c, alpha=0.5), ones,
    ),
    "thresholded": (
        (term(NLL, weight("probability_window", low=0.02, high=0.1)),),
        lambda case, c: imitation.thresholded(case, c, low=0.02, high=0.1), ones,
    ),
    "mifo": ((term(NLL, weight("top_entropy", share=0.2)),), imitation.mifo, ones),
    "topr": ((term(NLL, weight("tapered")),), reward.topr, lambda case: case.advantages_B),
    "opmd": ((term(NLL, by=0.5),), reward.opmd, lambda case: case.advantages_B),
    "cispo, two-sided": (
        (term(NLL, weight("clipped_ratio", low=0.8, high=1.2)),), reward.cispo, lambda case: case.advantages_B
    ),
    "gpg": ((term(NLL),), reward.reinforce, lambda case: case.advantages_B),
    "dual clip": (
        (term(Point(shape=Clip(low=0.2, high=0.2, dual=1.1))),),
        lambda case, c: reward.ppo(case, c, dual=1.1), lambda case: case.advantages_B,
    ),
    "exgrpo": (
        (
            term(Point(shape=Identity()), reduce="length", only=ON),
            term(Point(denominator="behavior", shape=Saturate()), reduce="length", only=OFF),
        ),
        reward.exgrpo, lambda case: case.advantages_B,
    ),
    "repo": (
        (
            term(Point(), reduce="sequence", only=ON),
            term(Point(), reduce="sequence", only=OFF, by=0.7),
            term(Div(form="k3"), reduce="sequence", only=ON, by=0.04),
        ),
        lambda case, c: reward.repo(case, c, replay=0.7, beta=0.04), lambda case: centred(case, eps=1e-4),
    ),
    "luffy": (
        (
            term(Point(shape=Identity()), reduce="length", only=ON),
            term(Point(denominator="one", shape=Saturate()), reduce="length", only=OFF),
        ),
        mixed.luffy, centred,
    ),
    "chord": (
        (term(Point(), only=ON, by=0.7), term(NLL, weight("chord_phi"), only=OFF, by=0.3)),
        lambda case, c: mixed.chord(case, c, mu=0.3), _chord_advantages,
    ),
    "chord, as a shape": (
        (term(Point(), only=ON, by=0.7), term(Point(denominator="one", shape=Parabola()), only=OFF, by=0.3)),
        lambda case, c: mixed.chord(case, c, mu=0.3), _chord_advantages,
    ),
    "srft, demonstrations": (
        (term(NLL, weight("entropy", power=-1.0), reduce="sequence", only=OFF, by=0.5),),
        _srft_imitation, ones,
    ),
    "grao": (
        (
            term(NLL, reduce="sequence", only=ON),
            term(NLL, reduce="sequence", only=OFF),
        ),
        mixed.grao, _grao_factors,
    ),
    "opd": (
        (term(Point(denominator="behavior", shape=Identity())),),
        teacher.opd, lambda case: case.teacher_BT - case.behavior_BT,
    ),
    "exopd": (
        (term(Point(denominator="behavior", shape=Identity())),),
        teacher.exopd,
        lambda case: 1.25 * (case.teacher_BT - case.reference_BT) - (case.behavior_BT - case.reference_BT),
    ),
    "ppo, by token": ((term(CLIP),), lambda case, c: reward.ppo(case, c, _gae(case), high=0.28), _gae),
}  # fmt: skip
"""Terms, the paper's loss, and the advantages that the terms read."""


@pytest.mark.parametrize("case", CASES, ids=["1", "2"])
@pytest.mark.parametrize("name", SAMPLED)
def test_a_kernel_is_the_papers(name: str, case: Case) -> None:
    terms, loss, advantages = SAMPLED[name]
    _, by_logits, g = gradient(strand(*terms), case, batch(case, advantages(case)))
    want = g_of(lambda c: loss(case, c), case)
    assert agrees(g, want)
    assert agrees(by_logits, through_softmax(want, case))


def test_parts_and_turns_are_the_papers() -> None:
    for case in CASES:
        parts, a = process.halves(case), np.random.default_rng(0).normal(size=case.mask_BT.shape)
        of = batch(case, a, part_BT=torch.tensor(parts))
        *_, g = gradient(strand(term(Point(level="part"))), case, of)
        assert agrees(
            g, g_of(lambda c, case=case, parts=parts, a=a: process.s2r(case, c, parts, a, reduce="token"), case)
        )
        first = term(Div(form="k2"), only=Only(part=0), by=0.1)
        *_, g = gradient(strand(term(NLL), first), case, of)
        assert agrees(g, g_of(lambda c, case=case, parts=parts, a=a: process.score(case, c, parts, a, stage=1), case))
        *_, g = gradient(strand(term(NLL), term(Div(form="k2"), by=0.01)), case, of)
        assert agrees(g, g_of(lambda c, case=case, parts=parts, a=a: process.score(case, c, parts, a, stage=2), case))


DISTRIBUTIONS: dict[str, tuple[tuple[Term, ...], Callable[[Case, Floats], float]]] = {
    "asft": (
        (term(NLL, weight("probability")), term(Div(form="forward", top_k=WIDE), by=0.05)), imitation.asft
    ),
    "logit distillation": (
        (term(Div(form="forward", target="teacher", temperature=1.0, top_k=WIDE), by=0.3), term(NLL, by=0.7)),
        lambda case, x: teacher.logit_distillation(case, x, temperature=1.0, soft=0.3, hard=0.7),
    ),
    "a tempered top-k": (
        (term(Div(form="jsd", target="teacher", temperature=2.0, top_k=4)),),
        lambda case, x: teacher.divergence(case, x, support="teacher", temperature=2.0),
    ),
    "a raw top-k": (
        (term(Div(form="reverse", target="teacher", top_k=4, tail="raw")),),
        lambda case, x: teacher.divergence(case, x, beta=1.0, support="teacher", tail="raw"),
    ),
    "sdpo": (
        (term(Div(form="jsd", target="teacher", top_k=4), weight("clipped_ratio", high=1.1), reduce="sequence"),),
        lambda case, x: teacher.sdpo(case, x, support="teacher", clip=1.1),
    ),
    "opcd": (
        (term(Div(form="reverse", target="teacher", top_k=4)),),
        lambda case, x: teacher.opcd(case, x, k=4, support="teacher"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_divergence_is_the_papers(name: str) -> None:
    terms, loss = DISTRIBUTIONS[name]
    case = CASES[0]
    (size,) = {one.kernel.top_k for one in terms if isinstance(one.kernel, Div)}
    found, by_logits, _ = gradient(strand(*terms), case, batch(case, ones(case), top_k=size))
    assert agrees(by_logits, logits_slope(lambda x: loss(case, x), case))
    assert found == pytest.approx(loss(case, case.logits_BTV))


def test_hints_and_responses_are_uft() -> None:
    for case in CASES:
        hint = mixed.hints(case, 2)
        origins = np.where(hint, int(Origin.HINT), int(Origin.LEARNER))
        # the policy term reads the row's advantage, the hint's likelihood advantage 1
        a = np.where(hint, 1.0, case.advantages_B[:, None])
        of = batch(case, a, origin_BT=torch.tensor(origins))
        hinted = term(NLL, only=Only(origins=("hint",)), by=0.001)
        *_, g = gradient(strand(term(Point(), only=ON), term(Div(form="k3"), only=ON, by=0.001), hinted), case, of)
        assert agrees(g, g_of(lambda c, case=case, hint=hint: mixed.uft(case, c, hint), case))


def test_four_terms_are_srft() -> None:
    case = CASES[0]
    right = [i for i in on_rows(case) if case.rewards_B[i] > 0]
    wrong = [i for i in on_rows(case) if case.rewards_B[i] <= 0]
    a = centred(case, eps=1e-4)
    own = np.where(case.rewards_B > 0, 1.0, -1.0)
    demonstrations = term(NLL, weight("entropy", power=-1.0), reduce="sequence", only=OFF, by=0.5)
    shaped = term(Point(denominator="one", shape=Identity()), reduce="sequence", only=OFF)
    up = term(NLL, weight("positive"), weight("entropy", power=1.0), reduce="sequence", only=ON, by=0.1)
    down = term(NLL, weight("negative"), reduce="sequence", only=ON)
    parts = [
        gradient(strand(*terms), case, batch(case, advantages))[2]
        for terms, advantages in (((demonstrations,), ones(case)), ((shaped,), a), ((up, down), own))
    ]
    # the terms of the rollouts count all of these, the paper's sums their own kind alone
    shares = np.zeros(len(own))
    for rows in (right, wrong):
        shares[rows] = len(on_rows(case)) / len(rows)
    found = parts[0] + parts[1] + parts[2] * shares[:, None]
    assert agrees(found, g_of(lambda c: mixed.srft(case, c), case))
    assert np.abs(found[off_rows(case)]).max() > 0
