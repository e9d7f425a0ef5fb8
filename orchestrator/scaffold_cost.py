"""Scaffolded and amortised: what an answer costs with the pipeline's scaffold and without, and when training pays."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from actors.meter import POLICY
from orchestrator.history import History
from orchestrator.probe_files import sampled
from orchestrator.probe_plans import plan_at
from orchestrator.probes.cost import break_even, exactly, flops, per_passed
from orchestrator.probes.curves import curve
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.model_shape import Shape
from orchestrator.probes.sequential import counts
from orchestrator.shapes import Sizes

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Answer:
    """What one sampled answer took, on average."""

    context_tokens: float
    response_tokens: float
    flops: float
    passed: Interval
    """Its chance to pass (pass@1)."""

    @property
    def flops_each_passed(self) -> Interval:
        """Asking until one passes."""
        return per_passed(self.flops, self.passed)

    def row(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "flops_each_passed": asdict(self.flops_each_passed)}


def scaffolded(history: History, handoff: Mapping[str, Any], sizes: Sizes, training: float) -> dict[str, Any] | None:
    """Answers with help and without, side by side; None where the stage's probe drew none with help.

    answers: scaffolded (by the policy as the stage found it), bare_before, bare_after, scaffolded_after ->
        {context_tokens, response_tokens, flops, passed: Interval, flops_each_passed: Interval}. Contexts are counted
        as if none was kept; of an episode of several turns, its first context and what the policy wrote.
    training_flops: what the stage cost. saving: FLOPs that an answer costs less without help.
    pays_after: {answers: by an answer's cost alone, passed: Interval, by that of an answer that passes}. Null where
        nothing is saved; an interval without an upper end may never pay.
    said: whether the bare policy is then as good as the helped one was.
    """
    measured = handoff.get("measured") or {}
    sizes_of = sizes.shapes.get(POLICY)
    confidence = float(handoff.get("confidence") or CONFIDENCE)
    after = _answers(history, measured.get("after"), sizes_of, confidence)
    if "scaffolded" not in after:
        return None
    before = _answers(history, measured.get("before"), sizes_of, confidence)
    found = {
        "scaffolded": before.get("scaffolded"),
        "bare_before": before.get("probe"),
        "bare_after": after.get("probe"),
        "scaffolded_after": after["scaffolded"],
    }
    helped, bare = found["scaffolded"] or after["scaffolded"], found["bare_after"]
    if bare is None:
        return None
    saving = helped.flops - bare.flops
    answers = break_even(training, exactly(helped.flops), exactly(bare.flops)).value
    passed = break_even(training, helped.flops_each_passed, bare.flops_each_passed)
    return {
        "answers": {name: one.row() for name, one in found.items() if one is not None},
        "training_flops": training,
        "saving_flops": saving,
        "pays_after": {"answers": answers, "passed": asdict(passed)},
        "said": said(helped, bare, answers),
    }


def said(helped: Answer, bare: Answer, answers: float) -> str:
    """In words: what is saved, and at what quality."""
    if helped.flops <= bare.flops:
        return "an answer without the scaffold costs as much as one with it, so there is nothing to pay off"
    pays = "" if math.isnan(answers) else f"; by cost alone training pays after {answers:,.0f} answers"
    if helped.passed.value == 0.0:
        return f"no scaffolded answer passed, so there was no help to spare{pays}"
    if not (helped.passed.known and bare.passed.known):
        return f"how often answers pass is not known{pays}"
    told = f"bare answers pass {bare.passed.value:.1%}, scaffolded ones passed {helped.passed.value:.1%}"
    if bare.passed.high < helped.passed.low:
        return f"{told}: not yet as good without the scaffold{pays}"
    if bare.passed.low >= helped.passed.value:
        return f"{told}: as good without the scaffold{pays}"
    return f"{told}: whether they are as good is open{pays}"


def _answers(history: History, step: Any, shape: Shape | None, confidence: float) -> dict[str, Answer]:
    """Set -> its mean sampled answer at the probe of a step; empty where there was no probe."""
    if step is None or not history.run.probe_file(int(step)).is_file():
        return {}
    rows = pq.read_table(history.run.probe_file(int(step))).to_pylist()
    plan = plan_at(history, int(step))
    found = {}
    for name in ("probe", "scaffolded"):
        own = [row for row in rows if (row.get("set") or "probe") == name]
        if drawn := [row for row in own if not row["greedy"]]:
            passed = curve(counts(sampled(own), plan), [1], confidence=confidence)[0]
            found[name] = answer(drawn, shape, passed)
    return found


def answer(drawn: list[dict[str, Any]], shape: Shape | None, passed: Interval = UNKNOWN) -> Answer:
    """The mean of sampled responses; contexts of old probes are unknown, and so is what they cost."""
    context, tokens = (
        np.array([math.nan if row.get(key) is None else row[key] for row in drawn], np.float64)
        for key in ("context", "tokens")
    )
    positions = context + np.maximum(tokens, 1.0) - 1.0
    work = {
        "kind": "generate",
        "positions": float(positions.mean()),
        "tokens": float(tokens.mean()),
        "pairs": float((positions * (positions + 1.0) / 2.0).mean()),
    }
    cost = math.nan if shape is None else flops(work, shape)
    return Answer(float(context.mean()), float(tokens.mean()), cost, passed)
