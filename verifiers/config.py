"""Config of verifiers: what judges a response."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of every verifier config: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class AnswerVerifier(Strict):
    """Exact answer: the text after the last `marker` (to the end of its line, stripped) equals the reference."""

    kind: Literal["answer"] = "answer"
    marker: str = "#"
    """Empty: the whole response is the answer."""


class MathVerifier(Strict):
    """Mathematical equivalence with the reference, in a process that is killed when it hangs."""

    kind: Literal["math"] = "math"
    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds for one verdict; past it the status is `timeout`, not a wrong answer."""


class FormatVerifier(Strict):
    """The response as a whole matches a regular expression (with a time limit)."""

    kind: Literal["format"] = "format"
    pattern: str = r"(?s).*#\s*-?\d+\s*"


class TaskVerifier(Strict):
    """reasoning-gym's own scorer; the reference is the task's entry as JSON."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    dataset: str
    """Name in reasoning-gym, such as chain_sum."""
    marker: str = ""
    """When set, only the text after the last marker is judged."""


class RubricVerifier(Strict):
    """Weighted mean of parts; passes when every required part passes."""

    kind: Literal["rubric"] = "rubric"
    parts: Annotated[tuple["RubricPart", ...], Field(min_length=1)]


class RubricPart(Strict):
    """One part of a rubric."""

    name: str = ""
    """Name in the score's components; by default the verifier's kind."""
    verifier: "Verifier"
    weight: Annotated[float, Field(gt=0)] = 1.0
    required: bool = True
    """Whether the whole passes only if this part does."""


Verifier = Annotated[
    AnswerVerifier | MathVerifier | FormatVerifier | TaskVerifier | RubricVerifier, Field(discriminator="kind")
]
