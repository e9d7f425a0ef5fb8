"""Stages with a planted effect on enumerable policies, and the snapshots that a run would have measured of them.

A world has P prompts; to each, a policy is a distribution over the 15 responses of `tests.enumeration` (three tokens,
at most three long), so that every rate, reach and divergence is a sum. Interventions move that distribution by their
mechanism (imitation of a given response, tilting by the reward, moving to a teacher), and know nothing of thresholds.
Everything exact is numpy and knows nothing of the code under test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from orchestrator.probes.role import Facts
from orchestrator.probes.snapshot import Sampled, Scored, Snapshot, Who
from tests.enumeration import LONGEST, PREFIXES, RESPONSES, STATE, VOCABULARY
from tests.parity_case import Floats

R = len(RESPONSES)
INCIDENCE = np.zeros((R, LONGEST, 2), np.int64)  # state and token of each position; -1 past the end
INCIDENCE[:] = -1
for _row, _response in enumerate(RESPONSES):
    for _t, _token in enumerate(_response):
        INCIDENCE[_row, _t] = STATE[_response[:_t]], _token


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Policies [P, R] over responses, and which responses are good [P, R]."""

    good: np.ndarray
    before: Floats
    after: Floats
    helped_before: Floats
    """Under a scaffold."""
    helped_after: Floats
    teacher: Floats
    facts: Facts = field(default_factory=Facts)

    def rates(self, policy: Floats) -> Floats:
        """[P] exact pass rates."""
        return (policy * self.good).sum(1)


def with_rate(policy: Floats, good: np.ndarray, rate: Floats) -> Floats:
    """The policy with the good responses' share scaled to `rate` [P]."""
    inside, outside = policy * good, policy * ~good
    return inside / inside.sum(1, keepdims=True) * rate[:, None] + outside / outside.sum(1, keepdims=True) * (
        1 - rate[:, None]
    )


def world(prompts: int, random: np.random.Generator, out_of_reach: float = 0.35) -> World:
    """No change yet. Some prompts are practically out of reach, the others anywhere; with help, most are solved."""
    good = np.zeros((prompts, R), bool)
    for row in range(prompts):
        good[row, random.choice(R, size=int(random.integers(1, 4)), replace=False)] = True
    shape = random.dirichlet(np.full(R, 0.5), size=prompts) + 1e-6
    rate = np.where(
        random.random(prompts) < out_of_reach, 10 ** random.uniform(-6, -2, prompts), random.beta(0.8, 1.2, prompts)
    )
    rate = np.clip(rate, 1e-6, 0.99)
    policy = with_rate(shape, good, rate)
    helped = with_rate(shape, good, np.clip(np.maximum(rate, random.beta(4, 2, prompts)), 0, 0.99))
    teacher = with_rate(random.dirichlet(np.full(R, 0.5), size=prompts) + 1e-6, good, random.beta(5, 2, prompts))
    return World(good, policy, policy, helped, helped, teacher)


def imitated(policy: Floats, good: np.ndarray, chosen: np.ndarray, weight: Floats) -> Floats:
    """The policy of the chosen prompts mixed with one good response of each (the same one for every policy)."""
    shown = np.zeros_like(policy)
    shown[np.arange(len(policy)), good.argmax(1)] = 1.0
    mix = np.where(chosen, weight, 0.0)[:, None]
    return (1 - mix) * policy + mix * shown


def tilted(policy: Floats, good: np.ndarray, strength: float) -> Floats:
    """The optimum of reward under a KL penalty: p exp(strength x reward), normalised."""
    out = policy * np.exp(strength * good)
    return out / out.sum(1, keepdims=True)


def towards(policy: Floats, target: Floats, way: float) -> Floats:
    """That far along the geometric path from the policy to the target."""
    out = np.exp((1 - way) * np.log(policy) + way * np.log(target))
    return out / out.sum(1, keepdims=True)


def tokens_of(policy: Floats) -> Floats:
    """[P, S, V] next-token probabilities after each prefix."""
    mass = np.zeros((len(policy), len(PREFIXES), VOCABULARY))
    for row in range(R):
        for state, token in INCIDENCE[row]:
            if state >= 0:
                mass[:, state, token] += policy[:, row]
    whole = mass.sum(2, keepdims=True)
    return np.where(whole > 0, mass / np.maximum(whole, 1e-300), 1 / VOCABULARY)


@dataclass(frozen=True, slots=True)
class Draws:
    """How much is measured."""

    samples: int = 16
    own: int = 1
    """Own rollouts a prompt that are scored; lead: one."""
    bank: int = 64
    scaffold: bool = True
    teacher: bool = True


def snapshots(of: World, draws: Draws, random: np.random.Generator) -> tuple[Snapshot, Snapshot]:
    """What a run measures of the world, before and after."""
    sets = []
    for bare, helped in ((of.before, of.helped_before), (of.after, of.helped_after)):
        found = {"probe": sampled(of.rates(bare), draws.samples, random)}
        if draws.scaffold:
            found["scaffolded"] = sampled(of.rates(helped), draws.samples, random)
        sets.append(found)
    scored = _scored(of, draws, random)
    return Snapshot(0, "stage", sets[0]), Snapshot(10, "stage", sets[1], tuple(scored))


def sampled(rates: Floats, samples: int, random: np.random.Generator) -> Sampled:
    """Independent verdicts."""
    passed = random.random((len(rates), samples)) < rates[:, None]
    names = tuple(f"p{at}" for at in range(len(rates)))
    return Sampled(
        names,
        ("family",) * len(rates),
        np.full(len(rates), samples, np.int64),
        passed.sum(1).astype(np.int64),
        np.zeros(len(rates), np.int64),
        np.full(len(rates), np.nan),
        ({},) * len(rates),
        tuple(map(tuple, passed.tolist())),
    )


def drawn(policy: Floats, random: np.random.Generator) -> np.ndarray:
    """[P] one response to each prompt."""
    return (random.random((len(policy), 1)) > np.cumsum(policy, 1)).sum(1).clip(0, R - 1)


def _scored(of: World, draws: Draws, random: np.random.Generator) -> list[Scored]:
    models: dict[Who, Floats] = {"before": tokens_of(of.before), "after": tokens_of(of.after)}
    with_teacher = models | {"teacher": tokens_of(of.teacher)} if draws.teacher else models
    rows: list[Scored] = []
    for writer in ("before", "after"):
        for number in range(draws.own):
            choice = drawn(getattr(of, writer), random)
            rows += _rows(choice, range(len(choice)), (writer, f"{writer}-{number}"), with_teacher)
    at = random.choice(len(of.good), size=min(draws.bank, len(of.good)), replace=False)
    return rows + _rows(of.good.argmax(1)[at], at, ("bank", "bank"), models)


def _rows(choice, prompts, named: tuple[Who, str], models: Mapping[Who, Floats]) -> list[Scored]:
    """A row for each response and model."""
    rows = []
    with np.errstate(divide="ignore"):
        logs = {name: np.log(table).astype(np.float32) for name, table in models.items()}
    best = {name: (table.argmax(2).astype(np.int32), table.max(2)) for name, table in models.items()}
    for response, prompt in zip(choice, prompts, strict=True):
        states, tokens = INCIDENCE[response, : len(RESPONSES[response])].T
        for model in models:
            rows.append(
                Scored(
                    f"{named[1]}/p{prompt}",
                    f"p{prompt}",
                    "family",
                    named[0],
                    model,
                    tokens.astype(np.int32),
                    logs[model][prompt, states, tokens],
                    best[model][0][prompt, states],
                    np.log(best[model][1][prompt, states]).astype(np.float32),
                )
            )
    return rows


def exact_parts(of: World, epsilon: float) -> dict[str, float]:
    """The true decomposition of the change in mean pass rate."""
    p0, p1 = of.rates(of.before), of.rates(of.after)
    inside0, inside1 = p0 >= epsilon, p1 >= epsilon
    classes = {
        "expansion": ~inside0 & inside1,
        "reshaping": inside0 & inside1,
        "attrition": inside0 & ~inside1,
        "outside": ~inside0 & ~inside1,
    }
    return {name: float(((p1 - p0) * mask).mean()) for name, mask in classes.items()} | {
        "total": float((p1 - p0).mean())
    }


def imported(of: World, random: np.random.Generator, share: tuple[float, float] = (0.5, 1.0)) -> World:
    """Imitation of given solutions on a share of the prompts that are out of reach; nothing else moves."""
    lacking = of.rates(of.before) < random.choice([0.005, 0.01, 0.02])
    chosen = lacking & (random.random(len(lacking)) < random.uniform(*share))
    weight = random.beta(*random.choice([(4, 2), (3, 3), (6, 2)]), len(lacking))
    after, helped = (imitated(one, of.good, chosen, weight) for one in (of.before, of.helped_before))
    return replace(of, after=after, helped_after=helped, facts=Facts(supplied=True, teacher=False, scaffold=False))


def reweighted(of: World, random: np.random.Generator) -> World:
    """The reward's optimum on own samples: what is never drawn is hardly moved."""
    strength = random.uniform(0.7, 2.2)
    after, helped = (tilted(one, of.good, strength) for one in (of.before, of.helped_before))
    return replace(of, after=after, helped_after=helped, facts=Facts(supplied=False, teacher=False, scaffold=False))


def taught(of: World, random: np.random.Generator) -> World:
    """Distillation of a teacher on the learner's states."""
    way = random.uniform(0.6, 0.95)
    after, helped = (towards(one, of.teacher, way) for one in (of.before, of.helped_before))
    return replace(of, after=after, helped_after=helped, facts=Facts(supplied=False, teacher=True, scaffold=False))


def internalised(of: World, random: np.random.Generator) -> World:
    """The scaffolded policy distilled into the bare one."""
    after = towards(of.before, of.helped_before, random.uniform(0.6, 1.0))
    return replace(of, after=after, facts=Facts(supplied=False, teacher=False, scaffold=True))


def unmoved(of: World, random: np.random.Generator) -> World:
    """A stage that trained and changed nothing but noise."""
    noise = np.exp(random.normal(0, random.choice([0.0, 0.02, 0.1]), of.before.shape))
    after, helped = (one * noise / (one * noise).sum(1, keepdims=True) for one in (of.before, of.helped_before))
    facts = [
        Facts(True, False, False),
        Facts(False, False, False),
        Facts(False, True, False),
        Facts(False, False, True),
        Facts(),
    ]
    return replace(of, after=after, helped_after=helped, facts=facts[int(random.integers(5))])


def mixed(of: World, random: np.random.Generator, ratio: float, epsilon: float) -> World:
    """Imitation of new solutions and the reward's optimum after it, so strong that the exact gain from expansion is
    `ratio` times that from reshaping, within a tenth."""
    while True:
        first = imported(of, random, (0.2, 1.0))
        low, high = 0.0, 3.0
        for _ in range(30):
            strength = (low + high) / 2
            parts = exact_parts(replace(first, after=tilted(first.after, of.good, strength)), epsilon)
            low, high = (strength, high) if parts["expansion"] > ratio * parts["reshaping"] else (low, strength)
        if abs(parts["expansion"] - ratio * parts["reshaping"]) < 0.1 * parts["expansion"]:
            return _tilted_after(first, of.good, high)


def beside(of: World, random: np.random.Generator, least: float, epsilon: float) -> World:
    """The reward's optimum with a little imitation beside it: the exact gain from reshaping is at least `least` times
    that from expansion."""
    while True:
        after = _tilted_after(imported(of, random, (0.0, 0.1)), of.good, random.uniform(0.7, 2.2))
        parts = exact_parts(after, epsilon)
        if parts["reshaping"] >= least * parts["expansion"]:
            return after


def _tilted_after(first: World, good: np.ndarray, strength: float) -> World:
    after, helped = (tilted(one, good, strength) for one in (first.after, first.helped_after))
    return replace(first, after=after, helped_after=helped)
