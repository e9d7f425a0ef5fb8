"""`braid run` of a file with `variants:`: every variant with every seed, one after the other, and what came of it.

DIR/experiment.yaml            the pipeline with its `variants`, resolved; the baseline stands first
DIR/VARIANT/pipeline.yaml      the variant's own pipeline
DIR/VARIANT/seed-N/            an ordinary run directory
DIR/experiment.json            the table (`experiment_table.document`), written anew after every run
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator import run as single
from orchestrator.budget import spent
from orchestrator.experiment_table import document
from orchestrator.experiment_text import show
from orchestrator.history import read_history
from orchestrator.load import dump
from orchestrator.options import plain_console
from orchestrator.study import FILE, Study
from orchestrator.variants import ENDLESS, Expanded, expand
from policies.bad_input import BadInput

DONE, FAILED, BROKEN, INTERRUPTED = 0, 1, 3, 4


def start(path: Path, out: Path, sets: Sequence[str] = (), *, in_process: bool = False) -> int:
    """Run every variant of the file into a new directory; the exit code says how the worst run ended.

    BadInput, before anything is made, with every fault of every variant.
    """
    made = make(Path(out).absolute(), expand(path, sets), path.resolve().parent)
    return resume(made, in_process=in_process)


def resume(out: Path, *, in_process: bool = False) -> int:
    """Run what is left of an experiment: runs that ended are left alone, others are resumed or begun."""
    study = Study.open(out)
    codes: list[int] = []
    with _lock(study.root):
        for name, seed in study.runs:
            codes.append(_carry_on(study, name, seed, in_process=in_process))
            found = write(study)
            if codes[-1] == INTERRUPTED:
                break
    show(found, plain_console())
    return _worst(codes)


def write(study: Study) -> dict[str, Any]:
    """The table as it stands; also experiment.json, whole or as it was."""
    found = document(study)
    temporary = study.root / ".experiment.json"
    temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    temporary.replace(study.root / "experiment.json")
    return found


def _carry_on(study: Study, name: str, seed: int, *, in_process: bool) -> int:
    """Begin the run, resume it, or leave it where it ended; what keeps it from running is told and fails it alone."""
    status, place = study.status(name, seed), study.place(name, seed)
    if status == "finished":
        return DONE
    if status == "stopped":
        return BROKEN
    console = plain_console()
    told = "begins" if status == "not started" else f"goes on, {status} before"
    console.print(f"\n{name}, seed {seed}: {told}", markup=False)
    try:
        if status != "not started":
            return single.resume(place, in_process=in_process)
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()  # claimed by a run that was killed before it had written anything
        return single.run(study.pipeline_file(name), place, _sets(study, name, seed), in_process=in_process)
    except BadInput as error:
        console.print(f"{name}, seed {seed}: {error}", markup=False)
        return FAILED


def _sets(study: Study, name: str, seed: int) -> list[str]:
    """What the run changes in its variant's pipeline: the seed, and the budget that its baseline has set."""
    budget = study.variants[name].budget
    if budget is None or budget.amount != ENDLESS:
        return [f"seed={seed}"]
    if study.status(study.baseline, seed) != "finished":
        fix = f"`braid resume {study.root}` once what ended it is mended"
        raise BadInput([f"its budget is what {study.baseline} spends, which did not finish with this seed; {fix}"])
    rows = read_history(study.place(study.baseline, seed)).steps
    return [f"seed={seed}", f"budget.amount={spent(rows)[budget.unit]!r}"]


def _worst(codes: Iterable[int]) -> int:
    """Interrupted before failed before broken: what the user has to do next."""
    found = set(codes)
    return next((code for code in (INTERRUPTED, FAILED, BROKEN) if code in found), DONE)


def make(out: Path, expanded: Expanded, base: Path) -> Path:
    """The directory with its files, whole or absent."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        out.mkdir()
    except FileExistsError:
        fix = f"give another --out, or `braid resume {out}`"
        raise BadInput([f"{out}: exists, and an experiment is never overwritten; {fix}"]) from None
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for name, pipeline in expanded.variants.items():
            (aside / name).mkdir()
            (aside / name / "pipeline.yaml").write_text(dump(pipeline, base=base), encoding="utf-8")
        (aside / FILE).write_text(dump(expanded.base, base=base), encoding="utf-8")
        aside.chmod(0o755)
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        out.rmdir()
        raise
    return out


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Holds the experiment for this process, however that ends."""
    lock = FileLock(root / "driver.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BadInput([f"{root}: another process is driving this experiment; wait for it or end it"]) from None
    try:
        yield
    finally:
        lock.release()
