"""What actors tell the loop, apart from records."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishFacts:
    """A publish that every replica confirmed."""

    version: int
    seconds: float
    """From asking the learner to the last replica's confirmation."""
