"""The scorer: a CPU actor that runs the verifier on batches of responses and never invents a verdict."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from actors.served import Share, models_of
from policies.trajectory import ScoreEntry
from verifiers.config import AnyVerifier
from verifiers.grader import Asked, Item
from verifiers.health import Tallies, tallied
from verifiers.score import Score, Status
from verifiers.verifier import build

REWARD = "reward"
"""Name of the entry that credit reads."""

STEP = "step"
"""Name of the entries for a verdict's own spans; those of a rubric's part bear the part's name."""


class Judged(NamedTuple):
    """What a replica hands back of a batch."""

    entries: list[tuple[ScoreEntry, ...]]
    """Of each response."""
    tallies: Tallies
    """How its scorers fared."""


class ScorerReplica:
    """A thin shell round one verifier. A plain class, so that a test makes one without a cluster."""

    def __init__(
        self,
        verifier: AnyVerifier,
        timeout: float = 60.0,
        models: Mapping[str, Share] | None = None,
        name: str = REWARD,
    ) -> None:
        """`timeout` bounds a batch in seconds: what is not begun by then is judged `timeout`, not wrong.

        `models`: what serves each model that the verifier asks, by `Wanted.name`. `name`: that of the whole's entry.
        """
        self._verifier = build(verifier, models_of(models or {}))
        self._timeout = timeout
        self._name = name

    def score(self, items: Sequence[Asked | tuple[str, ...]]) -> list[tuple[ScoreEntry, ...]]:
        """For each response the entry `reward`, then one for every part of a rubric, as `part` or `part/inner`.

        Each is followed by one entry for each of its spans, in characters of the response.
        """
        return self.judge(items).entries

    def judge(self, items: Sequence[Asked | tuple[str, ...]], seconds: float = math.inf) -> Judged:
        """The same with the batch's tallies; `seconds` is a closer bound than the replica's own."""
        asked = [Asked(*one) for one in items]
        found = [_item(one) for one in asked]
        ready = [one for one in found if isinstance(one, Item)]
        verdicts = iter(self._verifier.score_many(ready, min(self._timeout, seconds)))
        scores = [next(verdicts) if isinstance(one, Item) else self._sign(one) for one in found]
        return Judged([tuple(entries(self._name, score)) for score in scores], tallied(self._name, asked, scores))

    def identity(self) -> tuple[str, str]:
        """Name and version of the verifier, for the ledger."""
        return self._verifier.identity

    def close(self) -> None:
        """End the verifier's processes."""
        self._verifier.close()

    def _sign(self, score: Score) -> Score:
        scorer, version = self._verifier.identity
        return replace(score, scorer=scorer, version=version)


def _item(asked: Asked) -> Item | Score:
    """What the verifier takes, or the score that says why there is no such thing."""
    try:
        return Item(asked.prompt, asked.response, json.loads(asked.reference), asked.group, json.loads(asked.told))
    except (ValueError, RecursionError) as error:
        return Score.unknown(Status.ERROR, f"the reference, or what is known already, is not JSON: {error}")


def entries(name: str, score: Score) -> Iterator[ScoreEntry]:
    """A score as entries of a trajectory, each signed by the verifier that gave it."""
    signed = (score.scorer, score.version)
    yield ScoreEntry(name, score.value, score.passed, score.status.value, score.reason, None, None, *signed)
    own = STEP if name == REWARD else name
    for span in score.spans:
        yield ScoreEntry(own, span.value, None, score.status.value, span.reason, span.start, span.end, *signed)
    prefix = "" if name == REWARD else f"{name}/"
    for part, inner in score.parts.items():
        yield from entries(f"{prefix}{part}", inner)
