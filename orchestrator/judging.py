"""Whose responses the scorer must judge: whenever anything in the stage reads the verdict."""

from collections.abc import Sequence

from orchestrator.controls import Control, watched
from policies.config import Source, Strand
from policies.credit import needs_views
from teachers.contexts import reads

TOLD = frozenset({"reason", "sibling", "attributes"})
"""Template variables that come of verdicts."""


def judged_strands(strands: Sequence[Strand], controls: Sequence[Control]) -> frozenset[int]:
    """Indices of the strands whose responses need a verdict; a group that holds one is judged whole."""
    counted = {name for control in controls for name in watched(control)}
    return frozenset(
        index
        for index, strand in enumerate(strands)
        if strand.name in counted or _reads(strand) or any(_asks(child.source, strand.name) for child in strands)
    )


def _reads(strand: Strand) -> bool:
    """Whether the strand's own credit, selection or templates read its verdicts."""
    source = strand.source
    if strand.terms and "rewards" in needs_views(strand.credit):
        return True
    return source.select.kind != "all" or any(TOLD & reads(text) for text in (source.train, source.teacher))


def _asks(source: Source, name: str) -> bool:
    """Whether a strand that follows `name` reads its verdicts."""
    if source.parent != name:
        return False
    told = any(TOLD & reads(text) for text in (source.behavior, source.turn))
    return told or bool(source.turn) or source.parent_is != "any"
