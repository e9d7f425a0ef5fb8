"""The benchmark of verifiers: what it times is judged right, bombs are bombs, and its figures are what they say."""

import numpy as np
import pytest

from benchmarks.verifier_contests import contests
from benchmarks.verifiers import agree, measure, percentile
from verifiers.verifier import build

QUICK = ("answer", "format", "json_schema", "repetition", "program, stdin")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 99, 100, 400])
def test_percentiles_are_numpys_by_nearest_rank(share, count):
    values = list(np.random.default_rng(count).random(count))
    assert percentile(values, share) == np.quantile(values, share, method="inverted_cdf")


@pytest.fixture(scope="module")
def made():
    return {one.name: one for one in contests()}


@pytest.mark.parametrize("name", QUICK)
def test_verifier_and_floor_are_right_about_the_answers(made, name):
    verifier = build(made[name].config)
    agree(made[name], verifier.score_many)
    bomb = verifier.score(made[name].bomb.prompt, made[name].bomb.response, made[name].bomb.reference)
    verifier.close()
    assert not bomb.passed


def test_a_round_counts_what_was_judged(made):
    (one,) = measure(made["json_schema"], 1, 0.01)
    assert one.answers == 100 and one.lost == 0
    assert 0 < one.p50 <= one.p99 < made["json_schema"].deadline
    assert one.bombed_worst >= made["json_schema"].deadline  # the bomb took all of its time,
    assert one.bombed < 100 / made["json_schema"].deadline  # and no answer was judged meanwhile
    assert 0 < one.bound < one.rate and one.core > 0 and one.floor_core > 0
