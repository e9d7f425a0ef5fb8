"""The variants of a pipeline file: each one's own pipeline, checked as any other, and held to what its study claims."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from orchestrator.config import Pipeline
from orchestrator.experiment_config import Experiment, Variant
from orchestrator.explain import nearest
from orchestrator.load import read
from orchestrator.notation import parse
from orchestrator.overrides import apply
from orchestrator.plan import plan
from orchestrator.study_checks import changed, claims
from policies.bad_input import BadInput, refuse

MOST_STAGES = 4
"""A study that names no orders runs all of so many stages: 24."""
ENDLESS = 1e18
"""An amount that stands in where the budget is what the baseline will have spent, which nobody knows before it ran."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """A pipeline file with its variants."""

    base: Pipeline
    """Its `variants` name every variant, those that the file left to the study too, the baseline first."""
    variants: Mapping[str, Pipeline]
    """In the order in which they run within a seed, the baseline first; `seed` is the study's first."""

    @property
    def experiment(self) -> Experiment:
        """The study."""
        assert self.base.variants is not None, "expand() refuses a file without variants"
        return self.base.variants

    @property
    def baseline(self) -> str:
        """Name of the variant that the others are compared with."""
        return next(iter(self.variants))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """As `Experiment.runs`."""
        return self.experiment.runs

    @property
    def steps(self) -> int:
        """Optimizer steps of all runs together, if none stops at a budget."""
        return sum(stage.steps for name, _ in self.runs for stage in self.variants[name].stages)

    def document(self) -> dict[str, Any]:
        """What would run, as JSON values; each variant with its whole plan."""
        base, budget = self.variants[self.baseline], self.base.budget
        variants = {
            name: {"changes": changed(base, one), "plan": plan(one).document()} for name, one in self.variants.items()
        }
        return {
            **self.experiment.model_dump(mode="json", include={"study", "baseline", "measure", "seeds"}),
            "budget": budget.model_dump(mode="json") if budget else None,
            "runs": len(self.runs),
            "steps": self.steps,
            "variants": variants,
        }


def expand(path: Path, sets: Sequence[str] = ()) -> Expanded:
    """Every variant of the file, changed by `sets` first; BadInput with all faults of all variants, by their names."""
    base = read(path, sets)
    if base.variants is None:
        raise BadInput([f"{path}: variants: missing; add `variants:` with the variants to compare"])
    named, faults = _named(base, base.variants, str(path))
    refuse(faults)
    stages = apply(parse(path.read_text(encoding="utf-8")), sets).content["stages"]
    found: dict[str, Pipeline] = {}
    for name, variant in named.items():
        try:
            found[name] = read(path, [*sets, *changes(base, variant, stages, baseline=name == next(iter(named)))])
        except BadInput as error:
            faults += [_told(line, str(path), name) for line in error.lines]
    if next(iter(named)) in found:
        faults += [f"{path}: variants.{key}: {said}" for key, said in claims(base.variants, found)]
    refuse(faults)
    resolved = base.variants.model_copy(update={"of": named, "baseline": next(iter(named))})
    return Expanded(base.model_copy(update={"variants": resolved}), found)


def changes(base: Pipeline, variant: Variant, stages: Sequence[Mapping[str, Any]], *, baseline: bool) -> list[str]:
    """What makes the variant of the file, as `--set` has it."""
    experiment = base.variants
    assert experiment is not None
    found = ["variants=null", f"seed={experiment.seeds[0]}"]
    if base.budget is not None and base.budget.amount is None:
        found.append("budget=null" if baseline else f"budget.amount={ENDLESS!r}")
    if variant.order is not None:
        by_name = {str(stage["name"]): stage for stage in stages}
        found.append(f"stages={json.dumps([by_name[name] for name in variant.order])}")
    return [*found, *(f"{key}={json.dumps(value)}" for key, value in variant.set.items())]


def _named(base: Pipeline, experiment: Experiment, path: str) -> tuple[dict[str, Variant], list[str]]:
    """The variants, baseline first, and what is wrong with the block itself."""
    of, faults = dict(experiment.of), []
    stages = [stage.name for stage in base.stages]
    where = f"{path}: variants"
    if experiment.study == "stage_order" and not of:
        orders = list(permutations(stages)) if len(stages) <= MOST_STAGES else []
        of = {"-then-".join(order): Variant(order=order) for order in orders}
    if len(of) < 2:
        few = f", or give the pipeline 2 to {MOST_STAGES} stages" if experiment.study == "stage_order" else ""
        return of, [f"{where}.of: {len(of)} variants, and there is nothing to compare; name two or more{few}"]
    if experiment.baseline and experiment.baseline not in of:
        close = nearest(experiment.baseline, of) or f"the variants are {', '.join(of)}"
        faults.append(f"{where}.baseline: no such variant (got '{experiment.baseline}'); {close}")
    for name, variant in of.items():
        faults += [f"{where}.of.{name}.order: {said}" for said in _order(variant.order, stages)]
        faults += [f"{where}.of.{name}.set.{key}: {said}" for key, said in _settable(variant)]
    if len(set(experiment.seeds)) < len(experiment.seeds):
        faults.append(f"{where}.seeds: a seed stands twice (got {list(experiment.seeds)}); keep one of the two")
    first = experiment.baseline or next(iter(of))
    return {name: of[name] for name in sorted(of, key=lambda name: name != first) if name in of}, faults


def _order(order: Sequence[str] | None, stages: Sequence[str]) -> list[str]:
    if order is None:
        return []
    known = f"the stages are {', '.join(stages)}"
    unknown = [name for name in order if name not in stages]
    if unknown:
        return [f"no stage '{unknown[0]}'; {nearest(unknown[0], stages) or known}"]
    if not order or len(set(order)) < len(order):
        return [f"a stage stands twice, or there is none (got {list(order)}); name each once"]
    return []


def _settable(variant: Variant) -> list[tuple[str, str]]:
    taken = {"variants": "variants have no variants; remove it", "seed": "is the study's; use `seeds`"}
    return [(key, said) for key in variant.set if (said := taken.get(key.partition(".")[0]))]


def _told(line: str, path: str, name: str) -> str:
    """A fault of the file as changed, told as a fault of the variant."""
    for start in (f"{path} with --set: ", f"{path}: ", "--set: "):
        if line.startswith(start):
            return f"{path}: variants.of.{name}: {line.removeprefix(start)}"
    return f"{path}: variants.of.{name}: {line}"
