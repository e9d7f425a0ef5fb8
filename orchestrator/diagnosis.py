"""The key `diagnosis` of a handoff: which bottleneck holds the model back now, and the pipeline that is recommended."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.available import Available
from orchestrator.json_lines import plain
from orchestrator.probes import clusters
from orchestrator.probes.bottleneck import KINDS, Diagnosis, Marks, Named, diagnose
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.snapshot import Sampled, Snapshot
from orchestrator.recommend import Recommendation, recommend
from orchestrator.recommended_text import text

SHOWN = 20
"""Prompts whose crucial tokens are kept."""


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What was found, and what to do about it."""

    found: Diagnosis
    scaffold_gap: Interval
    recommendation: Recommendation | None
    """None where nothing was said of what there is."""
    file: str = ""

    @property
    def text(self) -> str:
        """The recommended pipeline as a file; empty where there is none."""
        one = self.recommendation
        return "" if one is None or one.pipeline is None else text(one, [self._headline])

    @property
    def _headline(self) -> str:
        rate, shares = self.found.pass_at_1, self.found.shares
        parts = ", ".join(f"{kind.replace('_', ' ')} {shares[kind].value:.0%}" for kind in KINDS if kind != "undecided")
        return f"Diagnosed: pass@1 {rate.value:.0%} ({rate.low:.0%} to {rate.high:.0%}); of the prompts {parts}."

    @property
    def document(self) -> dict[str, Any]:
        """JSON values.

        classes: kind -> {"share": Interval of the prompts that are in it (as the spread of solve rates has it),
        "named": how many are named so with confidence, "headroom": Interval of pass@1 lost there}. bottleneck: the kind
        of most headroom, "undecided", or "none" where nothing is left to gain. pass_at_1, scaffold_gap (null where
        there is no scaffold): Interval. prompts: [{"id", "family", "kind", "likeliest", "probability", "n", "c",
        "reach"}]. crucial: [{"prompt", "id", "tokens": [{"position", "length", "token", "probability", "instead",
        "instead_probability"}]}], of at most 20 prompts. recommendation: null, or {"file": "" where there is no
        pipeline, "told", "choices": [{"key", "value", "reason"}]}.
        """
        found, counts = self.found, dict.fromkeys(KINDS, 0)
        for one in found.prompts:
            counts[one.kind] += 1
        classes = {
            kind: {"share": asdict(found.shares[kind]), "named": counts[kind], "headroom": asdict(found.headroom[kind])}
            for kind in KINDS
        }
        document = {
            "classes": classes,
            "bottleneck": found.bottleneck,
            "pass_at_1": asdict(found.pass_at_1),
            "scaffold_gap": asdict(self.scaffold_gap) if self.scaffold_gap.known else None,
            "prompts": [_prompt(one) for one in found.prompts],
            "crucial": [_crucial(one) for one in found.prompts if one.crucial][:SHOWN],
            "recommendation": self._recommended(),
        }
        made: dict[str, Any] = plain(document)
        return made

    def _recommended(self) -> dict[str, Any] | None:
        one = self.recommendation
        if one is None:
            return None
        file = self.file if one.pipeline is not None else ""
        return {"file": file, "told": one.told, "choices": [asdict(choice) for choice in one.choices]}


def diagnosed(
    snapshots: Sequence[Snapshot], marks: Marks, available: Available | None = None, *, file: str = ""
) -> Diagnosed:
    """Diagnose the newest snapshot and recommend a pipeline from what there is.

    `snapshots` are the run's, oldest first; `file` is where the caller will write `.text`.
    """
    return advised(diagnose(snapshots, marks), snapshots[-1], available, marks.confidence, file)


def advised(
    found: Diagnosis, snapshot: Snapshot, available: Available | None, confidence: float, file: str = ""
) -> Diagnosed:
    """The same, of a diagnosis that was made."""
    gap = scaffold_gap(snapshot, confidence)
    recommended = None if available is None else recommend(found, available, scaffold_gap=gap)
    return Diagnosed(found, gap, recommended, file)


def document(
    snapshots: Sequence[Snapshot], *, epsilon: float, confidence: float, available: Available | None, file: Path | None
) -> dict[str, Any]:
    """As `Diagnosed.document`; the recommended pipeline, where there is one, is written to `file`."""
    marks = Marks(epsilon=epsilon, confidence=confidence)
    done = diagnosed(snapshots, marks, available, file=file.name if file else "")
    if file is not None and done.text:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(done.text, encoding="utf-8")
    return done.document


def scaffold_gap(snapshot: Snapshot, confidence: float) -> Interval:
    """Pass rate under the scaffold less that on the bare prompt, over the prompts that have both."""
    bare, helped = snapshot.sets.get("probe"), snapshot.sets.get("scaffolded")
    if bare is None or helped is None:
        return UNKNOWN
    rates = [_rates(one) for one in (bare, helped)]
    both = [prompt for prompt in rates[0] if prompt in rates[1]]
    if not both:
        return UNKNOWN
    first, second = (([own[prompt] for prompt in both], np.ones(len(both)), both) for own in rates)
    return clusters.difference(first, second, confidence=confidence)


def _rates(found: Sampled) -> dict[str, float]:
    counted = zip(found.prompts, found.n_P.tolist(), found.c_P.tolist(), strict=True)
    return {prompt: c / n for prompt, n, c in counted if n}


def _prompt(one: Named) -> dict[str, Any]:
    fields = {"kind": one.kind, "likeliest": one.likeliest, "probability": one.probability}
    return {"id": one.prompt, "family": one.family, **fields, "n": one.n, "c": one.c, "reach": one.obstacle.reach}


def _crucial(one: Named) -> dict[str, Any]:
    return {"prompt": one.prompt, "id": one.obstacle.id, "tokens": [asdict(token) for token in one.crucial]}
