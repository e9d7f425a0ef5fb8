"""A prompt's place in a step."""

from typing import NamedTuple


class Place(NamedTuple):
    """One of the step's prompts, and the strands that are asked for it."""

    prompt: str
    """Its id."""
    only: frozenset[str] = frozenset()
    """Names of strands; empty: all that share the step's prompts and do not rest. A strand that rests is not asked,
    whoever names it."""
