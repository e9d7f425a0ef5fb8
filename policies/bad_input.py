"""`BadInput`: what a user gave cannot be used. It carries every fault found, not just the first."""

import difflib
from collections.abc import Iterable, Sequence

MOST_LINES = 20


class BadInput(ValueError):  # noqa: N818  (it says what happened; the user reads its lines)
    """Faults in what a user gave, a line each: `file: key: problem (got value); fix`."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(tuple(lines))
        self.lines = tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def refuse(faults: Sequence[str]) -> None:
    """Raise `BadInput` with the first 20 faults and the count of the rest; no faults, no error."""
    if not faults:
        return
    rest = len(faults) - MOST_LINES
    more = (f"... and {rest} more fault{'s' if rest > 1 else ''} of the same input",) if rest > 0 else ()
    raise BadInput((*faults[:MOST_LINES], *more))


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known name is close, else nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


def shown(value: object, width: int = 60) -> str:
    """The start of a value, on one line, for an error."""
    text = value if isinstance(value, str) else repr(value)
    text = text[: width + 1].encode("unicode_escape").decode("ascii")
    return f"'{text}'" if len(text) <= width else f"'{text[:width]}...'"
