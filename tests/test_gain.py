"""A gain's parts: against the exact ones of planted worlds, another optimiser, and what must not change them."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2

from orchestrator.probes import gain, profile, sequential
from orchestrator.probes.intervals import Interval
from orchestrator.probes.sequential import Counts
from tests import planted_stages as planted

EPSILON = 0.05
PARTS = ("expansion", "reshaping", "attrition", "outside")


def counts(passed, n=16) -> Counts:
    c = np.asarray(passed, np.int64)
    return Counts(np.broadcast_to(np.asarray(n, np.int64), c.shape).copy(), c)


def decompose(before, after, least=None, epsilon=EPSILON, k=1) -> gain.Gain:
    return gain.decompose(before, after, least, epsilon=epsilon, confidence=0.95, k=k)


def population(kind: str, prompts: int, random: np.random.Generator):
    """Rates before and after: (p0, p1) are a sample of a distribution, some near epsilon on purpose."""
    lost = random.random(prompts)
    p0 = np.where(random.random(prompts) < 0.35, random.beta(0.3, 30, prompts), random.beta(0.8, 1.2, prompts))

    def tilt(p, strength):
        return p * np.exp(strength) / (p * np.exp(strength) + 1 - p)

    match kind:
        case "nothing":
            return p0, p0
        case "imported":
            chosen = (random.random(prompts) < 0.4) & (p0 < 0.1)
            return p0, np.where(chosen, p0 + (1 - p0) * random.beta(5, 3, prompts), p0)
        case "reweighted":
            return p0, tilt(p0, 1.5)
        case "lost":
            return p0, tilt(np.where(lost < 0.2, p0 * 0.05, p0), 1.0)
        case _:
            chosen = (random.random(prompts) < 0.3) & (p0 < 0.05)
            return p0, np.where(chosen, random.beta(2, 3, prompts), tilt(p0, 1.0))


def exact(p0, p1, epsilon=EPSILON) -> list[float]:
    inside0, inside1 = p0 >= epsilon, p1 >= epsilon
    masks = (~inside0 & inside1, inside0 & inside1, inside0 & ~inside1, ~inside0 & ~inside1)
    return [float(((p1 - p0) * mask).mean()) for mask in masks]


def studied(kind: str, prompts: int, samples: int, times: int):
    """Estimates [times, 4], whether the intervals cover the distribution's truth, and the naive sorting's values."""
    truth = np.array(exact(*population(kind, 200_000, np.random.default_rng(0))))
    values, covered, naive = [], [], []
    for seed in range(times):
        random = np.random.default_rng([seed, 1])
        p0, p1 = population(kind, prompts, random)
        c0, c1 = random.binomial(samples, p0), random.binomial(samples, p1)
        found = decompose(counts(c0, samples), counts(c1, samples))
        parts = [getattr(found, name) for name in PARTS]
        values.append([one.value for one in parts])
        covered.append([one.low <= true <= one.high for one, true in zip(parts, truth, strict=True)])
        naive.append(exact(c0 / samples, c1 / samples))
    return truth, np.array(values), np.array(covered), np.array(naive)


KINDS = ("nothing", "imported", "reweighted", "lost", "mixed")


def test_parts_are_near_the_truth_and_covered() -> None:
    """The quick twin of the proof below."""
    hits = []
    for kind in KINDS:
        truth, values, covered, _ = studied(kind, 48, 16, 4)
        assert np.abs(values.mean(0) - truth).max() < 0.045
        hits.append(covered)
    assert np.mean(hits) > 0.92


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover_and_the_bias_is_below_that_of_sorting_by_what_was_seen(kind: str) -> None:
    """Of 100 draws of 128 prompts. `lost` has its rates after about epsilon on purpose, where 16 draws tell least."""
    truth, values, covered, naive = studied(kind, 128, 16, 100)
    assert covered.mean() >= 0.95 and covered.mean(0).min() >= (0.88 if kind == "lost" else 0.91)
    bias, seen = np.abs(values.mean(0) - truth), np.abs(naive.mean(0) - truth)
    assert bias.max() < 0.015 and bias.sum() < seen.sum() + 0.005


def test_the_parts_sum_to_the_total_exactly() -> None:
    random = np.random.default_rng(5)
    n = random.integers(1, 40, 50)
    before, after = counts(random.binomial(n, 0.2), n), counts(random.binomial(n[::-1], 0.4), n[::-1])
    found = decompose(before, after)
    assert found.total.value == pytest.approx(np.mean(after.c_P / after.n_P - before.c_P / before.n_P))
    assert sum(getattr(found, name).value for name in PARTS) == pytest.approx(found.total.value, abs=1e-12)
    for name in PARTS:
        one = getattr(found, name)
        assert one.low <= one.value <= one.high
    assert found.expansion_share.value == pytest.approx(found.expansion.value / found.total.value)


def test_of_few_prompts_and_of_none() -> None:
    nothing = decompose(counts([]), counts([]))
    assert nothing.prompts == 0 and not nothing.total.known and not nothing.expansion.known
    undrawn = decompose(counts([0, 0], 0), counts([3, 4]))
    assert undrawn.prompts == 0 and not undrawn.reshaping.known
    partly = decompose(counts([0, 5], [0, 16]), counts([9, 9]))
    assert partly.prompts == 1 and partly.total.value == pytest.approx(0.25)
    one = decompose(counts([0]), counts([16]))
    assert one.expansion.high > 0.9 and not one.expansion.low > 0.9
    for c in (0, 16):
        still = decompose(counts([c] * 30), counts([c] * 30))
        assert still.total.value == 0 and abs(still.expansion.value) < 0.01
        assert still.expansion.low <= 0 <= still.expansion.high and still.attrition.low <= 0 <= still.attrition.high


def test_plain_cases_have_plain_answers() -> None:
    """Many draws, rates far from epsilon: then a prompt is where it looks to be."""
    c0, c1 = np.array([0] * 20 + [500] * 20 + [600] * 20), np.array([400] * 20 + [800] * 20 + [0] * 20)
    found = decompose(counts(c0, 1000), counts(c1, 1000))
    assert found.expansion.value == pytest.approx(0.4 / 3, abs=0.01)
    assert found.reshaping.value == pytest.approx(0.3 / 3, abs=0.01)
    assert found.attrition.value == pytest.approx(-0.6 / 3, abs=0.01)
    assert found.expansion.low > 0 and found.attrition.high < 0
    back = decompose(counts(c1, 1000), counts(c0, 1000))
    assert back.attrition.value == pytest.approx(-found.expansion.value, abs=0.005)
    assert back.total.value == pytest.approx(-found.total.value)


def test_the_order_of_prompts_does_not_matter_and_more_draws_narrow() -> None:
    random = np.random.default_rng(6)
    p0, p1 = population("mixed", 80, random)
    c0, c1 = random.binomial(16, p0), random.binomial(16, p1)
    found, order = decompose(counts(c0), counts(c1)), random.permutation(80)
    shuffled = decompose(counts(c0[order]), counts(c1[order]))
    for name in PARTS:
        assert getattr(shuffled, name).value == pytest.approx(getattr(found, name).value, abs=1e-9)
    sharp = decompose(counts(random.binomial(400, p0), 400), counts(random.binomial(400, p1), 400))
    for name in ("expansion", "reshaping"):
        wide, narrow = getattr(found, name), getattr(sharp, name)
        assert narrow.high - narrow.low < wide.high - wide.low


def test_a_good_trajectory_within_reach_is_evidence_where_no_sample_passed() -> None:
    """40 prompts of which no sample passed, and most do after: expansion, unless the bank shows that they were within
    reach all along."""
    c0, c1 = np.zeros(40), np.full(40, 8)
    apart = decompose(counts(c0), counts(c1))
    assert apart.expansion.low > 0.3 and apart.reshaping.high < 0.15
    bounds = np.full(40, 0.08), np.zeros(40)
    within = decompose(counts(c0), counts(c1), bounds)
    assert within.expansion.value < 0.01 and within.reshaping.low > 0.3
    impossible = decompose(counts(c0), counts(c1), (np.full(40, 1.0), np.full(40, np.nan)))
    assert np.isfinite(impossible.reshaping.value)


def test_pass_at_k_is_divided_by_its_own_closed_form() -> None:
    c0, c1 = np.array([0] * 30 + [200] * 30), np.array([200] * 30 + [600] * 30)
    found = decompose(counts(c0, 1000), counts(c1, 1000), k=4)
    at = [1 - (1 - p) ** 4 for p in (0.2, 0.6)]
    assert found.expansion.value == pytest.approx(at[0] / 2, abs=0.015)
    assert found.reshaping.value == pytest.approx((at[1] - at[0]) / 2, abs=0.015)
    few = decompose(counts([1, 1], [2, 8]), counts([1, 1], [8, 8]), k=4)
    assert few.prompts == 1 and few.k == 4


def test_draws_that_stop_early_bias_nothing() -> None:
    """A plan stops sure prompts early; with it the total and the parts are those of fixed draws, without it not."""
    random = np.random.default_rng(7)
    p0, p1 = population("mixed", 700, random)
    plan = sequential.plan(64, EPSILON, 0.95, prompts=700)
    passed = [random.random((700, 64)) < p[:, None] for p in (p0, p1)]
    stopped = [Counts(*plan.counted(one.tolist()), plan) for one in passed]
    whole = [counts(one.sum(1), 64) for one in passed]
    found, fixed = decompose(*stopped), decompose(*whole)
    assert stopped[0].n_P.sum() < 0.7 * whole[0].n_P.sum()
    truth = exact(p0, p1)
    for name, true in zip(PARTS, truth, strict=True):
        assert getattr(found, name).value == pytest.approx(true, abs=0.015)
    assert found.total.value == pytest.approx(fixed.total.value, abs=0.02)


def test_the_profile_is_that_of_another_optimiser() -> None:
    """scipy's SLSQP over the simplex, of a small mixture: the same best spread, the same ends."""
    random = np.random.default_rng(8)
    like = random.random((12, 5)) ** 3 + 1e-3
    count, prior = random.integers(1, 9, 12).astype(float), np.full(5, 0.2)
    data = profile.Data(like, count, prior)
    figures = random.normal(size=(2, 5))

    def told(g):
        return count @ np.log(like @ g) + profile.PRIOR_PROMPTS * prior @ np.log(np.maximum(g, 1e-300))

    def furthest(objective, constraints):
        ways = [
            minimize(
                objective,
                random.dirichlet(np.ones(5)),
                method="SLSQP",
                bounds=[(1e-9, 1)] * 5,
                constraints=[{"type": "eq", "fun": lambda g: g.sum() - 1}, *constraints],
                options={"maxiter": 200, "ftol": 1e-10},
            )
            for _ in range(40)  # it may end early and say that it is done; the furthest of many starts is the oracle
        ]
        return min((one for one in ways if one.success), key=lambda one: one.fun)

    top = furthest(lambda g: -told(g), [])
    best = profile.best(data)
    assert told(best) == pytest.approx(-top.fun, abs=1e-3)
    found = profile.intervals(data, best, figures, 0.95)
    within = [{"type": "ineq", "fun": lambda g: chi2.ppf(0.95, 1) / 2 - (-top.fun - told(g))}]
    for at, figure in enumerate(figures):
        low = furthest(lambda g, c=figure: c @ g, within).fun
        high = -furthest(lambda g, c=figure: -(c @ g), within).fun
        assert (found.low_M[at], found.high_M[at]) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_planted_stages_of_enumerable_policies_read_as_they_are() -> None:
    """World, sampled as a run samples it; the exact parts come from summing over every response."""
    random = np.random.default_rng(9)
    world = planted.world(200, random)
    for change in (planted.imported, planted.reweighted):
        after = change(world, random)
        truth = planted.exact_parts(after, EPSILON)
        first, last = (s.sets["probe"] for s in planted.snapshots(after, planted.Draws(samples=32), random))
        found = decompose(Counts(first.n_P, first.c_P), Counts(last.n_P, last.c_P))
        for name in PARTS:
            one: Interval = getattr(found, name)
            assert one.value == pytest.approx(truth[name], abs=0.03)
        assert found.expansion.low - 0.02 <= truth["expansion"] <= found.expansion.high + 0.02
