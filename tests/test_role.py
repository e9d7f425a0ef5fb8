"""Roles: named right on planted interventions, undecided rather than wrong, and what each rule reads."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.probes import change, role
from orchestrator.probes.gain import Gain
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.role import Distance, Evidence, Facts, Scaffold, named
from tests import planted_stages as planted

EPSILON = 0.05

PLANTED = {
    "imported": (planted.imported, "expansion"),
    "reweighted": (planted.reweighted, "reshaping"),
    "taught": (planted.taught, "consolidation"),
    "internalised": (planted.internalised, "consolidation"),
    "unmoved": (planted.unmoved, "undecided"),
    "mostly imported": (lambda of, random: planted.mixed(of, random, 6.0, EPSILON), "expansion"),
    "half and half": (lambda of, random: planted.mixed(of, random, 1.0, EPSILON), "undecided"),
    "mostly reweighted": (lambda of, random: planted.beside(of, random, 4.0, EPSILON), "reshaping"),
}
"""Mechanism -> what makes the world after it, and the role that it has."""


def found(of: planted.World, draws: planted.Draws, random: np.random.Generator) -> str:
    before, after = planted.snapshots(of, draws, random)
    return named(change.evidence(before, after, change.Asked(EPSILON, 0.95), of.facts)).name


def measured(of: planted.World, samples: int, random: np.random.Generator) -> planted.Draws:
    """A teacher and a scaffold are measured where the stage has them, and some of the time where it only could."""
    teacher = of.facts.teacher is not False or random.random() < 0.3
    scaffold = of.facts.scaffold is not False or random.random() < 0.3
    return planted.Draws(samples=samples, teacher=teacher, scaffold=scaffold)


def confusion(seed: int, each: int, prompts: int, samples: int) -> dict[str, Counter[str]]:
    """Mechanism -> roles named, over worlds of their own."""
    table = {}
    for at, (kind, (intervene, _)) in enumerate(PLANTED.items()):
        table[kind] = Counter()
        for number in range(each):
            random = np.random.default_rng([seed, at, number])
            world = intervene(planted.world(prompts, random, random.uniform(0.25, 0.5)), random)
            table[kind][found(world, measured(world, samples, random), random)] += 1
    return table


def judged(table: dict[str, Counter[str]]) -> tuple[int, int, int]:
    """Interventions, those named right, and those named wrong: by a role that they do not have."""
    right = sum(names[PLANTED[kind][1]] for kind, names in table.items())
    every = sum(sum(names.values()) for names in table.values())
    return every, right, every - right - sum(n["undecided"] for k, n in table.items() if PLANTED[k][1] != "undecided")


def test_planted_interventions_are_named() -> None:
    """The quick twin of the proof below."""
    every, right, wrong = judged(confusion(seed=11, each=2, prompts=96, samples=24))
    assert wrong == 0 and right >= 0.85 * every


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_planted_interventions() -> None:
    """A stage-end probe's size: 256 prompts, 16 samples, a rollout a prompt, a bank of 64. The seeds are not those on
    which the rule was made."""
    table = confusion(seed=424242, each=25, prompts=256, samples=16)
    every, right, wrong = judged(table)
    print(f"{right} of {every} right, {wrong} wrong: { ({kind: dict(names) for kind, names in table.items()}) }")
    assert every == 200 and right >= 190 and wrong <= 1


HARD = {
    "taught a little": (lambda of, random: _way(of, random.uniform(0.1, 0.5)), {"consolidation", "undecided"}),
    "scaffold taken over a little": (
        lambda of, random: replace(
            of,
            after=planted.towards(of.before, of.helped_before, random.uniform(0.1, 0.5)),
            facts=Facts(False, False, True),
        ),
        {"consolidation", "undecided"},
    ),
    "reweighted, nobody knows by what": (
        lambda of, random: replace(planted.reweighted(of, random), facts=Facts()),
        {"reshaping", "undecided"},
    ),
    "imported, nobody knows by what": (
        lambda of, random: replace(planted.imported(of, random), facts=Facts()),
        {"expansion", "undecided"},
    ),
    "reweighted beside a teacher": (
        lambda of, random: replace(planted.reweighted(of, random), facts=Facts(False, True, False)),
        {"reshaping", "undecided"},
    ),
    "forgotten": (
        lambda of, random: replace(of, after=planted.tilted(of.before, of.good, -2.0), facts=Facts(True, False, False)),
        {"undecided"},
    ),
}
"""Cases in which silence is right, with the names that are not wrong."""


def _way(of: planted.World, way: float) -> planted.World:
    return replace(of, after=planted.towards(of.before, of.teacher, way), facts=Facts(False, True, False))


def hard_cases(each: int, prompts: int) -> list[tuple[str, str]]:
    wrong = []
    for at, (kind, (intervene, allowed)) in enumerate(HARD.items()):
        for number in range(each):
            random = np.random.default_rng([77, at, number])
            world = intervene(planted.world(prompts, random), random)
            name = found(world, planted.Draws(samples=16), random)
            wrong += [(kind, name)] if name not in allowed else []
    return wrong


def test_where_it_cannot_be_told_nothing_is_named() -> None:
    assert hard_cases(1, 96) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_hard_cases_are_seldom_named_wrong() -> None:
    wrong = hard_cases(20, 200)
    print(f"{len(wrong)} of {20 * len(HARD)} wrong: {Counter(wrong)}")
    assert len(wrong) <= 0.02 * 20 * len(HARD)


def about(value: float, half: float = 0.02) -> Interval:
    return Interval(value, value - half, value + half)


def gained(expansion: float, reshaping: float, attrition: float = 0.0) -> Gain:
    total = expansion + reshaping + attrition
    leads = about(expansion - 1.5 * reshaping), about(reshaping - 1.5 * expansion)
    parts = map(about, (total, expansion, reshaping, attrition, 0.0))
    return Gain(1, 256, *parts, UNKNOWN, UNKNOWN, *leads)


def distance(before: float, after: float) -> Distance:
    return Distance(
        about(before), about(after), about(after - before), about(before - 2 * after), about(3 * before - 4 * after)
    )


def scaffold(bare: tuple[float, float], helped: tuple[float, float]) -> Scaffold:
    gaps = helped[0] - bare[0], helped[1] - bare[1]
    closed = gaps[0] - gaps[1]
    return Scaffold(about(gaps[0]), about(gaps[1]), about(closed), about(closed - (helped[1] - helped[0])))


NO_HELP = Facts(supplied=False, teacher=False, scaffold=False)
TAUGHT = Facts(supplied=False, teacher=True, scaffold=False)
SCAFFOLDED = Facts(supplied=False, teacher=False, scaffold=True)


@pytest.mark.parametrize(
    "evidence,name",
    [
        (Evidence(gained(0.2, 0.02), NO_HELP), "expansion"),
        (Evidence(gained(0.02, 0.2), NO_HELP), "reshaping"),
        (Evidence(gained(0.1, 0.1), NO_HELP), "undecided"),
        (Evidence(gained(0.01, 0.0), NO_HELP), "undecided"),
        (Evidence(gained(0.0, -0.2), NO_HELP), "undecided"),
        (Evidence(gained(0.3, -0.25), NO_HELP), "expansion"),
        (Evidence(gained(0.25, -0.2, -0.04), NO_HELP), "undecided"),
        (Evidence(gained(0.0, 0.0, -0.2), NO_HELP), "undecided"),
        (Evidence(gained(0.02, 0.2), TAUGHT, distance(0.8, 0.2), distance(0.4, 0.1)), "consolidation"),
        (Evidence(gained(0.2, 0.02), TAUGHT, distance(0.8, 0.2)), "consolidation"),
        (Evidence(gained(0.0, 0.0), TAUGHT, distance(0.8, 0.2)), "consolidation"),
        (Evidence(gained(0.0, -0.2), TAUGHT, distance(0.8, 0.2)), "undecided"),
        (Evidence(gained(0.02, 0.2), TAUGHT, distance(0.8, 0.5)), "undecided"),
        (Evidence(gained(0.02, 0.2), TAUGHT, distance(0.8, 0.7)), "reshaping"),
        (Evidence(gained(0.02, 0.2), TAUGHT, distance(0.8, 1.2)), "reshaping"),
        (Evidence(gained(0.02, 0.2), TAUGHT), "undecided"),
        (Evidence(gained(0.02, 0.2), NO_HELP, distance(0.8, 0.2)), "reshaping"),
        (Evidence(gained(0.02, 0.2), Facts(), distance(0.8, 0.2)), "undecided"),
        (Evidence(gained(0.02, 0.2), Facts()), "reshaping"),
        (
            Evidence(gained(0.0, 0.3), SCAFFOLDED, scaffold=scaffold((0.3, 0.6), (0.7, 0.7))),
            "consolidation",
        ),
        (Evidence(gained(0.0, 0.3), SCAFFOLDED, scaffold=scaffold((0.3, 0.6), (0.6, 0.9))), "reshaping"),
        (Evidence(gained(0.0, 0.3), NO_HELP, scaffold=scaffold((0.3, 0.6), (0.7, 0.7))), "reshaping"),
        (Evidence(gained(0.0, 0.3), SCAFFOLDED), "undecided"),
        (Evidence(gained(0.0, 0.3), SCAFFOLDED, scaffold=scaffold((0.3, 0.6), (0.3, 0.5))), "reshaping"),
    ],
)  # fmt: skip
def test_each_clause(evidence: Evidence, name: str) -> None:
    assert named(evidence).name == name


def test_nothing_measured_is_undecided_and_says_so() -> None:
    nothing = named(Evidence(Gain(1, 0, *[UNKNOWN] * 9)))
    assert nothing.name == "undecided" and not nothing.for_
    assert [one.evidence for one in nothing.against] == ["no pass rates before and after"]
    told = role.document(nothing)
    assert told == {
        "name": "undecided",
        "for": [],
        "against": [{"evidence": "no pass rates before and after", "value": False}],
    }


def test_evidence_for_and_against_is_what_was_measured() -> None:
    lost = about(-0.1)
    given = Facts(supplied=True, teacher=False, scaffold=False)
    one = named(Evidence(gained(0.3, 0.05, -0.1), given, closed=about(0.2)))
    assert one.name == "expansion"
    assert {item.evidence for item in one.for_} == {
        "gain on prompts that were outside effective support",
        "it trained on text that the policy did not write",
    }
    against = {item.evidence: item.value for item in one.against}
    assert against["loss on prompts that left effective support"] == lost
    assert "gain on prompts that were within effective support already" in against
    other = named(Evidence(gained(0.02, 0.2), given))
    assert "it trained on text that the policy did not write" in {item.evidence for item in other.against}
