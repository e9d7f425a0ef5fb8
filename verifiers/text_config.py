"""Config of verifiers that judge a response as a text, or by a user's own function."""

from typing import Annotated, Literal

from pydantic import Field

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
