"""What every verifier's config has: the strict base, and what a verifier counts for inside a rubric."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Base of every verifier config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Part(Strict):
    """What a verifier counts for inside a rubric; on its own these change nothing."""

    name: str = ""
    """Name in the score's parts; by default the verifier's kind."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Share of its value in the whole's; 0 only reports it."""
    role: Literal["part", "gate", "veto"] = "part"
    """gate: the whole is 0 unless this part passes. veto: the whole is 0 if this part passes, as when a judge finds
    plagiarism; its value counts nothing. Either decides even when another part has no verdict."""
    required: bool | None = None
    """Whether the whole passes only if this part does; by default yes where it has a weight and says pass or fail.
    A gate always is."""

    @model_validator(mode="after")
    def _roles_agree(self) -> Self:
        if self.role == "gate" and self.required is False:
            raise ValueError("a gate is required: drop `required: false`, or drop `role: gate`")
        if self.role == "veto" and (self.weight != 1 or self.required):
            raise ValueError("a veto forbids when it passes: it has neither a weight nor is it required; drop those")
        return self

    @property
    def counts(self) -> bool:
        """Whether its value is in the whole's."""
        return self.role != "veto" and self.weight > 0

    @property
    def decides(self) -> bool:
        """Whether the whole can be 0 by its word alone."""
        return self.role != "part"

    @property
    def demanded(self) -> bool:
        """Whether the whole passes only if this part does."""
        if self.role == "part":
            return self.weight > 0 if self.required is None else self.required
        return self.role == "gate"
