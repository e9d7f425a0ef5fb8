"""Config of verifiers that judge a response as a text, or by a user's own function."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from verifiers.part_config import Part

Seconds = Annotated[float, Field(gt=0, le=60)]
Processes = Annotated[int, Field(ge=1, le=64)]


class FunctionVerifier(Part):
    """A rule of your own, in one Python file: `score(prompt, response, reference)`.

    It gives a number, a bool, or a mapping with `value` and, if wanted, `passed` (by default: value >= 1), `reason` and
    `parts` (name -> number: kept beside the score, counted for nothing). What it raises, None, and what is not finite
    are no verdict: status `error`, never 0. Prompt and response are texts, the reference is the data's own value.

    The file is your code and trusted as such; the response is a model's and hostile. So the function runs in a worker
    process without the run's environment variables (no keys, no tokens), with 3 GiB of memory, killed at `timeout`. It
    is imported once a process, before any response: load there what is slow, and start no threads there. Never `eval`,
    import or run a response in it: that is what the program verifiers' sandbox is for. A file that changes during the
    run is not read again: its verdicts turn into errors. The file's content is part of the scorer's version; what it
    imports is not.
    """

    kind: Literal["function"] = "function"
    path: str
    """The Python file; relative to the pipeline file's folder."""
    function: Annotated[str, Field(min_length=1)] = "score"
    """Its name in the file."""
    timeout: Seconds = 5.0
    """Seconds for one verdict; past it the status is `timeout`, not a wrong answer."""
    workers: Processes = 2
    """Processes that judge at the same time."""


class LengthVerifier(Part):
    """How long the response is: 1 within the bounds, outside them a straight fall to 0 over `margin`.

    value = max(0, 1 - distance to the bounds / margin); it passes while that is above 0. So `most: M - C, margin: C` is
    DAPO's overlong punishment plus 1 (arXiv 2503.14476, eq. 13), and `least` = `most` = T with `margin: 1 / a` is
    L1-Exact's 1 - a |T - n| (arXiv 2503.04697, eq. 1). Against its group it is Kimi k1.5's length reward
    (arXiv 2501.12599, section 2.3.3) plus a half: 1 for the shortest response to the prompt, 0 for the longest,
    straight between, a half where all are as long; it says neither pass nor fail. Kimi's rule that a wrong answer
    earns nothing by being short is a rubric's: make the answer a gate.

    Here a length is what a reader sees: use it where the prompt asks for one. To keep responses inside the token
    budget use `overlong` of a recipe's credit instead, which counts tokens and is no verdict on the response.
    """

    kind: Literal["length"] = "length"
    unit: Literal["words", "characters", "lines"] = "words"
    """words: stretches between white space with a letter or digit, in scripts without spaces characters; lines: those
    that are not blank."""
    against: Literal["bounds", "reference", "group"] = "bounds"
    """bounds: `least` and `most`; reference: the prompt's own, a number or a mapping with `least`, `most` or both;
    group: the other responses to the prompt."""
    least: Annotated[int, Field(ge=0)] = 0
    most: Annotated[int, Field(ge=0)] | None = None
    margin: Annotated[float, Field(ge=0)] = 0.0
    """Units outside the bounds at which the value is 0; 0: right outside."""

    @property
    def reads_reference(self) -> bool:
        """Whether it has no verdict without one."""
        return self.against == "reference"

    @property
    def compares(self) -> bool:
        """Whether the responses of a group must come together."""
        return self.against == "group"

    @model_validator(mode="after")
    def _bounds_are_some(self) -> Self:
        if self.against != "bounds" and (self.least or self.most is not None):
            raise ValueError(f"least and most are not read against {self.against}; remove them")
        if self.against == "bounds" and self.most is None and not self.least:
            raise ValueError("every length is right; give least, most or both")
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most ({self.most}) is below least ({self.least}); no length is right")
        return self


class RepetitionVerifier(Part):
    """How little of the response says again what it said before: value = 1 - share of its characters that repeat.

    A character repeats when it stands in an n-gram of words that occurred before, the tokens that Yeo et al.'s
    repetition penalty falls on (arXiv 2502.03373, appendix C.2), or in a stretch of `run` characters or more in which
    at most 8 go round and round ("aaaa", "haha"). Sentences and lines that loop are repeated n-grams. Counters in a
    loop ("Step 7: ...") are not seen through. Passes while the share is at most `most`.
    """

    kind: Literal["repetition"] = "repetition"
    ngram: Annotated[int, Field(ge=2, le=200)] = 20
    """Words that make one; punctuation marks, and characters in scripts without spaces, are words too. Smaller ones
    recur in honest mathematics and code."""
    run: Annotated[int, Field(ge=16)] = 64
    """Characters of the shortest such stretch."""
    most: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of repeated characters up to which a response passes; the value falls from the first one on."""


class TagsVerifier(Part):
    """The response is `<think>...</think><answer>...</answer>`: these tags, in order, each once, none empty."""

    kind: Literal["tags"] = "tags"
    tags: Annotated[tuple[Annotated[str, Field(pattern=r"^[\w-]+$")], ...], Field(min_length=1)] = ("think", "answer")
    opened: bool = False
    """Whether the prompt ends with the first opening tag, so that the response must not have it."""
    alone: bool = True
    """Whether anything but white space outside the tags is wrong."""

    @field_validator("tags")
    @classmethod
    def _differ(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(tags)) < len(tags):
            raise ValueError("a tag stands once; name each once")
        return tags


class LanguageVerifier(Part):
    """The response is in one language: value = share of its words in that language, as DeepSeek-R1's reward
    (arXiv 2501.12948, section 2.3.2).

    Code, LaTeX, URLs, numbers, names with digits, and single letters are left out first. A word in a script that the
    language is not written in is foreign. The others are judged by py3langid in stretches of a sentence or more,
    between the languages of `among` that share the script; where the response is too short for that they count as the
    language asked for. A response without words, such as a bare number, is in no wrong language: it passes, unless
    `least` asks for words. What a model hides in a code block is not judged.
    """

    kind: Literal["language"] = "language"
    language: str
    """ISO 639-1 code such as `en`; `prompt`: the prompt's; `reference`: the reference is the code; `one`: any, but no
    mixture."""
    among: tuple[str, ...] = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "zh")
    """Languages that the response may turn out to be in; the fewer, the surer on short texts."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the words from which a response passes."""
    least: Annotated[int, Field(ge=0)] = 0
    """Words below which a response is wrong whatever its language."""

    @property
    def reads_reference(self) -> bool:
        """Whether it has no verdict without one."""
        return self.language == "reference"

    @model_validator(mode="after")
    def _are_known(self) -> Self:
        from verifiers.scripts import WRITTEN_IN

        asked = () if self.language in ("prompt", "reference", "one") else (self.language,)
        unknown = sorted({*asked, *self.among} - set(WRITTEN_IN))
        if unknown:
            raise ValueError(f"no language known by {', '.join(map(repr, unknown))}; give ISO 639-1 codes such as 'en'")
        if not self.among:
            raise ValueError("among names no language; name those that a response may turn out to be in")
        return self


class JsonSchemaVerifier(Part):
    """The response is JSON that meets a schema (Draft 2020-12) and, if asked, equals the reference.

    Parsing is strict. A name twice in one object, NaN and Infinity, text before or after, numbers past a float's range
    or of 300 digits, more than 100,000 characters and more than 64 levels are wrong, each with its reason. Validation
    runs in a worker process and is killed at `timeout`, for a schema's `pattern` can take for ever. `$ref` reaches into
    the schema itself alone: nothing is fetched. `format` is a note, as the draft has it, and is not checked. A
    reference that is a text is read as JSON.
    """

    kind: Literal["json_schema"] = "json_schema"
    against: dict[str, Any] | Literal["reference"] = Field(default_factory=dict)
    """The schema, or `reference`: the reference is the schema. Without one any JSON meets it."""
    place: Literal["whole", "block"] = "block"
    """block: the last fenced block, or the whole response where there is none; whole: nothing but JSON."""
    equals: Literal["no", "yes", "fields"] = "no"
    """Whether the value must be the reference's: `fields` gives the share of right ones, of those that either has,
    and passes at 1. Numbers are compared by value, lists in order."""
    timeout: Seconds = 5.0
    """Seconds for one verdict; past it the status is `timeout`."""
    workers: Processes = 2
    """Processes that judge at the same time."""

    @property
    def reads_reference(self) -> bool:
        """Whether it has no verdict without one."""
        return self.against == "reference" or self.equals != "no"

    @model_validator(mode="after")
    def _reference_is_one_thing(self) -> Self:
        if self.against == "reference" and self.equals != "no":
            raise ValueError("the reference cannot be the schema and the value too; write the schema here")
        return self

    @field_validator("against")
    @classmethod
    def _is_a_schema(cls, against: Any) -> Any:
        if isinstance(against, dict) and against:
            from verifiers.schemas import schema_fault

            if fault := schema_fault(against):
                raise ValueError(fault)
        return against


TextVerifier = (
    FunctionVerifier | LengthVerifier | RepetitionVerifier | TagsVerifier | LanguageVerifier | JsonSchemaVerifier
)
