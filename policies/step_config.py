"""Config of steps: where a response is cut."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.strict import Strict


class StepCut(Strict):
    """Where a response's steps end. Steps are spans of its own sampled tokens and cover all of them, in order."""

    at: Literal["separator", "heading", "sentence", "length"] = "separator"
    """separator: after each separator; heading: before each line that begins with `Step 3`, `Step 3:` or `## Step 3`;
    sentence: after each sentence or line; length: every `size` tokens."""
    separator: Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=0)] = "\n"
    """A text such as "\\n\\n", or the id of a token, that ends a step and belongs to it."""
    size: Annotated[int, Field(ge=0)] = 0
    """A step with more tokens is cut every so many, as is a text without separators; 0 is no limit."""
    max_steps: Annotated[int, Field(ge=1)] = 16
    """Where there are more, neighbours are joined, evenly."""

    @model_validator(mode="after")
    def _sized(self) -> "StepCut":
        if self.at == "length" and not self.size:
            raise ValueError("at: length cuts every `size` tokens, and size is 0; set it to 32, say")
        return self
