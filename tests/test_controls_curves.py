"""Schedules of coefficients against closed forms, step by step: mixtures, annealing, turns."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controls import Alternate, Anneal, Buffer, Mixture, Moment, Scope, decide, initial, plan_step

CHORD = Mixture(strand="sft", against="rl", warmup=10, decay=40, peak=0.9, floor=0.05)
RELIFT = Buffer(watch="rl", strand="sft", size=3)


def said(control, step):
    return decide(control, initial(control), Moment(step, 100, {}, 0))


def plan(*controls, step=0, states=None):
    states = states or [initial(control) for control in controls]
    return plan_step(controls, states, step, {}, 0, Scope(100, ("rl", "sft")))


# ---------------------------------------------------------------- curves


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
    assert said(CHORD, step).coefficients["sft"] == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 200), st.integers(0, 30), st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_the_two_shares_add_to_one_and_stay_within_peak_and_floor(step, warmup, decay, peak, floor):
    control = Mixture(strand="sft", against="rl", warmup=warmup, decay=decay, peak=peak, floor=floor)
    shares = said(control, step).coefficients
    assert shares["sft"] + shares["rl"] == pytest.approx(1)
    low = 0.0 if step < warmup else min(peak, floor)
    assert low - 1e-12 <= shares["sft"] <= max(peak, floor) + 1e-12


def test_a_whole_run_follows_the_curve_of_the_paper():
    t = np.arange(80)
    rise, fall = 0.9 * t / 10, 0.05 + 0.85 * 0.5 * (1 + np.cos(np.pi * np.clip((t - 10) / 40, 0, 1)))
    found = [said(CHORD, int(step)).coefficients["sft"] for step in t]
    np.testing.assert_allclose(found, np.where(t < 10, rise, fall), atol=1e-12)


def test_a_reason_can_be_read():
    assert said(CHORD, 22).reason == "μ = 0.7248 on sft, 0.2752 on rl: step 12 of 40 of the cosine from 0.9 to 0.05"
    assert "rise" in said(CHORD, 3).reason
    assert "floor" in said(CHORD, 60).reason


def test_without_warm_up_or_decay_nothing_divides_by_zero():
    control = Mixture(strand="sft", against="rl", warmup=0, decay=0, peak=0.9, floor=0.1)
    assert said(control, 0).coefficients["sft"] == 0.1


@pytest.mark.parametrize(
    ("curve", "step", "expected"),
    [
        *[("linear", 0, 2.0), ("linear", 25, 1.625), ("linear", 50, 1.25), ("linear", 100, 0.5), ("linear", 999, 0.5)],
        *[("cosine", 0, 2.0), ("cosine", 50, 1.25), ("cosine", 100, 0.5), ("cosine", 999, 0.5)],
        ("cosine", 25, 1.25 + 0.75 / math.sqrt(2)),
        ("cosine", 75, 1.25 - 0.75 / math.sqrt(2)),
    ],
)
def test_a_coefficient_is_annealed_on_a_line_or_half_a_cosine(curve, step, expected):
    found = said(Anneal(strand="sft", start=2.0, end=0.5, over=100, curve=curve), step)
    assert found.coefficients == {"sft": pytest.approx(expected, abs=1e-12)}
    assert f"has coefficient {expected:.4g}" in found.reason
    shape = {"linear": "line", "cosine": "cosine"}[curve]
    end = f"past the {shape}; it ends at 0.5" if step >= 100 else f"step {step} of 100 of the {shape} from 2 to 0.5"
    assert end in found.reason


@given(st.integers(1, 300), st.floats(0, 4), st.floats(0, 4))
def test_the_cosine_and_the_line_share_ends_and_middle_and_the_cosine_is_symmetric(over, start, end):
    def curve(kind):
        control = Anneal(strand="sft", start=start, end=end, over=over, curve=kind)
        return np.array([said(control, step).coefficients["sft"] for step in range(over + 1)])

    line, cosine = curve("linear"), curve("cosine")
    np.testing.assert_allclose(line, np.linspace(start, end, over + 1), atol=1e-12)
    np.testing.assert_allclose(
        cosine, (start + end) / 2 + (start - end) / 2 * np.cos(np.linspace(0, np.pi, over + 1)), atol=1e-12
    )
    np.testing.assert_allclose(cosine + cosine[::-1], start + end, atol=1e-12)


# ---------------------------------------------------------------- turns


@pytest.mark.parametrize(
    ("steps", "against_steps", "turns"),
    [(1, 1, "srsrsrsr"), (2, 3, "ssrrrssrrr"), (3, 1, "sssrsssr"), (1, 4, "srrrrsrrrr")],
)
def test_two_strands_take_turns_of_their_own_lengths(steps, against_steps, turns):
    control = Alternate(strand="sft", against="rl", steps=steps, against_steps=against_steps)
    names = {"s": "sft", "r": "rl"}
    for step, turn in enumerate(turns):
        found = plan(control, step=step)
        assert found.rest == set(names.values()) - {names[turn]}
        begun = len(turns[: step + 1]) - len(turns[: step + 1].rstrip(turn))
        length = steps if turn == "s" else against_steps
        assert f"the step is {names[turn]}'s: number {begun} of {length} in its turn" in found.reasons[0]


def test_turns_compose_with_curves_and_with_a_buffer():
    turns = Alternate(strand="sft", against="rl")
    sft = plan(turns, Anneal(strand="sft", start=1.0, end=0.0, over=4), step=2)
    assert sft.coefficients == {"rl": 0.0, "sft": 0.5}
    waiting = [{}, {"waiting": ["a", "b", "c"]}]
    assert plan(turns, RELIFT, states=waiting, step=0).only_prompts == {"sft": ("a", "b", "c")}
    held = plan(turns, RELIFT, states=waiting, step=1)
    assert held.only_prompts == {} and held.states[1] == waiting[1] and held.rest == {"sft"}
