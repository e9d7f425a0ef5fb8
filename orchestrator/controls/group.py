"""What controls know of a scored group, and how its verdicts are counted."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class MemberStats:
    """What is known of one response."""

    strand: str
    """Name of the strand that reads it."""
    reward: float = math.nan
    """NaN: no verifier gave one."""
    passed: bool | None = None
    """None: no verifier said."""
    compared: bool = True
    """Whether its credit compares its reward with the group's; imitation's does not."""


@dataclass(frozen=True, slots=True)
class GroupStats:
    """What is known of one prompt's responses."""

    id: str
    prompt: str
    members: tuple[MemberStats, ...]
    level: int = 0
    """Of the hint under which a ladder's strand was drawn again; 0 is the first drawing, without one."""
    first: tuple[MemberStats, ...] = ()
    """From level 1 on: the members as they were at level 0."""
    round: int = 0
    """How many prompts were drawn in vain for this place before."""
    segments: int | None = None
    """Parts of the demonstration that the responses started from, where a prefix was asked for."""
    reach: float = math.nan
    """Probability that the policy gives the prompt's known good response as a whole; NaN where nobody asked."""
    counts: dict[str, "Count"] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `count` found: several controls ask for the same. A changed group starts with none."""

    def __post_init__(self) -> None:
        if self.level and not self.first:
            raise ValueError(f"group {self.id}: at hint level {self.level} `first` must hold the members of level 0")


class Count(NamedTuple):
    """Verdicts on a strand's responses in one group."""

    strand: str
    passed: int
    failed: int
    unknown: int

    @property
    def known(self) -> int:
        """Responses with a verdict."""
        return self.passed + self.failed

    @property
    def responses(self) -> int:
        """With or without one."""
        return self.passed + self.failed + self.unknown

    def __str__(self) -> str:
        return _told(self)


@lru_cache(maxsize=1 << 12)
def _told(counted: Count) -> str:
    """Few counts are met, each many times."""
    if not counted.known:
        return f"none of {counted.strand}'s {counted.unknown} responses has a verdict"
    tail = f" ({counted.unknown} more without a verdict)" if counted.unknown else ""
    return f"{counted.passed} of {counted.known} of {counted.strand}'s responses passed{tail}"


def count(group: GroupStats, strand: str) -> Count:
    """Count the verdicts on `strand`'s responses; those without one are neither passed nor failed."""
    found = group.counts.get(strand)
    if found is None:
        verdicts = [one.passed for one in group.members if one.strand == strand]
        passed, failed = verdicts.count(True), verdicts.count(False)
        found = group.counts[strand] = Count(strand, passed, failed, len(verdicts) - passed - failed)
    return found
