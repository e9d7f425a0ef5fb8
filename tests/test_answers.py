"""Answers: how many and how evenly, against brute force and known distributions; approved chains of thought."""

import itertools
import math

import numpy as np
import pytest

from orchestrator.json_lines import plain
from orchestrator.probes import answers, cot
from orchestrator.probes.sequential import plan
from tests.drawn import sampled

GIVEN = {"12": 3, "7": 2, "5": 1, "9": 1}


@pytest.mark.parametrize("at", range(1, 8))
def test_distinct_answers_at_fewer_draws_are_the_mean_over_all_choices(at: int) -> None:
    drawn = [name for name, count in GIVEN.items() for _ in range(count)]
    sizes = [len({drawn[i] for i in one}) for one in itertools.combinations(range(7), at)]
    assert answers.distinct(GIVEN, at) == pytest.approx(np.mean(sizes))


def test_what_was_not_drawn_is_unknown() -> None:
    assert math.isnan(answers.distinct(GIVEN, 8))
    assert math.isnan(answers.distinct({}, 1))
    assert math.isnan(answers.richness({}))
    assert math.isnan(answers.entropy({"1": 1}))
    assert answers.entropy({"1": 16}) == 0.0


def test_entropy_is_less_biased_than_the_plug_in_and_than_miller_madow() -> None:
    """Of 16 draws of twelve answers, one of them usual; the truth is known."""
    rng, chances = np.random.default_rng(1), np.array([0.4] + [0.6 / 11] * 11)
    truth = -float(np.sum(chances * np.log(chances)))
    errors = np.zeros(3)
    for _ in range(1500):
        x = rng.multinomial(16, chances)
        seen = x[x > 0]
        plug_in = -float(np.sum(seen / 16 * np.log(seen / 16)))
        ours = answers.entropy({str(at): int(one) for at, one in enumerate(seen)})
        errors += np.array([plug_in, plug_in + (len(seen) - 1) / 32, ours]) - truth
    plug, miller, ours = np.abs(errors / 1500)
    assert ours < 0.5 * miller
    assert miller < plug


def test_richness_counts_some_of_the_answers_that_were_never_drawn() -> None:
    rng, chances = np.random.default_rng(2), np.full(20, 0.05)
    found = []
    for _ in range(500):
        x = rng.multinomial(16, chances)
        given = {str(at): int(one) for at, one in enumerate(x) if one}
        found.append((len(given), answers.richness(given)))
    seen, estimated = np.mean(found, axis=0)
    assert seen < 12 < 17 < estimated < 24


def test_two_checkpoints_are_compared_at_an_equal_number_of_draws() -> None:
    """The same distribution of answers, drawn 64 times and 8 times: the counts differ, the figures do not."""
    rng, size = np.random.default_rng(3), 200
    many, few = (
        [
            {str(at): int(one) for at, one in enumerate(rng.multinomial(n, [0.5, 0.2, 0.2, 0.1])) if one}
            for _ in range(size)
        ]
        for n in (64, 8)
    )
    before, after = (sampled([[True]] * size, answers=one) for one in (many, few))
    found = answers.document(before, after, confidence=0.99)
    assert found is not None
    assert (found["prompts"], found["draws"]) == (size, 8.0)
    for name in ("distinct", "entropy"):
        change = found[name]["change"]
        assert change["low"] <= 0.0 <= change["high"]
        assert change["high"] - change["low"] < 0.5
    assert np.mean([len(one) for one in many]) - np.mean([len(one) for one in few]) > 0.2


def test_without_answers_there_is_no_document_and_without_before_no_change() -> None:
    assert answers.document(None, sampled([[True]]), confidence=0.95) is None
    assert answers.document(None, sampled([]), confidence=0.95) is None
    found = answers.document(None, sampled([[True] * 4], answers=[{"1": 3, "2": 1}]), confidence=0.95)
    assert plain(found)["entropy"] == {
        "before": None,
        "after": {"value": pytest.approx(17 / 24), "low": None, "high": None},
        "change": None,
    }


def share_without_sound(n: int, c: int, sound: int, k: int) -> float:
    """By all ways to draw k of n responses."""
    kinds = [1] * sound + [0] * (n - sound)
    return float(np.mean([not any(one) for one in itertools.combinations(kinds, k)]))


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_cot_pass_at_k_counts_passes_with_an_approved_chain(k: int) -> None:
    rows = [(6, 3, 1), (6, 3, 3), (6, 0, 0), (6, 6, 2)]
    record = sampled([[True] * c + [False] * (n - c) for n, c, _ in rows], sound=[sound for _, _, sound in rows])
    want = [1 - share_without_sound(n, c, sound, k) for n, c, sound in rows]
    assert cot.estimates(record, k) == pytest.approx(np.array(want))


def test_cot_pass_at_k_stays_unbiased_where_passes_stop_the_draws() -> None:
    """Exactly: expectation over outcomes, and over which of the passes are sound; unknown beyond the first look."""
    design, rate, approved = plan(32, 0.05, 0.95), 0.35, 0.4
    of = design.outcomes()
    chances = of.chances(np.array([rate]))[:, 0]
    ends = [(at, n, c, sound) for at, (n, c) in enumerate(zip(of.n_O.tolist(), of.c_O.tolist(), strict=True))
            for sound in range(c + 1)]  # fmt: skip
    weights = np.array(
        [
            chances[at] * math.comb(c, sound) * approved**sound * (1 - approved) ** (c - sound)
            for at, _, c, sound in ends
        ]
    )
    verdicts = [[False] * (n - c) + [True] * c for _, n, c, _ in ends]  # the plan ends so in this order, if in any
    record = sampled(verdicts, sound=[sound for *_, sound in ends])
    for k in (1, 4, 8):
        expected = float(weights @ cot.estimates(record, k, design))
        assert expected == pytest.approx(1 - (1 - rate * approved) ** k, abs=1e-9)
    assert math.isnan(cot.estimates(sampled([[False] * 32], sound=[0]), 9, design)[0])
    assert cot.steps(sampled([[False] * 32], sound=[0]), design) == (1, 2, 4, 8)
    late = sampled([[True] * 8 + [False]], sound=[8])  # which of the passes beyond the end were sound is not recorded
    assert math.isnan(cot.estimates(late, 1, design)[0])


def test_without_a_process_verifier_cot_pass_at_k_is_unknown() -> None:
    record = sampled([[True, False]])
    assert cot.steps(record) == ()
    assert np.isnan(cot.estimates(record, 1)).all()
