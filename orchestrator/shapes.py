"""The sizes of a run's models: told to the ledger once they are known, read back by whoever counts FLOPs."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actors.meter import POLICY
from orchestrator.frozen_models import EARLIER, REFERENCE, SELF, cast
from orchestrator.history import History
from orchestrator.loop import StageRun
from orchestrator.probes.cost import Passes, by_kind
from orchestrator.probes.model_shape import Shape, UnknownShapeError, scalar, shape_of


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of the models that a run asks, by their names on a bill (`actors.meter`)."""

    shapes: Mapping[str, Shape]
    unknown: Mapping[str, str]
    """Name -> why its shape is not known."""
    passes: Passes = Passes()

    def flops(self, work: Iterable[Mapping[str, Any]]) -> float:
        """Of these entries; NaN where one is of a model whose shape is not known."""
        return sum(by_kind(work, self.shapes, self.passes).values())

    def row(self) -> dict[str, Any]:
        """For the ledger: `read_sizes` gives it back."""
        return {
            "shapes": {name: asdict(shape) for name, shape in self.shapes.items()},
            "unknown": dict(self.unknown),
            "passes": asdict(self.passes),
        }


def sizes_of(
    folder: Path, stages: Iterable[StageRun], passes: Passes, others: Mapping[str, Path] | None = None
) -> Sizes:
    """Those of the policy in `folder`, of all that the stages ask, and of `others` by name."""
    runs = list(stages)
    names = [name for stage in runs for name in cast(stage).names]
    own = {POLICY, REFERENCE, SELF, *(name for name in names if name.startswith(EARLIER))}
    beside = {one.name for stage in runs for one in stage.learners}
    found, unknown = dict[str, Shape](), dict[str, str]()
    for name in (*sorted(own), *sorted({*names} - own), *sorted(beside), *(others or {})):
        where = (others or {}).get(name, folder if name in own | beside else Path(name))
        shape = _read(where)
        if isinstance(shape, str):
            unknown[name] = shape
        elif name in beside or (name in own and any(stage.head == "scalar" for stage in runs)):
            found[name] = scalar(shape)
        else:
            found[name] = shape
    return Sizes(found, unknown, passes)


def read_sizes(history: History) -> Sizes:
    """As the run told them; of a run that did not, what its own model folder says of the policy."""
    told = [event for event in history.events if event["kind"] == "models"]
    learner = (history.config.get("resources") or {}).get("learner") or {}
    passes = Passes(bool(learner.get("lora")), bool(learner.get("gradient_checkpointing")))
    if told:
        last = told[-1]
        return Sizes({name: Shape(**one) for name, one in last["shapes"].items()}, last["unknown"], passes)
    model = history.config.get("model") or {}
    shape = _read(history.run.root / "model") if model.get("kind") == "tiny" else _read(Path(model.get("path") or ""))
    names = (POLICY, REFERENCE, SELF)
    if isinstance(shape, str):
        return Sizes({}, dict.fromkeys(names, shape), passes)
    return Sizes(dict.fromkeys(names, shape), {}, passes)


def _read(folder: Path) -> Shape | str:
    """The shape by a folder's config.json, or why it is not known."""
    try:
        return shape_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # a damaged file costs a figure, not the run
        return str(error) if isinstance(error, UnknownShapeError) else f"{folder}: no config.json to read ({error})"
