"""reasoning-gym's own scorers. Called in a judging process: some of them parse what the model wrote at length."""

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

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
