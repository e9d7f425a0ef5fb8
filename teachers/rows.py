"""Rows of a user's data file, JSON lines or Parquet, with the place of each for error messages."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from policies.bad_input import BadInput, near, refuse, shown


@dataclass(frozen=True, slots=True)
class Row:
    """One record; `place` is file:line (JSON lines) or file: row n (Parquet)."""

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A data file as the pipeline names it: where it lies, which columns are read, and the key that named it."""

    path: Path
    columns: tuple[str, ...]
    """Must exist in every row."""
    key: str
    """Dotted key in the pipeline file, such as prompts.train."""
    count: int | None = None
    """First so many rows; all by default."""


def read_jsonl(table: Table) -> list[Row]:
    """Rows of a JSON-lines file; blank lines are passed over.

    Raises `BadInput` with every bad row: not JSON, not an object, or without a column.
    """
    faults: list[str] = []
    rows: list[Row] = []
    for place, line in _lines(table):
        row = _jsonl_row(place, line, table.columns)
        if isinstance(row, str):
            faults.append(row)
        else:
            rows.append(row)
    refuse(faults)
    if not rows:
        raise BadInput([f"{table.path}: {table.key}.path: the file has no rows; write one JSON object a line"])
    return rows


def _lines(table: Table) -> Iterator[tuple[str, str]]:
    """(place, text) of the lines that hold something, at most `count`."""
    raw = _bytes(table).splitlines()
    filled = ((number, line) for number, line in enumerate(raw, start=1) if line.strip())
    for number, line in islice(filled, table.count):
        try:
            yield f"{table.path}:{number}", line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield f"{table.path}:{number}", f"not UTF-8 at byte {error.start}: {line[:40]!r}"


def _bytes(table: Table) -> bytes:
    _refuse_missing(table)
    return table.path.read_bytes()


def _refuse_missing(table: Table) -> None:
    if table.path.is_file():
        return
    folder = table.path.parent
    names = [f.name for f in folder.iterdir()] if folder.is_dir() else []
    problem = "is a folder, not a file" if table.path.is_dir() else "no such file"
    raise BadInput(
        [
            f"{table.key}.path: {problem} (got '{table.path}'){near(table.path.name, names)}; "
            "paths are relative to the pipeline file"
        ]
    )


def _jsonl_row(place: str, line: str, columns: Sequence[str]) -> Row | str:
    """The row, or the fault in words."""
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "nested too deep"
        return f"{place}: not JSON: {why} (got {shown(line)}); write one JSON object a line"
    if not isinstance(values, dict):
        return f"{place}: not a JSON object (got {shown(line)}); write one like {{{_sample(columns)}}}"
    missing = [name for name in columns if name not in values]
    if missing:
        return f"{place}: {_missing(missing, list(values))}"
    return Row(place, values)


def _sample(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}": ...' for name in columns)


def _missing(missing: Sequence[str], present: Sequence[str]) -> str:
    names = ", ".join(f"'{name}'" for name in missing)
    hint = "".join(near(name, present) for name in missing)
    have = ", ".join(present) or "none"
    plural = "s" if len(missing) > 1 else ""
    return f"no column{plural} {names} (got {have}){hint}; name the column in the pipeline file, or add it"


def read_parquet(table: Table, optional: Sequence[str] = ()) -> list[Row]:
    """Rows of a Parquet file, only the columns asked for and those of `optional` that exist.

    Raises `BadInput` when the file is not Parquet, lacks a column, or has no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _refuse_missing(table)
    try:
        file = pq.ParquetFile(table.path)
        present = file.schema_arrow.names
        missing = [name for name in table.columns if name not in present]
        if missing:
            raise BadInput([f"{table.path}: {_missing(missing, present)}"])
        names = list(dict.fromkeys([*table.columns, *(name for name in optional if name in present)]))
        records = _first_rows(file, names, table.count)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            [f"{table.path}: {table.key}.path: not readable as Parquet: {shown(str(error), 120)}"]
        ) from error
    if not records:
        raise BadInput([f"{table.path}: {table.key}.path: the file has no rows"])
    return [Row(f"{table.path}: row {index}", record) for index, record in enumerate(records, start=1)]


def _first_rows(file: Any, names: Sequence[str], count: int | None) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for batch in file.iter_batches(columns=list(names)):
        records.extend(batch.to_pylist())
        if count is not None and len(records) >= count:
            return records[:count]
    return records
