"""Which items a step draws: a pure function of step and seed, so that a resumed run needs no cursor."""

import numpy as np

from policies.trajectory import Int32


def draw(total: int, step: int, count: int, seed: int) -> list[int]:
    """Indices of a step: epoch by epoch through seeded permutations; no index twice in a step if count <= total.

    An epoch is total // count whole steps; the few left over differ from epoch to epoch. A step that asks for more
    than there is takes whole permutations of its own, so that counts differ by at most one.
    """
    if total < 1:
        raise ValueError("nothing to draw from")
    if count > total:
        rounds = -(-count // total)
        return [int(i) for k in range(rounds) for i in _permutation(total, seed, step, k)][:count]
    steps_in_epoch = total // max(count, 1)
    epoch, slot = divmod(step, steps_in_epoch)
    return [int(i) for i in _permutation(total, seed, epoch, 0)[slot * count : (slot + 1) * count]]


def _permutation(total: int, seed: int, *key: int) -> Int32:
    return np.random.default_rng([seed % (1 << 63), *key]).permutation(total).astype(np.int32)
