"""The papers' losses against their closed forms, against each other, and against TRL where both speak."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests import oracles
from tests import paper_coefficients as closed
from tests import paper_imitation as imitation
from tests import paper_mixed as mixed
from tests import paper_process as process
from tests import paper_reward as reward
from tests import paper_teacher as teacher
from tests.paper_parts import centred, g_of, groups, logits_slope, off_rows, on_rows, slots
from tests.parity_case import Case, Floats, random_case, through_softmax

CASE = random_case(5)
OFF, ON = off_rows(CASE), on_rows(CASE)


def same(found: Floats, want: Floats) -> bool:
    return bool(np.abs(found - want).max() <= 1e-7 * np.abs(want).max()) and bool(np.abs(want).max() > 0)


def with_advantages(advantages: Floats) -> Case:
    return replace(CASE, advantages_B=advantages)


def test_reweighted_imitation_has_its_closed_form() -> None:
    token = closed.share(CASE)
    assert same(g_of(lambda c: imitation.sft(CASE, c), CASE), closed.sft(CASE) * token)
    assert same(g_of(lambda c: imitation.dft(CASE, c), CASE), closed.dft(CASE) * token)
    for alpha in (0.0, 0.5, 1.0):
        found = g_of(lambda c, alpha=alpha: imitation.beyond_log_likelihood(CASE, c, alpha=alpha), CASE)
        assert same(found, closed.beyond_log_likelihood(CASE, alpha=alpha) * token)
    one = with_advantages(np.ones(len(CASE.mask_BT)))
    assert same(g_of(lambda c: imitation.psft(CASE, c), CASE), closed.ppo(one, high=0.28) * token)
    kept = imitation.highest_entropy(CASE, 0.2)
    assert same(g_of(lambda c: imitation.mifo(CASE, c), CASE), kept * token)
    assert 0 < kept.sum() <= math.ceil(0.2 * CASE.mask_BT.sum())


def test_asft_is_dft_and_the_forward_kl() -> None:
    p, reference = (np.exp(_log_softmax(x)) for x in (CASE.logits_BTV, CASE.reference_logits_BTV))
    token = closed.share(CASE)
    want = through_softmax(closed.dft(CASE) * token, CASE) + 0.05 * (p - reference) * token[..., None]
    assert np.abs(logits_slope(lambda x: imitation.asft(CASE, x), CASE) - want).max() < 1e-9


def _log_softmax(x: Floats) -> Floats:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_surrogates_have_their_closed_forms() -> None:
    token, sequence = closed.share(CASE), closed.share(CASE, "sequence")
    assert same(g_of(lambda c: reward.ppo(CASE, c), CASE), closed.ppo(CASE) * token)
    assert same(g_of(lambda c: reward.cispo(CASE, c), CASE), closed.cispo(CASE) * token)
    assert same(g_of(lambda c: reward.sapo(CASE, c), CASE), closed.sapo(CASE) * sequence)
    found = g_of(lambda c: reward.gspo(CASE, c, low=0.03, high=0.04), CASE)
    assert same(found, closed.gspo(CASE, low=0.03, high=0.04) * sequence)
    assert same(g_of(lambda c: teacher.opd(CASE, c), CASE), closed.opd(CASE) * token)
    dr = with_advantages(centred(CASE))
    assert same(g_of(lambda c: reward.dr_grpo(CASE, c), CASE), closed.ppo(dr) * closed.share(CASE, "batch_length"))


def test_forms_that_differ_in_value_have_one_gradient() -> None:
    a = CASE.advantages_B[:, None] * closed.share(CASE)
    at_old = replace(CASE, old_BT=CASE.logps_BT, behavior_BT=CASE.logps_BT)
    for loss in (reward.reinforce, reward.unclipped, reward.ppo, reward.cispo, reward.topr):
        assert same(g_of(lambda c, loss=loss: loss(at_old, c), at_old), a), loss
    assert same(g_of(lambda c: reward.opmd(CASE, c), CASE), a / 2)
    assert not same(g_of(lambda c: reward.topr(CASE, c), CASE), a)


def test_advantages_keep_their_identities() -> None:
    for rows in groups(CASE):
        own, lengths = CASE.rewards_B[rows], np.array([len(slots(CASE, i)) for i in rows])
        assert reward.opo_advantages(CASE)[rows] @ lengths == pytest.approx(0)
        assert reward.maxrl_advantages(CASE)[rows] == pytest.approx((own - own.mean()) / own.mean())
    assert reward.gpg_advantages(CASE) == pytest.approx(centred(CASE))
    flat = CASE.rewards_B.copy()
    flat[: CASE.group_size] = 1.0
    lone = replace(CASE, rewards_B=flat)
    assert reward.gpg_advantages(lone) == pytest.approx(2 * centred(lone))
    greedy = reward.remax_advantages(CASE, CASE.off_B)
    assert greedy[OFF] == pytest.approx(0)
    assert greedy[ON] == pytest.approx(CASE.rewards_B[ON])  # the last of each group has reward 0
    white = reward.reinforce_pp_advantages(CASE)[CASE.mask_BT]
    assert (white.mean(), white.std(ddof=1)) == pytest.approx((0, 1))
    plain = reward.reinforce_pp_advantages(CASE, kl=0.1, whiten=False)
    gap = 0.1 * (CASE.old_BT - CASE.reference_BT)
    assert (plain[0, 0] - plain[0, 1], plain[0, -1]) == pytest.approx((-gap[0, 0], CASE.rewards_B[0] - gap[0, -1]))


def test_gae_is_returns_less_values_where_nothing_is_discounted() -> None:
    values = np.random.default_rng(0).normal(size=CASE.mask_BT.shape)
    advantages, returns = reward.gae(CASE, values, kl=0.1, lam=1.0)
    plain = reward.reinforce_pp_advantages(CASE, kl=0.1, whiten=False)
    assert returns[CASE.mask_BT] == pytest.approx(plain[CASE.mask_BT])
    assert advantages[CASE.mask_BT] == pytest.approx((plain - values)[CASE.mask_BT])
    one_step, _ = reward.gae(CASE, values, kl=0.0, lam=0.0, gamma=0.9)
    assert one_step[0, 0] == pytest.approx(0.9 * values[0, 1] - values[0, 0])
    far = reward.value_loss(CASE, values, values - 1, values + 1, clip=0.2)
    assert far == pytest.approx(0.5 * 1.8**2)
    assert reward.value_loss(CASE, values, values - 1, values + 1, clip=None) == pytest.approx(0.5)


def test_luffy_is_the_other_transcription() -> None:
    a = centred(CASE)
    total = 0.0
    for i in range(len(a)):
        for t in slots(CASE, i):
            p, ratio = math.exp(CASE.logps_BT[i, t]), math.exp(CASE.logps_BT[i, t] - CASE.old_BT[i, t])
            total += oracles.luffy(p, a[i], 0.1) if CASE.off_B[i] else -a[i] * ratio
    assert mixed.luffy(CASE, CASE.logps_BT) == pytest.approx(total / 9)
    found = g_of(lambda c: mixed.luffy(CASE, c), CASE)
    assert same(found[OFF], closed.luffy_off(with_advantages(a))[OFF] / 9)
    assert mixed.luffy(CASE, CASE.logps_BT) == mixed.critique_grpo(CASE, CASE.logps_BT)
    assert mixed.luffy(CASE, CASE.logps_BT) != mixed.luffy(CASE, CASE.logps_BT, own=True)


def test_hpt_imitates_where_the_gate_is_closed() -> None:
    solved = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    gated = replace(CASE, rewards_B=solved)
    assert mixed.hpt_routes(gated, 0) == ([2], [3, 4])
    assert mixed.hpt_routes(gated, 2) == ([2, 5], [])
    g = g_of(lambda c: mixed.hpt(gated, c), gated)
    assert same(g[2], CASE.mask_BT[2] / 9)
    assert np.abs(g[[0, 1, 5]]).max() == 0 < np.abs(g[3:5]).max()


def test_mixtures_are_their_parts() -> None:
    c, a = CASE.logps_BT, centred(CASE, mixed.own_rows(CASE), 1e-4)
    token = {name: closed.share(CASE, rows=rows) for name, rows in (("on", ON), ("off", OFF))}
    want = 0.7 * closed.ppo(with_advantages(a)) * token["on"] + 0.3 * closed.chord_phi(CASE) * token["off"]
    assert same(g_of(lambda c: mixed.chord(CASE, c, mu=0.3), CASE), want)
    plain = 0.7 * closed.ppo(with_advantages(a)) * token["on"] + 0.3 * token["off"]
    assert same(g_of(lambda c: mixed.chord(CASE, c, mu=0.3, phi=False), CASE), plain)
    assert [mixed.chord_mu(s) for s in (0, 100, 200, 400, 600, 900)] == pytest.approx([0, 0.25, 0.5, 0.26, 0.02, 0.02])
    assert mixed.relift(CASE, c, imitate=True) == pytest.approx(imitation.sft(CASE, c, rows=OFF))
    assert np.abs(g_of(lambda c: mixed.relift(CASE, c, imitate=False), CASE)[OFF]).max() == 0
    assert mixed.guided(CASE, c, nll=0.5) - mixed.guided(CASE, c) == pytest.approx(
        0.5 * imitation.sft(CASE, c, reduce="sequence", rows=OFF)
    )
    total = reward.repo(CASE, c, replay=0.7) - reward.repo(CASE, c, replay=0.0)
    assert total == pytest.approx(0.7 * (reward.repo(CASE, c, replay=1.0) - reward.repo(CASE, c, replay=0.0)))


def test_srft_pulls_down_what_failed_and_weighs_by_entropy() -> None:
    g, a = g_of(lambda c: mixed.srft(CASE, c), CASE), centred(CASE, eps=1e-4)
    right = [i for i in ON if CASE.rewards_B[i] > 0]
    p, h = np.exp(CASE.logps_BT), CASE.entropy_BT
    off = (0.5 * np.exp(-h) + a[:, None] * p) * closed.share(CASE, "sequence", OFF)
    assert same(g[OFF], off[OFF])
    assert same(g[right], (0.1 * np.exp(h) * closed.share(CASE, "sequence", right))[right])
    failing = replace(CASE, rewards_B=np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]))
    g = g_of(lambda c: mixed.srft(failing, c), CASE)
    assert same(g[[1, 4]], -closed.share(CASE, "sequence", [1, 4])[[1, 4]])


def test_uft_reads_hints_and_responses_apart() -> None:
    hint = mixed.hints(CASE)
    g = g_of(lambda c: mixed.uft(CASE, c, hint, nll=0.5, beta=0.1), CASE)
    responses = int((CASE.mask_BT & ~hint).sum())
    assert g[hint] == pytest.approx(0.5 / hint.sum())
    rest = (closed.ppo(CASE) + 0.1 * closed.k3(CASE))[CASE.mask_BT & ~hint] / responses
    assert g[CASE.mask_BT & ~hint] == pytest.approx(rest)


def test_grao_is_linear_in_mean_log_probabilities() -> None:
    a, lam, beta = centred(CASE, eps=1e-4), 0.5, 2.0
    g, sequence = g_of(lambda c: mixed.grao(CASE, c, beta=beta, lam=lam), CASE), closed.share(CASE, "sequence")
    members, n = len(a), CASE.group_size - 1
    for rows in groups(CASE):
        demonstration, own = rows[-1], rows[:-1]
        for i in own:
            assert same(g[i], (1 + lam) * a[i] / n * sequence[i] * members / (members / CASE.group_size))
        factor = beta * a[demonstration] - lam * a[own].sum() / n
        assert same(g[demonstration], factor * sequence[demonstration] * CASE.group_size)


def test_parts_share_one_ratio_and_steps_one_worth() -> None:
    parts = process.halves(CASE)
    scores = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] * 2
    a = process.s2r_advantages(CASE, parts, scores, kl=0.0)
    # with no right part before: the first parts 1, 0, 1 and row 1's second, 1; with one: rows 0's and 2's second, 0, 1
    assert a[0, 0] == pytest.approx(1.0 - 0.75)
    assert a[0, -1] == pytest.approx(0.0 - 0.5)
    g = g_of(lambda c: process.s2r(CASE, c, parts, a, low=0.9, high=9.0, reduce="token"), CASE)
    assert len(np.unique(np.round(g[0][parts[0] == 0], 9))) == 1
    even = g_of(lambda c: process.s2r(CASE, c, parts, a, low=0.9, high=9.0), CASE)
    tokens, own = CASE.mask_BT.sum(), (parts[0] == 0).sum()
    assert even[0, 0] == pytest.approx(g[0, 0] * tokens / own / 2 / len(a))
    steps = process.process_advantages(CASE, parts, scores, normalise=False)
    assert (steps[0, 0], steps[0, -1]) == (1.0, 0.0)
    worst = process.process_advantages(CASE, parts, scores, normalise=False, spread="min")
    assert worst[0, 0] == 0.0
    pav = process.pav_advantages(CASE, parts, [(0.2, 0.5, 0.9)] * 6, alpha=2.0)
    base = centred(CASE)
    assert (pav[0, 0], pav[0, -1]) == pytest.approx((base[0] + 0.6, base[0] + 0.8))
    assert process.monte_carlo([(0, 1, 0), (0, 0, 0)], "hard") == [1.0, 0.0]
    assert process.monte_carlo([(0, 1, 1, 0)]) == [0.5]


def test_score_pays_progress_on_the_second_turn() -> None:
    turns, rewards = process.halves(CASE), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0)] * 2
    two = process.score_advantages(CASE, turns, rewards, stage=2, baseline="zero")
    assert (two[0, 0], two[0, -1]) == (0.0, 11.0)
    one = process.score_advantages(CASE, turns, rewards, stage=1, baseline="zero")
    assert (one[0, 0], one[0, -1]) == (0.0, 1.0)
    g = g_of(lambda c: process.score(CASE, c, turns, one, stage=1, beta=0.3), CASE)
    first = turns == 0
    assert g[first] == pytest.approx(0.3 * closed.k2(CASE)[first] / first.sum())
    assert process.scop_rewards([0.2, 1.0, 0.5], [[1.0, 0.0], [], [1.0]], [False, False, True]) == [0.5, 1.0, -1.0]


def test_teachers_divergences_have_their_gradients() -> None:
    p, t = (np.exp(_log_softmax(x)) for x in (CASE.logits_BTV, CASE.teacher_logits_BTV))
    token = closed.share(CASE)[..., None]
    forward = logits_slope(lambda x: teacher.gkd(CASE, x, beta=0.0), CASE)
    assert np.abs(forward - (p - t) * token).max() < 1e-9
    gap = np.log(p / t)
    reverse = logits_slope(lambda x: teacher.opsdc(CASE, x), CASE)
    assert np.abs(reverse - p * (gap - (p * gap).sum(-1, keepdims=True)) * token).max() < 1e-9
    soft = logits_slope(lambda x: teacher.logit_distillation(CASE, x, temperature=1.0, soft=0.3, hard=0.7), CASE)
    assert np.abs(soft - 0.3 * forward - 0.7 * through_softmax(token[..., 0], CASE)).max() < 1e-9
    logits = CASE.logits_BTV
    assert teacher.opcd(CASE, logits) == pytest.approx(teacher.opsdc(CASE, logits))
    assert teacher.opcd(CASE, logits, k=4) < teacher.opcd(CASE, logits)
    assert teacher.opsd(CASE, logits) == pytest.approx(teacher.gkd(CASE, logits, beta=0.5))
    assert teacher.context_distillation(CASE, logits) == pytest.approx(teacher.gkd(CASE, logits, beta=0.0))
    assert teacher.sdpo(CASE, logits, clip=0.5) < teacher.sdpo(CASE, logits)


def test_gaps_to_teachers_reduce_to_plain_distillation() -> None:
    c = CASE.logps_BT
    assert teacher.exopd(CASE, c, extrapolation=1.0) == pytest.approx(teacher.opd(CASE, c))
    assert teacher.exopd(CASE, c) != pytest.approx(teacher.opd(CASE, c))
    alike = teacher.multi_teacher_opd(CASE, c, [CASE.teacher_BT, CASE.reference_BT], [0] * 6)
    assert alike == pytest.approx(teacher.opd(CASE, c))
    routed = teacher.multi_teacher_opd(CASE, c, [CASE.teacher_BT, CASE.reference_BT], [1] * 6)
    assert routed == pytest.approx(teacher.opd(CASE, c, teacher_BT=CASE.reference_BT))
    late = teacher.minillm_advantages(CASE, scale=1.0, whiten=False)
    gap = CASE.teacher_BT - CASE.behavior_BT
    assert (late[0, -1], late[0, 0]) == pytest.approx((gap[0, -1], gap[0].mean()))
    assert teacher.minillm_advantages(CASE, own=False, whiten=False)[0, -1] == 0
    assert teacher.gad_discriminator([1.0], [1.0]) == pytest.approx(math.log(2))
    assert teacher.gad(CASE, c, CASE.rewards_B) == pytest.approx(
        reward.ppo(CASE, c, centred(CASE, eps=1e-4), reduce="sequence")
    )


def test_minillm_is_its_three_parts() -> None:
    x = CASE.logits_BTV
    found = logits_slope(lambda x: teacher.minillm(CASE, x, language=0.5), CASE)
    a = teacher.minillm_advantages(CASE)
    long = g_of(lambda c: reward.ppo(CASE, c, a, rows=ON), CASE)
    step = logits_slope(lambda x: teacher.divergence(CASE, x, beta=1.0, rows=ON), CASE)
    text = 0.5 * closed.share(CASE, rows=OFF)
    assert np.abs(found - through_softmax(long + text, CASE) - step).max() < 1e-8 * np.abs(x).max()


def test_replayed_experience_is_shaped_by_its_own_ratio() -> None:
    g = g_of(lambda c: reward.exgrpo(CASE, c), CASE)
    r = np.exp(CASE.logps_BT - CASE.behavior_BT)
    want = CASE.advantages_B[:, None] * 0.1 * r / (r + 0.1) ** 2 / 9 * CASE.mask_BT
    assert same(g[OFF], want[OFF])
    scores = np.random.default_rng(1).normal(size=CASE.mask_BT.shape)
    targets = np.where(process.halves(CASE) == 1, 1.0, np.nan)
    asked = CASE.mask_BT & (process.halves(CASE) == 1)
    assert process.step_bce(CASE, scores, targets) == pytest.approx(np.log1p(np.exp(-scores[asked])).mean())
