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


class JsonlDemonstrations(Strict):
    """Rows of {prompt, response} (text) in a JSON-lines file."""

    kind: Literal["jsonl"] = "jsonl"
    path: str
    prompt: str = "prompt"
    """Key of the prompt's text; matched with the training prompts' text."""
    response: str = "response"


class ParquetDemonstrations(Strict):
    """Columns of prompt and response text in a Parquet file."""

    kind: Literal["parquet"] = "parquet"
    path: str
    prompt: str = "prompt"
    response: str = "response"


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
    CarelessTeacher | ChainSolver | JsonlDemonstrations | ParquetDemonstrations | ModelDemonstrations,
    Field(discriminator="kind"),
]
