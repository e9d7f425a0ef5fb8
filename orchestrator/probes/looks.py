"""When a prompt's class is clear, so that no more responses need be drawn for it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

from orchestrator.probes.bottleneck import Marks
from orchestrator.probes.snapshot import Int64

FIRST = 8
"""Responses before the first look."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks after so many responses; a prompt is done where its own verdicts say by themselves (Jeffreys' prior) in
    which class its solve rate lies: unsolved, unreliable or mastered."""

    looks: tuple[int, ...]
    marks: Marks

    def stopped(self, n_P: Int64, c_P: Int64) -> npt.NDArray[np.bool_]:
        """[P] whether the prompt is done."""
        below = [betainc(c_P + 0.5, n_P - c_P + 0.5, mark) for mark in (self.marks.epsilon, self.marks.mastered)]
        chances = np.stack([below[0], below[1] - below[0], 1.0 - below[1]])
        done: npt.NDArray[np.bool_] = (chances.max(axis=0) >= self.marks.confidence) | (n_P >= self.looks[-1])
        return done


def looks(samples: int, marks: Marks) -> Looks:
    """Looks that grow by half, up to `samples` responses."""
    found, at = [], FIRST
    while at < samples:
        found.append(at)
        at = at + max(at // 2, 1)
    return Looks((*found, samples), marks)
