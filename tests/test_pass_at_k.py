"""pass@k against counting every draw, and pitfall 21: the plug-in estimate is biased low."""

from itertools import combinations
from math import comb

import pytest

from orchestrator.probes import pass_at_k


@pytest.mark.parametrize("n", [1, 5, 8])
def test_it_is_the_share_of_draws_that_hold_a_pass(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            draws = list(combinations([1] * c + [0] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(any(one) for one in draws) / len(draws), abs=1e-12)


def test_pitfall_21_the_plug_in_is_biased_low_and_this_is_not() -> None:
    """Over all outcomes of n = 8 responses that pass with p = 0.3, the mean estimate is 1 - (1 - p)^k."""
    n, k, p = 8, 4, 0.3
    chance = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = 1 - (1 - p) ** k
    assert sum(w * pass_at_k(n, c, k) for c, w in enumerate(chance)) == pytest.approx(truth, abs=1e-12)
    assert sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(chance)) < truth - 0.02
    assert (pass_at_k(8, 2, 4), 1 - 0.75**4) == (pytest.approx(0.7857, abs=1e-4), pytest.approx(0.6836, abs=1e-4))


def test_it_stays_in_range_where_a_factor_is_zero_and_for_many_responses() -> None:
    assert pass_at_k(8, 8, 3) == 1.0
    assert pass_at_k(8, 0, 3) == 0.0
    assert pass_at_k(8192, 1, 8192) == 1.0
    assert pass_at_k(4, 3, 2) == 1.0  # fewer failures than draws


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_what_cannot_be_estimated_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=rf"n={n}, c={c}, k={k}; it needs 0 <= c <= n and 1 <= k <= n"):
        pass_at_k(n, c, k)
