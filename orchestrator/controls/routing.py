"""Where a scored group goes."""

from typing import Literal, NamedTuple


class Routing(NamedTuple):
    """One control's word on a group."""

    verdict: Literal["keep", "drop"] = "keep"
    reason: str = ""
    """Empty when there is nothing to tell: the group goes on as groups do."""
    without: frozenset[str] = frozenset()
    """Names of strands whose members leave the group."""
    redraw: bool = False
    """With drop: another prompt is drawn in this one's place."""
    hint_level: int = 0
    """Not 0: the members of `hint_strand` are drawn again with a hint of this level, and the group is routed again."""
    hint_share: float = 0.0
    """Share of the demonstration that this level shows."""
    hint_strand: str = ""
    replace: Literal["", "all", "one", "none"] = ""
    """What drawing with a hint did. all: the hinted group goes on; one: the first group does, with a failure swapped
    for a hinted success; none: the first group does, as it was. Empty: nothing was drawn with a hint."""
    swap: tuple[int, int] | None = None
    """one: index of the failure in the first group, index of the success in the hinted one."""


SILENT = Routing()


class Routings(NamedTuple):
    """All controls' words on a group, in the controls' order, and what they come to."""

    each: tuple[Routing, ...]

    @property
    def verdict(self) -> Literal["keep", "drop"]:
        """One `drop` drops it; a group that nobody is left in is the collector's to drop."""
        return "drop" if any(one.verdict == "drop" for one in self.each) else "keep"

    @property
    def without(self) -> frozenset[str]:
        """Strands whose members leave."""
        return frozenset(strand for one in self.each for strand in one.without)

    @property
    def redraw(self) -> bool:
        """Whether another prompt is drawn in its place."""
        return any(one.redraw for one in self.each)

    @property
    def ladder(self) -> Routing:
        """The word that speaks of hints: at most one does; one that says nothing if none does."""
        return next((one for one in self.each if one.hint_level or one.replace), SILENT)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every sentence, in order."""
        return tuple(one.reason for one in self.each if one.reason)
