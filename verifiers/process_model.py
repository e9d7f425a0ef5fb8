"""A process reward model's verdict: a probability for each step, and a value made of them."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from verifiers.grader import Grader, Item
from verifiers.kinds import Tools
from verifiers.model_config import ProcessModelVerifier
from verifiers.reward_model import exchange, judged, logistic
from verifiers.scalar_model import model_for
from verifiers.score import Score, Span, Status
from verifiers.served import Reading, ScalarModel
from verifiers.steps import cut

NO_STEP = "the response has no step"


@dataclass(frozen=True, slots=True)
class ProcessModel:
    """A model and how the steps' verdicts make one."""

    config: ProcessModelVerifier
    model: ScalarModel

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each item, with a span for each of its steps; 0 for one without a step."""
        cuts = [cut(item.response, self.config.separator) for item in items]
        asked = [
            replace(
                exchange(item, self.config.framing),
                ends=tuple(end for _, end in steps),
                separator=self.config.separator,
            )
            for item, steps in zip(items, cuts, strict=True)
            if steps
        ]
        read = iter(self.model.read(asked, until - time.monotonic()))
        return [self._score(steps, next(read)) if steps else self._nothing() for steps in cuts]

    def close(self) -> None:
        """There is nothing to end: whoever serves the model ends it."""

    def _score(self, steps: Sequence[tuple[int, int]], reading: Reading) -> Score:
        if reading.status != Status.OK:
            return Score.unknown(reading.status, reading.reason)
        values = [logistic(one) for one in reading.outputs]
        spans = tuple(Span(start, end, value) for (start, end), value in zip(steps, values, strict=True))
        return replace(judged(whole(values, self.config.whole), self.config.threshold), spans=spans)

    def _nothing(self) -> Score:
        return Score(0.0, None if self.config.threshold is None else False, reason=NO_STEP)


def open_grader(own: ProcessModelVerifier, tools: Tools) -> Grader:
    """A grader that asks the model."""
    (wanted,) = own.wanted()
    return ProcessModel(own, model_for(wanted, tools.models))


def whole(values: Sequence[float], how: str) -> float:
    """The response's value, of its steps' (arXiv 2305.20050 takes the product, 2312.08935 the minimum)."""
    match how:
        case "min":
            return min(values)
        case "product":
            return math.prod(values)
        case "last":
            return values[-1]
        case "mean":
            return math.fsum(values) / len(values)
        case _:
            raise ValueError(f"whole: unknown (got {how!r}); use min, product, last or mean")
