"""The scorer: a CPU actor that runs the verifier on batches of responses and never invents a verdict."""

import json
from collections.abc import Iterator, Mapping, Sequence

from actors.served import Share, models_of
from policies.trajectory import ScoreEntry
from verifiers.config import AnyVerifier
from verifiers.grader import Asked, Item
from verifiers.score import Score
from verifiers.verifier import build

REWARD = "reward"
"""Name of the entry that credit reads."""

STEP = "step"
"""Name of the entries for a verdict's own spans; those of a rubric's part bear the part's name."""


class ScorerReplica:
    """A thin shell round one verifier. A plain class, so that a test makes one without a cluster."""

    def __init__(self, verifier: AnyVerifier, timeout: float = 60.0, models: Mapping[str, Share] | None = None) -> None:
        """`timeout` bounds a batch in seconds: what is not begun by then is judged `timeout`, not wrong.

        `models`: what serves each model that the verifier asks, by `Wanted.name`.
        """
        self._verifier = build(verifier, models_of(models or {}))
        self._timeout = timeout

    def score(self, items: Sequence[Asked | tuple[str, ...]]) -> list[tuple[ScoreEntry, ...]]:
        """For each response the entry `reward`, then one for every part of a rubric, as `part` or `part/inner`.

        Each is followed by one entry for each of its spans, in characters of the response.
        """
        ready = [_item(Asked(*one)) for one in items]
        scores = self._verifier.score_many(ready, self._timeout)
        return [tuple(entries(REWARD, score)) for score in scores]

    def identity(self) -> tuple[str, str]:
        """Name and version of the verifier, for the ledger."""
        return self._verifier.identity

    def close(self) -> None:
        """End the verifier's processes."""
        self._verifier.close()


def _item(asked: Asked) -> Item:
    return Item(asked.prompt, asked.response, json.loads(asked.reference), asked.group, json.loads(asked.told))


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
