"""A reward model's verdict: what its scalar head says at the end of the response, on the scale that the config asks."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verifiers.grader import Grader, Item
from verifiers.kinds import Tools
from verifiers.model_config import RewardModelVerifier
from verifiers.scalar_model import model_for
from verifiers.score import Score, Status
from verifiers.served import MESSAGES, Exchange, Framing, Message, Reading, ScalarModel


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A model and the scale of its verdicts."""

    config: RewardModelVerifier
    model: ScalarModel

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each item."""
        asked = [exchange(item, self.config.framing) for item in items]
        return [self._score(one) for one in self.model.read(asked, until - time.monotonic())]

    def close(self) -> None:
        """There is nothing to end: whoever serves the model ends it."""

    def _score(self, reading: Reading) -> Score:
        if reading.status != Status.OK:
            return Score.unknown(reading.status, reading.reason)
        value = (reading.outputs[0] - self.config.mean) / self.config.scale
        return judged(logistic(value) if self.config.squash else value, self.config.threshold)


def open_grader(own: RewardModelVerifier, tools: Tools) -> Grader:
    """A grader that asks the model."""
    (wanted,) = own.wanted()
    return RewardModel(own, model_for(wanted, tools.models))


def exchange(item: Item, framing: Framing) -> Exchange:
    """The item as the model reads it: its conversation where one is told, else the prompt as one user's turn."""
    turns: Any = item.told.get(MESSAGES) or ({"role": "user", "content": item.prompt},)
    return Exchange(tuple(Message(one["role"], one["content"]) for one in turns), item.response, framing)


def judged(value: float, threshold: float | None) -> Score:
    """A value, and whether it passes, where a threshold says so."""
    passed = None if threshold is None else value >= threshold
    return Score(value, passed, reason=f"below the threshold {threshold:g}" if passed is False else "")


def logistic(value: float) -> float:
    """1 / (1 + exp(-value)), for any finite value."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
