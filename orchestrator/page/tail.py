"""`Tail`: the lines of a file that grows, each read once; a file that was replaced is read anew."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
MARK = 64
"""Bytes before the offset that must still be there: what tells a file that grew from one that was written anew."""
BLOCK = 1 << 22
"""Bytes that are read at once."""
_STEP = re.compile(rb'\{"step": ?(\d+)[,}]')


@dataclass(slots=True)
class Tail:
    """One JSON-lines file. `take` gets (offset, line) of every whole line, in order; `forget` is called when the file
    was replaced, cut or removed, and its lines will come again.

    A torn last line waits for its end. Not safe for several threads.
    """

    path: Path
    take: Callable[[int, bytes], None]
    forget: Callable[[], None]
    offset: int = 0
    _identity: tuple[int, int] = (0, 0)
    _mark: bytes = b""
    _stamp: tuple[int, int] = field(default=(-1, -1))

    def refresh(self) -> bool:
        """Reads what is new; whether there was anything."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._lose()
        try:
            return self._read(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> bool:
        now = os.fstat(descriptor)
        identity, stamp = (now.st_dev, now.st_ino), (now.st_size, now.st_mtime_ns)
        if (identity, stamp) == (self._identity, self._stamp):
            return False
        replaced = self._replaced(descriptor, identity, now.st_size)
        if replaced:
            self._lose()
        self._identity, self._stamp = identity, stamp
        return self._lines(descriptor, now.st_size) or replaced

    def _lines(self, descriptor: int, size: int) -> bool:
        began, held = self.offset, b""
        at = self.offset
        while at < size and (block := os.pread(descriptor, min(BLOCK, size - at), at)):
            at += len(block)
            *whole, held = (held + block).split(b"\n")
            for line in whole:
                self.take(self.offset, line)
                self.offset += len(line) + 1
                self._mark = (self._mark + line + b"\n")[-MARK:] if len(line) < MARK else line[1 - MARK :] + b"\n"
        return self.offset > began

    def _replaced(self, descriptor: int, identity: tuple[int, int], size: int) -> bool:
        if not self.offset:
            return False
        if identity != self._identity or size < self.offset:
            return True
        return os.pread(descriptor, len(self._mark), self.offset - len(self._mark)) != self._mark

    def _lose(self) -> bool:
        had = self.offset > 0
        self.offset, self._mark, self._identity, self._stamp = 0, b"", (0, 0), (-1, -1)
        if had:
            self.forget()
        return had


def row_of(line: bytes) -> Row | None:
    """The line's object; None of what is none: a page shows what it can read."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def step_of(line: bytes) -> int | None:
    """The line's step, without reading the rest where it stands first, as the loop writes it."""
    if found := _STEP.match(line):
        return int(found[1])
    step = (row_of(line) or {}).get("step")
    return step if isinstance(step, int) else None
