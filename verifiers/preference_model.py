"""A preference model's verdict: how probably the response wins against the others of its group, or the reference.

Of a model that scores one response, P(a beats b) = logistic(a - b) (Bradley and Terry 1952). One that reads both is
asked in both orders: P = (p(a first) + 1 - p(b first)) / 2, so that P(a beats b) + P(b beats a) = 1 whatever it thinks
of being first. Equal texts tie without being asked.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verifiers import answers
from verifiers.grader import Grader, Item
from verifiers.kinds import Tools
from verifiers.model_config import PreferenceModelVerifier
from verifiers.reward_model import exchange, judged, logistic
from verifiers.scalar_model import model_for
from verifiers.score import Score, Status
from verifiers.served import Exchange, Reading, ScalarModel

ALONE = "there is no other response to the prompt to compare with; draw several, or compare with the reference"

Readings = Mapping[Exchange, Reading]


@dataclass(frozen=True, slots=True)
class PreferenceModel:
    """A model and whom it compares."""

    config: PreferenceModelVerifier
    model: ScalarModel

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """A score for each item; a contest that could not be read counts for neither side."""
        rivals = self._rivals(items)
        contests = [(item, one) for item, others in zip(items, rivals, strict=True) for one in others or ()]
        asked = list(dict.fromkeys(one for item, rival in contests for one in self._texts(item, rival)))
        readings = dict(zip(asked, self.model.read(asked, until - time.monotonic()), strict=True))
        return [self._score(item, others, readings) for item, others in zip(items, rivals, strict=True)]

    def close(self) -> None:
        """There is nothing to end: whoever serves the model ends it."""

    def _rivals(self, items: Sequence[Item]) -> list[list[str] | None]:
        """The texts that each response is compared with; None: its reference is none."""
        if self.config.against == "reference":
            return [_references(item.reference) for item in items]
        groups: dict[tuple[str, str], list[int]] = {}
        for at, item in enumerate(items):
            groups.setdefault((item.group, "" if item.group else item.prompt), []).append(at)
        found: list[list[str] | None] = [None] * len(items)
        for members in groups.values():
            for at in members:
                found[at] = [items[other].response for other in members if other != at]
        return found

    def _texts(self, item: Item, rival: str) -> tuple[Exchange, ...]:
        """What has to be read for a contest."""
        if item.response == rival:
            return ()
        own = exchange(item, self.config.framing)
        if not self.config.pair:
            return own, replace(own, response=rival)
        return (
            replace(own, response=both(self.config.pair, item.response, rival)),
            replace(own, response=both(self.config.pair, rival, item.response)),
        )

    def _score(self, item: Item, rivals: Sequence[str] | None, readings: Readings) -> Score:
        if rivals is None:
            return answers.unusable(item.reference)
        if not rivals:
            return Score.unknown(Status.REFUSED, ALONE)
        wins, faults = list[float](), list[Reading]()
        for rival in rivals:
            read = [readings[one] for one in self._texts(item, rival)]
            fault = next((one for one in read if one.status != Status.OK), None)
            if fault is None:
                wins.append(self._wins([one.outputs[0] for one in read]))
            else:
                faults.append(fault)
        if not wins:
            return Score.unknown(faults[0].status, faults[0].reason)
        return judged(math.fsum(wins) / len(wins), self.config.threshold)

    def _wins(self, outputs: Sequence[float]) -> float:
        """The probability that the response beats its rival."""
        match outputs:
            case []:
                return 0.5
            case [first, second] if self.config.pair:
                return (logistic(first) + 1 - logistic(second)) / 2
            case [own, rival]:
                return logistic(own - rival)
            case _:
                raise ValueError(f"{len(outputs)} outputs for a contest of two")


def open_grader(own: PreferenceModelVerifier, tools: Tools) -> Grader:
    """A grader that asks the model."""
    (wanted,) = own.wanted()
    return PreferenceModel(own, model_for(wanted, tools.models))


def both(pair: str, first: str, second: str) -> str:
    """Two responses as the model reads them; what a response says of the places changes none of them."""
    texts = {"{first}": first, "{second}": second}
    return re.sub(r"\{first\}|\{second\}", lambda place: texts[place[0]], pair)


def _references(reference: Any) -> list[str] | None:
    """The reference's texts, one or several; None if it has none."""
    listed = reference if isinstance(reference, list) else [reference]
    found = [text for one in listed if (text := answers.plain(one))]
    return found if found and len(found) == len(listed) else None
