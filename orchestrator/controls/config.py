"""Config of controls: what decides shares before a step and routes groups after they are scored."""

from typing import Annotated, Literal

from pydantic import Field

from policies.config import Strict


class Constant(Strict):
    """A strand's coefficient stays what it is."""

    kind: Literal["constant"] = "constant"
    strand: str
    coefficient: Annotated[float, Field(ge=0)] = 1.0


class Mixture(Strict):
    """Two strands share the step: one has coefficient mu, the other 1 - mu.

    Over the stage's steps mu rises from 0 to `peak` (linear), falls to `floor` (cosine), and stays there.
    """

    kind: Literal["mixture"] = "mixture"
    strand: str
    """Scaled by mu."""
    against: str
    """Scaled by 1 - mu."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps from 0 to `peak`."""
    decay: Annotated[int, Field(ge=0)] = 200
    """Steps from `peak` to `floor`."""
    peak: Annotated[float, Field(ge=0, le=1)] = 0.9
    floor: Annotated[float, Field(ge=0, le=1)] = 0.05


class ZeroVariance(Strict):
    """What becomes of a group whose rewards are all equal: a group baseline finds no difference in it to learn from."""

    kind: Literal["zero_variance"] = "zero_variance"
    action: Literal["keep", "drop"] = "keep"
    """keep: its tokens still count in the normaliser (GRPO); drop: it never reaches the learner (no redraw)."""


Control = Annotated[Constant | Mixture | ZeroVariance, Field(discriminator="kind")]
