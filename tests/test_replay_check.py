"""What `braid check` says of a past: in words, and where its writers left no probability."""

from typing import Any

import pytest

from orchestrator.composition import composition
from policies.config import Past
from tests.compositions import BEHAVIOR, IMITATE, keys, recipe, strand

PAST = {
    "producers": ["teacher", "rollout"],
    "passed": False,
    "at_least": 0.25,
    "at_most": 0.5,
    "versions": 8,
    "age": 4,
}


def replay(**past: Any):
    return strand(producer="replay", kernel=BEHAVIOR, credit=IMITATE, source={"past": past})


def test_a_past_is_said_in_words() -> None:
    assert "S[replay x4, recent of 16] →" in composition(recipe(replay()))
    told = "by teacher/rollout, failed, reward from 0.25, reward up to 0.5, versions up to 8, age up to 4]"
    assert f"S[replay x4, recent of 16, {told}" in composition(recipe(replay(**PAST)))


@pytest.mark.parametrize("key", Past.model_fields)
def test_every_key_shows(key: str) -> None:
    assert composition(recipe(replay(**{key: PAST[key]}))) != composition(recipe(replay()))


@pytest.mark.parametrize(
    ("producers", "refused"),
    [
        (["rollout"], False),
        (["rollout", "teacher"], False),
        (["demonstration"], True),
        (["rollout", "demonstration"], True),
    ],
)
def test_a_ratio_needs_a_past_whose_probabilities_are_known(producers: list[str], refused: bool) -> None:
    found = keys(recipe(replay(producers=producers), teacher="t"))
    assert (("error", "V1", "s.t") in found) is refused
