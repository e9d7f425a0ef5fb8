"""Rows of a user's data: JSON lines (also gzipped) or Parquet, one file or many shards, each row with its place.

A row is read or it is `Bad`: its place and the reason in words. A file that cannot be read to its end is no bad row but
bad input: nobody knows how many rows it had.
"""

import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from policies.bad_input import BadInput, near, shown

LONGEST_LINE = 64 << 20
"""Bytes of one JSON line; a longer one is passed over piece by piece, so that memory stays flat."""

BATCH = 64
"""Parquet rows decoded at a time."""

SUFFIXES = {"jsonl": (".jsonl", ".jsonl.gz", ".json", ".json.gz"), "parquet": (".parquet",)}
"""What the files of a folder are called; the first is the usual one."""

_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}\.")


@dataclass(frozen=True, slots=True)
class Row:
    """One record; `place` is file:line (JSON lines) or file: row n (Parquet)."""

    place: str
    values: Mapping[str, Any]
    ordinal: int = 0
    """Which of the table's rows it is, over all shards, good and bad, from 0."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be used, and why."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Table:
    """Data as the pipeline names them: where they lie, which columns are read, and the key that named them."""

    path: Path
    """A file, a folder of shards, or a glob of them; shards are read in the order of their names."""
    kind: Literal["jsonl", "parquet"]
    forms: tuple[tuple[str, ...], ...]
    """Sets of columns; a row has all of one set at least, the first being what is asked for where it has none."""
    key: str
    """Dotted key in the pipeline file, such as prompts.train."""
    optional: tuple[str, ...] = ()
    """Columns that are read where they exist."""
    count: int | None = None
    """First so many rows; all by default."""
    skip: bool = False
    """Whether bad rows are counted and passed over, in place of refusing the whole."""
    unique: str = "id"
    """Column whose values may not repeat; empty for none."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that may be read, each once."""
        return tuple(dict.fromkeys([*(name for form in self.forms for name in form), *self.optional]))


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it lies in its file."""

    number: int
    """Line (from 1) or row (from 1) in its file."""
    offset: int
    """Byte where the line begins, in the file or, if that is compressed, in its text; -1 for Parquet."""
    size: int
    """Bytes of the line; 0 for Parquet."""
    row: Row | Bad


def form_of(row: Row, forms: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """The first set of columns that the row has with values, else the first whose columns it has at all."""
    for filled in (True, False):
        for form in forms:
            if all(name in row.values and (not filled or row.values[name] is not None) for name in form):
                return tuple(form)
    return None


# ---------------------------------------------------------------- files


def shards(table: Table) -> list[Path]:
    """The table's files in the order of their names. Raises `BadInput` where there are none."""
    if table.path.is_file():
        return [table.path]
    if table.path.is_dir():
        return _of_folder(table)
    if glob.has_magic(str(table.path)):
        found = sorted(path for name in glob.glob(str(table.path)) if (path := Path(name)).is_file())
        if not found:
            raise BadInput(
                [f"{table.key}.path: the pattern matches no file (got '{table.path}'); check folder and name"]
            )
        return found
    folder = table.path.parent
    names = [f.name for f in folder.iterdir()] if folder.is_dir() else []
    raise BadInput(
        [
            f"{table.key}.path: no such file (got '{table.path}'){near(table.path.name, names)}; "
            "paths are relative to the pipeline file's folder"
        ]
    )


def _of_folder(table: Table) -> list[Path]:
    """A folder's shards; those of several splits would mix what is held out into what is trained on."""
    endings = SUFFIXES[table.kind]
    found = sorted(path for path in table.path.iterdir() if path.name.endswith(endings) and path.is_file())
    if not found:
        problem = f"is a folder without {', '.join(f'*{one}' for one in endings[:2])}"
        raise BadInput([f"{table.key}.path: {problem} (got '{table.path}'); give the folder that holds the shards"])
    splits = sorted({match["split"] for path in found if (match := _SHARD.match(path.name))})
    if len(splits) > 1:
        fix = f"name one with a pattern, such as '{table.path}/{splits[-1]}-*{endings[0]}'"
        raise BadInput([f"{table.key}.path: holds several splits, {', '.join(splits)} (got '{table.path}'); {fix}"])
    return found


def lines(table: Table, path: Path, first: int) -> Iterator[Line]:
    """Every row of one shard; `first` is the ordinal of its first. Raises `BadInput` where the file breaks off."""
    return _parquet(table, path, first) if table.kind == "parquet" else _jsonl(table, path, first)


def peek(table: Table) -> str:
    """What columns the first row lacks, in words; empty where it has them, or is bad in itself: that is for the run.

    Raises `BadInput` where there is no such file, or it is not readable.
    """
    (path, *_) = shards(table)
    if table.kind == "parquet":
        next(lines(table, path, 0), None)
        return ""
    with open_text(path) as file:
        raw = next((raw for _ in range(100) if (raw := file.readline(LONGEST_LINE)).strip()), b"")
    try:
        values = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(values, dict) or table.skip:
        return ""
    return "" if form_of(Row("", values), table.forms) else f"{path.name}: {absent(table.forms, list(values))}"


# ---------------------------------------------------------------- JSON lines


def _jsonl(table: Table, path: Path, first: int) -> Iterator[Line]:
    offset, number, filled = 0, 0, 0
    try:
        with open_text(path) as file:
            while raw := file.readline(LONGEST_LINE):
                number += 1
                size = len(raw) if raw.endswith(b"\n") or len(raw) < LONGEST_LINE else len(raw) + _rest(file)
                too_long = size > LONGEST_LINE
                if too_long or raw.strip():
                    place, ordinal = f"{path}:{number}", first + filled
                    filled += 1
                    row = _far_too_long(place) if too_long else parse(raw, place, ordinal, table.forms, number == 1)
                    yield Line(number, offset, size, row)
                offset += size
    except (OSError, EOFError, zlib.error) as error:
        problem = f"not readable past line {number}: {shown(str(error), 120)}"
        raise BadInput([f"{path}: {table.key}.path: {problem}; fetch the file again"]) from error


def open_text(path: Path) -> BinaryIO | gzip.GzipFile:
    """The file's bytes, decompressed where its name ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _rest(file: BinaryIO | gzip.GzipFile) -> int:
    """Read on to the end of the line; how many bytes that was."""
    size = 0
    while piece := file.readline(LONGEST_LINE):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _far_too_long(place: str) -> Bad:
    return Bad(place, f"a line longer than {LONGEST_LINE >> 20} MiB; write one JSON object a line")


def parse(raw: bytes, place: str, ordinal: int, forms: Sequence[Sequence[str]], opening: bool = False) -> Row | Bad:
    """A line as a row; `opening` lines may start with a byte-order mark."""
    try:
        line = raw.decode("utf-8-sig" if opening else "utf-8").strip("\r\n")
        values = json.loads(line)
    except UnicodeDecodeError as error:
        return Bad(place, f"not UTF-8 at byte {error.start} (got {shown(repr(raw[:40]))}); save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        return Bad(place, f"not JSON: {_why(error)} (got {shown(line)}); write one JSON object a line")
    if not isinstance(values, dict):
        sample = ", ".join(f'"{name}": ...' for name in forms[0])
        return Bad(place, f"not a JSON object (got {shown(line)}); write one like {{{sample}}}")
    row = Row(place, values, ordinal)
    return row if form_of(row, forms) is not None else Bad(place, absent(forms, list(values)))


def _why(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:80]


def absent(forms: Sequence[Sequence[str]], present: Sequence[str]) -> str:
    """Which columns are missing of the form that is nearest to what there is."""
    lacking = [[name for name in form if name not in present] for form in forms]
    # a form of which the row has something is nearer than one of which it has nothing
    form, missing = min(zip(forms, lacking, strict=True), key=lambda one: (len(one[1]) == len(one[0]), len(one[1])))
    if len(missing) == len(form):
        missing = lacking[0]
    names = ", ".join(f"'{name}'" for name in missing)
    hint = "".join(near(name, present) for name in missing)
    have = ", ".join(map(str, present)) or "none"
    plural = "s" if len(missing) > 1 else ""
    have = shown(have, 200)[1:-1]
    return f"no column{plural} {names} (got {have}){hint}; name the column in the pipeline file, or add it"


# ---------------------------------------------------------------- Parquet


def _parquet(table: Table, path: Path, first: int) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number, pool = 0, pa.default_memory_pool()
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            names = _columns(table, path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH, columns=names, use_threads=False):
                for values in _records(batch):
                    number += 1
                    place = f"{path}: row {number}"
                    row = Bad(place, values) if isinstance(values, str) else Row(place, values, first + number - 1)
                    yield Line(number, -1, 0, row)
                pool.release_unused()  # it would hold on to every page it ever decoded
    except (pa.ArrowException, OSError) as error:
        where = f" past row {number}" if number else ""
        raise BadInput(
            [f"{path}: {table.key}.path: not readable as Parquet{where}: {shown(str(error), 120)}"]
        ) from error


def _columns(table: Table, path: Path, present: Sequence[str]) -> list[str]:
    if not any(all(name in present for name in form) for form in table.forms):
        raise BadInput([f"{path}: {absent(table.forms, present)}"])
    return [name for name in table.columns if name in present]


def _records(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The batch's rows; one whose values Python cannot hold is told in words."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):  # text that is not UTF-8, a date past the year 9999
        pass
    for index in range(batch.num_rows):
        try:
            (record,) = batch.slice(index, 1).to_pylist()
        except UnicodeDecodeError as error:
            yield f"not UTF-8 at byte {error.start}; store the text as UTF-8"
        except (ValueError, OverflowError) as error:
            yield f"a value that cannot be read: {shown(str(error), 120)}; store it as text"
        else:
            yield record
