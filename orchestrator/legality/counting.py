"""How many prompts and demonstrations there are at most, without reading what stands in them."""

import zlib
from functools import lru_cache
from pathlib import Path

from orchestrator.config import JsonlPrompts, ParquetPrompts, Pipeline
from orchestrator.prompts import table_of as prompt_table
from policies.bad_input import BadInput
from teachers.config import JsonlDemonstrations, ParquetDemonstrations
from teachers.demonstrations import table_of as demonstration_table
from teachers.rows import Table, open_text, shards

MOST_BYTES = 64 << 20
"""JSON lines are counted in so many bytes of text; of a longer file nobody knows the rows before it is read."""

PIECE = 1 << 20

MOST_SHARDS = 256


def prompts(pipeline: Pipeline, *, files: bool) -> int | None:
    """At most so many prompts to train on; None where that is not known cheaply. `files`: files may be opened."""
    source = pipeline.prompts.train
    if isinstance(source, JsonlPrompts | ParquetPrompts):
        return _rows(prompt_table(source, "prompts.train"), files=files)
    return source.count


def demonstrated(pipeline: Pipeline, *, files: bool) -> int | None:
    """At most so many of the training prompts have a demonstration; None as for `prompts`."""
    known = prompts(pipeline, files=files)
    config = pipeline.demonstrations
    if isinstance(config, JsonlDemonstrations | ParquetDemonstrations):
        rows = _rows(demonstration_table(config), files=files)
        return min((one for one in (known, rows) if one is not None), default=None)
    return known if config is not None else 0


def _rows(table: Table, *, files: bool) -> int | None:
    """At most so many rows: bad ones count, and so do blank lines."""
    try:
        paths = shards(table) if files else []
    except BadInput:
        paths = []  # told by data_checks
    found = [] if len(paths) > MOST_SHARDS else [_of_file(str(path), table.kind, _stamp(path)) for path in paths]
    whole = None if not found or None in found else sum(one for one in found if one is not None)
    return min((one for one in (whole, table.count) if one is not None), default=None)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1024)
def _of_file(path: str, kind: str, _stamp: tuple[int, int]) -> int | None:
    """One file's rows; None where it is too long to count, or not readable."""
    return _of_parquet(path) if kind == "parquet" else _of_lines(Path(path))


def _of_parquet(path: str) -> int | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return None


def _of_lines(path: Path) -> int | None:
    lines, read, last = 0, 0, b"\n"
    try:
        with open_text(path) as file:
            while piece := file.read(PIECE):
                lines, read, last = lines + piece.count(b"\n"), read + len(piece), piece[-1:]
                if read > MOST_BYTES:
                    return None
    except (OSError, EOFError, zlib.error):
        return None
    return lines + (last != b"\n")
