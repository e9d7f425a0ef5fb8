"""Chance that depends on its name alone: the same seed and the same name give the same draw, on every machine."""

import hashlib

import numpy as np

BITS = 53
"""Of a float's significand: every draw is exact."""


def uniform(seed: int, *what: object) -> float:
    """A number in [0, 1) for `what`, of the run's seed."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *what))).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - BITS)) / (1 << BITS)


def binomial(trials: int, probability: float, seed: int, *what: object) -> int:
    """How many of `trials` coins of `what` fall heads."""
    return sum(uniform(seed, *what, trial) < probability for trial in range(trials))


def shuffled(count: int, seed: int, *what: object) -> list[int]:
    """The numbers below `count`, in an order that `what` names."""
    digest = hashlib.shake_256("/".join(map(str, (seed, *what))).encode()).digest(8 * count)
    order: list[int] = np.frombuffer(digest, dtype="<u8").argsort(kind="stable").tolist()
    return order
