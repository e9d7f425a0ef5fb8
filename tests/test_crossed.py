"""Means over crossed seeds and prompts: intervals cover the truth, pairing narrows them, few seeds do not flatter."""

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.probes.crossed import crossed

DRAWS = 1000


def planted(rng, seeds, prompts, of_seed, of_prompt, noise, truth=0.1):
    """Values [draws, seeds, prompts] of a two-way random effects model about `truth`."""
    rows = rng.normal(0, of_seed, (DRAWS, seeds, 1)) + rng.normal(0, of_prompt, (DRAWS, 1, prompts))
    return truth + rows + rng.normal(0, noise, (DRAWS, seeds, prompts))


@pytest.fixture
def rng():
    return np.random.default_rng(20260407)


def coverage(values, truth=0.1, confidence=0.95):
    found = [crossed(one, confidence=confidence).interval for one in values]
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize(
    ("seeds", "of_seed"), [(1, 0.0), (2, 0.0), (3, 0.0), (3, 0.03), (5, 0.0), (5, 0.1), (8, 0.1)], ids=str
)
def test_a_95_percent_interval_covers_the_planted_mean(rng, seeds, of_seed):
    assert 0.92 <= coverage(planted(rng, seeds, 128, of_seed, 0.2, 0.15)) <= 0.985


def test_two_seeds_that_dominate_are_told_as_what_they_are(rng):
    """The docstring's figure: below nominal, and far better than intervals over prompts alone."""
    values = planted(rng, 2, 128, 0.1, 0.2, 0.15)
    over_prompts = [crossed(one.mean(axis=0, keepdims=True), confidence=0.95).interval for one in values]
    alone = float(np.mean([one.low <= 0.1 <= one.high for one in over_prompts]))
    both = coverage(values)
    assert 0.86 <= both <= 0.94
    assert alone < both - 0.15


def bootstrapped(rng, values, replicates=300):
    """The hierarchical bootstrap's percentile interval: seeds and prompts drawn anew, with replacement."""
    seeds, prompts = values.shape
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), replicates)
    by_prompt = rng.multinomial(prompts, np.full(prompts, 1 / prompts), replicates)
    means = ((by_seed @ values) * by_prompt).sum(axis=1) / (seeds * prompts)
    return np.quantile(means, [0.025, 0.975])


def test_a_bootstrap_over_few_seeds_would_promise_more_than_it_keeps(rng):
    values = planted(rng, 2, 128, 0.1, 0.2, 0.15)
    found = [bootstrapped(rng, one) for one in values[:200]]
    covered = float(np.mean([low <= 0.1 <= high for low, high in found]))
    assert covered < 0.9
    assert covered < coverage(values) - 0.04


def with_one_more(values):
    """Student's interval, with the squares of one value that is 1 away, half the span."""
    error = np.sqrt((np.sum((values - values.mean()) ** 2) + 1) / (len(values) - 1) / len(values))
    return stats.t.interval(0.9, len(values) - 1, values.mean(), error)


@pytest.mark.parametrize(("prompts", "share"), [(8, 0.05), (64, 0.02), (256, 0.005)])
def test_rare_prompts_that_change_wholly_are_covered(rng, prompts, share):
    """A share of prompts goes from never to always, and the others move by a draw or none: Student alone is fooled."""
    noise = rng.integers(-1, 2, (DRAWS, 1, prompts)) / 64
    values = np.where(rng.random((DRAWS, 1, prompts)) < share, 1.0, noise)
    half = stats.t.ppf(0.975, prompts - 1) * values.std(axis=2, ddof=1) / np.sqrt(prompts)
    fooled = float(np.mean(np.abs(values.mean(axis=2) - share) <= half))
    assert coverage(values, truth=share) >= 0.93
    assert fooled < 0.9


def test_one_seed_is_students_t_over_prompts(rng):
    values = rng.normal(0.2, 0.1, 30)
    expected = with_one_more(values)
    found = crossed(values[None], confidence=0.9)
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)
    assert math.isnan(found.between_seeds)


def test_one_prompt_is_students_t_over_seeds(rng):
    values = rng.normal(0.2, 0.1, 6)
    expected = with_one_more(values)
    found = crossed(values[:, None], confidence=0.9)
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)


def test_pairing_narrows_what_the_same_prompts_share(rng):
    hard = rng.beta(0.5, 0.5, 60)
    base, other = (hard + rng.normal(shift, 0.05, (3, 60)) for shift in (0.0, 0.05))
    paired = crossed(other - base, confidence=0.95).interval
    shuffled = crossed(other[:, rng.permutation(60)] - base, confidence=0.95).interval
    assert paired.low <= 0.05 <= paired.high
    assert paired.low > 0
    assert shuffled.high - shuffled.low > 3 * (paired.high - paired.low)


def test_the_seeds_share_of_the_variance_is_told(rng):
    loud = crossed(planted(rng, 4, 200, 0.3, 0.05, 0.05)[0], confidence=0.95)
    quiet = crossed(planted(rng, 4, 50, 0.0, 0.3, 0.05)[0], confidence=0.95)
    assert loud.between_seeds > 0.9
    assert quiet.between_seeds < 0.2


def test_a_prompt_unknown_with_one_seed_counts_with_none():
    values = np.array([[0.1, np.nan, 0.5], [0.2, 0.9, 0.4]])
    found = crossed(values, confidence=0.95)
    assert (found.prompts, found.seeds) == (2, 2)
    assert found.interval.value == pytest.approx(0.3)
    assert found.by_seed == pytest.approx((0.3, 0.3))


def test_order_of_seeds_and_prompts_does_not_matter(rng):
    values = planted(rng, 3, 20, 0.1, 0.1, 0.1)[0]
    mixed = values[rng.permutation(3)][:, rng.permutation(20)]
    one, other = (crossed(each, confidence=0.95).interval for each in (values, mixed))
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


@pytest.mark.parametrize(("seeds", "prompts"), [(1, 12), (3, 40)])
def test_values_that_are_all_alike_are_not_called_certain(seeds, prompts):
    """As many hidden prompts as Clopper and Pearson allow could differ, each at most as far as values go."""
    found = crossed(np.zeros((seeds, prompts)), confidence=0.95).interval
    hidden = float(stats.beta.ppf(0.975, 1, prompts))
    assert (found.low, found.value, found.high) == pytest.approx((-hidden, 0.0, hidden))
    ones = crossed(np.ones((seeds, prompts)), confidence=0.95, span=(0.0, 1.0)).interval
    assert (ones.value, ones.high) == (1.0, 1.0)
    assert ones.low == pytest.approx(1 - hidden)


def test_a_single_value_says_nothing_of_others():
    found = crossed(np.array([[0.4]]), confidence=0.95, span=(0.0, 1.0)).interval
    assert (found.value, found.low, found.high) == (0.4, 0.0, 1.0)


@pytest.mark.parametrize("shape", [(0, 0), (2, 0), (0, 5)])
def test_of_nothing_nothing_is_known(shape):
    found = crossed(np.zeros(shape), confidence=0.95)
    assert not found.interval.known
    assert not crossed(np.full((2, 3), np.nan), confidence=0.95).interval.known
