"""What scorers did, counted: verdicts by status, latencies, whether the score ever differs, examples of what failed.

Pure values that add up: a tally of two batches is that of both, in whichever order they came. Latencies go into
buckets whose bounds grow by a factor, so that a percentile is right to within 5 % however many there were
(DDSketch: Masson, Rim and Lee, VLDB 2019, arXiv:1908.10693).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

from verifiers.grader import Asked
from verifiers.score import Score, Status

GROWTH = 1.1
"""Ratio of a bucket's bounds: a value is told by its bucket's middle, off by at most (GROWTH - 1) / (GROWTH + 1)."""

LEAST_SECONDS = 1e-6
"""What took less counts as this."""

EXAMPLES = 3
"""Failures that are kept of a tally, with what was answered."""

EXCERPT = 240
"""Characters of a failed response that are kept, and of the reason."""

KNOWN = frozenset({Status.OK, Status.ERROR, Status.TIMEOUT, Status.REFUSED})
"""Statuses of a response that somebody was asked about; a part that was skipped is none."""


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """A response that got no verdict, and why."""

    id: str
    status: str
    reason: str
    response: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What one scorer of one version said under one name."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Status -> responses."""
    buckets: Mapping[int, int] = field(default_factory=dict)
    """Latency bucket -> verdicts; bucket i holds (GROWTH ** (i - 1), GROWTH ** i] seconds."""
    low: float = math.inf
    high: float = -math.inf
    """Least and greatest value of the verdicts."""
    failures: tuple[Failure, ...] = ()
    """The first few by the responses' names: which they are does not hang on the order of batches."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            _sum(self.counts, other.counts),
            _sum(self.buckets, other.buckets),
            min(self.low, other.low),
            max(self.high, other.high),
            tuple(sorted({*self.failures, *other.failures})[:EXAMPLES]),
        )

    @property
    def verdicts(self) -> int:
        """Responses with a verdict."""
        return self.counts.get(Status.OK, 0)

    @property
    def asked(self) -> int:
        """Responses that it was asked about."""
        return sum(count for status, count in self.counts.items() if status in KNOWN)

    @property
    def unknown_share(self) -> float:
        """Responses that it did not judge, of those that it was asked about; NaN of none."""
        return 1 - self.verdicts / self.asked if self.asked else math.nan

    @property
    def constant(self) -> bool:
        """Whether every verdict had the same value."""
        return self.low == self.high

    def seconds(self, share: float) -> float:
        """The latency that a share of the verdicts did not exceed, such as 0.99; NaN where none was measured."""
        total = sum(self.buckets.values())
        rank, seen = max(math.ceil(share * total), 1), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return 2 * GROWTH**bucket / (GROWTH + 1)
        return math.nan


@dataclass(frozen=True, slots=True, order=True)
class Who:
    """Whose verdicts a tally counts."""

    name: str
    """Entry that the scores go under: `reward`, or a part's path such as `form/format`."""
    scorer: str
    version: str


Tallies = Mapping[Who, Tally]


def tallied(name: str, asked: Sequence[Asked], scores: Sequence[Score]) -> Tallies:
    """Of a batch's scores and all of their parts."""
    singles = (
        {who: of(score, one)} for one, whole in zip(asked, scores, strict=True) for who, score in _all(name, whole)
    )
    return added(singles)


def added(tallies: Iterable[Tallies]) -> Tallies:
    """Each one's sum."""
    found: dict[Who, list[Tally]] = {}
    for some in tallies:
        for who, tally in some.items():
            found.setdefault(who, []).append(tally)
    return {who: reduce(Tally.__add__, found[who]) for who in sorted(found)}


def of(score: Score, asked: Asked) -> Tally:
    """A single score's."""
    seconds = score.seconds
    buckets = {_bucket(seconds): 1} if math.isfinite(seconds) and score.status in KNOWN else {}
    if score.status == Status.OK:
        return Tally({score.status.value: 1}, buckets, score.value, score.value)
    if score.status not in KNOWN:
        return Tally({score.status.value: 1})
    failure = Failure(asked.id, score.status.value, score.reason[:EXCERPT], asked.response[:EXCERPT])
    return Tally({score.status.value: 1}, buckets, failures=(failure,))


def _all(name: str, score: Score, outer: str = "") -> Iterator[tuple[Who, Score]]:
    """The score and its parts, named as the entries of a trajectory are."""
    yield Who(f"{outer}{name}", score.scorer, score.version), score
    inside = "" if not outer and name == "reward" else f"{outer}{name}/"
    for part, inner in score.parts.items():
        yield from _all(part, inner, inside)


def _bucket(seconds: float) -> int:
    return math.ceil(math.log(max(seconds, LEAST_SECONDS)) / math.log(GROWTH))


def _sum(one: Mapping[Any, int], other: Mapping[Any, int]) -> dict[Any, int]:
    return dict(Counter(one) + Counter(other))


# ---------------------------------------------------------------- rows


def rows(tallies: Tallies) -> list[dict[str, Any]]:
    """As JSON values, one a scorer."""
    return [
        {
            **asdict(who),
            "counts": dict(tally.counts),
            "low": tally.low if tally.verdicts else None,
            "high": tally.high if tally.verdicts else None,
            "buckets": {str(bucket): count for bucket, count in sorted(tally.buckets.items())},
            "failures": [asdict(one) for one in tally.failures],
        }
        for who, tally in tallies.items()
    ]


def read(found: Iterable[Mapping[str, Any]]) -> Tallies:
    """What `rows` wrote."""
    return added({Who(one["name"], one["scorer"], one["version"]): _tally(one)} for one in found)


def _tally(row: Mapping[str, Any]) -> Tally:
    known = row["low"] is not None
    return Tally(
        dict(row["counts"]),
        {int(bucket): count for bucket, count in row["buckets"].items()},
        row["low"] if known else math.inf,
        row["high"] if known else -math.inf,
        tuple(Failure(**one) for one in row["failures"]),
    )
