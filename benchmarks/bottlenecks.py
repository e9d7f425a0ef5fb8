"""The bottleneck control beside every fixed pipeline, on prompts planted by what keeps a policy from solving them.

    python -m benchmarks.bottlenecks --seeds 5 --jobs 2 [--out runs/bottlenecks] [--quick]

Every pipeline of a seed starts from the same model (benchmarks/start_model.py), has the same prompts, the same
careless teacher's demonstration for each of them, and the same two budgets: tokens trained on and tokens generated. It
ends after the step that reaches either. Learning rates are tuned for each pipeline alike, on seeds that the comparison
does not use: the best mean accuracy of `RATES`. Results are one JSON line a run in `OUT/runs.jsonl`; called again, it
goes on.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.bottleneck_report import summary, write
from benchmarks.fixed_pipelines import PROMPTS, ROLLOUTS, pipelines
from benchmarks.planted_families import FAMILIES, LETTERS, planted
from benchmarks.run_records import Job, Record, Scale, Shelf, figure

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
COMPARED_ON, TUNED_ON = 10, 1000
"""The first seeds of the comparison and of the tuning; the control's recipe was made while looking at those below."""
WIDE = 180
"""Columns of the table where it goes to a file."""
QUICK = Scale(each=4, trained=2_000, generated=2_000, samples=8)


@dataclass(frozen=True, slots=True)
class Work:
    """A job, and where its start model lies; what a worker process is given."""

    job: Job
    scale: Scale
    starts: Path


def quiet() -> None:
    """A worker's progress is the parent's to show."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def start_of(work: Work) -> dict[str, float]:
    """Make the seed's start model unless it is there; its solve rates by family."""
    from benchmarks.solve_counts import by_family
    from benchmarks.start_model import prepared

    tasks = planted(work.job.seed, work.scale.each, work.scale.careless)
    start = prepared(tasks, work.job.seed, _where(work), 2 * work.scale.samples)
    return {name: found.sampled for name, found in by_family(tasks, start.solved).items()}


def run_of(work: Work) -> Record:
    """One run in this process."""
    from benchmarks.budgeted_run import Budget, Setting, run
    from benchmarks.solve_counts import by_family, support
    from benchmarks.start_model import prepared

    job, scale = work.job, work.scale
    tasks = planted(job.seed, scale.each, scale.careless)
    start = prepared(tasks, job.seed, _where(work), 2 * scale.samples)
    setting = Setting(tasks, start, job.seed, Budget(scale.trained, scale.generated), scale.samples)
    done = run(pipelines(usual_steps(scale))[job.pipeline], job.rate, setting)
    if done.decisions:
        _keep(work.starts.parent / "decisions" / f"{job.pipeline}-{job.seed}-{job.rate:g}.jsonl", done.decisions)
    found, support_ = by_family(tasks, done.solved), support(start.solved, done.solved)
    return Record(
        job=job,
        scale=scale,
        accuracy=found["all"].sampled,
        greedy=found["all"].greedy,
        families={name: found[name].sampled for name in FAMILIES},
        gained=support_.gained,
        lost=support_.lost,
        trained=done.trained,
        generated=done.generated,
        steps=done.steps,
        seconds=done.seconds,
    )


def usual_steps(scale: Scale) -> int:
    """Steps of rollouts that the learner's budget allows: the length of schedules."""
    return max(1, scale.trained // (PROMPTS * ROLLOUTS * (LETTERS + 1)))


def _where(work: Work) -> Path:
    return work.starts / f"{work.job.seed}-{work.scale.each}"


def _keep(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))


# ---------------------------------------------------------------- many runs


@dataclass(frozen=True, slots=True)
class Bench:
    """A comparison: where its results lie, and how many processes work on it."""

    scale: Scale
    out: Path
    jobs: int
    console: Console

    def each(self, what: str, todo: Callable[[Work], Any], jobs: Sequence[Job], use: Callable[[Any], None]) -> None:
        """Do `todo` for every job, in processes of their own, and `use` each result as it comes."""
        if not jobs:
            return
        work = [Work(job, self.scale, self.out / "starts") for job in jobs]
        processes, spawning = min(self.jobs, len(work)), multiprocessing.get_context("spawn")
        with self._progress() as progress, spawning.Pool(processes, initializer=quiet) as pool:
            task = progress.add_task(what, total=len(work))
            for done in pool.imap_unordered(todo, work):
                use(done)
                progress.advance(task)

    def _progress(self) -> Progress:
        bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        return Progress(*bar, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console)


def compare(bench: Bench, names: Sequence[str], tuning: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
    """Start models, learning rates, the comparison; what came of it."""
    shelf = Shelf(bench.out / "runs.jsonl", bench.scale)
    starts: list[dict[str, float]] = []
    all_seeds = [Job("", seed, 0.0) for seed in (*tuning, *seeds)]
    bench.each("start models", start_of, all_seeds, starts.append)
    for name in FAMILIES:
        bench.console.print(f"start: {name} solved at {_spread([one[name] for one in starts])}")
    tried = [Job(name, seed, rate) for name in names for rate in RATES for seed in tuning]
    bench.each("tuning", run_of, shelf.missing(tried), shelf.add)
    rates = {name: best_rate(shelf, name, tuning) for name in names}
    jobs = [Job(name, seed, rates[name]) for seed in seeds for name in names]
    bench.each("comparison", run_of, shelf.missing(jobs), shelf.add)
    return summary(shelf, rates, seeds) | {"start": {name: [one[name] for one in starts] for name in FAMILIES}}


def best_rate(shelf: Shelf, name: str, seeds: Sequence[int]) -> float:
    """Of `RATES`, the one with the best mean accuracy on the tuning seeds; the smaller one of equals."""

    def mean(rate: float) -> float:
        return statistics.fmean(shelf.values(name, rate, figure("accuracy"), seeds).values())

    return max(RATES, key=lambda rate: (mean(rate), -rate))


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f} over {len(values)} seeds)"


def main() -> None:
    """Compare, print, and write what docs/benchmarks.md shows."""
    scale = Scale()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds compared")
    parser.add_argument("--tune-seeds", type=int, default=2, help="further seeds that learning rates are tuned on")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each uses one core")
    parser.add_argument("--out", type=Path, default=Path("runs/bottlenecks"), help="folder of results; reused")
    parser.add_argument("--careless", type=float, default=scale.careless, help="share of demonstrations that is wrong")
    parser.add_argument("--budget", type=int, default=scale.trained, help="tokens trained on, and tokens generated")
    parser.add_argument("--only", nargs="+", help="pipelines, in place of all")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2 seeds, tiny budgets, no figures to trust")
    asked = parser.parse_args()
    scale = replace(scale, careless=asked.careless, trained=asked.budget, generated=asked.budget)
    seeds, tuning = range(COMPARED_ON, COMPARED_ON + asked.seeds), range(TUNED_ON, TUNED_ON + asked.tune_seeds)
    if asked.quick:
        scale, seeds, tuning = QUICK, seeds[:2], tuning[:1]
    asked.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(scale, asked.out, asked.jobs, Console(width=None if sys.stdout.isatty() else WIDE))
    names = asked.only or list(pipelines(usual_steps(scale)))
    write(compare(bench, names, tuning, seeds), asked.out, bench.console)


if __name__ == "__main__":
    main()
