"""Retention and discovery: the published figures from their counts, and what samples say of planted ones."""

import math

import numpy as np
import pytest

from orchestrator.probes import curves, rates, support
from orchestrator.probes.sequential import Counts, Plan, plan
from tests.drawn import Floats, counts

NAMES = ("srr", "ndr", "sds", "nscr")
FIXED, SEQUENTIAL = Plan.fixed(64), plan(64, 0.05, 0.95)


def planted(rng: np.random.Generator, lost: float, gained: float, size: int) -> tuple[Floats, Floats]:
    """Half the prompts are solved before, seldom or always; a share of these is lost, of the others gained."""
    before = np.where(rng.random(size) < 0.5, rng.choice([0.08, 0.2, 0.5, 0.95], size), 0.0)
    after = np.where((before > 0) & (rng.random(size) < lost), 0.0, before)
    return before, np.where((before == 0) & (rng.random(size) < gained), 0.6, after)


def exact(before: Floats, after: Floats, epsilon: float) -> rates.Rates:
    """The rates of the pass probabilities themselves."""
    inside, now = before >= epsilon, after >= epsilon
    return rates.rates(int((inside & now).sum()), int((~inside & now).sum()), int((inside & ~now).sum()))


def test_published_figures_follow_from_their_counts() -> None:
    """ProRL v2 against its base model, epsilon at 8,192 samples, and AIME24 of thirty problems (arXiv 2507.14843)."""
    found = rates.rates(preserved=2388, expanded=48, shrunk=175)
    assert round(found.srr, 3) == 0.932
    assert round(found.ndr, 4) == 0.0197
    assert round(found.nscr, 3) == -0.049
    assert found.sds == pytest.approx(2 / (1 / found.srr + 1 / found.ndr))
    assert rates.epsilon_of(8192, 0.05) == pytest.approx(3.66e-4, abs=5e-7)
    for solved, published in ((28, 0.933), (25, 0.833)):
        one = Counts(np.full(30, 8192), np.repeat([1, 0], [solved, 30 - solved]))
        assert curves.curve(one, [8192], confidence=0.95)[0].value == pytest.approx(published, abs=5e-4)


def test_rates_without_prompts_are_unknown_and_nothing_found_is_nothing() -> None:
    assert all(math.isnan(getattr(rates.rates(0, 0, 0), name)) for name in NAMES)
    none = rates.rates(5, 0, 0)
    assert (none.srr, none.ndr, none.sds, none.nscr) == (1.0, 0.0, 0.0, 0.0)
    lost = rates.rates(0, 0, 5)
    assert (lost.srr, lost.nscr) == (0.0, -1.0)
    assert math.isnan(lost.ndr)
    with pytest.raises(ValueError, match="0 or more"):
        rates.rates(-1, 0, 0)


@pytest.mark.parametrize(("k", "zeta"), [(0, 0.05), (16, 0.0), (16, 1.0)])
def test_epsilon_needs_samples_and_a_risk(k: int, zeta: float) -> None:
    with pytest.raises(ValueError, match="it needs k >= 1 and 0 < zeta < 1"):
        rates.epsilon_of(k, zeta)


@pytest.mark.parametrize("zeta", [0.01, 0.05, 0.3])
def test_a_prompt_of_epsilon_is_missed_by_all_samples_at_most_at_the_stated_risk(zeta: float) -> None:
    for k in (4, 16, 64, 8192):
        assert (1 - rates.epsilon_of(k, zeta)) ** k <= zeta if rates.epsilon_of(k, zeta) < 1 else True


@pytest.mark.parametrize("design", [FIXED, SEQUENTIAL], ids=["fixed", "sequential"])
@pytest.mark.parametrize(("lost", "gained"), [(0.0, 0.0), (0.2, 0.0), (0.1, 0.3)])
def test_intervals_of_effective_support_hold_the_truth(lost: float, gained: float, design: Plan) -> None:
    """Of these prompts, in 95 % of probes at least: the undecided are counted both ways."""
    rng, held = np.random.default_rng(21), np.zeros((100, len(NAMES)))
    for probe in range(100):
        before, after = planted(rng, lost, gained, 128)
        truth = exact(before, after, 0.05)
        sides = [counts(rng, one, design, known=True) for one in (before, after)]
        found = rates.effective(support.change(*sides, epsilon=0.05, confidence=0.95), confidence=0.95)
        for at, name in enumerate(NAMES):
            one, true = getattr(found, name), getattr(truth, name)
            held[probe, at] = math.isnan(true) or one.low - 1e-9 <= true <= one.high + 1e-9
    assert np.all(held.mean(0) >= 0.95)


def test_the_papers_rates_need_the_reference_of_chance() -> None:
    """With no change at all, prompts that pass about once in k draws go in and out: SRR is below 1 by what the same
    policy drawn twice shows, which is estimated without bias from one probe."""
    rng, found = np.random.default_rng(22), []
    before = np.repeat([0.0, 0.05, 0.2, 0.9], 40)
    solved = 1 - (1 - before) ** 16
    true_srr = float((solved**2).sum() / solved.sum())
    for _ in range(60):
        sides = [counts(rng, before, FIXED) for _ in range(2)]
        srr = rates.solved(sides[0], sides[1], 16, confidence=0.95).srr
        found.append((srr.value, rates.by_chance(sides[0], 16).srr, srr.low <= true_srr <= srr.high))
    srr, chance, held = np.mean(found, axis=0)
    assert true_srr < 0.92
    assert srr == pytest.approx(true_srr, abs=0.005)
    assert chance == pytest.approx(true_srr, abs=0.005)
    assert held >= 0.95


def test_the_reference_of_chance_is_unbiased_at_few_samples() -> None:
    """8 samples for k = 4, many prompts: squares of the estimates would read luck as constancy."""
    rng, rate = np.random.default_rng(23), np.repeat([0.05, 0.3], 20_000)
    solved = 1 - (1 - rate) ** 4
    of = Counts(np.full(rate.size, 8), rng.binomial(8, rate))
    assert rates.by_chance(of, 4).srr == pytest.approx(float((solved**2).sum() / solved.sum()), abs=0.005)


def test_solved_rates_are_counts_of_prompts_where_k_is_all_samples() -> None:
    """As the paper counts: any of the k responses passed."""
    before, after = (
        Counts(np.full(6, 8), np.array([1, 8, 3, 0, 0, 2])),
        Counts(np.full(6, 8), np.array([2, 0, 1, 4, 0, 8])),
    )
    found, want = rates.solved(before, after, 8, confidence=0.95), rates.rates(3, 1, 1)
    for name in NAMES:
        one = getattr(found, name)
        assert one.value == pytest.approx(getattr(want, name))
        assert one.low <= one.value <= one.high
    assert math.isnan(rates.by_chance(before, 8).srr)
    none = Counts(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert not rates.solved(none, none, 8, confidence=0.95).srr.known
