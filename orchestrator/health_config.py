"""Config of what is watched in a run's verifiers, and when it ends the run."""

from typing import Annotated, Literal

from pydantic import Field

from policies.strict import Strict


class Health(Strict):
    """What is watched in the verifiers: verdicts that are not given, scores that never differ, reward hacking."""

    window: Annotated[int, Field(ge=1)] = 256
    """Responses that are looked back on. Nothing is said before there are so many."""
    unknown_ceiling: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of these without a verdict (error, timeout, refused) over which the run ends, with examples. Parts of a
    rubric and the held-out verifier are only told of. 1: never."""
    constant_after: Annotated[int, Field(ge=2)] = 2048
    """Verdicts of one scorer, all of the same value, after which it is told of."""
    held_out_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the policy's responses that `held_out_verifier` judges too; always the same ones."""
    held_out_gap: Annotated[float, Field(gt=0)] = 0.1
    """By how much the reward may outgrow the held-out score since the run's beginning, in the scores' own unit, before
    it is told of: mean reward minus mean held-out score, of the newest responses less of the first; the lower end of
    the 99 % interval counts."""
    alarm: Literal["tell", "stop"] = "tell"
    """What a constant score and a grown gap do: an event and a line on the screen, or the end of the run too."""
