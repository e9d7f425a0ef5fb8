"""Steps: the response cut at a separator, each step judged by itself, the whole by its outcome."""

from collections.abc import Callable

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


def judge(response: str, separator: str, step: Callable[[str], Score], outcome: Score) -> Score:
    """The outcome's verdict, with a span for each step; unknown where a step is: what is not judged is not wrong."""
    spans: list[Span] = []
    for start, end in cut(response, separator):
        verdict = step(response[start:end])
        if verdict.status != Status.OK:
            return Score.unknown(verdict.status, f"step {len(spans)}: {verdict.reason}")
        spans.append(Span(start, end, verdict.value, verdict.reason))
    return Score(outcome.value, outcome.passed, outcome.status, outcome.reason, tuple(spans), outcome.parts)
