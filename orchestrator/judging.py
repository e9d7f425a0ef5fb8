"""Whose responses the scorer must judge: whenever anything in the stage reads the verdict."""

from collections.abc import Sequence

from orchestrator.controls import Bottleneck, Buffer, Control, Curriculum, Gate, Ladder, Prefix
from policies.config import Source, Strand
from policies.credit import needs_views
from teachers.contexts import reads

TOLD = frozenset({"reason", "sibling", "attributes"})
"""Template variables that come of verdicts."""


def judged_strands(strands: Sequence[Strand], controls: Sequence[Control]) -> frozenset[int]:
    """Indices of the strands whose responses need a verdict; a group that holds one is judged whole."""
    watched = {name for control in controls for name in _watched(control)}
    return frozenset(
        index
        for index, strand in enumerate(strands)
        if strand.name in watched or _reads(strand) or any(_asks(child.source, strand.name) for child in strands)
    )


def _watched(control: Control) -> tuple[str, ...]:
    match control:
        case Gate() | Ladder():
            return (control.strand,)
        case Buffer() | Curriculum():
            return (control.watch,)
        case Bottleneck():
            return (control.reinforce, control.imports)  # a demonstration that fails is none
        case Prefix(schedule="bisect"):
            return (control.strand,)
        case _:
            return ()


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
