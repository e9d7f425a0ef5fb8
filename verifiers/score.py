"""`Score`: a verifier's verdict. A verifier that failed gives a status, never a wrong answer."""

import math
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """Whether there is a verdict."""

    OK = "ok"
    TIMEOUT = "timeout"
    """The verifier did not finish in time: the response is not judged."""
    ERROR = "error"
    """The verifier broke, or its reference is unusable: the response is not judged."""
    REFUSED = "refused"
    """The verifier would not judge: no sandbox for a program, or a judge that declined to answer."""
    SKIPPED = "skipped"
    """A rubric's part that was not asked, for a gate as cheap or cheaper had decided."""


@dataclass(frozen=True, slots=True)
class Span:
    """A verdict on part of the response, in characters [start, end)."""

    start: int
    end: int
    value: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """value in [0, 1] unless the verifier says otherwise; NaN and passed=None when status is not ok."""

    value: float
    passed: bool | None
    status: Status = Status.OK
    reason: str = ""
    spans: tuple[Span, ...] = ()
    parts: dict[str, "Score"] = field(default_factory=dict)
    """Component scores, by name: a rubric's parts, or figures that a verifier measured and that count nothing."""
    seconds: float = math.nan
    """What the verdict took; of a verdict given in a batch, its share. NaN where nobody measured."""
    scorer: str = ""
    """Kind of verifier that said so, and ..."""
    version: str = ""
    """... a digest of its config, its code and the libraries that judge: verdicts of two versions do not compare."""

    @classmethod
    def unknown(cls, status: Status, reason: str) -> "Score":
        """No verdict."""
        return cls(value=math.nan, passed=None, status=status, reason=reason)
