"""Config of the verifier that believes the environment."""

from typing import Literal

from verifiers.part_config import Part

TOLD = "environment"
"""Key in `Item.told`, and name of a trajectory's entry: what its environment said of the whole."""


class EnvironmentVerifier(Part):
    """What the episode's environment said. It needs no reference."""

    kind: Literal["environment"] = "environment"
    of: Literal["sum", "last"] = "sum"
    """The rewards of all turns together, or the last turn's own."""
    passes: float = 1.0
    """The response passes at this value or more, where the environment did not say itself whether the task is
    solved."""
