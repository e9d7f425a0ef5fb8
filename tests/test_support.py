"""Support at the level of completions: error rates summed over all outcomes, planted truth, mutants that die."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from orchestrator.probes import support
from orchestrator.probes.sequential import Counts, Plan, plan
from orchestrator.probes.support import SupportChange
from policies.bad_input import BadInput
from tests.drawn import counts, sampled
from tests.enumeration import RESPONSES, probability, table

NAMES = ("expanded", "retained", "attrited", "absent", "undecided")
DESIGNS = {"fixed": Plan.fixed(16), "sequential": plan(16, 0.2, 0.95, prompts=20, first=4)}
RATES = np.linspace(0.0, 1.0, 201)


def label(found: SupportChange, prompt: int) -> str:
    """The one set that the prompt stands in."""
    (name,) = [name for name in NAMES if prompt in getattr(found, name)]
    return name


def labels(design: Plan, among: int, *, epsilon: float, confidence: float) -> npt.NDArray[np.str_]:
    """[O, O]: what is said of a prompt for each pair of outcomes, beside prompts that pass always."""
    of = design.outcomes()
    top = np.full(among, of.n_O[-1]), np.full(among, of.c_O[-1])
    found = np.empty((len(of.n_O),) * 2, dtype="U9")
    for i, j in np.ndindex(found.shape):
        first, last = ((top[0].copy(), top[1].copy()) for _ in range(2))
        for side, at in ((first, i), (last, j)):
            side[0][0], side[1][0] = of.n_O[at], of.c_O[at]
        change = support.compare(first, last, epsilon=epsilon, confidence=confidence, plan=design)
        found[i, j] = label(change, 0)
    return found


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_without_change_any_false_claim_among_all_prompts_keeps_to_the_level(design: Plan) -> None:
    """Exact: 20 prompts that pass at the same rate before and after, at the worst rate for them all."""
    said, chances = labels(design, 20, epsilon=0.2, confidence=0.95), design.outcomes().chances(RATES)
    one = {name: np.einsum("ig,ij,jg->g", chances, said == name, chances) for name in ("expanded", "attrited")}
    any_of_20 = 1 - (1 - one["expanded"] - one["attrited"]) ** 20
    assert 0.01 < any_of_20.max() <= 0.05


def any_false(prompts: int, corrected_for: int) -> float:
    """Exact, with 16 samples at epsilon 0.2, where only a prompt without a pass can be outside: the chance that any of
    so many unchanged prompts is called changed, at the worst rate for them all."""
    chances, expanded = DESIGNS["fixed"].outcomes().chances(RATES), []
    for after in range(17):
        before, now = np.full(corrected_for, 16), np.full(corrected_for, 16)
        before[0], now[0] = 0, after
        expanded.append(0 in support.compare((16, before), (16, now), epsilon=0.2, confidence=0.95).expanded)
    either = 2 * chances[0] * (np.array(expanded) @ chances)
    return float(1 - (1 - either.max()) ** prompts)


@pytest.mark.parametrize("prompts", [40, 60, 150, 500])
def test_the_level_holds_for_every_number_of_prompts(prompts: int) -> None:
    """A correction that forgets one of the two directions is past the level for each of these."""
    assert 0.015 < any_false(prompts, prompts) <= 0.05 < any_false(prompts, prompts // 2)


def test_mutant_claims_that_are_not_corrected_for_the_number_of_prompts_are_caught() -> None:
    """Of 1,000 unchanged prompts some would be called changed in half of all probes."""
    assert any_false(1000, 1000) <= 0.05 < 0.5 < any_false(1000, 1)


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_what_is_said_of_one_prompt_is_wrong_with_probability_alpha_at_most(design: Plan) -> None:
    """Exact, over all pairs of pass rates; epsilon itself is in support."""
    said, chances = labels(design, 1, epsilon=0.2, confidence=0.95), design.outcomes().chances(RATES)
    inside = RATES >= 0.2
    truth = {
        "expanded": ~inside[:, None] & inside,
        "retained": inside[:, None] & inside,
        "attrited": inside[:, None] & ~inside,
        "absent": ~inside[:, None] & ~inside,
    }
    wrong = sum((chances.T @ (said == name) @ chances) * ~true for name, true in truth.items())
    assert isinstance(wrong, np.ndarray)
    assert 0.02 < wrong.max() <= 0.05
    assert all((said == name).any() for name in NAMES)


@pytest.mark.parametrize("known", [False, True], ids=["fixed", "sequential"])
def test_false_changes_of_many_unlike_prompts_are_as_rare_as_stated(known: bool) -> None:
    """Drawn: 64 prompts, an eighth of them at epsilon exactly; 300 probes."""
    rng, design = np.random.default_rng(6), plan(64, 0.05, 0.95, prompts=64) if known else Plan.fixed(64)
    rates = np.repeat([0.0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.3, 0.9], 8)
    probes = [[counts(rng, rates, design, known=known) for _ in range(2)] for _ in range(300)]
    found = [support.change(*pair, epsilon=0.05, confidence=0.95) for pair in probes]
    assert np.mean([len(one.expanded) + len(one.attrited) > 0 for one in found]) <= 0.05
    outside = np.mean([(one.before_P == -1)[rates == 0.05] for one in found])
    inside = np.mean([(one.before_P == 1)[rates < 0.05] for one in found])
    assert 0.02 < outside <= 0.05
    assert inside <= 0.05


def test_mutant_counts_of_a_stopped_draw_read_as_a_fixed_n_are_caught() -> None:
    """A prober that stops at the first look whose count alone refutes epsilon, looked at after each draw."""
    looks = tuple(range(1, 65))
    low = [int(stats.binom.ppf(0.05, n, 0.3)) - 1 for n in looks]
    naive = Plan(looks, (*low[:-1], -1), tuple(n + 1 for n in looks))
    of = naive.outcomes()
    chances = of.chances(np.array([0.3]))[:, 0]
    read_as_fixed = stats.binom.cdf(of.c_O, of.n_O, 0.3) <= 0.05
    ours = support.shown(Counts(of.n_O, of.c_O, naive), 0.3, 0.95) == -1
    assert chances[ours].sum() <= 0.05 < 0.15 < chances[read_as_fixed].sum()


def test_planted_sets_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    before, after = np.repeat([0.0, 0.6, 0.6, 0.0], 20), np.repeat([0.6, 0.6, 0.0, 0.0], 20)
    found = support.compare(
        (64, rng.binomial(64, before)), (64, rng.binomial(64, after)), epsilon=0.05, confidence=0.95
    )
    want = np.split(np.arange(80), 4)
    for name, rows in zip(("expanded", "retained", "attrited", "absent"), want, strict=True):
        assert getattr(found, name).tolist() == rows.tolist()
    assert found.undecided.size == 0


def test_few_samples_show_expansion_only_where_all_prompts_speak_for_it() -> None:
    """16 samples cannot refute a rate of 0.05. Prompts that passed now and then and now pass always are reshaped, not
    expanded: of a mutant that takes 16 failures for absence, every third claim is wrong here."""
    rng = np.random.default_rng(2)
    solved = rng.binomial(16, 0.95, 200)
    new = support.compare((16, np.zeros(200, np.int64)), (16, solved), epsilon=0.05, confidence=0.95)
    assert len(new.expanded) > 190
    alone = support.compare((16, [0] * 10), (16, [16] * 10), epsilon=0.05, confidence=0.95)
    assert len(alone.undecided) == 10
    claimed = mutant = 0
    for _ in range(50):
        seldom = rng.binomial(16, 0.06, 200)
        found = support.compare((16, seldom), (16, solved), epsilon=0.05, confidence=0.95)
        claimed += len(found.expanded)
        mutant += int(np.sum(seldom == 0))
    assert claimed == 0
    assert mutant > 50 * 60


def test_the_share_of_wrong_expansions_keeps_to_alpha_where_some_are_true() -> None:
    """24 samples at epsilon 0.1, too few to refute it one by one (P = 0.08); rates before are 0, 0.1 or 0.12."""
    rng, shares = np.random.default_rng(3), []
    before = np.repeat([0.0, 0.1, 0.12], [120, 4, 4])
    for _ in range(200):
        sides = (24, rng.binomial(24, before)), (24, rng.binomial(24, 0.9, before.size))
        found = support.compare(sides[0], sides[1], epsilon=0.1, confidence=0.95)
        shares.append(float(np.sum(before[found.expanded] >= 0.1)) / max(len(found.expanded), 1))
    assert np.mean([share > 0 for share in shares]) > 0.1
    assert np.mean(shares) <= 0.05


def test_support_of_policies_that_can_be_written_out_is_what_their_tables_say() -> None:
    """Each prompt has a table before and one after, and asks for one response; its exact probability is known."""
    rng, chances = np.random.default_rng(4), []
    for prompt in range(60):
        wanted = RESPONSES[prompt % len(RESPONSES)]
        tables = [3.0 * table(2 * prompt + side) for side in range(2)]
        chances.append([probability(one, wanted) for one in tables])
    truth = np.array(chances)
    drawn = rng.binomial(400, truth)
    found = support.compare((400, drawn[:, 0]), (400, drawn[:, 1]), epsilon=0.05, confidence=0.95)
    inside = truth >= 0.05
    exact = {(False, True): "expanded", (True, True): "retained", (True, False): "attrited", (False, False): "absent"}
    said = [label(found, at) for at in range(60)]
    decided = [at for at in range(60) if said[at] != "undecided"]
    right = [said[at] == exact[bool(inside[at, 0]), bool(inside[at, 1])] for at in decided]
    assert len(decided) >= 40
    assert {"expanded", "attrited", "retained", "absent"} <= set(said)
    assert np.mean(right) >= 0.97


def test_the_five_sets_hold_each_prompt_once_and_turn_with_time() -> None:
    rng = np.random.default_rng(5)
    n = rng.choice([0, 1, 16, 61, 64, 80], (2, 3000))
    c = rng.binomial(n, rng.choice([0.0, 0.04, 0.5, 1.0], (2, 3000)))
    there = support.compare((n[0], c[0]), (n[1], c[1]), epsilon=0.05, confidence=0.95)
    back = support.compare((n[1], c[1]), (n[0], c[0]), epsilon=0.05, confidence=0.95)
    assert sorted(np.concatenate([getattr(there, name) for name in NAMES]).tolist()) == list(range(3000))
    assert all(len(getattr(there, name)) > 0 for name in NAMES)
    for name, other in (("expanded", "attrited"), ("retained", "retained"), ("absent", "absent")):
        assert getattr(there, name).tolist() == getattr(back, other).tolist()
    shuffled = rng.permutation(3000)
    moved = support.compare(
        (n[0][shuffled], c[0][shuffled]), (n[1][shuffled], c[1][shuffled]), epsilon=0.05, confidence=0.95
    )
    assert sorted(shuffled[moved.expanded].tolist()) == there.expanded.tolist()
    assert set(np.flatnonzero((n == 0).any(0)).tolist()) <= set(there.undecided.tolist())


def test_many_prompts_and_none() -> None:
    rng = np.random.default_rng(7)
    before, after = np.repeat([0.0, 0.7], 50_000), np.full(100_000, 0.7)
    many = support.compare(
        (128, rng.binomial(128, before)), (128, rng.binomial(128, after)), epsilon=0.05, confidence=0.95
    )
    assert (len(many.expanded), len(many.retained)) == (50_000, 50_000)
    none = support.compare((16, []), (16, []), epsilon=0.05, confidence=0.95)
    assert [len(getattr(none, name)) for name in NAMES] == [0] * 5
    huge = support.compare((100_000, [0, 99_999]), (100_000, [90_000, 3]), epsilon=0.05, confidence=0.95)
    assert (huge.expanded.tolist(), huge.attrited.tolist()) == ([0], [1])


def test_probes_are_compared_by_the_ids_of_their_prompts() -> None:
    design = plan(64, 0.05, 0.95, prompts=3)
    never, always = [False] * 64, [True] * design.looks[0]
    before = sampled([never, always, always, never], ids=["a", "b", "c", "left"])
    after = sampled([always, [*always, False, False], never, never], ids=["a", "b", "c", "new"])
    found = support.of(before, after, epsilon=0.05, confidence=0.95, plan=design)
    assert found.prompts == ("a", "b", "c")
    assert [found.ids(getattr(found, name)) for name in NAMES[:3]] == [["a"], ["b"], ["c"]]
    turned = sampled([never, always, always], ids=["c", "a", "b"])
    again = support.of(before, turned, epsilon=0.05, confidence=0.95, plan=design)
    assert again.ids(again.expanded) == ["a"]


@pytest.mark.parametrize(
    ("before", "after", "epsilon", "confidence", "said"),
    [
        ((4, [1, 2]), (4, [1]), 0.1, 0.9, r"the same prompts \(got 2 and 1\)"),
        ((4, [5]), (4, [1]), 0.1, 0.9, "before: prompt 0: 5 of 4 samples passed; it needs 0 <= c <= n"),
        ((4, [1]), (4, [-1]), 0.1, 0.9, "after: prompt 0: -1 of 4"),
        ((-4, [0]), (4, [1]), 0.1, 0.9, "before: prompt 0: 0 of -4"),
        (([4, 4], [1]), (4, [1]), 0.1, 0.9, r"as long \(got shapes \(1,\) and \(2,\)\)"),
        ((4, [[1]]), (4, [1]), 0.1, 0.9, "successes must be one list"),
        ((4, [0.5]), (4, [1]), 0.1, 0.9, "successes must be whole numbers"),
        ((4.0, [1]), (4, [1]), 0.1, 0.9, "samples must be whole numbers"),
        ((4, [1]), (4, [1]), 0.0, 0.9, "epsilon must lie between 0 and 1"),
        ((4, [1]), (4, [1]), 0.1, 1.0, "confidence must lie between 0 and 1"),
        ((4, [1]), (4, [1]), float("nan"), 0.9, "epsilon must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    before: tuple[int, list[int]], after: tuple[int, list[int]], epsilon: float, confidence: float, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        support.compare(before, after, epsilon=epsilon, confidence=confidence)
