"""`Study`: the directory of an experiment, and how its runs stand. Reads only; works while the runs go on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import Pipeline
from orchestrator.experiment_config import Experiment
from orchestrator.history import status
from orchestrator.json_lines import read as rows
from orchestrator.load import read
from orchestrator.run_directory import RunDirectory
from policies.bad_input import BadInput

FILE = "experiment.yaml"


def is_experiment(directory: Path) -> bool:
    """Whether the directory holds an experiment, and not a run."""
    return (directory / FILE).is_file()


@dataclass(frozen=True, slots=True)
class Study:
    """An experiment's directory."""

    root: Path
    base: Pipeline
    variants: Mapping[str, Pipeline]
    """In the order in which they run within a seed; the baseline first."""

    @classmethod
    def open(cls, directory: Path) -> "Study":
        """What `braid run` made; BadInput where that is damaged, or no experiment."""
        root = Path(directory).absolute()
        if not is_experiment(root):
            raise BadInput([f"{root}: no {FILE} in it; give the directory of a `braid run` with variants"])
        base = read(root / FILE, checked=False)
        if base.variants is None or not base.variants.of:
            raise BadInput([f"{root / FILE}: variants: missing; the file was changed after the experiment began"])
        pipelines = {name: read(root / name / "pipeline.yaml", checked=False) for name in base.variants.of}
        return cls(root, base, pipelines)

    @property
    def experiment(self) -> Experiment:
        """What is compared, and how."""
        assert self.base.variants is not None, "open() refuses a file without variants"
        return self.base.variants

    @property
    def baseline(self) -> str:
        """The variant that others are compared with."""
        return next(iter(self.variants))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """As `Experiment.runs`."""
        return self.experiment.runs

    def pipeline_file(self, name: str) -> Path:
        """The variant's own pipeline."""
        return self.root / name / "pipeline.yaml"

    def place(self, name: str, seed: int) -> Path:
        """A run's directory."""
        return self.root / name / f"seed-{seed}"

    def status(self, name: str, seed: int) -> str:
        """How a run stands, as `History.status` says it; `not started` where there is no run yet."""
        place = self.place(name, seed)
        return status(rows(RunDirectory(place).events)) if (place / "config.yaml").is_file() else "not started"
