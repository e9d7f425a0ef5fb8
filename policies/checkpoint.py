"""Checkpoints that are whole or absent: written aside, hashed, synced, then renamed into place.

Layout: `parent/step-NNNNNN/` with `manifest.json` (format, step, and size and sha256 of every other file).
What a killed writer leaves behind is `step-NNNNNN.tmp`, which no reader looks at. No torch: `save` and `load`
fill and read the directory, this module only decides whether it can be trusted.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.failpoints import failpoint

FORMAT = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{6,})")


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was written; the message names the file."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A checkpoint that was passed over, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint that is whole, and the newer ones that are not: whoever resumes says so aloud."""

    path: Path | None
    rejected: tuple[Rejected, ...]


def name(step: int) -> str:
    """Directory name of a step's checkpoint."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    """The step that a checkpoint's directory name states; ValueError if it states none."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: not a checkpoint's name; expected step-NNNNNN")
    return int(match.group(1))


@contextmanager
def commit(parent: Path, step: int) -> Iterator[Path]:
    """Yields a directory to fill; on leaving, it becomes `parent/step-NNNNNN` in one rename.

    An exception inside removes what was written and goes on. A checkpoint of the same step (a damaged one, after a
    resume from the one before) is replaced.
    """
    parent.mkdir(parents=True, exist_ok=True)
    final, temporary = parent / name(step), parent / f"{name(step)}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        failpoint("checkpoint.before_manifest")
        _seal(temporary, step)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    failpoint("checkpoint.before_rename")
    _put_in_place(temporary, final)
    failpoint("checkpoint.after_rename")
    _sync(parent)


def verify(directory: Path) -> None:
    """Hashes every byte of a checkpoint; DamagedCheckpointError names the first file that is not as written."""
    manifest = _read_manifest(directory)
    if manifest["step"] != step_of(directory):
        raise DamagedCheckpointError(f"{directory / MANIFEST}: is of step {manifest['step']}, not of this directory")
    for relative, fact in manifest["files"].items():
        path = directory / relative
        if not path.is_file():
            raise DamagedCheckpointError(f"{path}: missing")
        if path.stat().st_size != fact["size"]:
            raise DamagedCheckpointError(f"{path}: {path.stat().st_size} bytes, {fact['size']} were written")
        if _sha256(path) != fact["sha256"]:
            raise DamagedCheckpointError(f"{path}: its bytes changed since it was written (sha256 differs)")


def newest(parent: Path) -> Newest:
    """The newest whole checkpoint under `parent`, and every newer one with the reason why it was passed over."""
    rejected: list[Rejected] = []
    for path in reversed(steps(parent)):
        try:
            verify(path)
        except (DamagedCheckpointError, OSError) as error:
            rejected.append(Rejected(path, str(error)))
        else:
            return Newest(path, tuple(rejected))
    return Newest(None, tuple(rejected))


def steps(parent: Path) -> list[Path]:
    """Checkpoint directories under `parent`, oldest first, unverified."""
    if not parent.is_dir():
        return []
    found = [path for path in parent.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def prune(parent: Path, keep: int, protected: Collection[int] = ()) -> list[Path]:
    """Removes all but the newest `keep` and the `protected` steps; call it after a commit, never before.

    Returns what was removed. Each one is renamed first, so that a kill midway leaves nothing half deleted in view.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; the newest checkpoint is never removed")
    removed = [path for path in steps(parent)[:-keep] if step_of(path) not in protected]
    for path in removed:
        path.rename(_aside(path))
    for leftover in [*parent.glob("step-*.old"), *parent.glob("step-*.tmp")]:
        shutil.rmtree(leftover, ignore_errors=True)
    return removed


def _seal(directory: Path, step: int) -> None:
    """Syncs every file and writes the manifest over them."""
    files: dict[str, Any] = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        _sync(path)
        files[path.relative_to(directory).as_posix()] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    body = {"format": FORMAT, "step": step, "files": files}
    manifest = directory / MANIFEST
    manifest.write_text(json.dumps(body | {"checksum": _checksum(body)}, indent=1))
    failpoint("checkpoint.after_manifest")
    _sync(manifest)
    for folder in [path for path in directory.rglob("*") if path.is_dir()]:
        _sync(folder)
    _sync(directory)


def _put_in_place(temporary: Path, final: Path) -> None:
    if not final.exists():
        temporary.rename(final)
        return
    final.rename(_aside(final))
    temporary.rename(final)
    shutil.rmtree(_aside(final), ignore_errors=True)


def _aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def _read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest, its own checksum and format checked."""
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{path}: missing") from error
    except ValueError as error:
        raise DamagedCheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.pop("checksum", None) != _checksum(manifest):
        raise DamagedCheckpointError(f"{path}: its bytes changed since it was written (checksum differs)")
    if manifest["format"] != FORMAT:
        raise DamagedCheckpointError(f"{path}: format {manifest['format']}; this version of Braid reads {FORMAT}")
    return manifest


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Waits until the file system holds the file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
