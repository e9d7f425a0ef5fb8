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
    """Component scores of a rubric, by part name."""

    @classmethod
    def unknown(cls, status: Status, reason: str) -> "Score":
        """No verdict."""
        return cls(value=math.nan, passed=None, status=status, reason=reason)
