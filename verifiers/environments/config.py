"""Config of environments: what a model acts in over several turns, its tools, and how long an episode may be."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from verifiers.part_config import Strict


class Calculator(Strict):
    """Exact arithmetic: whole numbers and fractions, + - * / // % **, and a few functions such as sqrt and gcd."""

    kind: Literal["calculator"] = "calculator"
    digits: Annotated[int, Field(ge=1, le=4000)] = 400
    """Most digits of a number on the way to the result; what would have more is refused before it is worked out."""


class Interpreter(Strict):
    """Python in the sandbox. Every call is a fresh program, and what it prints comes back; nothing else is kept."""

    kind: Literal["interpreter"] = "interpreter"
    seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    """CPU time of one program."""
    unsandboxed: bool = False
    """Run the model's programs without the sandbox where this machine has none. Only where you trust the model."""


class Search(Strict):
    """Passages of a corpus on this machine, ranked by BM25."""

    kind: Literal["search"] = "search"
    path: str
    """JSON lines with `text` and perhaps `title`, or a text whose passages are parted by blank lines."""
    top: Annotated[int, Field(ge=1, le=50)] = 3
    """Passages an answer holds."""
    characters: Annotated[int, Field(ge=20)] = 300
    """Most of a passage that is shown: the piece with the most words of the query."""


Tool = Annotated[Calculator | Interpreter | Search, Field(discriminator="kind")]

TOOL_KINDS = ("calculator", "interpreter", "search")


class Calls(Strict):
    """How a tool is called. The closing text ends the model's turn."""

    form: Literal["json", "named", "plain"] = "json"
    """json: `<tool_call>{"name": "calculator", "arguments": {"expression": "1+1"}}</tool_call>`, as chat models write
    it; named: `<calculator>1+1</calculator>`; plain: `<tool_call>1+1</tool_call>`, with one tool alone."""
    open: Annotated[str, Field(min_length=1)] = "<tool_call>"
    """named: not read, for the tool's name stands there."""
    close: Annotated[str, Field(min_length=1)] = "</tool_call>"
    before: str = "<tool_response>\n"
    """What an answer begins with, and ..."""
    after: str = "\n</tool_response>"
    """... what it ends with, however much of it is cut."""


class Episodes(Strict):
    """How long an episode may be, and how what the environment says is put before the model."""

    turns: Annotated[int, Field(ge=1)] = 4
    """Most turns of the model. A turn is as long as `sampling.max_tokens` at most."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of an episode, the environment's included; by default only model.context bounds it."""
    observation_tokens: Annotated[int, Field(ge=1)] = 256
    """Most tokens of what the environment says between two turns; the rest is cut."""
    framing: Literal["turn", "inline"] = "turn"
    """turn: the environment speaks as the user, through the chat template where there is one; inline: its words follow
    the model's, within the model's turn."""
    seconds: Annotated[float, Field(gt=0)] = 60.0
    """For the environment's answer to one turn; past it the episode ends without a reward."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Actors that hold the episodes."""


class ToolsEnvironment(Episodes):
    """The model may call tools; a turn without a call is its answer, and ends the episode."""

    kind: Literal["tools"] = "tools"
    tools: Annotated[tuple[Tool, ...], Field(min_length=1)] = (Calculator(),)
    calls: Calls = Calls()

    @field_validator("tools", mode="before")
    @classmethod
    def _by_name(cls, tools: Any) -> Any:
        """A tool's kind alone stands for the tool as it is by default."""
        if not isinstance(tools, list | tuple):
            return tools
        return [{"kind": one} if isinstance(one, str) else one for one in tools]

    @model_validator(mode="after")
    def _apart(self) -> Self:
        kinds = [one.kind for one in self.tools]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"tools: {', '.join(twice)} stands there twice; a call names a tool by its kind")
        if self.calls.form == "plain" and len(kinds) > 1:
            raise ValueError(f"calls.form: plain calls name no tool, and there are {len(kinds)}; use json or named")
        return self


class RetryEnvironment(Episodes):
    """Self-correction: the model answers, reads a request, and answers again. Each turn's reward is its verdict."""

    kind: Literal["retry"] = "retry"
    turns: Annotated[int, Field(ge=2)] = 2
    """Answers, the first one included."""
    request: str = "There may be a mistake in this answer. Check it and give a corrected answer."
    """What the model reads after an answer; `{verdict}` in it stands for what the verifier says: right or wrong."""
    until: Literal["turns", "passed"] = "turns"
    """passed: a right answer ends the episode."""


class CustomEnvironment(Episodes):
    """A class of your own: `start(task)` and `step(text) -> Turn` (verifiers/environments/protocol.py)."""

    kind: Literal["custom"] = "custom"
    path: str
    """The Python file. It runs with the run's rights: it is yours, not the model's."""
    name: str
    """The class in it."""
    options: dict[str, Any] = Field(default={})
    """Handed to the class, once for each episode."""
    stop: tuple[str, ...] = ()
    """Texts that end the model's turn, beside sampling.stop."""


Environment = Annotated[ToolsEnvironment | RetryEnvironment | CustomEnvironment, Field(discriminator="kind")]

AnyEnvironment = ToolsEnvironment | RetryEnvironment | CustomEnvironment
"""The same union, for `isinstance` and annotations."""
