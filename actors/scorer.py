"""The scorer: a CPU actor that runs the verifier on batches of responses and never invents a verdict."""

import json
from collections.abc import Iterator, Sequence

from policies.trajectory import ScoreEntry
from verifiers.config import AnyVerifier
from verifiers.score import Score
from verifiers.verifier import Item, build

REWARD = "reward"
"""Name of the entry that credit reads."""

STEP = "step"
"""Name of the entries for a verdict's own spans; those of a rubric's part bear the part's name."""

Judged = tuple[str, str, str, str]
"""(trajectory id, prompt text, response text, reference as JSON)."""


class ScorerReplica:
    """A thin shell round one verifier. A plain class, so that a test makes one without a cluster."""

    def __init__(self, verifier: AnyVerifier, timeout: float = 60.0) -> None:
        """`timeout` bounds a batch in seconds: what is not begun by then is judged `timeout`, not wrong."""
        self._verifier = build(verifier)
        self._timeout = timeout

    def score(self, items: Sequence[Judged]) -> list[tuple[ScoreEntry, ...]]:
        """For each response the entry `reward`, then one for every part of a rubric, as `part` or `part/inner`.

        Each is followed by one entry for each of its spans, in characters of the response.
        """
        ready = [Item(prompt, response, json.loads(reference)) for _, prompt, response, reference in items]
        scores = self._verifier.score_many(ready, self._timeout)
        return [tuple(self._entries(REWARD, score)) for score in scores]

    def _entries(self, name: str, score: Score) -> Iterator[ScoreEntry]:
        scorer, version = self._verifier.identity
        yield ScoreEntry(
            name=name,
            value=score.value,
            passed=score.passed,
            status=score.status.value,
            reason=score.reason,
            scorer=scorer,
            scorer_version=version,
        )
        for span in score.spans:
            own = STEP if name == REWARD else name
            yield ScoreEntry(
                own, span.value, None, score.status.value, span.reason, span.start, span.end, scorer, version
            )
        prefix = "" if name == REWARD else f"{name}/"
        for part, inner in score.parts.items():
            yield from self._entries(f"{prefix}{part}", inner)

    def identity(self) -> tuple[str, str]:
        """Name and version of the verifier, for the ledger."""
        return self._verifier.identity

    def close(self) -> None:
        """End the verifier's processes."""
        self._verifier.close()
