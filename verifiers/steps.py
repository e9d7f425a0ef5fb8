"""Steps: the response cut at a separator, each step judged by itself, the whole by its outcome."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from verifiers import config
from verifiers.grader import Grader, Item
from verifiers.kinds import Tools
from verifiers.score import Score, Span, Status


def cut(response: str, separator: str) -> list[tuple[int, int]]:
    """[start, end) in characters of each step, its separator included; empty steps are none."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(response):
        at = response.find(separator, start)
        end = len(response) if at < 0 else at + len(separator)
        if response[start:end].strip(separator):
            found.append((start, end))
        start = end
    return found


@dataclass(frozen=True, slots=True)
class Steps:
    """The graders of a step and of the whole."""

    separator: str
    step: Grader
    outcome: Grader

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """The outcome's verdict on each item, with a span for each step; unknown where a step is."""
        outcomes = self.outcome.grade(items, until)
        cuts = [cut(item.response, self.separator) for item in items]
        asked = [
            replace(item, response=item.response[start:end])
            for item, spans in zip(items, cuts, strict=True)
            for start, end in spans
        ]
        verdicts = iter(self.step.grade(asked, until))
        return [
            joined(outcome, spans, [next(verdicts) for _ in spans])
            for outcome, spans in zip(outcomes, cuts, strict=True)
        ]

    def close(self) -> None:
        """End what both started."""
        self.step.close()
        self.outcome.close()


def open_grader(own: config.StepsVerifier, tools: Tools) -> Grader:
    """A grader over the step's and the outcome's."""
    return Steps(own.separator, tools.open(own.step), tools.open(own.outcome))


def joined(outcome: Score, spans: Sequence[tuple[int, int]], verdicts: Sequence[Score]) -> Score:
    """The outcome with a span for each step; unknown where a step is: what is not judged is not wrong."""
    for at, verdict in enumerate(verdicts):
        if verdict.status != Status.OK:
            return Score.unknown(verdict.status, f"step {at}: {verdict.reason}")
    told = tuple(
        Span(start, end, verdict.value, verdict.reason) for (start, end), verdict in zip(spans, verdicts, strict=True)
    )
    return replace(outcome, spans=told)
