"""Pitfalls of the field (methods: 16) in mixed, guided and teaching methods: each is shown, and shown to be avoided.

Each test states what the trap does by a formula of its own, and holds the recipe to the other side of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from orchestrator import recipes
from orchestrator.recipes import FOLDER, Recipe
from policies.batch import TrajectoryBatch
from policies.config import Source, Strand
from policies.credit import assign
from policies.objective import evaluate
from policies.trajectory import Origin, Trajectory
from tests import paper_coefficients as closed
from tests import paper_oracles as paper
from tests.compositions import findings
from tests.mixed_cases import SEEDS, TEACHER, hinted, mixed, of, small
from tests.paper_parts import centred, clamp, mean, off_rows, on_rows, slots
from tests.parity_case import Case, Floats
from tests.recipe_bridge import apply, batch_of, own
from tests.rl_cases import drawn, has_g, recorded

WHOLE = 7


def differ(left: Floats, right: Floats) -> bool:
    """By more than a hundredth of the larger."""
    return bool(np.abs(left - right).max() > 0.01 * np.abs(right).max())


# ---------------------------------------------------------------- 7


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_07_gkds_ends_are_the_two_kls_and_the_divergence_beside_them_is_nearly_nothing(seed: int) -> None:
    case = own(small(seed))
    columns = {"columns": {"k": WHOLE}, "support": "full", **TEACHER}
    loss = {beta: apply("gkd", case, beta=beta, **columns).loss for beta in (0.0, 0.01, 0.99, 1.0)}
    forward = paper.teacher.divergence(case, case.logits_BTV, beta=0.0)
    reverse = paper.teacher.divergence(case, case.logits_BTV, beta=1.0)
    assert (loss[0.0], loss[1.0]) == (pytest.approx(forward), pytest.approx(reverse))
    assert loss[0.01] < 0.02 * loss[0.0] and loss[0.99] < 0.02 * loss[1.0], "no limit of its own neighbours"
    assert "0.99 is about a hundred" in (FOLDER / "gkd.yaml").read_text(), "and the recipe says so"


# ---------------------------------------------------------------- 10


def longer(case: Case, by: int) -> Case:
    """The same responses with more padding behind them, full of numbers that nobody may read."""
    rng = np.random.default_rng(9)

    def padded(values: np.ndarray, drawn: Any) -> np.ndarray:
        return np.concatenate([values, np.asarray(drawn, values.dtype)], 1)

    rows, vocabulary = len(case.mask_BT), case.logits_BTV.shape[-1]
    wide = {
        name: padded(getattr(case, name), 9 * rng.normal(size=(rows, by, vocabulary)))
        for name in ("logits_BTV", "reference_logits_BTV", "teacher_logits_BTV")
    }
    return replace(
        case,
        tokens_BT=padded(case.tokens_BT, rng.integers(0, vocabulary, (rows, by))),
        mask_BT=padded(case.mask_BT, np.zeros((rows, by))),
        old_BT=padded(case.old_BT, 9 * rng.normal(size=(rows, by))),
        behavior_BT=padded(case.behavior_BT, 9 * rng.normal(size=(rows, by))),
        **wide,
    )


def mean_gaps(case: Case, own_BT: Floats, last: int | None = None) -> Floats:
    """[B, T] of teacher less policy, averaged from each token on: over the response, or as far as slot `last`."""
    out = np.zeros(case.mask_BT.shape)
    for i in range(len(out)):
        for t in slots(case, i):
            later = [s for s in slots(case, i) if s >= t] if last is None else list(range(t, last))
            out[i, t] = mean([float(case.teacher_BT[i, s] - own_BT[i, s]) for s in later])
    return out


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_10_minillms_advantage_is_a_constant_of_the_step(seed: int) -> None:
    """A port leaves the policy's log-probability in it: the loss is the same where sampler and policy are one."""
    case = drawn(seed)
    case = replace(case, behavior_BT=case.logps_BT, old_BT=case.logps_BT)
    said = apply("minillm", case, single=0.0, language=0.0, **TEACHER)
    fixed_BT = mean_gaps(case, case.logps_BT)
    has_g(said, fixed_BT * closed.share(case))
    trap = paper.g_of(lambda c: paper.reward.ppo(case, c, mean_gaps(case, c)), case)
    assert said.loss == pytest.approx(paper.reward.ppo(case, case.logps_BT, fixed_BT), rel=1e-5)
    assert differ(trap, said.coefficient_BT)


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_10_padding_is_no_part_of_minillm(seed: int) -> None:
    case = small(seed)
    wide = longer(case, 3)
    columns = {"columns": {"k": WHOLE}, **TEACHER}
    narrow_said, wide_said = (apply("minillm", one, of(one), **columns) for one in (case, wide))
    assert wide_said.loss == pytest.approx(narrow_said.loss, rel=1e-12)
    width = case.mask_BT.shape[1]
    np.testing.assert_allclose(wide_said.gradient_BTV[:, :width], narrow_said.gradient_BTV, rtol=1e-9, atol=1e-12)
    assert not wide_said.gradient_BTV[:, width:].any()
    padded = mean_gaps(wide, wide.behavior_BT, wide.mask_BT.shape[1])[:, :width]
    assert differ(padded[on_rows(case)], narrow_said.batch.advantages_BT.numpy()[on_rows(case)]), "pads counted as gaps"


# ---------------------------------------------------------------- 11


def test_pitfall_11_a_ratio_of_1_hides_the_shift_of_context_and_the_recipe_declares_it() -> None:
    """Where old is recomputed without the scaffold, no number tells how the scaffold changed the sampling."""
    case = drawn(0)
    case = replace(case, old_BT=case.logps_BT)
    elsewhere = replace(case, behavior_BT=recorded(case.behavior_BT - 3.0))
    here, there = (apply("ruscarl", one, kl=0.0) for one in (case, elsewhere))
    has_g(here, centred(case, eps=1e-4)[:, None] * closed.share(case, "sequence"))
    np.testing.assert_array_equal(here.coefficient_BT, there.coefficient_BT)
    told = [one for one in findings(recipes.load("ruscarl")) if one.rule == "V4"]
    assert [one.level for one in told] == ["declared"] and "how the shift changed the sampling is ignored" in told[
        0
    ].text


def test_pitfall_11_importance_in_words_and_not_in_the_ratio_is_refused() -> None:
    recipe = recipes.load("ruscarl", kl=0.0)
    source = recipe.strands[0].source.model_copy(update={"context_shift": "importance"})
    named = recipe.model_copy(update={"strands": (recipe.strands[0].model_copy(update={"source": source}),)})
    assert any(one.level == "error" and one.rule == "V4" for one in findings(named))
    term = named.strands[0].terms[0]
    kernel = term.kernel.model_copy(update={"denominator": "behavior"})
    honest_terms = (term.model_copy(update={"kernel": kernel}),)
    honest = (named.strands[0].model_copy(update={"terms": honest_terms}),)
    assert not any(one.level == "error" for one in findings(named.model_copy(update={"strands": honest})))


# ---------------------------------------------------------------- 13


def test_pitfall_13_srfts_sign_of_the_entropy_is_a_choice_and_the_papers_is_the_default() -> None:
    """Uncertain tokens of a demonstration weigh less by the paper, more by what is told of the code."""
    case = mixed(0)
    sharp = replace(case, logits_BTV=np.where(np.arange(7)[None, :, None] % 2, 3.0, 1.0) * case.logits_BTV)
    imitation = {
        sign: apply("srft", sharp, of(case), entropy_sign=sign, coefficients={"rollouts": 0.0}).coefficient_BT
        for sign in (-1.0, 0.0, 1.0)
    }
    at = [(i, t) for i in off_rows(case) for t in slots(case, i)]
    entropy = np.array([float(sharp.entropy_BT[i, t]) for i, t in at])
    for sign, against in ((-1.0, imitation[1.0]), (1.0, imitation[-1.0])):
        gap = np.array([imitation[sign][i, t] - imitation[0.0][i, t] for i, t in at])
        expected = (
            0.5 * (np.exp(sign * entropy) - 1) * np.array([closed.share(case, "token", off_rows(case))[x] for x in at])
        )
        np.testing.assert_allclose(gap, expected, rtol=1e-6, atol=1e-12)
        assert differ(imitation[sign], against)
    assert recipes.load("srft").parameters["entropy_sign"] == -1.0


def test_pitfall_13_the_part_of_failed_rollouts_has_no_lower_bound_and_the_recipe_says_so() -> None:
    case = mixed(0)
    failed = [i for i in on_rows(case) if case.rewards_B[i] == 0]

    def sunk(name: str, by: float) -> float:
        """The loss once the failed rollouts' tokens are this much less likely."""
        logits_BTV = case.logits_BTV.copy()
        for i in failed:
            np.put_along_axis(logits_BTV[i], case.tokens_BT[i][:, None], -by, -1)
        return apply(name, replace(case, logits_BTV=logits_BTV), of(case)).loss

    losses = [sunk("srft", by) for by in (10.0, 100.0, 1000.0)]
    assert losses[1] < losses[0] - 20 and losses[2] < losses[1] - 200, "as far down as the policy goes"
    bounded = [sunk("luffy", by) for by in (10.0, 100.0, 1000.0)]
    assert bounded[2] == pytest.approx(bounded[1], abs=1e-9), "a ratio has no more to give"
    assert any("no lower bound" in note for note in recipes.load("srft").notes)


# ---------------------------------------------------------------- 14


def test_pitfall_14_what_is_clipped_is_the_ratio_not_the_log_probability() -> None:
    """A port clamps c to [0.8, 1.2]: no log-probability lies there, so that failed rollouts have no gradient at all."""
    case = own(mixed(0))
    case = replace(case, old_BT=case.logps_BT, advantages_B=centred(case, eps=1e-4))
    failed_B = case.advantages_B < 0

    def clamped(c: Floats) -> float:
        def token(i: int, t: int) -> float:
            a = float(case.advantages_B[i])
            return max(-a * c[i, t], -a * clamp(c[i, t], 0.8, 1.2))

        return paper.reduced(case, token)

    assert not paper.g_of(clamped, case)[failed_B].any(), "dead"
    assert paper.g_of(clamped, case)[~failed_B].any()
    for name in ("sage", "mifo"):
        said = apply(name, case)
        has_g(said, case.advantages_B[:, None] * closed.share(case))
    srft = apply("srft", mixed(0), of(mixed(0)), columns={"old_logps_BT": None})
    lost = [i for i in on_rows(mixed(0)) if mixed(0).rewards_B[i] == 0]
    assert (srft.coefficient_BT[lost][case.mask_BT[lost]] < 0).all(), "failed rollouts are pushed down"


# ---------------------------------------------------------------- 15

JOINT: Mapping[str, Mapping[str, Any]] = {
    "luffy": {}, "hpt": {}, "srft": {}, "chord": {"phi": True}, "relift": {}, "uft": {}, "grao": {"rollouts": 4},
    "mifo": {}, "expo": {}, "critique_grpo": {}, "minillm": TEACHER, "gkd": TEACHER, "score": {}, "scop": {},
}  # fmt: skip


def without(name: str, case: Case, rows: Sequence[int]) -> tuple[Recipe, TrajectoryBatch]:
    """The recipe and a batch in which these rows do not train."""
    recipe = recipes.load(name, **JOINT[name])
    mask_BT = case.mask_BT.copy()
    mask_BT[list(rows)] = False
    parts_BT = paper.process.halves(case).astype(np.int32)
    strand_B = [min(one, len(recipe.strands) - 1) for one in of(case)]
    a_BT = centred(case)[:, None] * np.ones(case.mask_BT.shape)
    return recipe, batch_of(case, strand_B, a_BT, mask_BT=mask_BT, part_BT=parts_BT)


@pytest.mark.parametrize("name", JOINT)
def test_pitfall_15_a_component_with_nothing_to_read_is_exactly_0(name: str) -> None:
    """A masked mean over nothing is 0 / 0; here the sum is empty, its divisor is 1, and a graph hangs on it."""
    assert math.isnan(float((torch.zeros(3) * 0).sum() / torch.zeros(3).sum()))
    case = mixed(0)
    everything = list(range(10))
    for rows in (off_rows(case), on_rows(case), everything):
        recipe, batch = without(name, case, rows)
        logits = torch.tensor(case.logits_BTV, requires_grad=True)
        said = evaluate(recipe.strands, batch, logits)
        assert said.loss.requires_grad and bool(torch.isfinite(said.loss))
        said.loss.backward()
        assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
        assert not logits.grad[list(rows)].any()
        if rows == everything:
            assert float(said.loss.detach()) == 0.0 and not logits.grad.any()


# ---------------------------------------------------------------- 16


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_16_a_response_that_starts_from_a_hint_is_of_two_kinds_token_by_token(seed: int) -> None:
    """Were a row from outside because any token is, the learner's own words would be imitated, or be in no group."""
    case = own(mixed(seed))
    hint_BT = paper.mixed.hints(case, 1)
    rows = [hinted(case, i, hint_BT, trained=True) for i in range(10)]
    origin_BT = np.where(hint_BT, int(Origin.HINT), int(Origin.LEARNER)).astype(np.int8)
    columns = {"origin_BT": origin_BT, "old_logps_BT": case.logps_BT}
    said = apply("uft", case, rows=rows, columns=columns, kl=0.0, nll=0.5)
    a_BT = centred(case, eps=1e-4)[:, None] * np.ones(case.mask_BT.shape)
    own_BT = case.mask_BT & ~hint_BT
    wanted = np.where(own_BT, a_BT / own_BT.sum(), 0.0) + np.where(hint_BT, 0.5 / hint_BT.sum(), 0.0)
    has_g(said, wanted)
    assert (said.coefficient_BT[own_BT] < 0).any(), "failed continuations are pushed down, their hint is not"
    assert (said.coefficient_BT[hint_BT] > 0).all()
    assert _compared(rows, "all") and not _compared(rows, "on_policy"), "by rows, nobody would be left to compare"
    for name in ("uft", "hint_prefix"):
        assert recipes.load(name).strands[0].credit.scope == "all"  # type: ignore[union-attr]


def _compared(rows: Sequence[Trajectory], scope: str) -> bool:
    """Whether UFT's credit with this scope gives any row an advantage."""
    credit = recipes.load("uft").strands[0].credit.model_copy(update={"scope": scope})
    hinted_rows = [one for one in rows[:5] if (one.origin == Origin.HINT).any()]
    return any(one.any() for one in assign(credit, hinted_rows).advantages)


# ---------------------------------------------------------------- 19


@pytest.mark.parametrize("seed", SEEDS)
def test_pitfall_19_torchs_kl_div_is_of_its_second_argument_and_so_is_asfts_anchor(seed: int) -> None:
    """F.kl_div(log p, q) is KL(q || p): of the reference's likelihood, forward; the other order is another loss."""
    case = own(small(seed))
    policy, reference, teacher = (
        torch.tensor(one).log_softmax(-1)
        for one in (case.logits_BTV, case.reference_logits_BTV, case.teacher_logits_BTV)
    )
    mask = torch.tensor(case.mask_BT)

    def torchs(left: torch.Tensor, right: torch.Tensor) -> float:
        return float(F.kl_div(left, right, reduction="none", log_target=True).sum(-1)[mask].mean())

    columns = {"columns": {"k": WHOLE}}
    said = {
        form: apply("on_policy_distillation", case, form=form, **columns, **TEACHER).loss
        for form in ("forward", "reverse")
    }
    assert said["forward"] == pytest.approx(torchs(policy, teacher), rel=1e-6)
    assert said["reverse"] == pytest.approx(torchs(teacher, policy), rel=1e-6)
    assert abs(said["forward"] / said["reverse"] - 1) > 0.001
    held, free = (apply("asft", case, kl=kl, **columns).loss for kl in (2.0, 1.0))
    assert held - free == pytest.approx(torchs(policy, reference), rel=1e-6), "KL(reference || policy), as the code"


# ---------------------------------------------------------------- 23


def test_pitfall_23_recipes_of_one_citation_are_of_one_paper_or_say_what_the_number_is() -> None:
    by_number: dict[str, list[str]] = {}
    for name in recipes.names():
        by_number.setdefault(recipes.file(name).citation.arxiv, []).append(name)
    for number, names in by_number.items():
        papers = {recipes.file(name).citation.paper for name in names}
        borrowed = [name for name in names if any("the number is that of" in note for note in recipes.file(name).notes)]
        own_papers = {recipes.file(name).citation.paper for name in names if name not in borrowed}
        assert len(own_papers) <= 1, f"{number} is cited as {papers} by {names}"
    assert by_number["2306.13649"] == ["gkd", "on_policy_distillation", "opd"]


def test_pitfall_23_a_short_name_that_two_methods_share_is_one_of_them_and_says_which() -> None:
    numbers = {name: recipes.file(name).citation.arxiv for name in recipes.names()}
    assert numbers["sdft"] == "2402.13669" and "2601.19897" not in numbers.values()
    assert "2601.19897" in (FOLDER / "sdft.yaml").read_text(), "the other method of that name"
    assert len({numbers[name] for name in ("opsd", "sdpo", "opcd", "exopd", "opd")}) == 5
    papers = [recipes.file(name).citation for name in ("opsd", "sdpo")]
    assert papers[0].paper != papers[1].paper


# ---------------------------------------------------------------- 24


def replayed(recipe: Recipe, of_strand: int = 0) -> Recipe:
    """The recipe, and its rollouts of earlier steps beside those of this one."""
    past: Strand = recipe.strands[of_strand].model_copy(
        update={"name": "past", "source": Source(producer="replay", per_prompt=2)}
    )
    return recipe.model_copy(update={"strands": (*recipe.strands, past)})


def refused(recipe: Recipe) -> list[str]:
    return [one.where for one in findings(recipe) if (one.level, one.rule) == ("error", "V15")]


def test_pitfall_24_rewards_and_teachers_that_move_are_not_replayed() -> None:
    assert refused(replayed(recipes.load("gad"))) == ["past"], "the discriminator's old scores"
    assert refused(replayed(recipes.load("sdpo"))) == ["past"], "the average's old distributions"
    assert refused(replayed(recipes.load("grpo"))) == [], "a verifier says today what it said then"
    assert refused(replayed(recipes.load("opcd"))) == [], "a fixed teacher does too"
    assert refused(recipes.load("gad")) == refused(recipes.load("sdpo")) == []


def test_pitfall_24_scores_of_another_version_in_one_step_are_declared() -> None:
    lagging = [one for one in findings(recipes.load("gad"), max_staleness=2) if one.rule == "V15"]
    assert [one.level for one in lagging] == ["declared"] and "up to 2 apart" in lagging[0].text
    assert not [one for one in findings(recipes.load("gad"), max_staleness=0) if one.rule == "V15"]
