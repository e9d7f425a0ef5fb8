"""`braid diagnose`: measure a checkpoint, name what holds it back, and write the pipeline that is recommended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from orchestrator.available import Available, available_of
from orchestrator.config import Pipeline
from orchestrator.diagnosis import Diagnosed, advised
from orchestrator.held_apart import held_apart, taken
from orchestrator.measuring import Countdown, Taken, Wanted, measure
from orchestrator.probe_files import probed_steps, read_snapshot
from orchestrator.probes.bottleneck import Marks
from orchestrator.probes.bottleneck import diagnose as bottlenecks
from orchestrator.probes.looks import looks
from orchestrator.probes.snapshot import Sampled, Snapshot
from orchestrator.run_directory import RunDirectory
from orchestrator.subject import Subject
from policies import checkpoint

BANK = 256
"""Good trajectories that are scored at most."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was found and where it was written."""

    subject: Subject
    taken: Taken
    done: Diagnosed
    file: Path | None
    """None where no pipeline is recommended."""


def diagnose(
    found: Subject, *, samples: int, limit: int, out: Path | None, progress: Countdown, teacher: str = ""
) -> Result:
    """Up to `samples` responses to each of at most `limit` prompts; `teacher` is a model's folder, or empty."""
    marks = Marks(found.pipeline.handoff.epsilon, confidence=found.pipeline.handoff.confidence)
    taken = measure(found, Wanted(samples, limit, BANK, looks(samples, marks)), progress)
    earlier = earlier_snapshots(found.home, found.step) if found.home is not None and found.own else []
    snapshots = [*earlier, taken.snapshot]
    path = out or _free(Path("recommended.yaml"))
    named = bottlenecks(snapshots, marks)
    path.parent.mkdir(parents=True, exist_ok=True)
    there = _available(found, path, teacher, snapshots, nothing=named.bottleneck == "none")
    done = advised(named, taken.snapshot, there, marks.confidence, path.name)
    if done.text:
        path.write_text(done.text, encoding="utf-8")
    return Result(found, taken, done, path if done.text else None)


def _free(path: Path) -> Path:
    """The first of NAME.yaml, NAME-2.yaml ... at which nothing stands."""
    count = 1
    while taken(one := path if count == 1 else path.with_stem(f"{path.stem}-{count}")):
        count += 1
    return one


def earlier_snapshots(home: RunDirectory, step: int) -> list[Snapshot]:
    """Those of the run's start and of the ends of its stages, before `step`."""
    from orchestrator.load import read

    ends = {0, *accumulate(stage.steps for stage in read(home.config, checked=False).stages)}
    return [read_snapshot(home, at) for at in probed_steps(home) if at in ends and at < step]


# ---------------------------------------------------------------- what there is


def _available(found: Subject, path: Path, teacher: str, snapshots: Sequence[Snapshot], *, nothing: bool) -> Available:
    """Of a run's own prompts, its own data; of a file of prompts, its two parts, written where something is to do."""
    plain = found.plain or found.pipeline
    there = available_of(plain, found.folder, prompts=len(found.prompts))
    if found.home is not None and found.own:
        earlier, count = _earlier(found.home, snapshots), _count(found, plain)
        return replace(there, teacher=teacher or there.teacher, earlier=earlier, prompts=count)
    if nothing:
        return there
    apart = held_apart(found, path)
    return replace(
        there,
        train=apart.train,
        probe=apart.probe,
        demonstrations=apart.demonstrations,
        prompts=apart.count,
        teacher=teacher or there.teacher,
    )


def _count(found: Subject, plain: Pipeline) -> int:
    """Prompts that a run trains on, where that is known without reading them; else 0."""
    if found.shown is not found.prompts:
        return len(found.shown)
    return plain.prompts.train.count or 0


def _earlier(home: RunDirectory, snapshots: Sequence[Snapshot]) -> str:
    """The checkpoint, among those that are kept, at which most of what is unsolved now was solved."""
    now = snapshots[-1].sets.get("probe")
    kept = {checkpoint.step_of(path): path / "model" for path in checkpoint.steps(home.checkpoints)}
    scores = [
        (_regained(one.sets["probe"], now), one.step)
        for one in snapshots[:-1]
        if one.step in kept and "probe" in one.sets and now is not None
    ]
    best = max(scores, default=(0.0, -1))
    return str(kept[best[1]]) if best[0] > 0 else ""


def _regained(before: Sampled, now: Sampled) -> float:
    rates = [
        {name: c / n for name, n, c in zip(one.prompts, one.n_P, one.c_P, strict=True) if n} for one in (before, now)
    ]
    return math.fsum(max(rate - rates[1][name], 0.0) for name, rate in rates[0].items() if name in rates[1])
