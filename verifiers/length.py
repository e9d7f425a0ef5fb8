"""How long a response is, against bounds, its reference or the other responses to its prompt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifiers.grader import Grader, Item, one_by_one
from verifiers.kinds import Tools
from verifiers.score import Score, Status
from verifiers.text_config import LengthVerifier
from verifiers.words import words

COUNTS: Mapping[str, Callable[[str], int]] = {
    "words": words,
    "characters": len,
    "lines": lambda text: sum(1 for line in text.splitlines() if line.strip()),
}
SAME = 0.5
"""Value of responses that are all as long."""


def open_grader(own: LengthVerifier, _: Tools) -> Grader:
    """A grader of one response, or of a group."""
    return Shortest(own) if own.against == "group" else one_by_one(lambda item: judge(own, item))


def judge(own: LengthVerifier, item: Item) -> Score:
    """1 within the bounds, less outside."""
    bounds = (own.least, own.most) if own.against == "bounds" else asked(item.reference)
    if bounds is None:
        reason = "reference is no length: it is a number, or a mapping with least, most or both"
        return Score.unknown(Status.ERROR, reason)
    found = COUNTS[own.unit](item.response)
    least, most = bounds
    off = max(least - found, 0) if most is None else max(least - found, found - most, 0)
    value = 1.0 if not off else max(0.0, 1.0 - off / own.margin) if own.margin else 0.0
    return Score(value, value > 0, reason=_reason(found, own.unit, bounds) if off else "")


def asked(reference: Any) -> tuple[float, float | None] | None:
    """Least and most that a prompt asks for; None where the reference says neither."""
    match reference:
        case bool():
            return None
        case int() | float() if reference >= 0:
            return reference, reference
        case {"least": _} | {"most": _} if set(reference) <= {"least", "most"}:
            least, most = reference.get("least"), reference.get("most")
            known = [one for one in (least, most) if one is not None]
            right = known and all(isinstance(one, int | float) and not isinstance(one, bool) for one in known)
            return (least or 0, most) if right and (most is None or (least or 0) <= most) else None
        case _:
            return None


def _reason(found: int, unit: str, bounds: tuple[float, float | None]) -> str:
    least, most = bounds
    if found < least:
        return f"{found} {unit}; at least {least:g} are asked"
    return f"{found} {unit}; at most {most:g} are asked"


@dataclass(frozen=True, slots=True)
class Shortest:
    """Compares the responses of a group; one that has no group is its own."""

    config: LengthVerifier

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """1 for the shortest of each group, 0 for the longest."""
        lengths = [COUNTS[self.config.unit](item.response) for item in items]
        groups = [item.group or f"#{at}" for at, item in enumerate(items)]
        ends: dict[str, tuple[int, int]] = {}
        for group, length in zip(groups, lengths, strict=True):
            low, high = ends.get(group, (length, length))
            ends[group] = (min(low, length), max(high, length))
        return [self._one(length, *ends[group]) for group, length in zip(groups, lengths, strict=True)]

    def close(self) -> None:
        """There is nothing to end."""

    def _one(self, length: int, low: int, high: int) -> Score:
        value = 1.0 - (length - low) / (high - low) if high > low else SAME
        return Score(value, None, reason=f"{length} {self.config.unit}; its group has {low} to {high}")
