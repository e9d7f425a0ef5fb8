"""Planted prompts: a policy that is a tree for each prompt, with one thing wrong, and everything exact.

A tree holds one to three good trajectories that share a stem; what is not on it fails. Its node probabilities are
drawn, then damaged: at one or two nodes of the stem (an unavailable action), along four or more of them (an unreached
prefix), or nowhere. Solve rates, occupancies and teacher-forced scores follow by multiplication, without sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.probes.bottleneck import Kind
from orchestrator.probes.snapshot import Float64, Sampled, Scored, Snapshot

TOLD: tuple[Kind, ...] = ("unreached_prefix", "unavailable_action", "unreliable", "mastered", "lost")
VOCABULARY = 12


@dataclass(frozen=True, slots=True)
class Tree:
    """One prompt's policy along its good trajectories."""

    stem: Float64
    """[S] probability of the good token at each node of the stem, given that the node is reached."""
    branches: tuple[tuple[float, Float64], ...]
    """(probability of the branch's first token at the end of the stem, [T] those of its later tokens)."""

    @property
    def solved(self) -> float:
        """Probability that a response is right."""
        return float(self.stem.prod() * sum(first * rest.prod() for first, rest in self.branches))

    def occupancy(self) -> Float64:
        """[S + 1] probability that a response passes through each node of the stem, and its end."""
        return np.concatenate([[1.0], np.cumprod(self.stem)])

    def path(self, branch: int) -> Float64:
        """[T] probabilities of one whole good trajectory's tokens."""
        first, rest = self.branches[branch]
        return np.concatenate([self.stem, [first], rest])


def tree(kind: Kind, rate: float, draws: np.random.Generator) -> Tree:
    """A tree whose solve rate is below 1 as the kind says; of kinds that are told by verdicts it is exactly `rate`."""
    size, count = int(draws.integers(5, 25)), int(draws.integers(1, 4))
    splits = draws.dirichlet(np.full(count, 2.0))
    rests = [draws.uniform(0.93, 1.0, int(draws.integers(1, 8))) for _ in range(count)]
    stem = draws.uniform(0.9, 1.0, size)
    if kind == "unavailable_action":
        places = draws.choice(size, int(draws.integers(1, 3)) if size > 5 else 1, replace=False)
        stem[places] = np.exp(draws.uniform(np.log(1e-6), np.log(5e-3), len(places)))
    elif kind == "unreached_prefix":
        many = int(draws.integers(4, size + 1))
        places = np.arange(many) if draws.random() < 0.5 else draws.choice(size, many, replace=False)
        stem[places] = np.exp(draws.uniform(np.log(0.02), np.log(0.3), many))
    else:
        share = draws.uniform()
        rests = [np.exp(share * np.log(rate) * draws.dirichlet(np.ones(len(rest)))) for rest in rests]
        stem = np.exp((1.0 - share) * np.log(rate) * draws.dirichlet(np.ones(size)))
    return Tree(stem, tuple(zip(splits.tolist(), rests, strict=True)))


def scored(name: str, path: Float64, draws: np.random.Generator) -> Scored:
    """The trajectory as the policy scores it; where its token is not the likeliest, another has most of the rest."""
    others = (1.0 - path) * draws.uniform(0.5, 1.0, len(path))
    own = np.arange(len(path), dtype=np.int32) % VOCABULARY
    best = np.where(path >= others, own, (own + 1) % VOCABULARY).astype(np.int32)
    logs = [np.log(one).astype(np.float32) for one in (path, np.maximum(path, others))]
    return Scored(f"bank-{name}", name, "", "bank", "after", own, logs[0], best, logs[1])


def sampled(rates: Sequence[float], draws: np.random.Generator, *, least: int = 16, most: int = 64) -> Sampled:
    """Verdicts on `least` to `most` responses to each prompt."""
    count = len(rates)
    n = draws.integers(least, most + 1, count)
    return counted(n, draws.binomial(n, rates))


def counted(n: Sequence[int], c: Sequence[int]) -> Sampled:
    """Prompts p0, p1 ... with so many verdicts and passes."""
    count = len(n)
    names = tuple(f"p{at}" for at in range(count))
    nobody = np.zeros(count, np.int64)
    numbers = (np.asarray(n, np.int64), np.asarray(c, np.int64))
    return Sampled(names, ("",) * count, *numbers, nobody, np.full(count, np.nan), ({},) * count, ((),) * count)


@dataclass(frozen=True, slots=True)
class World:
    """Planted prompts, before and after."""

    truth: tuple[Kind, ...]
    rates: Float64
    """[P] now."""
    snapshots: tuple[Snapshot, ...]


def world(kinds: Sequence[Kind], seed: int, *, clear: bool, banked: float = 1.0) -> World:
    """A prompt for each of the kinds. `clear`: strengths away from the classes' edges, which few draws cannot tell;
    else anywhere in the classes. `banked`: share of the prompts that have a trajectory in the bank."""
    draws = np.random.default_rng(seed)
    then, now, rows = [], [], []
    for at, kind in enumerate(kinds):
        before, rate = _strength(kind, draws, clear=clear)
        made = tree(kind, rate, draws)
        while kind in ("unreached_prefix", "unavailable_action") and made.solved >= 0.05:
            made = tree(kind, rate, draws)
        then.append(min(before, made.solved) if kind in ("unreached_prefix", "unavailable_action") else before)
        now.append(made.solved)
        if draws.random() < banked:
            rows.append(scored(f"p{at}", made.path(int(draws.integers(len(made.branches)))), draws))
    sets = [{"probe": sampled(rates, draws)} for rates in (then, now)]
    return World(tuple(kinds), np.array(now), (Snapshot(0, "a", sets[0]), Snapshot(9, "a", sets[1], tuple(rows))))


def _strength(kind: Kind, draws: np.random.Generator, *, clear: bool) -> tuple[float, float]:
    """Solve rates before and now."""
    match kind:
        case "unreliable":
            return float(draws.uniform(0, 0.7)), float(draws.uniform(0.25, 0.7) if clear else draws.uniform(0.05, 0.9))
        case "mastered":
            return float(draws.uniform(0, 1)), float(draws.uniform(0.985, 1) if clear else draws.uniform(0.9, 1))
        case "lost":
            now = draws.uniform(0, 0.005) if clear else draws.uniform(0, 0.05)
            return float(draws.uniform(0.4, 1) if clear else draws.uniform(0.05, 1)), float(now)
        case _:
            return float(draws.uniform(0, 0.05)), 0.0
