"""Plans that stop early, against every order of passes and failures; what is unbiased, what is sure, what is saved."""

import itertools

import numpy as np
import pytest

from benchmarks.sequential_sampling import measured
from orchestrator.probes.sequential import Counts, Plan, matched, plan
from orchestrator.probes.sequential import counts as counted
from policies.bad_input import BadInput
from tests.drawn import sampled

SMALL = Plan((2, 4, 9), (-1, 0, -1), (2, 4, 10))
"""Stops after two passes, after four failures, or at nine."""
PLANS = {
    "small": SMALL,
    "fixed": Plan.fixed(9),
    "two-sided": plan(64, 0.3, 0.9, prompts=10),
    "default": plan(64, 0.05, 0.95),
}
RATES = np.linspace(0.0, 1.0, 41)


def ended(design: Plan, verdicts: tuple[int, ...]) -> tuple[int, int]:
    """(n, c) where the prober stops, asked look by look."""
    for look in design.looks:
        n, c = np.array([look]), np.array([sum(verdicts[:look])])
        if design.stopped(n, c)[0]:
            break
    return int(n[0]), int(c[0])


@pytest.mark.parametrize("design", [SMALL, Plan.fixed(9)], ids=["small", "fixed"])
def test_paths_and_estimates_are_those_of_all_orders(design: Plan) -> None:
    """512 orders of nine verdicts, walked one by one."""
    of = design.outcomes()
    orders: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for verdicts in itertools.product((0, 1), repeat=9):
        orders.setdefault(ended(design, verdicts), []).append(verdicts)
    assert set(zip(of.n_O.tolist(), of.c_O.tolist(), strict=True)) == set(orders)
    for at, (n, c) in enumerate(zip(of.n_O.tolist(), of.c_O.tolist(), strict=True)):
        assert np.exp(of.log_paths_O[at]) == pytest.approx(len({one[:n] for one in orders[n, c]}))
        for k in (1, 2, 4):
            share = np.mean([any(one[:k]) for one in orders[n, c]])
            assert design.pass_at_k(k)[at] == pytest.approx(share, abs=1e-12)
        begins = np.mean([one[:2] == (1, 0) for one in orders[n, c]])
        assert design.begins(2, 1)[at] == pytest.approx(begins, abs=1e-12)


@pytest.mark.parametrize("design", PLANS.values(), ids=PLANS)
def test_probabilities_sum_to_one_and_tails_rise_with_the_pass_rate(design: Plan) -> None:
    of = design.outcomes()
    assert of.chances(RATES).sum(0) == pytest.approx(np.ones(len(RATES)))
    assert np.all(np.diff(of.at_least(RATES), axis=1) >= -1e-12)
    assert np.all(np.diff(of.at_most(RATES), axis=1) <= 1e-12)


@pytest.mark.parametrize("name", PLANS)
def test_pass_at_k_is_unbiased_whatever_stopped_the_draws(name: str) -> None:
    """Exact expectations; NaN where draws may stop without a pass before k."""
    design = PLANS[name]
    chances, known = design.outcomes().chances(RATES), 0
    for k in (1, 2, 3, 4, 8, 9, 16, 64):
        estimate = design.pass_at_k(k)
        if not np.isnan(estimate).any():
            known += 1
            assert estimate @ chances == pytest.approx(1 - (1 - RATES) ** k, abs=1e-9)
    assert known == {"small": 4, "fixed": 6, "two-sided": 5, "default": 8}[name]


def test_mutant_the_share_that_passed_is_biased_where_passes_stop_the_draws() -> None:
    of = PLANS["default"].outcomes()
    plug_in = (of.c_O / of.n_O) @ of.chances(RATES)
    assert np.max(plug_in - RATES) > 0.02


def test_nothing_stops_between_looks_and_everything_at_the_last() -> None:
    n = np.array([1, 2, 2, 3, 4, 4, 8, 9, 10])
    c = np.array([1, 1, 2, 3, 0, 1, 8, 5, 0])
    assert SMALL.stopped(n, c).tolist() == [False, False, True, False, True, False, False, True, True]


def test_verdicts_count_up_to_where_the_plan_ends_and_late_ones_do_not() -> None:
    verdicts = [(1, 1, 0, 0), (0, 1, 1), (0, 0, 0, 0, 1), (1, 0, 0, 1, 0, 0, 0, 0, 0, 1), (), (1,)]
    n, c = SMALL.counted([[bool(one) for one in row] for row in verdicts])
    assert (n.tolist(), c.tolist()) == ([2, 3, 4, 9, 0, 1], [2, 2, 0, 2, 0, 1])
    of = Counts(n, c, SMALL)
    designs = {design.looks: rows.tolist() for design, rows in of.designs()}
    assert designs == {(1,): [5], (2, 3): [1], (2, 4, 9): [0, 2, 3]}


def test_counts_of_a_record_are_its_own_without_a_plan() -> None:
    record = sampled([[True, True, False], [False] * 9])
    assert counted(record).n_P.tolist() == [3, 9]
    assert counted(record, Plan.fixed(9)).n_P.tolist() == [3, 9]
    assert counted(record, SMALL).n_P.tolist() == [2, 4]
    there, back = matched(sampled([[]] * 3, ids=["a", "b", "c"]), sampled([[]] * 2, ids=["c", "a"]))
    assert (there.tolist(), back.tolist()) == ([0, 2], [1, 0])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("samples", "epsilon"), [(16, 0.2), (64, 0.05), (100, 0.1), (256, 0.05), (64, 0.5)])
def test_all_looks_together_keep_to_the_error_of_one(samples: int, epsilon: float, confidence: float) -> None:
    """Exactly, at epsilon: draws that stop low refute it, draws that stop high affirm it."""
    design = plan(samples, epsilon, confidence, prompts=4)
    of = design.outcomes()
    chances = of.chances(np.array([epsilon]))[:, 0]
    early = of.n_O < samples
    passes = of.c_O / of.n_O
    low, high = chances[early & (passes < epsilon)].sum(), chances[early & (passes >= epsilon)].sum()
    assert low <= 1 - confidence
    assert high <= 1 - confidence
    assert low + high + chances[~early].sum() == pytest.approx(1.0)


def test_mastered_prompts_end_at_the_first_look_and_unreached_ones_once_absence_is_shown() -> None:
    design = plan(256, 0.05, 0.95)
    of = design.outcomes()
    never, half, always = of.n_O @ of.chances(np.array([0.0, 0.5, 1.0]))
    assert (never, always) == (64, 8)
    assert half < 12


def test_draws_are_saved_at_equal_width_of_the_share_of_solved_prompts() -> None:
    """The goal, three times fewer, is met from 256 samples on for every mix and at 64 where most is mastered; at 16 no
    plan can: absence takes 59 draws to show."""
    rows = {(row["N"], str(row["mix"])[:13]): row for row in measured()}
    assert min(float(row["support"]) for (n, _), row in rows.items() if n == 256) >= 3
    assert float(rows[64, "most mastered"]["support"]) >= 3
    assert max(float(row["support"]) for (n, _), row in rows.items() if n == 16) < 2
    assert max(float(row["width"]) for row in rows.values()) < 1.03


@pytest.mark.parametrize(
    ("samples", "epsilon", "confidence", "prompts", "said"),
    [
        (0, 0.1, 0.9, 1, "must be 1 or more"),
        (4, 0.1, 0.9, 0, "must be 1 or more"),
        (4, 0.0, 0.9, 1, "epsilon must lie between 0 and 1"),
        (4, 0.1, 1.0, 1, "confidence must lie between 0 and 1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    samples: int, epsilon: float, confidence: float, prompts: int, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        plan(samples, epsilon, confidence, prompts=prompts)
    with pytest.raises(ValueError, match="k is 0"):
        SMALL.pass_at_k(0)


@pytest.mark.parametrize("samples", [1, 2, 8, 9, 1000])
def test_plans_of_any_size_end(samples: int) -> None:
    design = plan(samples, 0.05, 0.95)
    assert design.looks[-1] == samples
    assert list(design.looks) == sorted(set(design.looks))
    assert hash(design) == hash(plan(samples, 0.05, 0.95))
