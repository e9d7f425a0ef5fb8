"""`Verifier`: a config, ready to judge. `build` makes one; it starts no process until a verdict needs one."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from verifiers import config
from verifiers.grader import Checked, Item
from verifiers.kinds import Tools, workers_for
from verifiers.score import Score
from verifiers.served import Models
from verifiers.workers import Workers


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges responses. What a model wrote never makes it raise; what it cannot judge has a status, not a value."""

    config: config.AnyVerifier
    grader: Checked
    workers: Workers | None
    """Killable processes, where a verdict may hang."""

    @property
    def identity(self) -> tuple[str, str]:
        """Name, and a version that changes with the config, its files, this code and the libraries that judge."""
        return self.grader.scorer, self.grader.version

    def score(self, prompt: str, response: str, reference: Any) -> Score:
        """The verdict on one response."""
        return self.score_many([Item(prompt, response, reference)])[0]

    def score_many(self, items: Sequence[Item], seconds: float = math.inf) -> list[Score]:
        """Verdicts in the order asked; what is not begun within `seconds` is judged `timeout`.

        Items that share a `group` are responses to one prompt: hand a group over whole, for some verifiers compare.
        """
        return self.grader.grade(items, time.monotonic() + seconds)

    def close(self) -> None:
        """End the processes, if any were started."""
        self.grader.close()
        if self.workers is not None:
            self.workers.close()


def build(config_: Mapping[str, Any] | config.AnyVerifier, models: Models | None = None) -> Verifier:
    """The verifier of a config or of its plain form, such as {"kind": "math"}. ValueError names a bad key.

    `models`: those that are served elsewhere, by name (`verifiers.served`).
    """
    parsed: config.AnyVerifier = TypeAdapter(config.Verifier).validate_python(
        dict(config_) if isinstance(config_, Mapping) else config_
    )
    workers = workers_for(parsed)
    return Verifier(parsed, Tools(workers, models or {}).open(parsed), workers)
