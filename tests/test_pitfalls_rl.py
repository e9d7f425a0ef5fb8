"""Pitfalls of the field (methods: 16) that belong to rewards and reducers: each is shown, and shown to be avoided.

Each test states what the trap does by a formula of its own, and holds the recipe to the other side of it.
"""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from orchestrator import recipes
from policies.config import Clip, Log, Point, Reduce, Strand
from policies.example import Example
from policies.reduce import normalisers
from policies.trajectory import FinishReason
from tests import paper_coefficients as closed
from tests import paper_oracles as paper
from tests import trl_oracles as trl
from tests.paper_parts import centred, on_rows
from tests.parity_case import Case, Floats
from tests.recipe_bridge import Found, agrees, apply, batch_of, credited, found, own, trajectory, views
from tests.rl_cases import drawn, given, has_g, of_rows, past, recorded, replayed


def strands(name: str, reduce: str = "", length: int | None = None, **parameters: Any) -> tuple[Strand, ...]:
    """A recipe's strands, each term with this reducer instead where one is named."""
    found = recipes.load(name, **parameters).strands
    if not reduce:
        return found
    other = {"reduce": Reduce.model_validate({"kind": reduce, "length": length})}
    return tuple(
        one.model_copy(update={"terms": tuple(term.model_copy(update=other) for term in one.terms)}) for one in found
    )


def credit(name: str, **changes: Any) -> tuple[Strand, ...]:
    """A recipe's strands with other credit."""
    return tuple(
        one.model_copy(update={"credit": one.credit.model_copy(update=changes)}) for one in recipes.load(name).strands
    )


def twice(case: Case) -> Case:
    """Every row of the step a second time."""
    values = {one.name: getattr(case, one.name) for one in fields(case)}
    return replace(case, **{k: np.concatenate([v, v]) for k, v in values.items() if isinstance(v, np.ndarray)})


def differ(left: Floats, right: Floats) -> bool:
    """By more than a hundredth of the larger."""
    return bool(np.abs(left - right).max() > 0.01 * np.abs(right).max())


# ---------------------------------------------------------------- 1


def test_pitfall_01_a_group_of_one_is_worth_what_the_credit_says_never_silently_its_reward() -> None:
    case = drawn(1, rows=4, group=1)
    a_B = trl.grpo_advantages(case)
    assert not a_B.any(), "TRL: 0"
    assert not apply(credit("grpo", lone="zero"), case).coefficient_BT.any()
    said = apply(credit("grpo", lone="reward"), case)
    has_g(said, closed.ppo(given(case, case.rewards_B)) * closed.share(case, "sequence"))  # verl: (R - 0) / 1
    assert [one.credit.lone for one in recipes.load("grpo").strands] == ["zero"]  # type: ignore[union-attr]


def test_pitfall_01_members_that_do_not_count_may_leave_a_group_of_one() -> None:
    """Statistics of fresh rollouts alone, and but one of them: past rewards do not stand in."""
    case = replace(drawn(1), off_B=np.arange(10) % 5 != 0)
    rows = [past(case, i) for i in range(10)]
    said = apply(credit("grpo", scope="on_policy"), own(case), rows=rows)
    assert not said.coefficient_BT.any()
    assert apply(credit("grpo", scope="all"), own(case), rows=rows).coefficient_BT.any()


# ---------------------------------------------------------------- 2


def test_pitfall_02_a_reducer_by_length_alone_doubles_with_the_rows() -> None:
    case = drawn(0)
    verl, ours = strands("dr_grpo", "length", 9), strands("dr_grpo", length=9)
    for which, factor in ((verl, 2.0), (ours, 1.0)):
        once, again = apply(which, case), apply(which, twice(case))
        assert again.loss == pytest.approx(factor * once.loss, rel=1e-9)
        np.testing.assert_allclose(again.gradient_BTV[:10], factor / 2 * once.gradient_BTV, atol=1e-12)
    a = recorded(centred(case))
    assert apply(verl, case).loss == pytest.approx(paper.reward.ppo(case, case.logps_BT, a, reduce="length"), rel=1e-6)


# ---------------------------------------------------------------- 3

PARTS = ([0, 3, 4], [1], [2, 5, 6, 7, 8, 9])
"""Micro-batches of other sizes and lengths; groups are parted."""


def in_parts(which: Sequence[Strand], case: Case, *, whole: bool) -> list[Found]:
    """Each micro-batch's loss and gradient, by the step's normalisers or by its own."""
    rows = [trajectory(case, i) for i in range(10)]
    a_BT, _ = credited(which, rows, [0] * 10, [views(case, i) for i in range(10)], case.mask_BT.shape[1])
    of_step = normalisers(which, [Example(one, 0, np.zeros(len(one.tokens), np.float32)) for one in rows])
    said = []
    for part in PARTS:
        own_case = of_rows(case, part)
        batch = batch_of(own_case, [0] * len(part), a_BT[part])
        said.append(found(which, batch, own_case.logits_BTV, normalisers=of_step if whole else None))
    return said


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo", "gspo", "cispo", "rloo", "maxrl"])
def test_pitfall_03_micro_batches_sum_to_the_step_and_their_means_do_not(name: str) -> None:
    case = drawn(1)
    which = strands(name, **({"kl": 0.1} if name == "grpo" else {"kl": 0.0} if name == "rloo" else {}))
    step = apply(which, case)
    parts = in_parts(which, case, whole=True)
    gradient_BTV = np.concatenate([one.gradient_BTV for one in parts])
    order = np.concatenate([np.array(part) for part in PARTS])
    assert sum(one.loss for one in parts) == pytest.approx(step.loss, rel=1e-9)
    np.testing.assert_allclose(gradient_BTV, step.gradient_BTV[order], rtol=1e-9, atol=1e-15)
    means = np.concatenate([one.gradient_BTV / len(PARTS) for one in in_parts(which, case, whole=False)])
    assert differ(means, gradient_BTV)


# ---------------------------------------------------------------- 4


def test_pitfall_04_gspo_with_a_token_reducer_is_another_gradient() -> None:
    case = drawn(0)
    options = {"low": 0.1, "high": 0.1}
    g_BT = closed.gspo(given(case, centred(case, eps=1e-4)), **options)
    ours, other = apply("gspo", case, **options), apply(strands("gspo", "token", **options), case)
    has_g(ours, g_BT * closed.share(case, "sequence"))
    has_g(other, g_BT * closed.share(case, "token"))
    assert differ(other.coefficient_BT, ours.coefficient_BT)
    loose = trl.grpo(given(case, trl.grpo_advantages(case)), "dapo", level="sequence", low=0.1, high=0.1)
    assert differ(loose.gradient_BTV, ours.gradient_BTV), "TRL's default reducer"
    even = replace(case, mask_BT=np.ones_like(case.mask_BT))
    same, also = apply("gspo", even, **options), apply(strands("gspo", "token", **options), even)
    np.testing.assert_allclose(also.coefficient_BT, same.coefficient_BT, rtol=1e-9)


# ---------------------------------------------------------------- 5


def test_pitfall_05_a_cispo_cap_is_translated_between_libraries_not_copied() -> None:
    case = drawn(0)
    credited_case = given(case, trl.grpo_advantages(case))
    absolute = trl.grpo(credited_case, "cispo", high=1.2)
    agrees(apply("cispo", case, high=1.2), absolute.loss, absolute.gradient_BTV, case)
    around_one = closed.cispo(credited_case, low=0.2, high=0.2) * closed.share(case)
    has_g(apply("cispo", case, low=1 - 0.2, high=1 + 0.2), around_one)  # verl: 1 +- eps
    wide = closed.cispo(credited_case, low=1.0, high=3.0) * closed.share(case)
    has_g(apply("cispo", case, low=0.0, high=4.0), wide)  # tinker: (0, 4)
    copied = apply("cispo", case, low=0.2, high=0.2).coefficient_BT
    assert differ(copied, around_one), "verl's 0.2 read as an absolute cap makes every weight 0.2"
    trained = around_one != 0
    np.testing.assert_allclose(
        copied[trained], (0.2 * credited_case.advantages_B[:, None] * closed.share(case))[trained]
    )


# ---------------------------------------------------------------- 12


def test_pitfall_12_past_rollouts_do_not_dilute_fresh_ones() -> None:
    case = replayed(0)
    rows = [past(case, i) for i in range(10)]
    strand_B = case.off_B.astype(int)
    on_BT = ~case.off_B[:, None] & case.mask_BT
    both = apply("repo", own(case), strand_B, rows=rows)
    alone = apply("repo", own(case), strand_B, rows=rows, columns={"mask_BT": on_BT})
    np.testing.assert_allclose(both.coefficient_BT[on_BT], alone.coefficient_BT[on_BT], rtol=1e-12)
    a_B = recorded(centred(case, eps=1e-4))
    fresh = closed.ppo(given(case, a_B)) * on_BT
    np.testing.assert_allclose(
        both.coefficient_BT[on_BT], (fresh * closed.share(case, "sequence", on_rows(case)))[on_BT], rtol=1e-6
    )
    diluted = fresh * closed.share(case, "sequence")  # the authors' mean over all rows
    np.testing.assert_allclose(diluted[on_BT], 6 / 10 * both.coefficient_BT[on_BT], rtol=1e-6)


# ---------------------------------------------------------------- 17


def weights(level: str, kind: str, gap: float, cap: float) -> Floats:
    """The correction of each row where every token is exp(gap) likelier to the learner than to the sampler."""
    case = drawn(0, slots=9)
    case = replace(case, behavior_BT=case.old_BT - gap, rewards_B=np.arange(10) % 5 / 4.0)
    plain = apply("grpo", case, clip=1.0)
    said = apply("grpo", case, clip=1.0, correction=kind, correction_level=level, correction_cap=cap)
    rows = [(i, int(np.argmax(np.abs(plain.coefficient_BT[i])))) for i in range(10) if plain.coefficient_BT[i].any()]
    return np.array([(case.mask_BT[i].sum(), said.coefficient_BT[i, t] / plain.coefficient_BT[i, t]) for i, t in rows])


@pytest.mark.parametrize("gap", [0.15, -0.15])
def test_pitfall_17_a_product_of_ratios_is_a_trap_for_long_responses(gap: float) -> None:
    for level in ("token", "geometric"):
        assert weights(level, "truncated", gap, 2.0)[:, 1] == pytest.approx(math.exp(gap), rel=1e-9)
        assert weights(level, "icepop", gap, 2.0)[:, 1] == pytest.approx(math.exp(gap), rel=1e-9)
    product = weights("sequence", "truncated", gap, 2.0)
    assert product[:, 1] == pytest.approx(np.minimum(np.exp(gap * product[:, 0]), 2.0), rel=1e-9)
    masked = weights("sequence", "masked", gap, 2.0)
    longest = math.log(2.0) / 0.15
    assert masked[:, 1].tolist() == [float(length <= longest) for length in masked[:, 0]]
    assert 0 < masked[:, 1].sum() < len(masked), "short ones stay, and every long one is dropped"


# ---------------------------------------------------------------- 18


def test_pitfall_18_equal_gradients_report_other_losses() -> None:
    """PPO, CISPO and the logarithm of the ratio, on the policy's own samples and before its first update."""
    case = drawn(1)
    case = replace(case, old_BT=case.logps_BT)
    (strand,) = strands("dapo", overlong="count")
    (term,) = strand.terms
    logarithm = term.model_copy(update={"kernel": Point(denominator="old", shape=Log())})
    forms = {
        "ppo": apply("dapo", case, overlong="count"),
        "cispo": apply("cispo", case),
        "log": apply([strand.model_copy(update={"terms": (logarithm,)})], case),
    }
    a = recorded(centred(case, eps=1e-4))
    want = given(case, a).advantages_B[:, None] * closed.share(case)
    for said in forms.values():
        has_g(said, want)
    assert forms["log"].loss == pytest.approx(0.0, abs=1e-12)
    assert forms["ppo"].loss == pytest.approx(-want.sum(), rel=1e-6)
    assert forms["cispo"].loss == pytest.approx(-(want * case.logps_BT).sum(), rel=1e-6)
    losses = [round(said.loss, 4) for said in forms.values()]
    assert len(set(losses)) == 3


def test_pitfall_18_away_from_the_sampler_too_while_no_clip_bites() -> None:
    case = drawn(1)
    (strand,) = strands("dapo", overlong="count")
    (term,) = strand.terms
    open_ = term.model_copy(update={"kernel": Point(shape=Clip(low=1.0, high=1e6))})
    ppo = apply([strand.model_copy(update={"terms": (open_,)})], case)
    cispo = apply("cispo", case, high=1e6)
    np.testing.assert_allclose(cispo.gradient_BTV, ppo.gradient_BTV, rtol=1e-9, atol=1e-15)
    assert abs(cispo.loss - ppo.loss) > 0.01


# ---------------------------------------------------------------- 22


def test_pitfall_22_three_treatments_of_cut_responses_are_three_gradients() -> None:
    case = drawn(0)
    cut, length = 0, int(case.mask_BT[0].sum())
    others = [i for i in range(10) if i != cut]
    ends = [FinishReason.LENGTH if i == cut else FinishReason.STOP for i in range(10)]
    rows = [trajectory(case, i, finish_reason=end) for i, end in enumerate(ends)]
    said = {
        how: apply("dapo", case, rows=rows, overlong=how, length=length, cache=1) for how in ("count", "punish", "mask")
    }
    a_B = recorded(centred(case, eps=1e-4))
    has_g(said["count"], closed.ppo(given(case, a_B), high=0.28) * closed.share(case))
    kept = closed.ppo(given(case, a_B), high=0.28) * closed.share(case, rows=others)
    has_g(said["mask"], kept)  # its reward still serves the baseline; its tokens are not in the normaliser
    punished = replace(case, rewards_B=case.rewards_B - (case.mask_BT.sum(1) >= length))
    wrong = given(case, centred(punished, eps=1e-4))
    has_g(said["punish"], closed.ppo(wrong, high=0.28) * closed.share(case))
    assert wrong.advantages_B[cut] < a_B[cut] - 0.5
    assert differ(said["punish"].gradient_BTV, said["count"].gradient_BTV)
    assert differ(said["mask"].gradient_BTV, said["count"].gradient_BTV)


# ---------------------------------------------------------------- 25


def test_pitfall_25_a_learning_rate_for_sums_is_none_for_means() -> None:
    """A sum over tokens has the mean's direction, as many times its size as the step has tokens."""
    case = drawn(0)
    summed = strands("dapo", "length", 1, overlong="count")
    tokens = int(case.mask_BT.sum())
    total, mean = apply(summed, case), apply("dapo", case, overlong="count")
    np.testing.assert_allclose(total.gradient_BTV, tokens * mean.gradient_BTV, rtol=1e-9, atol=1e-12)
    assert total.loss == pytest.approx(tokens * mean.loss, rel=1e-9)
    more = twice(case)
    again, same = apply(summed, more), apply("dapo", more, overlong="count")
    assert again.loss == pytest.approx(2 * total.loss, rel=1e-9)
    assert same.loss == pytest.approx(mean.loss, rel=1e-9)
