"""Shares, curricula and the bottleneck control: each fault is refused with its key, and its neighbour is left alone."""

import pytest

from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from orchestrator.legality import Surroundings
from policies.config import Log, Point
from tests.compositions import IMITATE, PLAIN, strand
from tests.rule_cases import D, P, R, of, refused


def test_shares_that_do_not_sum_say_which_would():
    _, text, fix = refused("controls", (R, D), Shares(shares={"r": 0.5, "d": 0.3}))
    assert "shares.shares sum to 0.8, not 1 (got r 0.5, d 0.3)" in text
    assert "{r: 0.625, d: 0.375}" in fix
    for shares in ({"r": 0.5, "d": 0.5}, {"r": 0.1 + 0.2, "d": 0.7}, {"r": 1 / 3, "d": 0.6666667}):
        assert not of("controls", (R, D), Shares(shares=shares))
    assert "above 0" in refused("controls", (R, D), Shares(shares={"r": 0, "d": 0}))[2]


def test_shares_are_of_strands_that_share_prompts():
    own = strand("d", "demonstration", 0, credit=IMITATE, kernel=PLAIN, source={"per_step": 8})
    assert "names no strand (got 'x')" in refused("controls", (R, D), Shares(shares={"r": 0.5, "x": 0.5}))[1]
    assert "prompts of its own" in refused("controls", (R, own), Shares(shares={"r": 0.5, "d": 0.5}))[1]


HALF = Shares(shares={"r": 0.5, "d": 0.5})
BAND, NECK = Curriculum(watch="r"), Bottleneck(reinforce="r", imports="d")


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ((BAND, NECK), "bottleneck chooses the step's prompts, and curriculum does so already"),
        ((BAND, BAND), "curriculum chooses the step's prompts, and curriculum does so already"),
        ((NECK, HALF), "shares says which strand each prompt is for, and bottleneck does so already"),
        ((HALF, HALF), "shares says which strand each prompt is for"),
    ],
)
def test_two_controls_do_not_choose_for_each_other(controls, words):
    assert words in refused("controls", (R, D), *controls)[1]
    for one in ((BAND, HALF), (NECK,), (HALF,)):
        assert not of("controls", (R, D), *one)


@pytest.mark.parametrize(
    ("refused_", "left", "words"),
    [
        (Curriculum(watch="r", low=0.8, high=0.8), Curriculum(watch="r", low=0.7, high=0.8), "curriculum.low 0.8"),
        (
            Bottleneck(reinforce="r", imports="d", unreached=0.9),
            Bottleneck(reinforce="r", imports="d", unreached=0.89),
            "bottleneck.unreached 0.9 is not below bottleneck.mastered 0.9",
        ),
        (
            Bottleneck(reinforce="r", imports="d", lost=0.95),
            Bottleneck(reinforce="r", imports="d", lost=0.9),
            "bottleneck.lost 0.95 is not below bottleneck.mastered 0.9",
        ),
        (Bottleneck(reinforce="r", imports="r"), NECK, "bottleneck.imports is the strand that reinforces"),
        (Bottleneck(reinforce="r", imports="p"), NECK, "producer replay is its own"),
        (
            Bottleneck(reinforce="r", imports="d", replay="d"),
            Bottleneck(reinforce="r", imports="d", replay="p"),
            "producer demonstration holds none",
        ),
        (
            Bottleneck(reinforce="r", imports="d", distil="s"),
            Bottleneck(reinforce="r", imports="d", distil="d"),
            "per_step draws on prompts of its own",
        ),
        (Bottleneck(reinforce="d", imports="d"), NECK, "is no attempt"),
        (Curriculum(watch="d"), BAND, "is no attempt"),
    ],
)
def test_a_chooser_s_numbers_and_strands_fit(refused_, left, words):
    own = strand("s", "demonstration", 0, credit=IMITATE, kernel=Point(denominator="current", shape=Log()))
    own = own.model_copy(update={"source": own.source.model_copy(update={"per_step": 8})})
    errors = [one for one in of("controls", (R, D, P, own), refused_) if one[0] == "error"]
    assert any(words in text and fix for _, _, text, fix, _ in errors)
    assert not [one for one in of("controls", (R, D, P, own), left) if one[0] == "error"]


def test_reach_without_demonstrations_stays_unknown():
    none = Surroundings(demonstrations=False)
    taught = strand("d", "teacher", credit=IMITATE, kernel=PLAIN)
    (found,) = of("controls", (R, taught), NECK, around=none)
    assert found[0] == "warning"
    assert "bottleneck.reach is 0.1" in found[2]
    assert not of("controls", (R, taught), Bottleneck(reinforce="r", imports="d", reach=0), around=none)
    assert of("controls", (R, taught), NECK)
    assert not of("controls", (R, D), NECK)
