"""Tallies of verdicts: they add up in any order, tell percentiles to 5 %, and survive JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.grader import Asked
from verifiers.health import EXAMPLES, GROWTH, LEAST_SECONDS, Tally, Who, added, of, read, rows, tallied
from verifiers.score import Score, Status

UNKNOWN = [Status.ERROR, Status.TIMEOUT, Status.REFUSED, Status.SKIPPED]


def asked(index: int, response: str = "text") -> Asked:
    return Asked(f"r{index}", "p", response, '"1"')


SCORES = st.builds(
    lambda status, value, seconds: (
        Score(value, value >= 1, seconds=seconds) if status == Status.OK else Score.unknown(status, f"why {status}")
    ),
    st.sampled_from([Status.OK, Status.OK, *UNKNOWN]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.floats(1e-6, 100) | st.just(math.nan),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(SCORES, max_size=30), st.randoms(use_true_random=False))
def test_batches_add_up_in_any_order_and_any_division(scores, random):
    pairs = [(score, asked(index)) for index, score in enumerate(scores)]
    whole = added({Who("reward", "", ""): of(*pair)} for pair in pairs)
    random.shuffle(pairs)
    cut = random.randint(0, len(pairs))
    parts = [tallied("reward", [a for _, a in some], [s for s, _ in some]) for some in (pairs[:cut], pairs[cut:])]
    again = added(random.sample(parts, 2))
    assert again == whole
    assert read(json.loads(json.dumps(rows(again)))) == again


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(LEAST_SECONDS, 1000), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_right_to_a_twentieth(seconds, share):
    tally = added({Who("reward", "", ""): of(Score(1.0, True, seconds=one), asked(0))} for one in seconds)
    exact = np.quantile(seconds, share, method="inverted_cdf")
    assert tally[Who("reward", "", "")].seconds(share) == pytest.approx(exact, rel=(GROWTH - 1) / (GROWTH + 1) + 1e-6)


def test_the_sketch_stays_small_however_many_verdicts():
    seconds = np.random.default_rng(0).lognormal(-3, 2, 20_000)
    total = added({Who("r", "", ""): of(Score(1.0, True, seconds=float(one)), asked(0))} for one in seconds)
    assert len(total[Who("r", "", "")].buckets) < 200
    assert math.isnan(Tally().seconds(0.5))


def test_shares_are_of_those_that_were_asked():
    statuses = [Status.OK] * 5 + [Status.ERROR] * 2 + [Status.TIMEOUT, Status.REFUSED, Status.SKIPPED]
    scores = [Score(1.0, True) if one == Status.OK else Score.unknown(one, "") for one in statuses]
    (tally,) = tallied("reward", [asked(at) for at in range(10)], scores).values()
    assert (tally.verdicts, tally.asked) == (5, 9)
    assert tally.unknown_share == pytest.approx(4 / 9)
    assert math.isnan(Tally().unknown_share)


def test_constant_is_said_of_values_alone():
    def of_values(*values):
        return added({Who("r", "", ""): of(Score(one, None), asked(0))} for one in values)[Who("r", "", "")]

    assert of_values(0.5, 0.5).constant and of_values(0.0).constant
    assert not of_values(0.5, 0.5, 0.50001).constant
    assert not Tally().constant and not Tally({"error": 3}).constant


def test_parts_are_counted_under_their_own_names():
    inner = Score(1.0, True, scorer="format", version="v2")
    form = Score(1.0, True, scorer="rubric", version="v1", parts={"format": inner})
    judge = Score.unknown(Status.SKIPPED, "not asked")
    whole = Score(0.0, False, scorer="rubric", version="v0", parts={"form": form, "judge": judge})
    found = tallied("reward", [asked(0)], [whole])
    assert [(who.name, who.scorer, who.version) for who in found] == [
        ("form", "rubric", "v1"),
        ("form/format", "format", "v2"),
        ("judge", "", ""),
        ("reward", "rubric", "v0"),
    ]
    assert found[Who("judge", "", "")].asked == 0
    held = tallied("held_out", [asked(0)], [whole])
    assert sorted(who.name for who in held) == ["held_out", "held_out/form", "held_out/form/format", "held_out/judge"]


def test_a_few_failures_are_kept_and_cut_short():
    scores = [Score.unknown(Status.ERROR, "x" * 1000)] * 50
    (tally,) = tallied("reward", [asked(at, "y" * 10_000) for at in range(50)], scores).values()
    assert len(tally.failures) == EXAMPLES
    assert all(len(one.response) < 300 and len(one.reason) < 300 for one in tally.failures)
    assert tally.counts == {"error": 50}
