"""Controls against closed forms: the mixture's schedule, and what becomes of groups without a difference."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controls import Constant, GroupStats, Mixture, ZeroVariance, decide, initial, plan_step, route

CHORD = Mixture(strand="sft", against="rl", warmup=10, decay=40, peak=0.9, floor=0.05)


def mu(control, step):
    return decide(control, initial(control), step, {}).coefficients["sft"]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (5, 0.45),
        (10, 0.9),
        (20, 0.05 + 0.85 * (1 + math.cos(math.pi / 4)) / 2),
        (30, 0.475),
        (50, 0.05),
        (999, 0.05),
    ],
)
def test_mu_rises_falls_and_stays(step, expected):
    assert mu(CHORD, step) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 200), st.integers(0, 30), st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_the_two_shares_add_to_one_and_stay_within_peak_and_floor(step, warmup, decay, peak, floor):
    control = Mixture(strand="sft", against="rl", warmup=warmup, decay=decay, peak=peak, floor=floor)
    shares = decide(control, {}, step, {}).coefficients
    assert shares["sft"] + shares["rl"] == pytest.approx(1)
    low = 0.0 if step < warmup else min(peak, floor)
    assert low - 1e-12 <= shares["sft"] <= max(peak, floor) + 1e-12


def test_a_reason_can_be_read():
    reason = decide(CHORD, {}, 22, {}).reason
    assert reason == "μ = 0.7248 on sft, 0.2752 on rl: step 12 of 40 of the cosine from 0.9 to 0.05"
    assert "rise" in decide(CHORD, {}, 3, {}).reason
    assert "floor" in decide(CHORD, {}, 60, {}).reason


def test_without_warm_up_or_decay_nothing_divides_by_zero():
    control = Mixture(strand="sft", against="rl", warmup=0, decay=0, peak=0.9, floor=0.1)
    assert mu(control, 0) == 0.1


def test_controls_compose_by_product():
    controls = (Constant(strand="sft", coefficient=0.5), CHORD, ZeroVariance())
    found = plan_step(controls, [initial(control) for control in controls], 10, {})
    assert found.coefficients == pytest.approx({"sft": 0.45, "rl": 0.1})
    assert len(found.reasons) == 2
    assert json.loads(json.dumps(found.states)) == [{}, {"mu": 0.9}, {"kept": 0, "dropped": 0}]


@pytest.mark.parametrize(
    ("rewards", "dropped", "said"),
    [
        ((1.0, 1.0, 1.0), True, "all 3 rewards are 1"),
        ((0.0, 1.0), False, ""),
        ((0.3, 0.1 + 0.2), True, "all 2 rewards are 0.3"),
        ((1.0, math.nan, 1.0), True, "1 more are unknown"),
        ((0.0, math.nan, 1.0), False, ""),
        ((math.nan, math.nan), True, "none of 2 rewards is known"),
        ((1.0,), True, "nothing to compare"),
    ],
)
def test_a_group_without_a_difference_goes_where_the_action_says(rewards, dropped, said):
    found = route(ZeroVariance(action="drop"), {"kept": 2, "dropped": 5}, GroupStats(rewards))
    assert (found.verdict == "drop") is dropped
    assert said in found.reason
    assert found.state == ({"kept": 2, "dropped": 6} if dropped else {"kept": 3, "dropped": 5})
    kept = route(ZeroVariance(action="keep"), {}, GroupStats(rewards))
    assert kept.verdict == "keep"
    assert said in kept.reason
