"""Runs that are done, one JSON line each: written as they end, so that a comparison that was stopped goes on."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.planted_families import FAMILIES

MEASURES = ("accuracy", "greedy", "gained", "lost")


@dataclass(frozen=True, slots=True)
class Scale:
    """What a comparison is made at; results at another scale do not count."""

    each: int = 16
    """Prompts of each family."""
    careless: float = 0.2
    """Share of each family's demonstrations that is wrong."""
    trained: int = 80_000
    """Learner tokens that a pipeline may use."""
    generated: int = 80_000
    samples: int = 32
    """Responses for each prompt at the end; the start is measured with twice as many."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be made."""

    pipeline: str
    seed: int
    rate: float


@dataclass(frozen=True, slots=True)
class Record:
    """One run that is done."""

    job: Job
    scale: Scale
    accuracy: float
    """Mean solve rate at temperature 1 over all prompts."""
    greedy: float
    families: dict[str, float]
    """Family -> mean solve rate at temperature 1."""
    gained: int
    lost: int
    trained: int
    generated: int
    steps: int
    seconds: float


class Shelf:
    """The records of one file, by job; records of other scales stay in the file and are passed over."""

    def __init__(self, path: Path, scale: Scale) -> None:
        self.path, self.scale = path, scale
        lines = path.read_text().splitlines() if path.exists() else []
        records = [_read(line) for line in lines if line.strip()]
        self.found = {one.job: one for one in records if one.scale == scale}

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those that are not done, each once, in order."""
        return [job for job in dict.fromkeys(jobs) if job not in self.found]

    def add(self, record: Record) -> None:
        """Keep a run, at once."""
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self.found[record.job] = record

    def values(
        self, pipeline: str, rate: float, of: Callable[[Record], float], seeds: Iterable[int]
    ) -> dict[int, float]:
        """Seed -> a figure of the pipeline's run at that rate."""
        return {seed: of(self.found[Job(pipeline, seed, rate)]) for seed in seeds}


def _read(line: str) -> Record:
    told = json.loads(line)
    return Record(**{**told, "job": Job(**told["job"]), "scale": Scale(**told["scale"])})


def figure(name: str) -> Callable[[Record], float]:
    """A measure, or a family's solve rate, of a record."""
    if name in FAMILIES:
        return lambda record: record.families[name]
    return lambda record: float(getattr(record, name))
