"""Config of off-policy supervision: where demonstrations come from."""

from typing import Annotated, Literal

from pydantic import Field

from policies.config import Model, Strict


class CarelessTeacher(Strict):
    """Worked column arithmetic, digit by digit with the carry written out; sometimes a carry is forgotten."""

    kind: Literal["careless"] = "careless"
    carelessness: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Probability, for each carry or borrow, that the teacher forgets it and goes on consistently."""


class ChainSolver(Strict):
    """Worked running sums for reasoning-gym's chain_sum, one step a line, the answer after `marker`."""

    kind: Literal["chain_solver"] = "chain_solver"
    marker: str = "####"


class ToolCaller(Strict):
    """Calls the calculator of the pipeline's environment with the prompt's expression, and answers what it says."""

    kind: Literal["tool_caller"] = "tool_caller"
    marker: str = "#"
    """Stands before the final answer."""


class DataFile(Strict):
    """A user's data: where they lie, and what becomes of bad rows."""

    path: str
    """A file (.jsonl, .jsonl.gz, .parquet), a folder of shards, or a pattern such as data/train-*.parquet."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Take the first so many rows; all by default."""
    on_bad_row: Literal["refuse", "skip"] = "refuse"
    """refuse: bad rows are told and the run does not start; skip: they are counted, told in the ledger, passed over."""


class JsonlDemonstrations(DataFile):
    """Rows of a JSON-lines file: {prompt, response}, {messages} or {text}."""

    kind: Literal["jsonl"] = "jsonl"
    prompt: str = "prompt"
    """Column of the prompt, a text or a conversation; a strand that asks by prompt finds it under prompts.train."""
    response: str = "response"
    """Column of the response; by default `completion` serves as well."""
    messages: str = "messages"
    """Column of whole conversations, for rows without a prompt; by default `conversations` serves as well."""
    text: str = "text"
    """Column of plain text, for rows that have neither."""


class ParquetDemonstrations(DataFile):
    """Columns of a Parquet file: prompt and response, messages, or text."""

    kind: Literal["parquet"] = "parquet"
    prompt: str = "prompt"
    """Column of the prompt, a text or a conversation; a strand that asks by prompt finds it under prompts.train."""
    response: str = "response"
    """Column of the response; by default `completion` serves as well."""
    messages: str = "messages"
    """Column of whole conversations, for rows without a prompt; by default `conversations` serves as well."""
    text: str = "text"
    """Column of plain text, for rows that have neither."""


class Preferences(DataFile):
    """Pairs {prompt, chosen, rejected}, {chosen, rejected}, or ranked lists {prompt, completions, scores or ranks}."""

    kind: Literal["jsonl", "parquet"]
    prompt: str = "prompt"
    """Column of the prompt; without it the prompt is what chosen and rejected begin with alike."""
    chosen: str = "chosen"
    rejected: str = "rejected"
    completions: str = "completions"
    """Column of a list of completions, the best of which is chosen and the others rejected."""
    scores: str = "scores"
    """Column of a list of numbers, higher is better; by default `ranks`, 1 is best, serves as well."""
    margin: str = "margin"
    """Column of how much better the chosen one is, where a row has it."""


class Labels(DataFile):
    """Unary labels {prompt, completion, label}, or step labels {prompt, completions, labels}."""

    kind: Literal["jsonl", "parquet"]
    prompt: str = "prompt"
    completion: str = "completion"
    label: str = "label"
    """Column of true or false: whether the completion is wanted."""
    completions: str = "completions"
    """Column of the list of steps."""
    labels: str = "labels"
    """Column of the list of step labels: true, false, a number, or null where nothing is said."""
    separator: str = "\n"
    """Follows each step; its last token bears the step's label."""


class ModelDemonstrations(Strict):
    """A frozen model writes them, once, before the first stage."""

    kind: Literal["model"] = "model"
    model: Model
    samples: Annotated[int, Field(ge=1)] = 1
    """Responses drawn for each prompt; the best-scored one is kept."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    only_passed: bool = True
    """Keep only responses that the verifier passed."""


Demonstrations = Annotated[
    CarelessTeacher | ChainSolver | ToolCaller | JsonlDemonstrations | ParquetDemonstrations | ModelDemonstrations,
    Field(discriminator="kind"),
]
