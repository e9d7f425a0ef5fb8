"""Answers a second for each verifier, with and without 1 % bombs, beside a floor that does the least.

    python -m benchmarks.verifiers [--rounds 3] [--seconds 2] [--only math program] [--out FILE]

In each round the floor, the verifier and the verifier with a bomb among each hundred answers run one after the other;
ratios are of one round, the table gives medians. "Per core" is answers for each second of CPU time, of this process and
all that it started: what other work on the machine hardly changes. "A second" is by the clock, with one worker unless
the name says two. With bombs the deadline leaves n / (n / rate + bombs * deadline / workers); "of what is left" is the
share of that which came through, at most 1. Latencies are those of single answers, bombs included in the last two.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.verifier_contests import REWARD, Contest, contests, reward_model, workplace
from verifiers import Item, Score, Status
from verifiers.verifier import build

MOST_BOMBED = 400
"""Answers of a run with bombs: four bombs."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a contest."""

    floor_core: float
    """Answers for each CPU second, also below."""
    core: float
    floor: float
    """Answers a second by the clock, also below."""
    rate: float
    bombed: float
    bound: float
    """What the bombs' deadline leaves of `rate`."""
    p50: float
    """Seconds of one answer, also below."""
    p99: float
    bombed_p99: float
    bombed_worst: float
    answers: int
    lost: int
    """Answers without a verdict that are no bombs."""


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Pace(NamedTuple):
    """Answers a second."""

    clock: float
    core: float
    """Of CPU time."""


def cpu_seconds() -> float:
    """CPU time of this process and of all that came from it, the ended ones as far as somebody waited for them."""
    total = 0.0
    for one in (me := psutil.Process(), *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += sum(one.cpu_times()[:4])
    return total


def timed(run: Callable[[Sequence[Item]], object], items: Sequence[Item]) -> Pace:
    """The pace; what is quick is run again until a fifth of a second is over, for the CPU's clock ticks slowly."""
    spent, began, done = cpu_seconds(), time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < 0.2 or not done:
        run(items)
        done += len(items)
    return Pace(done / seconds, done / max(cpu_seconds() - spent, 0.01))


def measure(contest: Contest, rounds: int, seconds: float) -> list[Round]:
    """The rounds; ValueError where the verifier or the floor is wrong about an answer."""
    verifier = build(contest.config)
    try:
        agree(contest, verifier.score_many)
        warm = [contest.item(at) for at in range(24)]
        rate = timed(verifier.score_many, warm).clock
        count = 100 * round(min(max(rate * seconds, 100), 5000) / 100)
        return [one_round(contest, verifier.score_many, count, 2 * at * count) for at in range(rounds)]
    finally:
        verifier.close()


def agree(contest: Contest, score_many: Callable[[Sequence[Item]], list[Score]]) -> None:
    """Both must be right about what is right."""
    items = [contest.item(at) for at in range(9)]
    right = [at % 3 != 2 for at in range(9)]
    if contest.name == REWARD:
        right = [True] * 9  # it knows no right and wrong
    said = [bool(score.passed) for score in score_many(items)]
    plain = contest.floor(items)
    exact = "string" not in contest.floor_name or contest.name == "answer"
    if said != right or (exact and plain != right):
        raise ValueError(f"{contest.name}: said {said}, floor {plain}; right is {right}")


def one_round(contest: Contest, score_many: Callable[[Sequence[Item]], list[Score]], count: int, first: int) -> Round:
    """Floor, verifier, verifier with bombs."""
    items = [contest.item(first + at) for at in range(count)]
    floor = timed(contest.floor, items)
    scores: list[Score] = []
    pace = timed(lambda some: scores.extend(score_many(some)), items)
    some = [contest.item(first + count + at) for at in range(min(count, MOST_BOMBED))]  # others: workers remember
    bombed = [contest.bomb if at % 100 == 50 else item for at, item in enumerate(some)]
    began = time.perf_counter()
    after = score_many(bombed)
    spent = time.perf_counter() - began
    bombs = [score for score, item in zip(after, bombed, strict=True) if item is contest.bomb]
    if any(score.passed and contest.name != REWARD for score in bombs):
        raise ValueError(f"{contest.name}: a bomb passed")
    judged = [*scores, *(score for score, item in zip(after, bombed, strict=True) if item is not contest.bomb)]
    workers = contest.config.get("workers", 1)
    return Round(
        floor_core=floor.core,
        core=pace.core,
        floor=floor.clock,
        rate=pace.clock,
        bombed=len(some) / spent,
        bound=len(some) / (len(some) / pace.clock + len(bombs) * contest.deadline / workers),
        p50=percentile([score.seconds for score in scores], 0.5),
        p99=percentile([score.seconds for score in scores], 0.99),
        bombed_p99=percentile([score.seconds for score in after], 0.99),
        bombed_worst=max(score.seconds for score in after),
        answers=count,
        lost=sum(score.status != Status.OK for score in judged),
    )


def show(results: Sequence[tuple[Contest, list[Round]]]) -> Table:
    """Medians over the rounds."""
    table = Table(
        *("verifier", "per core", "floor", "per core", "of it", "a second", "p50 ms", "p99 ms", "deadline s"),
        *("bombed", "p99 ms", "worst ms", "of what is left", "lost"),
    )

    def middle(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
        return statistics.median(value(one) for one in rounds)

    for contest, rounds in results:
        table.add_row(
            contest.name,
            f"{middle(rounds, lambda one: one.core):.0f}",
            contest.floor_name,
            f"{middle(rounds, lambda one: one.floor_core):.0f}",
            f"{middle(rounds, lambda one: one.core / one.floor_core):.3f}",
            f"{middle(rounds, lambda one: one.rate):.0f}",
            *(f"{1e3 * middle(rounds, value):.2f}" for value in (lambda one: one.p50, lambda one: one.p99)),
            f"{contest.deadline:g}",
            f"{middle(rounds, lambda one: one.bombed):.0f}",
            *(
                f"{1e3 * middle(rounds, value):.1f}"
                for value in (lambda one: one.bombed_p99, lambda one: one.bombed_worst)
            ),
            f"{middle(rounds, lambda one: min(1.0, one.bombed / one.bound)):.2f}",
            str(sum(one.lost for one in rounds)),
        )
    return table


def wanted(name: str, beginnings: Sequence[str]) -> bool:
    """Whether it is asked for; all are where nothing is."""
    return not beginnings or any(name.startswith(one) for one in beginnings)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one run without bombs, about")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names")
    parser.add_argument("--out", type=Path, help="write every round as JSON")
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 180)
    with workplace() as folder:
        chosen = [one for one in contests() if wanted(one.name, options.only)]
        chosen += [reward_model(Path(folder))] if wanted(REWARD, options.only) else []
        results = [(one, measure(one, options.rounds, options.seconds)) for one in chosen]
    console.print(show(results))
    if options.out:
        rows = {contest.name: [asdict(one) for one in rounds] for contest, rounds in results}
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
