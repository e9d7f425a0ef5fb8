"""Config of verifiers: what judges a response."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from verifiers.environment_config import EnvironmentVerifier
from verifiers.judge_config import JudgeVerifier
from verifiers.model_config import PreferenceModelVerifier, ProcessModelVerifier, RewardModelVerifier
from verifiers.part_config import Part
from verifiers.program_config import ProgramVerifier
from verifiers.text_config import TextVerifier


class AnswerVerifier(Part):
    """Exact answer: the text after the last `marker` (to the end of its line, stripped) equals the reference."""

    kind: Literal["answer"] = "answer"
    marker: str = "#"
    """Empty: the whole response is the answer."""


class MathVerifier(Part):
    r"""Mathematical equivalence of the final answer with the reference, in a process that is killed when it hangs.

    The final answer is the one \boxed{}; else the rest of the line after the last `marker`; else what follows
    "answer is" or "answer:" in the last line; else a response that is nothing but one expression. A list or an equation
    where a value is asked, and arithmetic that is not worked out where a number is asked, are wrong.
    """

    kind: Literal["math"] = "math"
    marker: str = "####"
    boxes: Literal["one", "last", "all"] = "one"
    """Of several different boxes: `one` makes the answer wrong, `last` reads the last, `all` makes one list of them."""
    units: Literal["ignored", "optional", "required"] = "optional"
    """`optional`: a unit may be left out, but 3 m is not 3 cm. `required`: the reference's unit must stand there.

    Units are compared by name, not converted.
    """
    tolerance: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the reference by which one number may differ; 0: exactly, or to 12 decimals where they never end."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds for one verdict; past it the status is `timeout`, not a wrong answer."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that judge at the same time."""


class FormatVerifier(Part):
    """The response as a whole matches a regular expression (with a time limit)."""

    kind: Literal["format"] = "format"
    pattern: str = r"(?s).*#\s*-?\d+\s*"
    timeout: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds for one match; past it the status is `timeout`."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        import regex  # type: ignore[import-untyped]

        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class TaskVerifier(Part):
    """reasoning-gym's own scorer; the reference is the task's entry as JSON. Passes at value 1."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    dataset: str
    """Name in reasoning-gym, such as chain_sum."""
    marker: str = ""
    """When set, only the text after the last marker is judged (to the end of its line)."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    workers: Annotated[int, Field(ge=1, le=64)] = 2


class StepsVerifier(Part):
    """Cuts the response at a separator, judges each step by itself and the whole by its outcome.

    The steps' values reach credit `process` as step scores; in a rubric, under the part's name (`part` is S2R's).
    """

    kind: Literal["steps"] = "steps"
    separator: Annotated[str, Field(min_length=1)] = "\n"
    """Ends a step, and belongs to it."""
    step: "Verifier"
    """Judges the text of one step."""
    outcome: "Verifier"
    """Judges the whole response: the reward."""


class RubricVerifier(Part):
    """Weighted mean of parts; passes when every required part passes; unknown when a part that could change it is.

    Parts that compute are always judged. Those that ask a process or a model come after the gates and vetoes that are
    as cheap or cheaper, and are skipped where one of these has decided.
    """

    kind: Literal["rubric"] = "rubric"
    parts: Annotated[tuple["Verifier", ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not any(part.counts for part in self.parts):
            raise ValueError("no part counts: give one that is no veto a weight above 0")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [part_name(part) for part in self.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"parts share the name {', '.join(map(repr, twice))}; give each part a name of its own")
        taken = sorted({"reward", "held_out"} & set(names))
        if taken:
            raise ValueError(f"a part may not be named {taken[0]!r}: the whole has scores of that name; choose another")
        return self


AnyVerifier = (
    AnswerVerifier
    | ProgramVerifier
    | MathVerifier
    | FormatVerifier
    | TaskVerifier
    | TextVerifier
    | EnvironmentVerifier
    | RewardModelVerifier
    | PreferenceModelVerifier
    | ProcessModelVerifier
    | JudgeVerifier
    | StepsVerifier
    | RubricVerifier
)
"""Every kind, for `isinstance` and annotations."""

Verifier = Annotated[AnyVerifier, Field(discriminator="kind")]
"""The same, as a config is read: `kind` chooses."""

StepsVerifier.model_rebuild()
RubricVerifier.model_rebuild()


def part_name(part: AnyVerifier) -> str:
    """The name under which a part is reported."""
    return part.name or part.kind
