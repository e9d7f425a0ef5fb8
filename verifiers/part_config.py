"""What every verifier's config has: the strict base, and what a verifier counts for inside a rubric."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of every verifier config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Part(Strict):
    """What a verifier counts for inside a rubric; on its own these change nothing."""

    name: str = ""
    """Name in the score's parts; by default the verifier's kind."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    required: bool = True
    """Whether the whole passes only if this part does."""
