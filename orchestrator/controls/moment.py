"""When a decision is made, and what is known by then."""

from collections.abc import Mapping
from typing import Any, NamedTuple

State = Mapping[str, Any]
"""What a control remembers: JSON values alone."""

Memory = dict[str, Any]
"""A state while groups are routed: a copy that is changed in place."""


class Moment(NamedTuple):
    """What every control may know of a step before it begins."""

    step: int
    """Counted from 0 in its stage."""
    steps: int
    """Of the stage."""
    facts: Mapping[str, float]
    """The last step's; empty at the first."""
    seed: int
