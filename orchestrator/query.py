"""`braid query`: SQL over a run's ledger, read only (duckdb).

Tables: `trajectories`, `coefficients` (g of their tokens; join by step, strand and id) and `probes` (Parquet, as their
columns), `metrics`, `decisions` and `events` (JSON lines; a nested value is JSON text:
`by_strand->'imitate'->>'loss'`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.json_lines import Row, plain, read
from orchestrator.ledger import COEFFICIENT_SCHEMA, PLACE
from orchestrator.probe_files import PROBE_SCHEMA
from orchestrator.report.visible import one_line
from orchestrator.run_directory import RunDirectory
from policies.arrow import SCHEMA
from policies.bad_input import BadInput

CELL = 80
"""Widest cell of a printed table."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Columns and rows of a query, as Python values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_json(self) -> list[dict[str, Any]]:
        """A row an object; NaN is null."""
        return [{name: _json(cell) for name, cell in zip(self.columns, row, strict=True)} for row in self.rows]


def query(directory: Path, sql: str, *, as_json: bool = False, console: Console | None = None) -> None:
    """Prints the answer to one SELECT as a table, or as one JSON document; see `ask`."""
    print_answer(ask(directory, sql), as_json=as_json, console=console)


def ask(directory: Path, sql: str) -> Answer:
    """The answer to one SELECT; BadInput for anything else, with duckdb's own words."""
    run = RunDirectory.open(directory)
    with duckdb.connect(":memory:") as connection:
        _define(connection, run)
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise BadInput(["the query must be one SELECT; the ledger is read only"])
            found = connection.execute(statements[0])
            columns = tuple(str(column[0]) for column in found.description or ())
            return Answer(columns, tuple(found.fetchall()))
        except duckdb.Error as error:
            raise BadInput([f"{sql.strip()}: {error}"]) from error


def print_answer(answer: Answer, *, as_json: bool = False, console: Console | None = None) -> None:
    """The answer as a table, or as one JSON document."""
    console = console or Console(highlight=False)
    if as_json:
        console.file.write(json.dumps(answer.as_json(), indent=2) + "\n")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in answer.columns:
        table.add_column(Text(one_line(column)))
    for row in answer.rows:
        table.add_row(*(Text(_cell(cell)) for cell in row))
    console.print(table)
    console.print(Text(f"{len(answer.rows)} rows", style="dim"))


def _define(connection: duckdb.DuckDBPyConnection, run: RunDirectory) -> None:
    """The six views; afterwards no other file can be read, and none can be written."""
    _view(connection, "trajectories", run.trajectories, pa.schema([*SCHEMA, *PLACE]))
    _view(connection, "coefficients", run.coefficients, COEFFICIENT_SCHEMA)
    _view(connection, "probes", run.probes, PROBE_SCHEMA)
    for path in (run.metrics, run.decisions, run.events):
        connection.register(path.stem, _lines(read(path)))
    folders = ", ".join(map(_quoted, (run.trajectories, run.coefficients, run.probes)))
    connection.execute(f"SET allowed_directories = [{folders}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _view(connection: duckdb.DuckDBPyConnection, name: str, folder: Path, schema: pa.Schema) -> None:
    if not any(folder.glob("step=*.parquet")):
        connection.register(name, schema.empty_table())
        return
    files = _quoted(folder / "step=*.parquet")
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({files}, hive_partitioning = false)")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _lines(rows: Sequence[Row]) -> pa.Table:
    """Rows as columns: every key that occurs; nested values as JSON text, and so where the types of a key differ."""
    names = list(dict.fromkeys(key for row in rows for key in row)) or ["step"]
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: Sequence[Any]) -> pa.Array:
    flat = [json.dumps(value) if isinstance(value, Mapping | list) else value for value in values]
    kinds = {type(value) for value in flat if value is not None}
    if not kinds:
        return pa.array(flat, pa.float64())
    if kinds <= {int, float} or len(kinds) == 1:
        return pa.array(flat, pa.float64() if float in kinds else None)
    return pa.array([None if value is None else str(value) for value in flat], pa.string())


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case _:
            return one_line(str(value), CELL)


def _json(value: Any) -> Any:
    """As JSON types; what JSON has no word for (dates, decimals) as text."""
    try:
        return plain(value)
    except TypeError:
        return str(value)
