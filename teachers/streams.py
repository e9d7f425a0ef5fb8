"""Records of data files larger than memory: one pass checks every row, later reads make a record when it is asked for.

What stays in memory is where each good row lies (32 bytes a row) and the last records used. JSON lines are read in
place; compressed and Parquet rows cannot be reached one by one, so the pass puts them into a temporary file (TMPDIR).
"""

import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Generic, TypeVar

import numpy as np

from policies.bad_input import MOST_LINES, BadInput, shown
from teachers.lookup import Int64, digest
from teachers.rows import Bad, Line, Row, Table, lines, parse, shards

RECORDS = 256
"""Records that stay made."""

_CODES = {"file": "i", "number": "q", "offset": "q", "size": "i", "ordinal": "q"}
"""What is kept of each good row, as array type codes; a tag is a `q`."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Make = Callable[[Row], T | str]
"""A row as a record, or the reason why it is none; a pure function."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the rows of one source."""

    path: str
    read: int
    kept: int
    bad: tuple[tuple[str, str], ...] = ()
    """(place, reason) of the first bad rows; `read - kept` says how many there are."""

    @property
    def lost(self) -> int:
        """How many rows were bad."""
        return self.read - self.kept


@dataclass(slots=True)
class Tally:
    """Counts the rows of a pass; bad ones end it, all told at once, unless the table says to skip them."""

    table: Table
    read: int = 0
    kept: int = 0
    bad: list[Bad] = field(default_factory=list)
    """The first of them."""

    def good(self) -> None:
        """One more row that is used."""
        self.read += 1
        self.kept += 1

    def reject(self, bad: Bad, *, counted: bool = False) -> None:
        """One more row that is not; `counted` says that it was taken for good before."""
        self.read += not counted
        self.kept -= counted
        if len(self.bad) < MOST_LINES:
            self.bad.append(bad)

    def report(self) -> Report:
        """The result. Raises `BadInput` where rows are bad and may not be, or none is left."""
        lost = self.read - self.kept
        if lost and (not self.table.skip or not self.kept):
            told = [str(one) for one in self.bad]
            rest = lost - len(told)
            more = [f"... and {rest} more fault{'s' if rest > 1 else ''} of the same input"] if rest else []
            raise BadInput([*told, *more])
        if not self.read:
            fix = "; write one JSON object a line" if self.table.kind == "jsonl" else ""
            raise BadInput([f"{self.table.path}: {self.table.key}.path: the file has no rows{fix}"])
        return Report(str(self.table.path), self.read, self.kept, tuple((one.place, one.reason) for one in self.bad))


def passed(table: Table) -> Iterator[tuple[Path, Line]]:
    """The table's rows, shard after shard, at most `count`."""
    read = 0
    for path in shards(table):
        if table.count is not None and read >= table.count:
            return
        for line in lines(table, path, read):
            yield path, line
            read += 1
            if table.count is not None and read >= table.count:
                return


# ---------------------------------------------------------------- on demand


class Stream(Generic[T_co]):
    """The good rows of a table in a fixed order, each made into its record when it is asked for."""

    def __init__(self, index: "_Index", make: Make[T_co]) -> None:
        self._index, self._make = index, make
        self._record = lru_cache(maxsize=RECORDS)(self._made)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> T_co:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._record(number)

    def __iter__(self) -> Iterator[T_co]:
        return (self[number] for number in range(len(self)))

    @property
    def ordinals(self) -> "array[int]":
        """Which of the table's rows each record is, rising."""
        return self._index.columns["ordinal"]

    def take_tags(self) -> list[Int64]:
        """The numbers that the records were given, a column for each tag; the stream keeps them no longer."""
        return self._index.take_tags()

    def row(self, number: int) -> Row:
        """A record's row, read again. Raises `BadInput` where the file has changed."""
        row = self._index.row(number)
        if isinstance(row, Bad):
            raise self._changed(number)
        return row

    def place(self, number: int) -> str:
        """Where the row stands."""
        return self._index.place(number)

    def _made(self, number: int) -> T_co:
        made = self._make(self.row(number))
        if isinstance(made, str):
            raise self._changed(number)
        return made

    def _changed(self, number: int) -> BadInput:
        return BadInput([f"{self._index.place(number)}: changed since the run read it; start the run again"])


Tag = Callable[[Row, T], int]
"""A number of 64 bits for a good record."""

Name = Callable[[Row], str | None]
"""What a row is called, if it bears a name."""


def stream(
    table: Table, make: Make[T], tags: Sequence[Tag[T]] = (), name: Name | None = None
) -> tuple[Stream[T], Report]:
    """Check every row of the table in one pass; `tags` give numbers to keep in memory for each good record.

    Rows with a name that stood before are bad; by default it is the table's `unique` column. Raises `BadInput` with
    the first faults and the count of the others.
    """
    tally, index = Tally(table), _Index(table, len(tags), name)
    for path, line in passed(table):
        made = line.row if isinstance(line.row, Bad) else make(line.row)
        if isinstance(made, Bad | str):
            tally.reject(made if isinstance(made, Bad) else Bad(line.row.place, made))
            continue
        tally.good()
        assert isinstance(line.row, Row), "a record was made of it"
        index.add(path, line, line.row, [tag(line.row, made) for tag in tags])
    for bad in index.drop_repeated():
        tally.reject(bad, counted=True)
    return Stream(index, make), tally.report()


class _Index:
    """Where each good row lies, and how to read it again."""

    def __init__(self, table: Table, tags: int, name: Name | None) -> None:
        self._table, self._name = table, name
        self._paths: list[Path] = []
        self._stamps: list[tuple[int, int]] = []
        self._spool: IO[bytes] | None = None
        self._codes = _CODES | {f"tag{number}": "q" for number in range(tags)}
        self.columns = {name: array(code) for name, code in self._codes.items()}
        self._ids = array("q")

    def __len__(self) -> int:
        return len(self.columns["offset"])

    def add(self, path: Path, line: Line, row: Row, tags: Sequence[int]) -> None:
        """Remember a good row."""
        if not self._paths or self._paths[-1] != path:
            self._paths.append(path)
            self._stamps.append(_stamp(path))
        offset, size = self._spooled(row) if self._is_spooled(path) else (line.offset, line.size)
        values = (len(self._paths) - 1, line.number, offset, size, row.ordinal, *tags)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self._ids.append(digest(self._called(row)))

    def _called(self, row: Row) -> str | None:
        if self._name is not None:
            return self._name(row)
        own = row.values.get(self._table.unique)
        return None if own is None else str(own)

    def take_tags(self) -> list[Int64]:
        """The tags' columns, which are forgotten here."""
        names = [name for name in self.columns if name not in _CODES]
        return [np.array(self.columns.pop(name), np.int64) for name in names]

    def _is_spooled(self, path: Path) -> bool:
        return self._table.kind == "parquet" or path.suffix == ".gz"

    def _spooled(self, row: Row) -> tuple[int, int]:
        if self._spool is None:
            self._spool = tempfile.TemporaryFile(prefix="braid-rows-")  # noqa: SIM115 - lives as long as the index
        values = {name: row.values[name] for name in self._table.columns if name in row.values}
        return self._spool.tell(), self._spool.write(pickle.dumps(values, protocol=5))

    def _at(self, number: int, *names: str) -> list[int]:
        return [self.columns[name][number] for name in names]

    def place(self, number: int) -> str:
        """Where the row stands, as its faults would say."""
        file, line = self._at(number, "file", "number")
        return f"{self._paths[file]}: row {line}" if self._table.kind == "parquet" else f"{self._paths[file]}:{line}"

    def row(self, number: int) -> Row | Bad:
        """The row, read again."""
        file, line, offset, size, ordinal = self._at(number, "file", "number", "offset", "size", "ordinal")
        place = self.place(number)
        if self._spool is not None and self._is_spooled(self._paths[file]):
            self._spool.flush()
            return Row(place, pickle.loads(os.pread(self._spool.fileno(), size, offset)), ordinal)
        path = self._paths[file]
        if not path.is_file() or _stamp(path) != self._stamps[file]:
            return Bad(place, "the file is another one by now")
        with path.open("rb") as source:  # opened each time: a data set may have more shards than a process may open
            source.seek(offset)
            return parse(source.read(size), place, ordinal, self._table.forms, line == 1)

    def drop_repeated(self) -> list[Bad]:
        """Take out the rows whose id an earlier row has, and tell them; beyond the first ones, only their number."""
        ids = np.asarray(self._ids, np.int64)
        self._ids = array("q")
        order = np.argsort(ids, kind="stable")
        same = (ids[order][1:] == ids[order][:-1]) & (ids[order][1:] != 0)
        repeated = np.sort(order[1:][same])
        found = [self._repeated(row, int(np.argmax(ids == ids[row]))) for row in map(int, repeated[:MOST_LINES])]
        keep = np.setdiff1d(np.arange(len(ids)), repeated)
        if len(repeated):
            self.columns = {k: array(self._codes[k], np.asarray(v)[keep].tobytes()) for k, v in self.columns.items()}
        return found + [Bad("", "")] * (len(repeated) - len(found))

    def _repeated(self, number: int, first: int) -> Bad:
        row = self.row(number)
        got = f" (got {shown(self._called(row))})" if isinstance(row, Row) else ""
        return Bad(self.place(number), f"id: stands already at {self.place(first)}{got}; make ids unique")


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change: what tells that a file is still the one that was checked."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
