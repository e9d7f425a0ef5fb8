"""reasoning-gym's own scorers. Called in a judging process: some of them parse what the model wrote at length."""

import difflib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from verifiers import answers, config
from verifiers.grader import Grader, Item, in_threads
from verifiers.kinds import Tools, task_of
from verifiers.score import Score, Status
from verifiers.task_screens import restored, screen
from verifiers.workers import Workers

LONGEST_RESPONSE = 100_000
"""Characters of a response that a task's scorer is given; a longer one is wrong."""

Scorer = Callable[[str, dict[str, Any]], float]


@lru_cache(maxsize=64)
def scorer(dataset: str) -> Scorer:
    """`(answer, entry) -> value in [0, 1]` of one data set. ValueError for an unknown name."""
    import reasoning_gym

    found: Scorer = reasoning_gym.create_dataset(dataset, size=1).score_answer
    return found


def check(dataset: str) -> None:
    """ValueError with the nearest names when reasoning-gym has no such data set."""
    from reasoning_gym.factory import DATASETS

    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"verifier.dataset: reasoning-gym has no such data set (got {dataset!r}){hint}")
    if dataset == "composite":
        raise ValueError("verifier.dataset: composite is a mixture; judge each data set by its own name")


def open_grader(own: config.TaskVerifier, tools: Tools) -> Grader:
    """A grader that asks killable workers; ValueError when there is no such data set."""
    check(own.dataset)
    workers = tools.killable()
    return in_threads(lambda item: judge(own, item, workers), own.workers)


def judge(own: config.TaskVerifier, item: Item, workers: Workers) -> Score:
    """The data set's own verdict on one answer."""
    entry = json.loads(item.reference) if isinstance(item.reference, str) else item.reference
    if not isinstance(entry, Mapping) or "answer" not in entry:
        return Score.unknown(Status.ERROR, "reference is not a reasoning-gym entry: it needs `answer` and `metadata`")
    answer = answers.after_marker(item.response, own.marker)
    if not answer:
        return answers.wrong(f"no marker {own.marker!r}" if answer is None else "no answer")
    if len(answer) > LONGEST_RESPONSE:
        return answers.wrong(f"the answer is longer than {LONGEST_RESPONSE} characters")
    value = workers.ask({"task": task_of(own), "answer": answer, "reference": dict(entry)}, own.timeout)
    if isinstance(value, Score):
        return value
    return Score(value=value, passed=value >= 1.0, reason="" if value >= 1.0 else "the task's scorer says so")


def preload(dataset: str) -> None:
    """Load what `work` needs, in a worker."""
    scorer(dataset)


def work(dataset: str, request: Mapping[str, Any]) -> float | Mapping[str, Any]:
    """The worker's task `reasoning_gym`: the scorer's value, unless the answer must not reach it."""
    answer, entry = request["answer"], restored(dataset, request["reference"])
    fault = screen(dataset, answer, entry)
    if not fault:
        try:
            return float(scorer(dataset)(answer, entry))
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            scorer(dataset)(entry["answer"], entry)  # raises as well where the entry is at fault: then nothing is said
            fault = f"the task's scorer cannot read the answer: {type(error).__name__}"
    return {"value": 0.0, "passed": False, "reason": fault, "parts": {}}
