"""Groups and what each kind of selection keeps of them, worked out by hand: for the tests and the mutants."""

import math
from dataclasses import dataclass
from types import ModuleType

from policies.config import Select
from policies.trajectory import ScoreEntry, Trajectory
from tests.test_trajectory import trajectory


def judged(value: float, passed: bool | None, **fields: object) -> Trajectory:
    """NaN is a time-out."""
    status = "timeout" if math.isnan(value) else "ok"
    return trajectory(2, **{"scores": (ScoreEntry("reward", value, passed, status),), **fields})


@dataclass(frozen=True)
class Case:
    select: Select
    kept: tuple[int, ...]
    chosen: int | None = None
    rejected: int | None = None


GROUP = [
    judged(0.5, False),
    judged(math.nan, None),
    judged(1.0, True),
    judged(0.0, False),
    judged(1.0, True),
    judged(0.0, False),
]

CASES = {
    "all": Case(Select(), (0, 1, 2, 3, 4, 5)),
    "all, at most two": Case(Select(keep=2), (0, 1)),
    "best one: the first of two": Case(Select(kind="best", keep=1), (2,)),
    "best three": Case(Select(kind="best", keep=3), (0, 2, 4)),
    "best of more than there are": Case(Select(kind="best", keep=9), (0, 2, 3, 4, 5)),
    "passed": Case(Select(kind="passed"), (2, 4)),
    "passed, one": Case(Select(kind="passed", keep=1), (2,)),
    "above is strict": Case(Select(kind="above", threshold=0.5), (2, 4)),
    "above zero": Case(Select(kind="above", threshold=0.0), (0, 2, 4)),
    "pair by reward": Case(Select(kind="pair"), (2, 3), 2, 3),
    "pair that differs too little": Case(Select(kind="pair", threshold=1.0), ()),
    "pair that differs enough": Case(Select(kind="pair", threshold=0.9), (2, 3), 2, 3),
    "pair by verdict: the first of each": Case(Select(kind="pair", by="passed"), (0, 2), 2, 0),
}


def agrees(select: ModuleType, case: Case) -> None:
    """The module keeps and labels what the case states."""
    found = select.choose(case.select, GROUP)
    assert found.kept == case.kept
    labels = {index: one.label for index, one in found.preferences.items()}
    assert labels == ({} if case.chosen is None else {case.chosen: 1.0, case.rejected: 0.0})
