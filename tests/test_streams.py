"""Data files larger than memory: what stays in memory, what is drawn, and rows of any kind that are read or told."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config import JsonlPrompts
from orchestrator.prompts import Loaded, at_step
from orchestrator.prompts import read as read_prompts
from policies.arrow import to_table
from policies.bad_input import BadInput
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from teachers import labels, preferences, rows
from teachers.config import JsonlDemonstrations, Labels, ParquetDemonstrations, Preferences
from teachers.demonstrations import load as load_demonstrations
from teachers.draws import draw
from teachers.given import Reading
from teachers.rows import Row, Table
from teachers.streams import stream

FORMS = (("prompt", "response"),)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(), tmp_path_factory.mktemp("tiny")))


def text_of(row: Row) -> str:
    return str(row.values["response"])


def record(number: int) -> dict[str, str]:
    return {"prompt": f"{number}+1=", "response": f"#{number + 1}"}


def table(path: Path, **options: Any) -> Table:
    kind: Any = "parquet" if path.suffix == ".parquet" or any(path.glob("*.parquet")) else "jsonl"
    return Table(path, kind, FORMS, "demonstrations", **options)


def write(path: Path, *records: object, end: bytes = b"\n", start: bytes = b"") -> Path:
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
    raw = start + end.join(lines) + end
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


class Plain(tuple[str, ...]):
    """A record that is no bare text, which would be a fault."""


def values(path: Path, **options: Any) -> list[str]:
    found, report = stream(table(path, **options), lambda row: Plain((text_of(row),)))
    assert report.kept == len(found)
    assert [one for (one,) in found] == [one for (one,) in found], "read twice, the same"
    return [one for (one,) in found]


# ---------------------------------------------------------------- files and shards


@pytest.mark.parametrize(
    ("end", "start"), [(b"\n", b""), (b"\r\n", b""), (b"\n\n \n", b""), (b"\r\n", b"\xef\xbb\xbf"), (b"\n", b"\n")]
)
@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_line_ends_blank_lines_and_byte_order_marks(tmp_path: Path, name: str, end: bytes, start: bytes) -> None:
    path = write(tmp_path / name, *map(record, range(5)), end=end, start=start)
    assert values(path) == [f"#{n + 1}" for n in range(5)]


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for shard in (2, 0, 1):
        write(tmp_path / f"part-{shard}.jsonl", *map(record, range(shard * 3, shard * 3 + 3)))
    (tmp_path / "README.md").write_text("not data")
    expected = [f"#{n + 1}" for n in range(9)]
    assert values(tmp_path) == values(tmp_path / "part-*.jsonl") == expected
    assert values(tmp_path, count=4) == expected[:4]
    write(tmp_path / "part-3.jsonl.gz", record(9))
    assert values(tmp_path) == [*expected, "#10"], "plain and compressed shards together"


def test_a_folder_of_several_splits_is_refused(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pq.write_table(pa.Table.from_pylist([record(len(name))]), tmp_path / f"{name}.parquet")
    with pytest.raises(BadInput, match=r"holds several splits, test, train .*such as '.*/train-\*\.parquet'"):
        stream(table(tmp_path), text_of)
    found, _ = stream(Table(tmp_path / "train-*", "parquet", FORMS, "demonstrations"), lambda row: [text_of(row)])
    assert len(found) == 2


def test_nothing_to_read_is_told_with_the_key(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "x*.jsonl", "the pattern matches no file"),
        (tmp_path, "is a folder without"),
        (tmp_path / "none.jsonl", "no such file"),
    ):
        with pytest.raises(BadInput, match=f"demonstrations.path: {words}"):
            stream(Table(path, "jsonl", FORMS, "demonstrations"), text_of)


def test_parquet_rows_are_reached_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([record(n) | {"other": n} for n in range(1000)]), path, row_group_size=300)
    assert values(path) == [f"#{n + 1}" for n in range(1000)]
    assert values(path, count=301)[-1] == "#301"


@pytest.mark.parametrize("left", [0.0, 0.3, 0.97])
def test_a_truncated_file_is_no_bad_row_but_refused(tmp_path: Path, left: float) -> None:
    pq.write_table(pa.Table.from_pylist([record(n) for n in range(3000)]), tmp_path / "data.parquet")
    write(tmp_path / "data.jsonl.gz", *map(record, range(3000)))
    for name in ("data.parquet", "data.jsonl.gz"):
        path = tmp_path / name
        raw = path.read_bytes()
        path.write_bytes(raw[: int(left * len(raw))])
        with pytest.raises(BadInput, match=r"demonstrations\.path: (not readable|the file has no rows)"):
            stream(table(path, skip=True), text_of)


# ---------------------------------------------------------------- bad rows


def test_bad_rows_are_refused_together_or_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "data.jsonl", record(1), b"{", b'{"prompt": "\xff"}', b"[]", {"prompt": 1}, record(2), b"\x00\xfe"
    )
    with pytest.raises(BadInput) as caught:
        stream(table(path), lambda row: [text_of(row)])
    told = [line.removeprefix(f"{path}:").split(" (got")[0] for line in caught.value.lines]
    assert told == [
        "2: not JSON: Expecting property name enclosed in double quotes at column 2",
        "3: not UTF-8 at byte 12",
        "4: not a JSON object",
        "5: no column 'response'",
        "7: not UTF-8 at byte 1",
    ]
    found, report = stream(table(path, skip=True), lambda row: [text_of(row)])
    assert [one for (one,) in found] == ["#2", "#3"]
    assert (report.read, report.kept, report.lost) == (7, 2, 5)
    assert [place.rpartition(":")[2] for place, _ in report.bad] == ["2", "3", "4", "5", "7"]


def test_twenty_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", record(0), *[b"nonsense"] * 50)
    with pytest.raises(BadInput) as caught:
        stream(table(path), lambda row: [text_of(row)])
    assert len(caught.value.lines) == 21 and caught.value.lines[-1] == "... and 30 more faults of the same input"
    _, report = stream(table(path, skip=True), lambda row: [text_of(row)])
    assert (report.lost, len(report.bad)) == (50, 20)
    with pytest.raises(BadInput, match="not JSON"):
        stream(table(write(tmp_path / "all.jsonl", *[b"x"] * 3), skip=True), text_of)


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
def test_ids_that_repeat_are_bad_rows(tmp_path: Path, name: str) -> None:
    records = [record(n) | {"id": f"{n % 4}"} for n in range(6)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(records), tmp_path / name)
    else:
        write(tmp_path / name, *records)
    with pytest.raises(BadInput) as caught:
        stream(table(tmp_path / name, optional=("id",)), lambda row: [text_of(row)])
    first, second = caught.value.lines
    assert "id: stands already at" in first and ("row 1 (got '0');" in first or ":1 (got '0');" in first)
    assert ("row 6:" in second or ":6:" in second) and ("row 2 (got '1');" in second or ":2 (got '1');" in second)
    found, report = stream(table(tmp_path / name, optional=("id",), skip=True), lambda row: [text_of(row)])
    assert [one for (one,) in found] == ["#1", "#2", "#3", "#4"] and (report.read, report.lost) == (6, 2)


def test_a_line_of_ten_megabytes_is_a_row_and_a_longer_than_the_longest_is_told(tmp_path: Path) -> None:
    long = {"prompt": "1", "response": "x" * (10 << 20)}
    assert len(values(write(tmp_path / "data.jsonl", record(0), long, record(1)))[1]) == 10 << 20
    size = rows.LONGEST_LINE + 5
    path = write(tmp_path / "longer.jsonl", b" " * size + b"{}", record(7))
    found, report = stream(table(path, skip=True), lambda row: [text_of(row)])
    assert [one for (one,) in found] == ["#8"]
    assert "a line longer than 64 MiB" in report.bad[0][1] and (report.read, report.lost) == (2, 1)


@pytest.mark.parametrize("change", ["overwritten", "longer", "gone"])
def test_a_file_that_changes_under_a_run_is_noticed(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "data.jsonl", *map(record, range(400)))
    found, _ = stream(table(path), lambda row: [text_of(row)])
    assert found[0] == ["#1"]
    raw = path.read_bytes()
    match change:
        case "overwritten":
            path.write_bytes(raw.replace(b"#", b"$"))
        case "longer":
            path.write_bytes(raw + raw)
        case _:
            path.unlink()
    with pytest.raises(BadInput, match=r"data\.jsonl:300: changed since the run read it"):
        found[299]


def test_more_shards_than_a_process_may_open(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path;"
        "from teachers.rows import Table; from teachers.streams import stream;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "found, _ = stream(Table(Path(sys.argv[1]), 'jsonl', (('prompt', 'response'),), 'k'), lambda row: [row.place]);"
        "print(len(list(found)))"
    )
    for shard in range(60):
        write(tmp_path / f"{shard:03}.jsonl", record(shard))
    child = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["60"]


def test_parquet_values_that_python_cannot_hold_are_bad_rows(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"\xff\xfe"], pa.binary()).cast(pa.string(), safe=False)
    raw = raw if isinstance(raw, pa.Array) else raw.combine_chunks()
    pq.write_table(pa.table({"prompt": raw, "response": pa.array(["a", "b"])}), tmp_path / "data.parquet")
    found, report = stream(table(tmp_path / "data.parquet", skip=True), lambda row: [text_of(row)])
    assert (len(found), report.lost) == (1, 1) and "not UTF-8 at byte 0" in report.bad[0][1]


# ---------------------------------------------------------------- anything at all

SURROGATE = "\ud800"
SCRAPS = st.recursive(
    st.just(SURROGATE)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["user", "1+1="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "tool_calls"]), inner, max_size=3)
    ),
    max_leaves=6,
)
COLUMNS = (
    "prompt", "response", "completion", "messages", "text", "id", "chosen", "rejected", "completions", "scores",
    "ranks", "margin", "label", "labels", "chosen_logps", "score_chosen",
)  # fmt: skip
RECORDS = st.dictionaries(st.sampled_from(COLUMNS), SCRAPS, max_size=6)
LINES = st.lists(RECORDS.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=12) | SCRAPS.map(
    lambda one: json.dumps(one).encode()), min_size=1, max_size=5)  # fmt: skip


class _Prompts:
    """Prompts behind the face of the other sets."""

    def __init__(self, loaded: Loaded) -> None:
        self.report, self.prompts = loaded.report, loaded.prompts
        pa.array([text for one in self.prompts for text in (one.id, one.text, one.family, one.reference)], pa.string())

    def __len__(self) -> int:
        return len(self.prompts)

    def at_step(self, step: int, count: int, seed: int) -> list[object]:
        return list(at_step(self.prompts, step, count, seed))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_whatever_stands_in_a_file_each_row_is_read_or_told(
    tmp_path: Path, tokenizer: Tokenizer, lines: list[bytes]
) -> None:
    path = write(tmp_path / "fuzz.jsonl", *lines)
    reading = Reading(tokenizer, tmp_path, 64)
    loaders = (
        lambda: _Prompts(read_prompts(JsonlPrompts(path="fuzz.jsonl", reference=None, on_bad_row="skip"), tokenizer,
                                      base=tmp_path, context=64, max_tokens=8, key="prompts.train")),
        lambda: preferences.load(Preferences(kind="jsonl", path="fuzz.jsonl", on_bad_row="skip"), reading),
        lambda: labels.load(Labels(kind="jsonl", path="fuzz.jsonl", on_bad_row="skip"), reading),
        lambda: load_demonstrations(JsonlDemonstrations(path="fuzz.jsonl", on_bad_row="skip"), (), tokenizer,
                                    base=tmp_path, seed=0, context=64),
    )  # fmt: skip
    filled = sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))
    for load in loaders:
        try:
            found = load()
        except BadInput as error:
            assert all(line.startswith((f"{path}:", "...")) for line in error.lines)
            assert len(error.lines) == filled or filled == 0
        else:
            assert found.report is not None and (found.report.read, found.report.kept) == (filled, len(found))
            assert all(place.startswith(f"{path}:") and reason for place, reason in found.report.bad)
            assert len(found.report.bad) == found.report.lost
            (one,) = found.at_step(0, 1, seed=0)
            if not isinstance(found, _Prompts):
                assert to_table(one if isinstance(one, tuple) else (one,)).num_rows  # the ledger can hold it


# ---------------------------------------------------------------- memory

LARGE = {"jsonl": (200_000, 30), "parquet": (60_000, 1000)}
QUICK = {"jsonl": (40_000, 30), "parquet": (20_000, 1000)}
"""Rows of 1000 characters, and how many of these are tokenised; the others lie in the file and are not read."""
GROWTH = 12 << 20
INDEX = 100
"""Bytes by which the process may grow: so many, for what the allocators of Arrow and Python hold on to, and for each
row its place (48), its id and what sorting those takes."""

CHILD = """
import sys
from pathlib import Path
from policies.tokens import Tokenizer
from teachers.config import Labels
from teachers.given import Reading
from teachers.labels import load
import pyarrow.parquet
kind, path, folder, small = sys.argv[1:]
def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
reading = Reading(Tokenizer.load(Path(folder)), Path(), 2048)
load(Labels(kind=kind, path=small), reading).at_step(0, 8, 0)
before = resident("VmRSS")
found = load(Labels(kind=kind, path=path), reading)
drawn = [one.prompt_id for step in range(20) for one in found.at_step(step, 32, 7)]
print(resident("VmHWM") - before, len(found), *drawn)
"""


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("jsonl", QUICK),
        ("parquet", QUICK),
        pytest.param("jsonl", LARGE, marks=pytest.mark.slow),
        pytest.param("parquet", LARGE, marks=pytest.mark.slow),
    ],
)
def test_memory_stays_flat_and_draws_are_those_of_the_file_in_memory(
    tmp_path: Path, kind: str, sizes: dict[str, tuple[int, int]]
) -> None:
    count, text = sizes[kind]
    folder = materialise(TinyModel(context=2048), tmp_path / "tiny")
    path, small = tmp_path / f"large.{kind}", tmp_path / f"small.{kind}"
    _write_judged(path, kind, count, text)
    _write_judged(small, kind, 8, text)
    child = [sys.executable, "-c", CHILD, kind, str(path), str(folder), str(small)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=280, check=True)
    growth, read, *drawn = done.stdout.split()
    size, bound = path.stat().st_size, GROWTH + count * INDEX
    print(f"{kind}: grew by {int(growth) / 2**20:.1f} MiB of {bound / 2**20:.1f}, file {size / 2**20:.1f}")
    assert int(read) == count and size > 1.3 * bound
    assert int(growth) < bound, f"{int(growth) >> 20} MiB for a file of {size >> 20} MiB"
    assert drawn == [f"row{index}" for step in range(20) for index in draw(count, step, 32, 7)]


def _write_judged(path: Path, kind: str, count: int, text: int) -> None:
    """Written piece by piece, so that the writer stays small too."""
    said, note = "1234567890" * (text // 10), "x" * (1000 - text)
    texts = [(name, pa.string()) for name in ("id", "prompt", "completion")]
    schema = pa.schema([*texts, ("label", pa.bool_())])
    pieces = (
        [
            {"id": f"row{n}", "prompt": f"{n}=", "completion": said, "label": n % 3 == 0, "note": note}
            for n in range(start, min(start + 10_000, count))
        ]
        for start in range(0, count, 10_000)
    )
    if kind == "jsonl":
        with path.open("w") as file:
            for piece in pieces:
                file.writelines(json.dumps(one) + "\n" for one in piece)
        return
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for piece in pieces:
            writer.write_table(pa.Table.from_pylist(piece, schema))


def test_reading_all_at_once_gives_the_same_records(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", *map(record, range(50)), b"x", record(50))
    options = table(path, skip=True)
    lazy, report = stream(options, lambda row: [text_of(row), row.place, str(row.ordinal)])
    found = [line.row for line in rows.lines(options, path, 0)]
    assert list(lazy) == [[text_of(row), row.place, str(row.ordinal)] for row in found if isinstance(row, Row)]
    assert (report.read, report.kept) == (len(found), len(lazy)) == (52, 51)


def test_parquet_demonstrations_are_streamed_too(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pq.write_table(pa.Table.from_pylist([record(n) for n in range(20)]), tmp_path / "demos.parquet")
    found = load_demonstrations(
        ParquetDemonstrations(path="demos.parquet"), (), tokenizer, base=tmp_path, seed=0, context=64
    )
    assert [one.text for one in found.at_step(3, 4, seed=2)] == [f"#{n + 1}" for n in draw(20, 3, 4, 2)]
