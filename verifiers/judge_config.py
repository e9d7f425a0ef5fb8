"""Config of generative judges: which model is asked, what it is asked, and how its verdicts become one score."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from verifiers.judge_templates import check_template, needs_reference
from verifiers.part_config import Part, Strict
from verifiers.served import Wanted

TAKEN = frozenset({"reward", "step", "agreement", "position_bias"})
"""Names that a criterion's part may not have: they mean something else in the scores."""


NONE: Mapping[str, JsonValue] = {}

ANCHORS: Mapping[int, str] = {
    1: "wrong, or it does not do what was asked",
    3: "partly right or incomplete",
    5: "right, complete and clear",
}


class Endpoint(Strict):
    """A server that speaks OpenAI's chat completions: a provider's, or a model server of your own."""

    kind: Literal["endpoint"] = "endpoint"
    base_url: str
    """Such as http://judge.internal:8000/v1, without a user name or a password."""
    model: str
    """The model's name at that server."""
    key_variable: str = ""
    """Name of the environment variable that holds the API key where the scorers run; never the key itself. Empty: the
    server wants none."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Requests in flight at once, of one scorer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Times that a request is repeated after 408, 409, 429, 5xx, a lost connection or a time-out, with a growing wait
    (half a second, doubled up to eight, or what the server asks for up to two minutes)."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds that one request may take."""
    extra: Mapping[str, JsonValue] = NONE
    """Further fields of the request's body, such as {reasoning_effort: low}; null takes one of ours out."""

    @field_validator("base_url")
    @classmethod
    def _url(cls, url: str) -> str:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("should be an address such as http://host:8000/v1")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a user name or a password; take them out, and name a key_variable")
        return url


class Folder(Strict):
    """A model folder of our own, served by an actor beside the run's engines (`resources.judge`)."""

    kind: Literal["folder"] = "folder"
    path: str
    """Hugging Face folder with a chat template, absolute or relative to the pipeline file."""


JudgeModel = Annotated[Endpoint | Folder, Field(discriminator="kind")]


class Grades(Strict):
    """One whole number on a scale; value = (number - low) / (high - low)."""

    kind: Literal["rubric"] = "rubric"
    low: int = 1
    high: int = 5
    anchors: Mapping[int, str] = ANCHORS
    """What some of the numbers stand for, in words."""
    passes: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Lowest value that passes."""

    @model_validator(mode="after")
    def _scale(self) -> Self:
        if not self.low < self.high <= self.low + 100:
            raise ValueError(f"high should be above low, by 100 at most (got {self.low} to {self.high})")
        outside = sorted(number for number in self.anchors if not self.low <= number <= self.high)
        if outside or not self.anchors:
            raise ValueError(
                f"anchors should say what numbers from {self.low} to {self.high} stand for (got {outside})"
            )
        return self


class Criterion(Strict):
    """One yes or no question about a response."""

    text: Annotated[str, Field(min_length=1)]
    weight: float = 1.0
    """Below 0 for what a response should not do."""
    name: str = ""
    """Of its part in the score; by default criterion-1, criterion-2, ..."""

    @field_validator("weight")
    @classmethod
    def _counts(cls, weight: float) -> float:
        if weight == 0:
            raise ValueError("a criterion of weight 0 counts nothing; leave it out")
        return weight


class Checklist(Strict):
    """Criteria, each met or not; value = the weights met over all weights (RuscaRL, arXiv 2508.16949).

    Weights below 0 are taken off when met and are not part of the whole; the value stays within [0, 1].
    """

    kind: Literal["checklist"] = "checklist"
    criteria: tuple[Criterion, ...] = ()
    """Empty: those of each prompt's own reference, a list of texts or of {criterion, weight}."""
    passes: Annotated[float, Field(ge=0, le=1)] = 1.0

    @field_validator("criteria")
    @classmethod
    def _named(cls, criteria: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
        names = [called(one, at) for at, one in enumerate(criteria)]
        bad = sorted({name for name in names if names.count(name) > 1 or name in TAKEN})
        if bad:
            raise ValueError(f"each criterion needs a name of its own, none of {', '.join(sorted(TAKEN))} (got {bad})")
        if criteria and max(one.weight for one in criteria) <= 0:
            raise ValueError("no criterion has a weight above 0, so that nothing could be worth anything")
        return criteria


class Principles(Strict):
    """A constitution: a critique in words, then for each principle whether it is kept; value = the share kept."""

    kind: Literal["constitution"] = "constitution"
    principles: Annotated[tuple[str, ...], Field(min_length=1)]
    passes: Annotated[float, Field(ge=0, le=1)] = 1.0


class Pairs(Strict):
    """One response against another, asked in both orders: 1 for a win, 0 for a loss, 0.5 for all else.

    A preference that holds in one order only is a tie (arXiv 2306.05685); one that turns with the order also counts
    into the part `position_bias`.
    """

    kind: Literal["pairwise"] = "pairwise"
    against: Literal["reference", "all", "first"] = "reference"
    """The prompt's reference answer; every other response of the group (n (n - 1) questions for n responses); or the
    group's first response alone, which is itself worth what it wins of the others."""
    better: str = "Better means: more correct first, then more helpful, then clearer. Longer is not better."
    """What the judge is told to prefer."""
    passes: Annotated[float, Field(ge=0, le=1)] = 0.5


Form = Annotated[Grades | Checklist | Principles | Pairs, Field(discriminator="kind")]


class JudgeVerifier(Part):
    """A language model judges, under a fixed protocol: what it must end with is exact, all else is no verdict.

    The response is quoted between fences that it cannot know, and the verdict must repeat a seal that it never saw.
    """

    kind: Literal["judge"] = "judge"
    model: JudgeModel
    form: Form
    template: str = ""
    """jinja2 text of the question, empty for the form's own. It may read `prompt`, `response`, `criteria` (the scale,
    the criteria, the principles or what is better), `reference` (where the prompt has one) and, of pairs, `other`; each
    comes quoted. How to answer is said after it and cannot be changed."""
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    """Votes for each question; more than half must be valid."""
    pool: Literal["mean", "majority"] = "mean"
    """How votes become one: their mean, or what most say (a split vote is no verdict). Pairs always take the latter."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=8, le=32_768)] = 512
    """Longest answer of the judge, its critique included."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """Times that a vote without a valid verdict is asked for, in all."""

    @model_validator(mode="after")
    def _asks(self) -> Self:
        faults = check_template(self.template, self.form.kind) if self.template else []
        if faults:
            raise ValueError(f"template: {'; '.join(faults)}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples: {self.samples} votes at temperature 0 are one vote; set temperature, such as 0.7"
            )
        return self

    @property
    def compares(self) -> bool:
        """Whether it needs a group whole."""
        return isinstance(self.form, Pairs) and self.form.against != "reference"

    @property
    def reads_reference(self) -> bool:
        """Whether a prompt without a reference cannot be judged."""
        match self.form:
            case Pairs(against="reference") | Checklist(criteria=()):
                return True
            case _:
                return needs_reference(self.template, self.form.kind)

    def wanted(self) -> tuple[Wanted, ...]:
        """The model that an actor serves."""
        return (Wanted("judge", self.model.path),) if isinstance(self.model, Folder) else ()


def called(criterion: Criterion, at: int) -> str:
    """Name of a criterion's part; `at` counts from 0."""
    return criterion.name or f"criterion-{at + 1}"
