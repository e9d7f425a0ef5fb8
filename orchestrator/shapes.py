"""The sizes of a run's models: told to the ledger once they are known, read back by whoever counts FLOPs."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.meter import POLICY
from orchestrator.history import History
from orchestrator.probes.cost import PLAIN, Passes, by_kind
from orchestrator.probes.model_shape import Shape, UnknownShapeError, scalar, shape_of

if TYPE_CHECKING:
    from orchestrator.config import Pipeline
    from orchestrator.loop import StageRun

OWN = (POLICY, "reference", "self")
"""Names of models that have the policy's shape."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of the models that a run asks, by their names on a bill (`actors.meter`)."""

    shapes: Mapping[str, Shape]
    unknown: Mapping[str, str]
    """Name -> why its shape is not known."""
    passes: Passes = PLAIN
    judges: tuple[str, ...] = ()
    """Models that the verifiers ask, which nobody counts."""

    def flops(self, work: Iterable[Mapping[str, Any]]) -> float:
        """Of these entries; NaN where one is of a model whose shape is not known."""
        return sum(by_kind(work, self.shapes, self.passes).values())

    def row(self) -> dict[str, Any]:
        """For the ledger: `read_sizes` gives it back."""
        return {
            "shapes": {name: asdict(shape) for name, shape in self.shapes.items()},
            "unknown": dict(self.unknown),
            "passes": asdict(self.passes),
            "judges": list(self.judges),
        }


NOBODY = Sizes({}, {})
"""Nothing is known."""


def sizes_of(pipeline: "Pipeline", folder: Path, stages: "Sequence[StageRun]", root: Path) -> Sizes:
    """Those of the policy in `folder`, of all that the stages ask, and of the demonstrations' writer.

    `root` is the run directory, where that writer lies if it is a tiny model.
    """
    from orchestrator.config import models_that_judge  # whoever reads a run back needs none of these
    from orchestrator.frozen_models import EARLIER, cast
    from policies.config import HfModel
    from teachers.config import ModelDemonstrations
    from teachers.from_model import model_name

    names = [name for stage in stages for name in cast(stage).names]
    own = (*OWN, *(name for name in names if name.startswith(EARLIER)))
    beside = [one.name for stage in stages for one in stage.learners]
    folders = {name: Path(name) for name in names} | dict.fromkeys((*own, *beside), folder)
    if isinstance(pipeline.demonstrations, ModelDemonstrations):
        writer = pipeline.demonstrations.model
        folders[model_name(writer)] = Path(writer.path) if isinstance(writer, HfModel) else root / "teacher"
    heads = {*beside, *(own if any(stage.head == "scalar" for stage in stages) else ())}
    learner = pipeline.resources.learner
    passes = Passes(learner.lora is not None, learner.gradient_checkpointing)
    return Sizes(*_all(folders, heads), passes, models_that_judge(pipeline))


def _all(folders: Mapping[str, Path], heads: Collection[str]) -> tuple[dict[str, Shape], dict[str, str]]:
    """Shapes by name, of one output for those in `heads`; and why others are not known."""
    read = {name: _read(folder) for name, folder in folders.items()}
    unknown = {name: shape for name, shape in read.items() if isinstance(shape, str)}
    found = {name: shape for name, shape in read.items() if isinstance(shape, Shape)}
    return {name: scalar(shape) if name in heads else shape for name, shape in found.items()}, unknown


def read_sizes(history: History) -> Sizes:
    """As the run told them; of a run that did not, what its own model folder says of the policy."""
    told = [event for event in history.events if event["kind"] == "models"]
    learner = (history.config.get("resources") or {}).get("learner") or {}
    passes = Passes(bool(learner.get("lora")), bool(learner.get("gradient_checkpointing")))
    if told:
        last = told[-1]
        shapes = {name: Shape(**one) for name, one in last["shapes"].items()}
        return Sizes(shapes, last["unknown"], passes, tuple(last.get("judges") or ()))
    model = history.config.get("model") or {}
    folder = history.run.root / "model" if model.get("kind") == "tiny" else Path(model.get("path") or "")
    return Sizes(*_all(dict.fromkeys(OWN, folder), ()), passes)


def _read(folder: Path) -> Shape | str:
    """The shape by a folder's config.json, or why it is not known."""
    try:
        return shape_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # a damaged file costs a figure, not the run
        return str(error) if isinstance(error, UnknownShapeError) else f"{folder}: no config.json to read ({error})"
