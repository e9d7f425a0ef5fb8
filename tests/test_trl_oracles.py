"""TRL's losses, run without their trainers: their gradients are their losses', and they answer to every argument."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests import paper_coefficients as closed
from tests import paper_reward, paper_teacher
from tests import trl_oracles as trl
from tests.parity_case import Case, random_case, through_softmax
from tests.trl_setting import Answer, excerpt

CASE = random_case(3)
PAIRS = len(CASE.mask_BT) // 2
CPO = ("sigmoid", "hinge", "ipo")
GRPO = ("grpo", "dr_grpo", "bnpo", "dapo", "sapo", "luspo")

SMOOTH: dict[str, Callable[[Case], Answer]] = {
    **{f"dpo {name}": lambda case, name=name: trl.dpo(case, name, beta=0.2, smoothing=0.1) for name in trl.DPO_LOSSES},
    "rpo": lambda case: trl.dpo(case, ("sigmoid", "sft"), weights=(1.0, 0.5)),
    "forward f-dpo": lambda case: trl.dpo(case, divergence="forward_kl"),
    "js f-dpo": lambda case: trl.dpo(case, divergence="js_divergence"),
    "ld-dpo": lambda case: trl.dpo(case, tail=0.3),
    "kto": trl.kto,
    "apo unpaired": lambda case: trl.kto(case, "apo_zero_unpaired", desirable=2.0, undesirable=0.5),
    "orpo": trl.orpo,
    **{f"cpo {name}": lambda case, name=name: trl.cpo(case, name, smoothing=0.1) for name in CPO},
    "simpo": lambda case: trl.cpo(case, "simpo", beta=2.0, alpha=0.0, gamma=1.1),
    "tpo": lambda case: trl.tpo(case, "tpo-l", gamma=0.3, smoothing=0.1),
    "online dpo": lambda case: trl.online_dpo(case, "ipo"),
    **{f"grpo {name}": lambda case, name=name: trl.grpo(case, name) for name in GRPO},
    "gspo": lambda case: trl.grpo(case, level="sequence", low=0.03, high=0.04),
    "two-sided": lambda case: trl.grpo(case, delta=1.1),
    "k3": lambda case: trl.grpo(case, beta=0.3),
    "r k3": lambda case: trl.grpo(case, beta=0.3, unbiased=True),
    "top entropy": lambda case: trl.grpo(case, quantile=0.3),
    "entropy bonus": lambda case: trl.grpo(case, entropy=0.3),
    **{f"vllm {mode}": lambda case, mode=mode: trl.grpo(case, mode=mode, cap=1.3) for mode in trl.IMPORTANCE},
    "gmpo": trl.gmpo,
    "rloo": trl.rloo,
    "a2po": lambda case: trl.a2po(case, case.advantages_B),
    "sft": trl.sft,
    **{f"gkd {beta}": lambda case, beta=beta: trl.gkd(case, beta=beta) for beta in (0, 0.3, 1)},
    "top-k": lambda case: trl.divergence(case, beta=0, top_k=4, temperature=2.0),
    "sdpo": lambda case: trl.sdpo(case, alpha=1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_a_gradient_is_its_losss(name: str) -> None:
    run, rng = SMOOTH[name], np.random.default_rng(0)
    found, step = run(CASE).gradient_BTV, 1e-5
    entries = [tuple(one) for one in rng.permutation(np.argwhere(CASE.mask_BT))[:3]]
    assert np.abs(found[~CASE.mask_BT]).max() == 0
    for i, t in entries:
        v = int(CASE.tokens_BT[i, t])
        values = []
        for sign in (1, -1):
            moved = CASE.logits_BTV.copy()
            moved[i, t, v] += sign * step
            values.append(run(replace(CASE, logits_BTV=moved)).loss)
        want = (values[0] - values[1]) / (2 * step)
        assert found[i, t, v] == pytest.approx(want, rel=1e-6, abs=1e-9)


def near(found: Answer, g_BT: np.ndarray) -> bool:
    want = through_softmax(g_BT, CASE)
    return bool(np.abs(found.gradient_BTV - want).max() <= 1e-9 * max(np.abs(want).max(), 1.0))


def test_what_trl_detaches_has_the_papers_coefficients() -> None:
    assert near(trl.sft(CASE, "dft"), closed.dft(CASE) * closed.share(CASE))
    # TRL's cap is absolute and has no lower side
    assert near(trl.grpo(CASE, "cispo", high=1.1), closed.cispo(CASE, low=1.0, high=0.1) * closed.share(CASE))
    assert not near(trl.grpo(CASE, "cispo", high=1.1), closed.cispo(CASE, high=0.1) * closed.share(CASE))
    gap = (CASE.teacher_BT - CASE.logps_BT) * closed.share(CASE, "sequence")
    assert near(trl.sdpo(CASE, "sampled_token", alpha=1.0), gap)
    assert near(trl.iw_opd(CASE, gamma=0.0), (CASE.teacher_BT - CASE.behavior_BT) * closed.share(CASE))


def test_closed_forms_are_trls_gradients() -> None:
    sequence = closed.share(CASE, "sequence")
    assert near(trl.sft(CASE), closed.sft(CASE) * closed.share(CASE))
    assert near(trl.dpo(CASE), closed.dpo(CASE) / PAIRS)
    assert near(trl.kto(CASE), closed.kto(CASE) / (2 * PAIRS))
    assert near(trl.cpo(CASE, "simpo", beta=2.5, alpha=0.0, gamma=1.375), closed.simpo(CASE) / PAIRS)
    assert near(trl.grpo(CASE), closed.ppo(CASE) * sequence)
    assert near(trl.grpo(CASE, "sapo"), closed.sapo(CASE) * sequence)
    assert near(
        trl.grpo(CASE, level="sequence", low=0.03, high=0.04), closed.gspo(CASE, low=0.03, high=0.04) * sequence
    )
    k3 = closed.k3(CASE) * sequence
    assert near(trl.grpo(replace(CASE, advantages_B=0 * CASE.advantages_B), beta=1.0), k3)
    assert not near(trl.dpo(CASE, beta=0.11), closed.dpo(CASE) / PAIRS)


def test_wpo_weighs_pairs_without_differentiating_the_weight() -> None:
    plain, weighted = trl.dpo(CASE).gradient_BTV, trl.dpo(CASE, weighted=True).gradient_BTV
    for pair in range(PAIRS):
        factors = (
            weighted[[pair, pair + PAIRS]][CASE.mask_BT[[pair, pair + PAIRS]]]
            / plain[[pair, pair + PAIRS]][CASE.mask_BT[[pair, pair + PAIRS]]]
        )
        assert factors.std() < 1e-9 < factors.mean()


def test_advantages_are_the_papers() -> None:
    rewards = CASE.rewards_B.reshape(-1, CASE.group_size)
    centred = rewards - rewards.mean(1, keepdims=True)
    want = centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
    assert trl.grpo_advantages(CASE) == pytest.approx(want.ravel())
    assert trl.grpo_advantages(CASE, "none") == pytest.approx(centred.ravel())
    n = CASE.group_size
    assert trl.rloo_advantages(CASE) == pytest.approx(centred.ravel() * n / (n - 1))
    penalised = replace(
        CASE, rewards_B=CASE.rewards_B - 0.1 * ((CASE.old_BT - CASE.reference_BT) * CASE.mask_BT).sum(1)
    )
    assert trl.rloo_advantages(CASE, beta=0.1) == pytest.approx(trl.rloo_advantages(penalised))


@pytest.mark.parametrize("name", SMOOTH)
def test_an_oracle_answers_to_the_policy(name: str) -> None:
    run, other = SMOOTH[name], random_case(4)
    moved = replace(CASE, logits_BTV=CASE.logits_BTV + 0.1 * other.logits_BTV)
    assert run(moved).loss != run(CASE).loss


def test_an_oracle_answers_to_every_argument() -> None:
    base = trl.grpo(CASE).loss
    changed = dict(
        low=0.01, high=0.01, level="sequence", delta=1.01, beta=0.1, quantile=0.5, entropy=0.1, mode="token_truncate",
        off_policy=-9.0, loss="bnpo",
    )  # fmt: skip
    assert [key for key, value in changed.items() if trl.grpo(CASE, **{key: value}).loss == base] == []
    assert trl.grpo(CASE, "sapo", taus=(2.0, 2.0)).loss != trl.grpo(CASE, "sapo").loss
    assert trl.grpo(CASE, "dr_grpo", length=10).loss == pytest.approx(trl.grpo(CASE, "dr_grpo").loss * 0.9)


def test_paper_and_trl_agree_on_losses() -> None:
    c, logits = CASE.logps_BT, CASE.logits_BTV
    assert paper_reward.ppo(CASE, c, reduce="sequence") == pytest.approx(trl.grpo(CASE).loss)
    assert paper_reward.ppo(CASE, c, reduce="batch_length") == pytest.approx(trl.grpo(CASE, "dr_grpo").loss)
    assert paper_reward.gmpo(CASE, c) == pytest.approx(trl.gmpo(CASE).loss)
    assert paper_reward.gspo(CASE, c) == pytest.approx(trl.grpo(CASE, level="sequence", low=3e-4, high=4e-4).loss)
    assert paper_reward.sapo(CASE, c) == pytest.approx(trl.grpo(CASE, "sapo").loss)
    for beta in (0, 0.3, 1):
        assert paper_teacher.gkd(CASE, logits, beta=beta) == pytest.approx(trl.gkd(CASE, beta=beta).loss)
        want = trl.sdpo(CASE, alpha=beta, clip=1.1).loss
        assert paper_teacher.sdpo(CASE, logits, alpha=beta, clip=1.1) == pytest.approx(want, rel=1e-6)
        whole = paper_teacher.divergence(CASE, logits, beta=beta, temperature=2.0)
        assert whole == pytest.approx(trl.divergence(CASE, beta=beta, temperature=2.0).loss)
    for tail in (True, False):
        want = paper_teacher.divergence(
            CASE, logits, beta=0, support="teacher", tail="bucket" if tail else "renormalise"
        )
        assert want == pytest.approx(trl.divergence(CASE, beta=0, top_k=4, tail=tail).loss)


def test_an_excerpt_that_is_not_there_is_refused() -> None:
    with pytest.raises(AssertionError, match="no statement"):
        excerpt(trl.grpo, "nothing like this")
