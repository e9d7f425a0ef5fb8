"""Agreement: against scipy, worked tables, a sum over all pairs, and what must not change it."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, rankdata

from verifiers import Score, Status
from verifiers.agreement import agreement, cohen_kappa, krippendorff_alpha, share

NAN = math.nan

KRIPPENDORFF = [
    [None, None, None, None, None, 3, 4, 1, 2, 1, 1, 3, 3, None, 3],
    [1, None, 2, 1, 3, 3, 4, 3, None, None, None, None, None, None, None],
    [None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4],
]
"""Krippendorff's own worked example (Computing Krippendorff's Alpha-Reliability, 2011)."""


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 20), (499, 1000)])
def test_the_interval_is_scipys(hits: int, count: int) -> None:
    oracle = binomtest(hits, count).proportion_ci(confidence_level=0.95, method="wilson")
    found = share(hits, count)
    assert (found.value, found.count) == (hits / count, count)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_a_share_of_nothing_is_unknown() -> None:
    assert math.isnan(share(0, 0).value) and math.isnan(cohen_kappa([], [])) and math.isnan(krippendorff_alpha([]))


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ([[20, 5], [10, 15]], 0.4),
        ([[45, 15], [25, 15]], 0.130435),
        ([[25, 35], [5, 35]], 0.259259),
        ([[9, 0], [0, 4]], 1.0),
    ],
)
def test_kappa_of_worked_tables(table: list[list[int]], kappa: float) -> None:
    cases = [(a, b) for a, row in enumerate(table) for b, count in enumerate(row) for _ in range(count)]
    random.Random(0).shuffle(cases)
    first, second = zip(*cases, strict=True)
    assert cohen_kappa(first, second) == pytest.approx(kappa, abs=1e-6)
    assert cohen_kappa([*first, None, 1.0], [*second, 1, NAN]) == pytest.approx(kappa, abs=1e-6)


def test_kappa_of_raters_who_never_differ_is_not_defined() -> None:
    assert math.isnan(cohen_kappa([1, 1, 1], [1, 1, 1]))


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.691), ("ordinal", 0.807), ("interval", 0.811)])
def test_alpha_of_the_worked_example(metric, alpha) -> None:
    assert krippendorff_alpha(KRIPPENDORFF, metric) == pytest.approx(alpha, abs=5e-4)


def brute_alpha(raters, metric: str) -> float:
    """By its definition: mean squared difference within cases against that over all pairs of values."""
    units = [[one for one in column if one is not None] for column in zip(*raters, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    flat = [one for unit in units for one in unit]
    rank = dict(zip(flat, rankdata(flat), strict=True))
    place = {"nominal": lambda a: a, "ordinal": rank.get, "interval": lambda a: a}[metric]

    def apart(a, b) -> float:
        return float(a != b) if metric == "nominal" else (place(a) - place(b)) ** 2

    within = sum(sum(apart(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units)
    over = sum(apart(a, b) for a, b in itertools.permutations(flat, 2))
    count = len(flat)
    return 1 - (within / count) / (over / (count * (count - 1))) if over else NAN


ratings = st.integers(2, 4).flatmap(
    lambda raters: st.integers(1, 8).flatmap(
        lambda cases: st.lists(
            st.lists(st.none() | st.integers(1, 5), min_size=cases, max_size=cases), min_size=raters, max_size=raters
        )
    )
)


@settings(max_examples=150, deadline=None)
@given(ratings, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_its_definition(raters, metric) -> None:
    found, oracle = krippendorff_alpha(raters, metric), brute_alpha(raters, metric)
    assert (math.isnan(found) and math.isnan(oracle)) or found == pytest.approx(oracle, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(ratings, st.randoms())
def test_alpha_knows_no_order_of_raters_or_cases(raters, draw) -> None:
    columns = list(zip(*raters, strict=True))
    draw.shuffle(columns)
    again = [list(row) for row in zip(*columns, strict=True)]
    draw.shuffle(again)
    assert np.isclose(krippendorff_alpha(raters, "interval"), krippendorff_alpha(again, "interval"), equal_nan=True)


def test_ordinal_alpha_reads_ranks_alone() -> None:
    stretched = [[None if one is None else one**3 for one in row] for row in KRIPPENDORFF]
    assert krippendorff_alpha(stretched, "ordinal") == pytest.approx(krippendorff_alpha(KRIPPENDORFF, "ordinal"))
    assert krippendorff_alpha(stretched, "interval") != pytest.approx(krippendorff_alpha(KRIPPENDORFF, "interval"))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"different numbers of cases \(2, 1\)"):
        krippendorff_alpha([[1, 2], [1]])
    with pytest.raises(ValueError, match="need numbers"):
        krippendorff_alpha([["a", "b"], ["a", "c"]], "interval")


def test_two_verifiers_agree_on_what_both_judged() -> None:
    yes, no, broke = Score(1.0, True), Score(0.0, False), Score.unknown(Status.ERROR, "x")
    first = [yes] * 20 + [yes] * 5 + [no] * 10 + [no] * 15 + [broke, yes]
    second = [yes] * 20 + [no] * 5 + [yes] * 10 + [no] * 15 + [yes, broke]
    found = agreement(first, second)
    assert (found.same.value, found.same.count) == (0.7, 50)
    assert found.kappa == pytest.approx(0.4)
