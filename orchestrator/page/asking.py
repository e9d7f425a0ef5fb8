"""SELECTs over Parquet files (duckdb), for threads that ask at the same time."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

Document = dict[str, Any]


def ask(sql: str, values: Sequence[Any] = ()) -> list[Document]:
    """The rows, as maps. duckdb.Error where a file cannot be read."""
    with _database().cursor() as cursor:
        found = cursor.execute(sql, list(values))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def quoted(*paths: Path) -> str:
    """Paths as a list in SQL."""
    return "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths) + "]"


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One for the process (to make one takes longer than most questions); it writes nothing, not even aside."""
    return duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "2GB", "temp_directory": ""})
