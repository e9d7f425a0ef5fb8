"""`Index`: a few facts of every trajectory of a run, in memory, so that all of them can be sorted and counted.

It is made when it is first asked for, newest steps first, a stretch at each question: a million trajectories take some
questions, and each is answered with what is known so far. Files that were replaced or removed are read anew.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from orchestrator.page.asking import quoted
from orchestrator.page.reading import Reading
from orchestrator.page.stages import trajectory_files

Document = dict[str, Any]

TOGETHER = 64
"""Files that are read at once."""
FACTS = """
    step, file_row_number AS "row", stage, strand, producer, prompt_id,
    CASE WHEN outcome.status = 'ok' AND NOT isnan(outcome.value) THEN outcome.value END AS reward,
    outcome.passed AS passed, len(tokens) AS length,
    CASE WHEN len(advantage) > 0 AND NOT isnan(list_avg(advantage)) THEN list_avg(advantage) END AS advantage
"""
"""What a trajectory is looked for by."""
SOURCE = """
    (SELECT *, list_filter(scores, lambda s: s.name = 'reward')[1] AS outcome FROM read_parquet({files},
        file_row_number = true, hive_partitioning = false))
"""


@dataclass(slots=True, eq=False)
class Index:
    """Of one run. For several threads; one at a time reads on."""

    known: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Step -> stamp of the file that was read."""
    unread: list[int] = field(default_factory=list)
    _table: duckdb.DuckDBPyConnection = field(default_factory=lambda: _empty())
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, reading: Reading, seconds: float) -> int:
        """Reads on for about so long, one stretch at least; how many files the ledger has now."""
        files = trajectory_files(reading)
        with self._lock:
            self._forget([step for step, stamp in self.known.items() if files.get(step) != stamp])
            left = sorted(files.keys() - self.known.keys(), reverse=True)
            until = time.monotonic() + seconds
            for at in range(0, len(left), TOGETHER):
                self._take(reading, left[at : at + TOGETHER])
                self.known |= {step: files[step] for step in left[at : at + TOGETHER]}
                if time.monotonic() > until:
                    break
        return len(files)

    def places(self, where: tuple[str, Sequence[Any]], order: str, offset: int, limit: int) -> tuple[int, list[Any]]:
        """How many are wanted, and (step, row) of a page of them."""
        condition, values = where
        with self._table.cursor() as cursor:
            counted = cursor.execute(f"SELECT count(*) FROM facts WHERE {condition}", list(values)).fetchone()
            sql = f'SELECT step, "row" FROM facts WHERE {condition} ORDER BY {order} LIMIT {limit} OFFSET {offset}'
            return (int(counted[0]) if counted else 0), cursor.execute(sql, list(values)).fetchall()

    def _forget(self, steps: Sequence[int]) -> None:
        if steps:
            self._table.execute(f"DELETE FROM facts WHERE step IN ({', '.join(map(str, steps))})")
            self.unread = [step for step in self.unread if step not in steps]
            for step in steps:
                del self.known[step]

    def _take(self, reading: Reading, steps: Sequence[int]) -> None:
        """These files' rows; singly if they cannot be read together."""
        files = quoted(*(reading.run.trajectory_file(step) for step in steps))
        try:
            self._table.execute(f"INSERT INTO facts SELECT {FACTS} FROM {SOURCE.format(files=files)}")
        except (duckdb.Error, OSError):
            if len(steps) == 1:
                self.unread += steps
                return
            for step in steps:
                self._take(reading, [step])


def _empty() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "4GB", "temp_directory": ""})
    made.execute(
        """CREATE TABLE facts (step BIGINT, "row" BIGINT, stage VARCHAR, strand VARCHAR, producer VARCHAR,
            prompt_id VARCHAR, reward DOUBLE, passed BOOLEAN, length BIGINT, advantage DOUBLE)"""
    )
    return made
