"""JSON lines that survive a killed writer: one write per line, valid JSON always, a torn last line set aside."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


class JsonLines:
    """An append-only file of JSON objects. A line reaches the operating system before `append` returns."""

    def __init__(self, path: Path) -> None:
        mend(path)
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, row: Mapping[str, Any]) -> None:
        """One line, one write; NaN and infinities become null."""
        line = memoryview(json.dumps(plain(row), ensure_ascii=False, allow_nan=False).encode() + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]

    def sync(self) -> None:
        """Waits until the file system holds every line."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)


def plain(value: Any) -> Any:
    """The value as JSON types: numpy and enums unwrapped, NaN and infinities None. TypeError names what it cannot."""
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case np.generic() | np.ndarray():
            return plain(value.tolist())
        case Path():
            return str(value)
        case Mapping():
            return {str(plain(key)): plain(inner) for key, inner in value.items()}
        case Sequence() | set() | frozenset():
            return [plain(inner) for inner in (sorted(value) if isinstance(value, set | frozenset) else value)]
        case _:
            raise TypeError(f"a ledger row holds {type(value).__name__} ({value!r}); give numbers, text, lists or maps")


def read(path: Path) -> list[Row]:
    """Every whole line; [] if there is no file. A torn last line is left out, a broken line within is an error."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}:{number}: not JSON ({error}); the file was changed after it was written"
            ) from error
    return rows


def mend(path: Path) -> int:
    """Cuts off the torn last line of a killed writer; returns its bytes."""
    if not path.is_file():
        return 0
    content = path.read_bytes()
    torn = len(content) - (content.rfind(b"\n") + 1)
    if torn:
        os.truncate(path, len(content) - torn)
    return torn


def rewrite(path: Path, change: Callable[[Row], Row | None]) -> int:
    """Replaces the file by what `change` makes of each line (None drops it), atomically; returns lines dropped."""
    rows = read(path)
    kept = [changed for row in rows if (changed := change(row)) is not None]
    if kept != rows:
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        lines = JsonLines(temporary)
        for row in kept:
            lines.append(row)
        lines.sync()
        lines.close()
        temporary.replace(path)
        sync_directory(path.parent)
    return len(rows) - len(kept)


def sync_directory(path: Path) -> None:
    """Makes renames inside the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
