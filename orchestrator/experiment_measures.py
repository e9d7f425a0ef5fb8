"""The figure that a study is decided by, prompt by prompt, from the files of one run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from orchestrator.config import Pipeline
from orchestrator.experiment_config import Experiment
from orchestrator.history import History
from orchestrator.probe_files import probed_steps, read_snapshot
from orchestrator.probe_plans import plan_at
from orchestrator.probes import support
from orchestrator.probes.curves import estimates
from orchestrator.probes.sequential import Plan, counts, matched
from orchestrator.probes.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Figure:
    """What the run's last probe says."""

    step: int | None
    """Of that probe; None where there was none."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Prompt id -> the prompt's figure, between 0 and 1; NaN where the probe does not say."""
    missing: str = ""
    """Why there are no values."""


def figure(history: History, pipeline: Pipeline, experiment: Experiment) -> Figure:
    """The measure of a run as it stands."""
    steps = probed_steps(history.run)
    if not steps:
        return Figure(None, missing="no probe yet")
    step, measure = steps[-1], experiment.measure
    last, plan = read_snapshot(history.run, step), plan_at(history, step)
    name = measure if measure in ("shifted", "guard") else "probe"
    found = last.sets.get(name)
    if found is None:
        return Figure(step, missing=f"the probe after step {step} has no set {name}")
    if measure == "retained_support":
        return _retained(history, pipeline, last, plan)
    k = pipeline.handoff.probe_samples if measure == "pass_at_k" else 1
    values = estimates(counts(found, plan), k)
    if len(values) and np.isnan(values).all():
        return Figure(step, missing=f"draws that stop early say nothing of pass@{k}; set handoff.sequential: false")
    return Figure(step, dict(zip(found.prompts, map(float, values), strict=True)))


def _retained(history: History, pipeline: Pipeline, last: Snapshot, plan: Plan | None) -> Figure:
    """1 for each prompt in effective support at the start that is so still, 0 for each that was lost; NaN elsewhere."""
    first = probed_steps(history.run)[0]
    if first == last.step:
        return Figure(last.step, missing="a single probe: nothing can be lost yet")
    before, after = read_snapshot(history.run, first).sets.get("probe"), last.sets["probe"]
    if before is None:
        return Figure(last.step, missing=f"the probe after step {first} has no set probe")
    mine, theirs = matched(before, after)
    change = support.change(
        counts(before, plan_at(history, first)).rows(mine),
        counts(after, plan).rows(theirs),
        epsilon=pipeline.handoff.epsilon,
        confidence=pipeline.handoff.confidence,
    )
    values = np.full(len(mine), np.nan)
    values[change.retained], values[change.attrited] = 1.0, 0.0
    return Figure(last.step, {before.prompts[at]: float(value) for at, value in zip(mine, values, strict=True)})
