"""Diagnoses that are given, and what there is in every combination, for tests of what is recommended."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from orchestrator.available import Available, parameters_of
from orchestrator.probes.bottleneck import BOTTLENECKS, KINDS, Diagnosis, Kind, Named
from orchestrator.probes.intervals import Interval
from orchestrator.probes.obstacles import Obstacle
from tests.recipe_runs import MODEL, OUTCOME

RESOURCES: Mapping[str, Any] = {
    "rollout": {"engine": "torch"},
    "learner": {"engine": "torch"},
}


def sure(value: float) -> Interval:
    return Interval(value, max(value - 0.05, 0.0), min(value + 0.05, 1.0))


def diagnosis(bottleneck: str, *, headroom: float = 0.6) -> Diagnosis:
    """All the headroom lies in one class; of `undecided` it is divided evenly."""
    parts = BOTTLENECKS if bottleneck == "undecided" else tuple(kind for kind in BOTTLENECKS if kind == bottleneck)
    each = headroom / len(parts) if parts else 0.0
    spaces: dict[Kind, Interval] = {kind: sure(each if kind in parts else 0.0) for kind in KINDS}
    likeliest: Kind = parts[0] if parts else "mastered"
    prompts = tuple(Named(f"p{at}", "", likeliest, 0.99, likeliest, 16, 4, Obstacle()) for at in range(4))
    whole = Interval(1 - each * len(parts), 0.0, 1.0)
    return Diagnosis(prompts, spaces, spaces, bottleneck, whole)  # type: ignore[arg-type]


def available(folder: Path, model: Path, teacher: Path) -> Available:
    """Everything there may be: the data of `tests.recipe_runs.write_data`, which lie in `folder`."""
    shape = {"context": MODEL["context"], "dtype": "float32"}
    return Available(
        model={"kind": "hf", "path": str(model), **shape},
        train={"kind": "jsonl", "path": str(folder / "prompts.jsonl")},
        verifier=OUTCOME,
        probe={"kind": "jsonl", "path": str(folder / "probe.jsonl")},
        demonstrations={"kind": "jsonl", "path": str(folder / "demonstrations.jsonl")},
        teacher=str(teacher),
        earlier=str(teacher),
        scaffold="{{ prompt }} ",
        prompts=40,
        parameters=parameters_of(model),
        max_tokens=8,
        also={"resources": RESOURCES},
    )


def combinations(whole: Available) -> Iterator[tuple[str, Available]]:
    """(what is there, in words; the same as what is available): each of the four things is there or not."""
    fields = ("demonstrations", "teacher", "earlier", "probe")
    for there in product((True, False), repeat=len(fields)):
        missing = {name: None for name, has in zip(fields, there, strict=True) if not has}
        emptied = {name: "" if name in ("teacher", "earlier") else None for name in missing}
        named = "+".join(name for name, has in zip(fields, there, strict=True) if has) or "nothing"
        yield named, replace(whole, **emptied)  # type: ignore[arg-type]
