"""Reach of good trajectories: worked numbers, enumerable policies, what must not change it, and damaged rows."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from orchestrator.json_lines import plain
from orchestrator.probes import clusters, reach, scores
from orchestrator.probes.snapshot import Scored
from tests.enumeration import RESPONSES, probability, states, table
from tests.planted_stages import tokens_of


def row(chances, **changes) -> Scored:
    """A trajectory whose tokens have these probabilities; the likeliest token is the good one from 0.5 on."""
    p = np.asarray(chances, np.float64)
    with np.errstate(divide="ignore"):
        logs = np.log(p).astype(np.float32)
        best = np.log(np.maximum(p, 1 - p)).astype(np.float32)
    tokens = np.arange(len(p), dtype=np.int32)
    given = Scored("a", "x", "", "bank", "before", tokens, logs, np.where(p >= 0.5, tokens, 99).astype(np.int32), best)
    return replace(given, **changes)


def pair(before, after, **changes) -> tuple[Scored, Scored]:
    return row(before, **changes), row(after, model="after", **changes)


def test_reach_is_the_probability_that_the_policy_writes_the_prefix() -> None:
    policy = table(1)
    model = tokens_of(np.array([[probability(policy, one) for one in RESPONSES]]))[0]
    for response in RESPONSES:
        chances = [model[at, token] for at, token in zip(states(response), response, strict=True)]
        found = reach.log_reach(row(chances))
        for size in range(len(response) + 1):
            exact = sum(probability(policy, one) for one in RESPONSES if one[:size] == response[:size])
            assert math.exp(found[size]) == pytest.approx(exact, rel=1e-5)


def test_followed_is_the_expected_share_before_the_policy_leaves() -> None:
    """Against a simulation that writes until the first other token."""
    chances, random = np.array([0.9, 0.5, 0.8, 0.95]), np.random.default_rng(1)
    alike = random.random((40_000, 4)) < chances
    written = np.cumprod(alike, axis=1).sum(1) / 4
    assert reach.followed(row(chances)) == pytest.approx(written.mean(), abs=0.005)


def test_the_place_of_death_and_the_crucial_token() -> None:
    one = row([0.9, 0.5, 0.2, 0.99, 0.4], steps=(2, 4, 5))
    found = reach.death(one, 0.05)
    assert (found.at, found.step, found.crucial) == (4, 2, 2)
    assert found.drop == pytest.approx(-math.log(0.2), rel=1e-5)
    assert found.share == pytest.approx(math.log(0.2) / math.log(0.9 * 0.5 * 0.2 * 0.99 * 0.4), rel=1e-5)
    assert reach.death(one, 0.2).at == 2 and reach.death(one, 0.2).step == 1
    assert reach.death(one, 0.01).at is None and reach.death(one, 0.01).step is None
    sure = reach.death(row([1.0, 1.0]), 0.05)
    assert sure.at is None and math.isnan(sure.share)
    never = reach.death(row([0.5, 0.0, 0.5]), 1e-300)
    assert never.at == 1 and math.isfinite(never.drop)


def test_what_the_environment_wrote_is_nobodys_action() -> None:
    logs = np.log(np.array([0.5, np.nan, 0.25], np.float32))
    one = replace(row([0.5, 0.5, 0.25]), logps=logs, best_ids=np.array([0, -1, 5], np.int32))
    assert reach.log_reach(one)[-1] == pytest.approx(math.log(0.125))
    assert np.isnan(reach.available(one, 0.3)[1]) and reach.available(one, 0.3)[[0, 2]].tolist() == [1, 0]
    assert np.isnan(scores.first_choice(one)[1]) and np.isnan(reach.gap(one)[1])
    silent = replace(one, logps=np.full(3, np.nan, np.float32))
    assert scores.under([silent], "bank", "before") == {}


def many(count: int, random, tilt: float = 0.0):
    """Pairs of unequal lengths, two of a prompt; after, each token's odds are multiplied by e^tilt."""
    out = []
    for at in range(count):
        p = random.beta(4, 1, size=int(random.integers(1, 30)))
        q = p * np.exp(tilt) / (p * np.exp(tilt) + 1 - p)
        out.append(pair(p, q, id=f"b{at}", prompt=f"p{at // 2}"))
    return out


def test_the_document_is_json_small_and_says_what_it_says() -> None:
    pairs = many(60, np.random.default_rng(2), tilt=1.0)
    told = json.loads(json.dumps(plain(reach.document(pairs, epsilon=0.05, confidence=0.95)), allow_nan=False))
    assert told["trajectories"] == 60 and told["prompts"] == 30
    whole = [[reach.log_reach(one[side])[-1] for one in pairs] for side in range(2)]
    for kind in ("relative", "absolute"):
        curve = told["curves"][kind]
        assert len(curve["at"]) <= 50
        for side, name in enumerate(("before", "after")):
            one = curve[name]
            last = np.quantile(whole[side], 0.5, method="inverted_cdf")
            assert one["median"][0] == 0 and one["median"][-1] == pytest.approx(last)
            assert all(np.diff(one["median"]) <= 1e-12)
            for low, middle, high in (("low", "median", "high"), ("q10", "median", "q90")):
                assert all(np.array(one[low]) <= np.array(one[middle]) + 1e-12)
                assert all(np.array(one[middle]) <= np.array(one[high]) + 1e-12)
    inside = np.exp(np.array(whole)) >= 0.05
    changed = told["change"]["whole"]
    assert changed["gained"] == [f"b{at}" for at in range(60) if not inside[0][at] and inside[1][at]]
    assert changed["lost"] == [] and changed["kept"] + changed["never"] + len(changed["gained"]) == 60
    assert told["change"]["log_reach"]["value"] == pytest.approx(np.mean(np.subtract(whole[1], whole[0])))
    assert told["change"]["log_reach"]["low"] > 0 and told["reached"]["change"]["low"] > 0
    assert told["tokens"]["first_choice"]["after"]["value"] > told["tokens"]["first_choice"]["before"]["value"]
    assert told["tokens"]["gap"]["change"]["high"] < 0
    for name in ("before", "after"):
        places = told["places"][name]
        assert sum(places["crucial"]) == pytest.approx(1)
        assert sum(places["dies"]) == pytest.approx(1 - told["ends"][name]["survives"]["value"])
    assert reach.document([], epsilon=0.05, confidence=0.95) is None


def test_an_unchanged_model_has_changed_nothing() -> None:
    pairs = [(one, replace(one, model="after")) for one, _ in many(20, np.random.default_rng(3))]
    told = reach.document(pairs, epsilon=0.05, confidence=0.95)
    assert told is not None
    assert told["change"]["whole"]["gained"] == told["change"]["every_action"]["lost"] == []
    assert told["change"]["log_reach"] == {"value": 0, "low": 0, "high": 0}
    assert told["curves"]["relative"]["before"] == told["curves"]["relative"]["after"]
    assert told["change"]["whole"]["gained_share"]["high"] > 0  # none of twenty is not none of all


def test_one_trajectory_and_a_single_token() -> None:
    told = reach.document([pair([0.01], [0.9])], epsilon=0.05, confidence=0.95)
    assert told is not None and told["change"]["every_action"]["gained"] == ["a"]
    assert told["tokens"]["available"]["after"]["low"] < 0.1  # one prompt says little of others
    assert math.isnan(told["change"]["log_reach"]["low"]) and told["steps"] is None


def test_steps_have_their_own_curve() -> None:
    pairs = [
        pair([0.5, 0.5, 0.5], [0.9, 0.9, 0.9], id="a", steps=(1, 3)),
        pair([0.5, 0.5], [0.9, 0.9], id="b", prompt="y", steps=(1, 2)),
        pair([0.5], [0.5], id="c", prompt="z"),
    ]
    told = reach.document(pairs, epsilon=0.05, confidence=0.95)
    assert told is not None and told["steps"]["at"] == [0, 1, 2] and told["steps"]["trajectories"] == 2
    assert told["steps"]["before"]["q10"] == pytest.approx([0, math.log(0.5), 3 * math.log(0.5)])
    assert told["steps"]["before"]["q90"] == pytest.approx([0, math.log(0.5), 2 * math.log(0.5)])


def test_pairs_are_of_the_same_tokens_under_both_models() -> None:
    first, last = pair([0.5, 0.5], [0.6, 0.6])
    other = replace(last, tokens=last.tokens[::-1].copy())
    assert scores.paired([first, last], "bank", "before", "after") == [(first, last)]
    assert scores.paired([first, other], "bank", "before", "after") == []
    assert scores.paired([first], "bank", "before", "after") == []


def test_intervals_cover_over_trajectories_of_prompts_that_go_together() -> None:
    """Means over tokens with everything of a prompt alike: the naive interval would cover far too seldom."""
    random, hits, shares = np.random.default_rng(4), 0, 0
    for _ in range(1000):
        rate = random.beta(3, 2, size=25)
        sizes = random.integers(1, 12, size=(25, 4))
        passed = random.binomial(sizes, rate[:, None])
        names = [f"p{at}" for at in range(25) for _ in range(4)]
        terms = (passed.ravel().astype(float), sizes.ravel().astype(float), names)
        one, other = clusters.ratio(terms, confidence=0.95), clusters.share(terms, confidence=0.95)
        hits += one.low <= 0.6 <= one.high
        shares += other.low <= 0.6 <= other.high
    assert 0.92 <= hits / 1000 <= 0.97 and 0.93 <= shares / 1000 <= 0.99


def test_a_paired_difference_is_narrower_than_two_means_apart() -> None:
    random = np.random.default_rng(5)
    level = random.normal(0, 5, 200)
    names = [f"p{at}" for at in range(200)]
    before = (level, np.ones(200), names)
    hits = 0
    for _ in range(300):
        after = (level + random.normal(0.3, 1, 200), np.ones(200), names)
        one = clusters.difference(before, after, confidence=0.95)
        hits += one.low <= 0.3 <= one.high
    assert one.high - one.low < 0.4 and 0.92 <= hits / 300 <= 0.98


def test_a_share_is_clopper_and_pearsons_where_nothing_is_clustered() -> None:
    for hits in (0, 1, 7, 20):
        terms = (np.array([1.0] * hits + [0.0] * (20 - hits)), np.ones(20), [f"p{at}" for at in range(20)])
        found = clusters.share(terms, confidence=0.95)
        exact = binomtest(hits, 20).proportion_ci(0.95)
        assert found.low <= exact.low + 0.01 and found.high >= exact.high - 0.01
        assert found.high - found.low < (exact.high - exact.low) * 1.15
    assert not clusters.share(((), (), ()), confidence=0.95).known
    assert not clusters.ratio(([1.0], [0.0], ["x"]), confidence=0.95).known


def test_weighted_quantiles_are_those_of_repeated_rows() -> None:
    random = np.random.default_rng(6)
    values = random.normal(size=(9, 3))
    weights = random.integers(0, 4, size=(5, 9)).astype(float)
    for level in (0.1, 0.5, 0.9):
        found = reach.quantiles(values, weights, level)
        for at, weight in enumerate(weights):
            repeated = np.repeat(values, weight.astype(int), axis=0)
            assert found[at] == pytest.approx(np.quantile(repeated, level, axis=0, method="inverted_cdf"))
