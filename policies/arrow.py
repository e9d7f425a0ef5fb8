"""Trajectories as an Arrow table: one schema for the wire and for the ledger.

Apart from `policies.trajectory`, so that config modules never load pyarrow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.trajectory import (
    CONTEXTS,
    PER_TOKEN,
    FinishReason,
    Preference,
    Producer,
    Sampling,
    ScoreEntry,
    Trajectory,
)

Array = npt.NDArray[Any]

SCORE = pa.struct(
    [
        ("name", pa.string()),
        ("value", pa.float64()),
        ("passed", pa.bool_()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("scorer", pa.string()),
        ("scorer_version", pa.string()),
    ]
)
PREFERENCE = pa.struct([("set_id", pa.string()), ("label", pa.float64()), ("margin", pa.float64())])
SAMPLING = pa.struct(
    [
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("top_k", pa.int32()),
        ("max_tokens", pa.int32()),
        ("stop", pa.list_(pa.string())),
        ("logprobs", pa.string()),
    ]
)

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("group_id", pa.string()),
        ("parent_id", pa.string()),
        ("producer", pa.string()),
        ("model", pa.string()),
        ("version", pa.int32()),
        ("train_context", pa.list_(pa.int32())),
        ("behavior_context", pa.list_(pa.int32())),
        ("teacher_context", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.int32())),
        ("origin", pa.list_(pa.int8())),
        ("token_version", pa.list_(pa.int32())),
        ("train_mask", pa.list_(pa.bool_())),
        ("behavior_logps", pa.list_(pa.float32())),
        ("scores", pa.list_(SCORE)),
        ("preference", PREFERENCE),
        ("finish_reason", pa.string()),
        ("sampling", SAMPLING),
        ("seed", pa.int64()),
        ("text", pa.string()),
        ("created_at", pa.float64()),
        ("seconds", pa.float64()),
        ("tokens_generated", pa.int64()),
    ]
)
"""Fields of `Trajectory`, by name; a table may carry more columns, which `from_table` leaves alone."""

ARRAYS = (*CONTEXTS, *PER_TOKEN)


def to_table(trajectories: Sequence[Trajectory]) -> pa.Table:
    """One row for each trajectory, columns as SCHEMA."""
    columns = [_column(field, [getattr(t, field.name) for t in trajectories]) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Trajectory]:
    """Trajectories whose arrays are read-only views of the table's buffers (`train_mask` alone is copied).

    Raises ValueError naming the columns that the table lacks or holds as another type.
    """
    faults = [_column_fault(table, field) for field in SCHEMA]
    if any(faults):
        raise ValueError("not a table of trajectories: " + "; ".join(fault for fault in faults if fault))
    rows = table.select(SCHEMA.names).to_batches()
    return [trajectory for batch in rows for trajectory in _rows(batch)]


def _column_fault(table: pa.Table, field: pa.Field) -> str:
    if field.name not in table.column_names:
        return f"column {field.name!r} is missing"
    got = table.schema.field(field.name).type
    return "" if got.equals(field.type) else f"column {field.name!r} is {got}, want {field.type}"


def _column(field: pa.Field, values: list[Any]) -> pa.Array:
    match field.name:
        case name if name in ARRAYS:
            lengths = [len(value) for value in values]
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            flat = np.concatenate(values) if values else np.empty(0)
            return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, type=field.type.value_type))
        case "scores":
            return pa.array([[asdict(entry) for entry in entries] for entries in values], type=field.type)
        case "preference" | "sampling":
            return pa.array([None if value is None else asdict(value) for value in values], type=field.type)
        case _:
            return pa.array(values, type=field.type)


def _rows(batch: pa.RecordBatch) -> Iterator[Trajectory]:
    """The batch's trajectories, in order."""
    arrays: dict[str, list[Any]] = {name: _views(batch.column(name)) for name in ARRAYS}
    plain = {name: batch.column(name).to_pylist() for name in SCHEMA.names if name not in arrays}
    for row in range(batch.num_rows):
        fields: dict[str, Any] = {name: values[row] for name, values in (plain | arrays).items()}
        fields["producer"] = Producer(fields["producer"])
        fields["finish_reason"] = FinishReason(fields["finish_reason"])
        fields["scores"] = tuple(ScoreEntry(**entry) for entry in fields["scores"])
        fields["preference"] = _preference(fields["preference"])
        fields["sampling"] = _sampling(fields["sampling"])
        yield Trajectory(**fields)


def _views(column: pa.ListArray) -> list[Array]:
    """A read-only array for each list of the column; copies only what Arrow stores as bits."""
    values = column.values
    flat = values.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type))
    offsets = column.offsets.to_numpy()
    return [flat[start:end] for start, end in pairwise(offsets)]


def _preference(row: dict[str, Any] | None) -> Preference | None:
    return None if row is None else Preference(**row)


def _sampling(row: dict[str, Any] | None) -> Sampling | None:
    return None if row is None else Sampling(**{**row, "stop": tuple(row["stop"])})
