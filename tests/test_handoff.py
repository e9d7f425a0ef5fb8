"""Handoff measures against planted truth: exact expectations by enumeration, coverage, no change read as one."""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.json_lines import plain
from orchestrator.probes import forgetting, halves, handoff
from orchestrator.probes.sequential import Counts, Plan, plan
from orchestrator.probes.snapshot import Float64, Sampled, Snapshot

SMALL = Plan((4, 5), (0, -1), (4, 6))
"""Draws stop after four where none or all of them passed."""
DESIGNS = [Plan.fixed(4), SMALL]
SEQUENTIAL = plan(16, 0.05, 0.95)


def sequences(design: Plan) -> Iterator[tuple[bool, ...]]:
    """Every way in which a prompt's draws can go on and end."""
    for every in itertools.product((False, True), repeat=design.looks[-1]):
        n, _ = design.counted([every])
        if not any(every[n[0] :]):  # each sequence that ends early once
            yield every[: n[0]]


def counted(design: Plan, rows: Sequence[tuple[bool, ...]]) -> Counts:
    return Counts(*design.counted(rows), design)


def drawn(rates: Float64, design: Plan, draws: np.random.Generator) -> Counts:
    """What a policy with these pass rates shows."""
    passed = draws.random((len(rates), design.looks[-1])) < rates[:, None]
    return counted(design, [tuple(row) for row in passed.tolist()])


# ---------------------------------------------------------------- chosen and measured by different draws


@pytest.mark.parametrize("design", DESIGNS, ids=["fixed", "sequential"])
@pytest.mark.parametrize("kind", ["rate", "solved"])
@pytest.mark.parametrize("p", [(0.1, 0.6, 0.6), (0.3, 0.3, 0.3), (0.0, 0.9, 0.2), (0.5, 0.2, 0.8), (0.05, 1.0, 0.0)])
def test_expected_gain_and_what_stands_of_it_are_exact(
    design: Plan, kind: halves.Kind, p: tuple[float, float, float]
) -> None:
    """E[gain] = P(chosen) (after - before) and E[stands] = P(chosen) (now - before), over every way draws can go."""
    ways = list(sequences(design))
    chances = [np.array([rate ** sum(way) * (1 - rate) ** (len(way) - sum(way)) for way in ways]) for rate in p]
    assert all(one.sum() == pytest.approx(1) for one in chances)
    every = counted(design, ways)
    pairs = list(itertools.product(range(len(ways)), repeat=2))
    first, second = (np.array([pair[at] for pair in pairs]) for at in range(2))
    weight = chances[0][first] * chances[1][second]
    k = 1 if kind == "rate" else halves.depth(every, every, every)
    solved = [1 - (1 - rate) ** k for rate in p]
    gain, stands, chosen = 0.0, 0.0, 0.0
    for at, way in enumerate(ways):
        now = counted(design, [way] * len(pairs))
        found = halves.stood(every.rows(first), every.rows(second), now, kind)
        part = chances[2][at]
        gain += part * float(weight @ found.gain_P)
        stands += part * float(weight @ found.stands_P)
        chosen += part * float(weight @ found.chosen_P)
    assert chosen == pytest.approx((1 - p[0]) ** 2 * p[1] ** 2)  # of two choosing draws, none and then both
    assert gain == pytest.approx(chosen * (solved[1] - solved[0]))
    assert stands == pytest.approx(chosen * (solved[2] - solved[0]))


def test_an_unchanged_prompt_is_seldom_chosen_whatever_its_rate() -> None:
    for half in (2, 3, 8, 32):
        for kind in ("rate", "solved"):
            limit = halves.highest(half, half, kind)
            for rate in (0.02, 0.1, 0.3, 0.5, 0.8, 0.97):
                chance = [math.comb(half, hits) * rate**hits * (1 - rate) ** (half - hits) for hits in range(half + 1)]
                pairs = itertools.product(range(half + 1), repeat=2)
                luck = sum(chance[low] * chance[high] for low, high in pairs if low / half <= limit[high] + 1e-9)
                assert luck <= halves.LUCK + 1e-3, (half, kind, rate)
            assert limit[half] >= 0, "a prompt that passed always after, and never before, is chosen"
    assert (halves.highest(1, 1, "rate") < 0).all(), "one draw says too little"


def test_choosing_and_measuring_by_the_same_draws_reads_loss_where_there_is_none() -> None:
    """The mutant that this module is there for: prompts that looked solved at n = 16, remeasured."""
    draws, rates = np.random.default_rng(0), np.full(4000, 0.06)
    then, now = (drawn(rates, Plan.fixed(16), draws) for _ in range(2))
    naive = 1 - (now.c_P[then.c_P > 0] > 0).mean()
    assert naive > 0.25
    assert abs(halves.forgotten(then, now, 0.95).value) < 0.06


def planted(draws: np.random.Generator, prompts: int = 150, lost: float = 0.0, part: float = 1.0) -> list[Float64]:
    """Rates before, after and now: three in ten prompts gain, `lost` of these lose `part` of that."""
    before = draws.beta(0.4, 0.8, prompts)
    gains = draws.random(prompts) < 0.3
    before = np.where(gains, draws.uniform(0, 0.05, prompts), before)
    after = np.where(gains, draws.uniform(0.2, 0.9, prompts), before)
    loses = gains & (draws.random(prompts) < lost)
    return [before, after, np.where(loses, before + (after - before) * (1 - part), after)]


def coverage(times: int, design: Plan, lost: float, part: float, kind: halves.Kind = "rate") -> tuple[float, float]:
    """(share of intervals that hold the truth, mean estimate)."""
    draws, truth = np.random.default_rng(1), 1 - lost * part
    found = []
    for _ in range(times):
        told = [drawn(rates, design, draws) for rates in planted(draws, lost=lost, part=part)]
        found.append(halves.share(halves.stood(*told, kind), 0.95))
    known = [one for one in found if one.known]
    assert len(known) > 0.95 * times
    return (
        float(np.mean([one.low <= truth <= one.high for one in known])),
        float(np.mean([one.value for one in known])),
    )


@pytest.mark.parametrize(("lost", "part"), [(0.0, 1.0), (0.5, 1.0), (1.0, 0.3)])
@pytest.mark.parametrize("design", [Plan.fixed(16), SEQUENTIAL], ids=["fixed", "sequential"])
def test_the_share_that_stands_is_covered(design: Plan, lost: float, part: float) -> None:
    covered, mean = coverage(60, design, lost, part)
    assert covered >= 0.88  # of 60; the slow test has 1,000
    assert mean == pytest.approx(1 - lost * part, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rate", "solved"])
@pytest.mark.parametrize("lost", [0.0, 0.5, 1.0])
def test_a_95_percent_interval_of_retention_holds_the_truth_in_1000_draws(lost: float, kind: halves.Kind) -> None:
    covered, mean = coverage(1000, Plan.fixed(16), lost, 1.0, kind)
    assert 0.93 <= covered <= 1.0
    assert mean == pytest.approx(1 - lost, abs=0.02)


def test_prompts_with_too_few_draws_count_for_nothing() -> None:
    few = Counts(np.array([0, 1, 16, 16]), np.array([0, 1, 8, 8]))
    many = Counts(np.array([16, 16, 16, 0]), np.array([16, 16, 12, 0]))
    found = halves.stood(few, many, many, "rate")
    assert found.chosen_P[[0, 1, 3]].tolist() == [0, 0, 0] and found.chosen_P[2] > 0
    nobody = Counts(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert not halves.share(halves.stood(nobody, nobody, nobody, "solved"), 0.95).known


def test_huge_numbers_of_draws_cost_no_more_than_their_outcomes() -> None:
    draws = np.random.default_rng(2)
    before, after = (drawn(np.full(20, rate), Plan.fixed(4096), draws) for rate in (0.1, 0.6))
    found = halves.share(halves.stood(before, after, after, "rate"), 0.95)
    assert found.low <= 1 <= found.high and found.high - found.low < 0.4


# ---------------------------------------------------------------- intervals


def test_a_set_on_which_nothing_moved_is_not_called_certain() -> None:
    still = halves.mean(np.zeros(4), 0.95)
    assert still.value == 0 and still.low < -0.5 and still.high > 0.5
    assert halves.mean(np.zeros(256), 0.95).high < 0.01
    one = halves.mean(np.array([0.5]), 0.95)
    assert (one.value, one.low, one.high) == (0.5, -1.0, 1.0)
    assert not halves.mean(np.array([math.nan]), 0.95).known
    assert not halves.contrast(np.zeros(0), np.ones(3), 0.95).known


def test_a_ratio_of_two_means_is_covered_and_unknown_without_a_gain() -> None:
    draws, held, times = np.random.default_rng(3), 0, 400
    for _ in range(times):
        top, bottom = draws.normal(0.1, 0.2, 80), draws.normal(0.2, 0.2, 120)
        one = halves.quotient(top, bottom, 0.95, paired=False)
        held += one.low <= 0.5 <= one.high
    assert 0.93 <= held / times <= 0.99
    assert not halves.quotient(draws.normal(0.1, 0.2, 80), draws.normal(0.0, 0.2, 80), 0.95, paired=False).known
    both = draws.normal(0.3, 0.1, 50)
    assert halves.quotient(both, both, 0.95, paired=True).value == pytest.approx(1)


# ---------------------------------------------------------------- the document


def sampled(rates: Float64, draws: np.random.Generator, *, n: int = 16, families: Sequence[str] = ()) -> Sampled:
    passed = draws.random((len(rates), n)) < rates[:, None]
    names = tuple(f"p{at}" for at in range(len(rates)))
    nobody = np.zeros(len(rates), np.int64)
    own = tuple(tuple(row) for row in passed.tolist())
    counts = np.full(len(rates), n, np.int64), passed.sum(1).astype(np.int64)
    kinds = tuple(families) or ("",) * len(rates)
    return Sampled(names, kinds, *counts, nobody, np.full(len(rates), np.nan), tuple({} for _ in names), own)


def snapshots(draws: np.random.Generator, *levels: dict[str, Float64]) -> list[Snapshot]:
    """One for each: set -> pass rates."""
    return [
        Snapshot(at, f"s{at}", {name: sampled(rates, draws) for name, rates in sets.items()})
        for at, sets in enumerate(levels)
    ]


def document(*levels: dict[str, Float64], seed: int = 4) -> dict[str, Any]:
    found = handoff.document(snapshots(np.random.default_rng(seed), *levels), epsilon=0.05, confidence=0.95)
    told: dict[str, Any] = json.loads(json.dumps(plain(found)))
    return told


def level(value: float, count: int = 120) -> Float64:
    return np.full(count, value)


def test_what_stands_of_each_earlier_stage_is_told_by_stage_and_together() -> None:
    half = np.where(np.arange(120) < 60, 0.8, 0.0)
    rest = np.where(np.arange(120) < 60, 0.8, 0.6)  # the second stage gains what the first did not
    lost = np.where(np.arange(120) < 30, 0.0, rest)  # and the third loses half of the first one's gain
    found = document({"probe": level(0.0)}, {"probe": half}, {"probe": rest}, {"probe": lost})["retention"]
    first, second = found["stages"]
    assert (first["stage"], first["steps"], second["steps"]) == ("s1", [0, 1], [1, 2])
    for name in ("rate", "solved"):
        assert first[name]["share"]["low"] < 0.5 < first[name]["share"]["high"]
        assert second[name]["share"]["low"] < 1 < second[name]["share"]["high"]
        assert 0.5 < found[name]["value"] < 1
    assert first["gain"]["value"] == pytest.approx(0.4, abs=0.05)


def test_a_handoff_without_what_a_key_needs_says_null() -> None:
    found = document({"probe": level(0.2)}, {"probe": level(0.5)})
    assert found == {
        "retention": None,
        "portability": None,
        "scaffold": None,
        "fidelity": None,
        "forgetting": None,
    }
    with pytest.raises(ValueError, match="got 1 snapshots"):
        document({"probe": level(0.2)})


def test_portability_compares_the_gain_elsewhere_with_the_gain_here() -> None:
    start, end = {"probe": level(0.2), "shifted": level(0.1, 80)}, {"probe": level(0.6), "shifted": level(0.3, 80)}
    found = document(start, end)["portability"]
    assert found["ratio"]["low"] < 0.5 < found["ratio"]["high"]
    assert found["difference"]["low"] < -0.2 < found["difference"]["high"]
    still = document(start, start)["portability"]
    assert still["ratio"]["value"] is None and still["since_start"]["ratio"]["value"] is None


def test_a_scaffold_gap_that_the_policy_has_made_good() -> None:
    start, end = {"probe": level(0.2), "scaffolded": level(0.8)}, {"probe": level(0.5), "scaffolded": level(0.8)}
    found = document(start, end)["scaffold"]
    for name, truth in (("before", 0.6), ("after", 0.3), ("change", -0.3), ("amortised", 0.5)):
        assert found[name]["low"] < truth < found[name]["high"], name
    first = document({"probe": level(0.2)}, end)["scaffold"]
    assert first["before"]["value"] is None and first["after"]["value"] is not None


def test_prompts_are_matched_by_id_whatever_their_order() -> None:
    draws = np.random.default_rng(5)
    before, after = snapshots(draws, {"probe": level(0.0, 40)}, {"probe": level(1.0, 40)})
    own = after.sets["probe"]
    turned = Sampled(
        own.prompts[::-1][:30],
        own.families[::-1][:30],
        *(getattr(own, name)[::-1][:30] for name in ("n_P", "c_P", "unknown_P", "greedy_P", "answers_P", "passed_P")),
    )
    found = handoff.same([before, Snapshot(1, "s", {"probe": turned})], "probe", None)
    assert found is not None and found[0] == own.prompts[10:] and found[1][1].c_P.tolist() == [16] * 30
    assert handoff.same([before, Snapshot(1, "s", {})], "probe", None) is None


# ---------------------------------------------------------------- forgetting


def guarded(start: Float64, now: Float64, families: Sequence[str], draws: np.random.Generator) -> dict[str, Any] | None:
    rows = [drawn(rates, Plan.fixed(16), draws) for rates in (start, start, now)]
    names = tuple(f"p{at}" for at in range(len(start)))
    found = forgetting.Guarded(names, tuple(families), *rows)
    return forgetting.document(found, epsilon=0.05, confidence=0.95)


FAMILIES = [name for name in ("sums", "words", "code") for _ in range(12)]


def test_a_policy_that_did_not_change_forgot_nothing() -> None:
    draws, times = np.random.default_rng(6), 80
    shares, forgot, selective, named = [], 0, 0, 0
    for _ in range(times):
        rates = draws.beta(0.5, 0.5, 36)
        found = guarded(rates, rates, FAMILIES, draws)
        assert found is not None
        shares.append(found["since_start"]["share"]["value"])
        forgot += any(one["forgot"] for one in found["families"])
        selective += found["selective"]
        named += bool(found["since_start"]["forgotten"])
    assert float(np.mean(shares)) == pytest.approx(0, abs=0.01)
    assert forgot <= 0.1 * times and selective <= forgot and named <= 0.1 * times


def test_families_whose_prompts_change_both_ways_at_random_are_rarely_said_to_forget() -> None:
    draws, forgot, times = np.random.default_rng(7), 0, 80
    for _ in range(times):
        start = draws.uniform(0.2, 0.8, 36)
        found = guarded(start, np.clip(start + draws.normal(0, 0.2, 36), 0, 1), FAMILIES, draws)
        assert found is not None
        forgot += any(one["forgot"] for one in found["families"])
    assert forgot <= 0.12 * times


def test_forgetting_of_one_family_is_selective_and_of_all_is_not() -> None:
    draws = np.random.default_rng(8)
    start, one = np.full(36, 0.9), np.where(np.arange(36) < 12, 0.1, 0.9)
    found = guarded(start, one, FAMILIES, draws)
    assert found is not None and found["selective"]
    assert [family["family"] for family in found["families"] if family["forgot"]] == ["sums"]
    assert found["families"][0]["family"] == "sums"
    assert found["since_start"]["solved"] == 36
    everything = guarded(start, np.full(36, 0.1), FAMILIES, draws)
    assert everything is not None and not everything["selective"]
    assert all(family["forgot"] for family in everything["families"])
    share = everything["since_start"]["share"]
    assert share["value"] == pytest.approx(1 - (1 - 0.9**8), abs=0.12) and share["low"] < share["value"] < share["high"]


def test_a_guard_set_of_one_prompt_and_none() -> None:
    draws = np.random.default_rng(9)
    single = guarded(np.ones(1), np.zeros(1), ["only"], draws)
    assert single is not None and not single["selective"] and single["families"][0]["forgot"]
    assert forgetting.document(None, epsilon=0.05, confidence=0.95) is None
    unknown = Counts(np.zeros(2, np.int64), np.zeros(2, np.int64))
    told = forgetting.document(
        forgetting.Guarded(("a", "b"), ("x", "y"), unknown, unknown, unknown), epsilon=0.05, confidence=0.95
    )
    assert told is not None and not told["selective"] and math.isnan(told["pass_rate"]["after"]["value"])
    assert [one["p"] for one in told["families"]] == [1.0, 1.0]


def test_holms_adjustment_is_the_textbooks() -> None:
    assert forgetting.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert forgetting.holm([]) == [] and forgetting.holm([0.9, 0.9]) == [1.0, 1.0]
