"""`braid probe` and `braid eval`: figures of one checkpoint, measured now."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.ledger import write_parquet
from orchestrator.measuring import Countdown, Taken, Wanted, measure
from orchestrator.probe_files import PROBE_SCHEMA
from orchestrator.probes import clusters, completion, reach
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.obstacles import obstacles
from orchestrator.probes.sequential import Plan, plan
from orchestrator.probes.snapshot import Sampled, Scored
from orchestrator.subject import Subject
from verifiers.kinds import compares

BANK = 256
WHOLE = "all"
"""Family that stands for all prompts."""


@dataclass(frozen=True, slots=True)
class Line:
    """A family's figures."""

    family: str
    prompts: int
    greedy: Interval
    sampled: Interval


def probe(
    subject: Subject, *, samples: int, limit: int, progress: Countdown, file: Path | None = None
) -> tuple[Taken, dict[str, Any]]:
    """pass@k, support of answers and reach of a checkpoint; `file` gets a row for each response.

    {"model", "step", "seconds", "completion": as a handoff's, of this checkpoint alone; "scaffolded": the same or null;
    "reach": null without a bank, else {"trajectories", "prompts", "reached": Interval of the trajectories that are
    written with probability epsilon, "followed": Interval, share of a trajectory that the policy follows by itself
    before it leaves it, "obstacles": shape -> prompts}}.
    """
    own = subject.pipeline.handoff
    looks = _plan(subject, samples)
    taken = measure(subject, Wanted(samples, limit, BANK, looks), progress)
    how: dict[str, Any] = {"epsilon": own.epsilon, "confidence": own.confidence, "plan": looks}
    if file is not None:
        write(file, subject, taken)
    helped = completion.document(None, taken.snapshot, set_name="scaffolded", **how)
    return taken, {
        "model": str(subject.folder),
        "step": subject.step,
        "seconds": taken.seconds,
        "completion": completion.document(None, taken.snapshot, **how),
        "scaffolded": helped,
        "reach": reached(taken.snapshot.scored, own.epsilon, own.confidence),
    }


def _plan(subject: Subject, samples: int) -> Plan:
    own = subject.pipeline.handoff
    if not own.sequential or compares(subject.pipeline.verifier):
        return Plan.fixed(samples)
    return plan(samples, own.epsilon, own.confidence)


def reached(scored: Sequence[Scored], epsilon: float, confidence: float) -> dict[str, Any] | None:
    """What the bank says of the checkpoint that scored it; None without a bank."""
    bank = [one for one in scored if one.writer == "bank" and np.isfinite(one.logps).any()]
    if not bank:
        return None
    logs = [reach.log_reach(one) for one in bank]
    prompts, ones = [one.prompt for one in bank], np.ones(len(bank))
    alive = [float(math.exp(one[-1]) >= epsilon) for one in logs]
    followed = [float(np.exp(one[1:]).mean()) for one in logs]
    shapes: dict[str, int] = {}
    for one in obstacles(scored, epsilon).values():
        shapes[one.shape] = shapes.get(one.shape, 0) + 1
    return {
        "trajectories": len(bank),
        "prompts": len(set(prompts)),
        "reached": asdict(clusters.share((alive, ones, prompts), confidence=confidence)),
        "followed": asdict(clusters.share((followed, ones, prompts), confidence=confidence)),
        "obstacles": shapes,
    }


def write(file: Path, subject: Subject, taken: Taken) -> None:
    """The responses, in the form of a run's probes."""
    rows = [{"step": subject.step, "stage": "measured", **row} for row in taken.rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(file, pa.Table.from_pylist(rows, schema=PROBE_SCHEMA))


# ---------------------------------------------------------------- accuracy by family


def evaluate(subject: Subject, *, samples: int, limit: int, progress: Countdown) -> tuple[Taken, list[Line]]:
    """Greedy and sampled accuracy, all prompts first and then family by family."""
    taken = measure(subject, Wanted(samples, limit), progress)
    return taken, lines(taken.snapshot.sets["probe"], subject.pipeline.handoff.confidence)


def lines(found: Sampled, confidence: float) -> list[Line]:
    """A line for all prompts and, where there are several families, one for each."""
    by_family: dict[str, list[int]] = {}
    for at, family in enumerate(found.families):
        by_family.setdefault(family or "-", []).append(at)
    parts = sorted(by_family.items()) if len(by_family) > 1 else []
    return [_line(name, found, rows, confidence) for name, rows in [(WHOLE, [*range(len(found.prompts))]), *parts]]


def _line(name: str, found: Sampled, rows: Sequence[int], confidence: float) -> Line:
    known = [at for at in rows if not math.isnan(found.greedy_P[at])]
    greedy = clusters.share(_terms(found, known, found.greedy_P, np.ones(len(found.prompts))), confidence=confidence)
    drawn = [at for at in rows if found.n_P[at]]
    sampled = clusters.share(_terms(found, drawn, found.c_P, found.n_P), confidence=confidence)
    return Line(name, len(rows), greedy if known else UNKNOWN, sampled if drawn else UNKNOWN)


def _terms(found: Sampled, rows: Sequence[int], hits: Any, trials: Any) -> clusters.Terms:
    return hits[list(rows)], trials[list(rows)], [found.prompts[at] for at in rows]
