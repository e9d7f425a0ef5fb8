"""Prompts that stay in their files: the records of a reading in memory, their ids and texts, and flat memory."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import prompts
from orchestrator.config import JsonlPrompts, ParquetPrompts
from policies.bad_input import BadInput
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.prompt import Message, Prompt
from policies.tokens import Tokenizer
from teachers.config import JsonlDemonstrations
from teachers.conversations import prompt_tokens
from teachers.demonstrations import load as load_demonstrations
from teachers.draws import draw
from teachers.lookup import Lookup, digest
from teachers.prompt_book import Named, Numbered, PromptBook, marks, streamed
from teachers.rows import Row, Table
from teachers.streams import RECORDS, stream
from tests.chat_folder import chat_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(), tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(chat_folder(tmp_path_factory.mktemp("chat")))


def read(
    path: Path, tokenizer: Tokenizer, key: str = "prompts.train", room: tuple[int, int] = (128, 64), **options: Any
) -> prompts.Loaded:
    kind = ParquetPrompts if path.suffix == ".parquet" else JsonlPrompts
    source = kind(path=path.name, **options)
    return prompts.read(source, tokenizer, base=path.parent, context=room[0], max_tokens=room[1], key=key)


def write(path: Path, *records: object) -> Path:
    raw = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in records)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def problems(count: int, first: int = 0, **more: object) -> list[dict[str, object]]:
    return [{"prompt": f"{n}+1=", "reference": str(n + 1), **more} for n in range(first, first + count)]


def refused(path: Path, tokenizer: Tokenizer) -> tuple[str, ...]:
    with pytest.raises(BadInput) as caught:
        read(path, tokenizer)
    return caught.value.lines


def plain(prompt: Prompt) -> tuple[object, ...]:
    return (prompt.id, prompt.text, prompt.tokens.tolist(), prompt.reference, prompt.family, prompt.messages)


# ---------------------------------------------------------------- records


def in_memory(records: Sequence[dict[str, Any]], tokenizer: Tokenizer) -> list[Prompt]:
    """The prompts of a file's records, all at once, without the code that reads files."""
    found = []
    for number, one in enumerate(records):
        said = one["prompt"]
        talk = () if isinstance(said, str) else tuple(Message(m["role"], m["content"]) for m in said)
        text = said if isinstance(said, str) else talk[-1].content
        tokens = prompt_tokens(tokenizer, talk or text)
        name, family = one.get("id") or f"train-{number}", one.get("family") or ""
        found.append(Prompt(name, text, tokens, json.dumps(one["reference"]), family, talk))
    return found


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "data.parquet", "shards"])
def test_draws_are_those_of_the_file_in_memory(tmp_path: Path, chat: Tokenizer, name: str, ids: bool) -> None:
    brief = {"role": "system", "content": "Be brief."}
    records: list[dict[str, Any]] = [
        {
            "prompt": [brief, {"role": "user", "content": f"what is {n}?"}],
            "reference": str(n),
            "family": "hard" if n % 3 else None,
            **({"id": f"row{n}"} if ids else {}),
        }
        for n in range(600)
    ]
    path = tmp_path / name
    if name == "shards":
        path.mkdir()
        for low in range(0, 600, 250):
            write(path / f"part-{low:03d}.jsonl", *records[low : low + 250])
    elif name == "data.parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=100)
    else:
        write(path, *records)
    found, whole = read(path, chat).prompts, in_memory(records, chat)
    assert len(found) == 600
    for step in (0, 1, 7, 30):
        drawn = prompts.at_step(found, step, 40, seed=5)
        assert [plain(one) for one in drawn] == [plain(one) for one in prompts.at_step(whole, step, 40, seed=5)]
        assert [one.id for one in drawn] == [whole[n].id for n in draw(600, step, 40, 5)]
    assert [plain(one) for one in found] == [plain(one) for one in whole]
    assert {name: plain(one) for name, one in found.by_id.items()} == {one.id: plain(one) for one in whole}


def test_a_book_is_a_sequence(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = read(write(tmp_path / "data.jsonl", *problems(9)), tokenizer).prompts
    texts = [f"{n}+1=" for n in range(9)]
    assert [one.text for one in found[2:7:2]] == texts[2:7:2] and [one.text for one in found[:-20]] == []
    assert found[-1].text == texts[-1] and [one.text for one in reversed(found)] == texts[::-1]
    for index in (9, -10):
        with pytest.raises(IndexError):
            found[index]
    assert PromptBook.of(found) is found and not PromptBook.of(())


def test_a_file_that_changes_while_the_run_reads_it_is_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "data.jsonl", *problems(3))
    found = read(path, tokenizer).prompts
    write(path, *problems(4))
    with pytest.raises(BadInput, match=r"data\.jsonl:3: changed since the run read it"):
        found[2]


# ---------------------------------------------------------------- bad rows


def test_bad_rows_are_counted_and_the_others_keep_their_numbers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    one, two, three = problems(3)
    long = {"prompt": "1+" * 40, "reference": "0"}
    path = write(tmp_path / "data.jsonl", one, b"{", long, two, {"prompt": "5"}, {**one, "prompt": 5}, three)
    loaded = read(path, tokenizer, on_bad_row="skip")
    assert [one.id for one in loaded.prompts] == ["train-0", "train-3", "train-6"] == list(loaded.prompts.by_id)
    assert loaded.prompts.by_id["train-3"].text == "1+1=" and "train-2" not in loaded.prompts.by_id
    report = loaded.report
    assert report is not None and (report.read, report.kept, report.lost) == (7, 3, 4)
    reasons = {int(place.rpartition(":")[2]): reason for place, reason in report.bad}
    assert list(reasons) == [2, 3, 5, 6] and "prompt of 80 tokens, but only 64 fit" in reasons[3]
    assert len(refused(path, tokenizer)) == 4


def test_an_id_that_repeats_is_a_bad_row_even_where_the_other_is_made_of_its_number(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    first, second, third = problems(3)
    path = write(tmp_path / "data.jsonl", {**first, "id": "train-2"}, {**second, "id": 7}, third, {**first, "id": "7"})
    told = refused(path, tokenizer)
    assert [line.removeprefix(f"{path}:") for line in told] == [
        f"3: id: stands already at {path}:1 (got 'train-2'); make ids unique",
        f"4: id: stands already at {path}:2 (got '7'); make ids unique",
    ]
    kept = read(path, tokenizer, on_bad_row="skip").prompts
    assert [one.id for one in kept] == ["train-2", "7"] and kept.by_id["train-2"].text == "0+1="


# ---------------------------------------------------------------- ids


@pytest.mark.parametrize("ids", ["none", "all", "some"])
def test_prompts_are_found_by_their_ids_and_no_other(tmp_path: Path, tokenizer: Tokenizer, ids: str) -> None:
    records = problems(50)
    for number, one in enumerate(records):
        if ids == "all" or (ids == "some" and number % 3 == 0):
            one["id"] = f"row-{number}"
    found = read(write(tmp_path / "data.jsonl", *records), tokenizer).prompts
    names = [str(one.get("id", f"train-{number}")) for number, one in enumerate(records)]
    assert [found.by_id[name].text for name in names] == [one["prompt"] for one in records]
    assert [found.number(name) for name in names] == list(range(50))
    assert list(found.by_id) == [found.name(number) for number in range(50)] == names
    wrong = ["", "-", "train-50", "train-01", "train-+1", "train--1", "train-²", "train-1 ", "probe-1", "row-51"]
    for name in [*wrong, "train-" + "9" * 40, "train-1" if ids == "all" else "row-1"]:
        assert name not in found.by_id and found.by_id.get(name) is None
    with pytest.raises(KeyError, match="row-51"):
        found.by_id["row-51"]


@settings(deadline=None)
@given(st.text(max_size=12) | st.from_regex(r"(train|tra-in)-\d{0,21}", fullmatch=True))
def test_only_an_id_that_a_row_has_is_a_number(name: str) -> None:
    rows = np.array([0, 3, 4, 10**17], np.int64)
    for split in ("train", "tra-in"):
        names = Numbered(split, array_of(rows))
        expected = {f"{split}-{row}": number for number, row in enumerate(rows.tolist())}
        assert names.number(name) == expected.get(name)
        assert [names.name(number) for number in range(4)] == list(expected)


def array_of(values: Any) -> Any:
    from array import array

    return array("q", values.tolist())


def test_an_id_that_only_shares_a_hash_is_not_found() -> None:
    records = [Prompt(name, name, np.zeros(1, np.int32), "0") for name in ("a", "b")]
    names = Named(Lookup([np.full(2, digest("a"), np.int64)]), records, lambda number: records[number].id)
    assert names.number("a") == 0, "the other one with its hash is another's"
    alone = Named(Lookup([np.full(1, digest("a"), np.int64)]), records[1:], lambda number: "b")
    assert alone.number("a") is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_a_lookup_is_a_search_through_all_rows(rows: list[tuple[int, int]]) -> None:
    columns = np.array(rows, np.int64).reshape(-1, 2)
    lookup, other = Lookup([columns[:, 0], columns[:, 1]]), Lookup([np.array([1, 3], np.int64)])
    for first in range(4):
        same = [number for number, row in enumerate(rows) if row[0] == first]
        assert lookup.find(first) == same[::-1]
        for second in range(4):
            both = [number for number in same if rows[number][1] == second]
            assert lookup.last(first, second) == (both[-1] if both else None)
    assert lookup.shared(other) == [number for number, row in enumerate(rows) if row[0] in (1, 3)]
    assert lookup.shared(Lookup([np.zeros(0, np.int64)])) == []


# ---------------------------------------------------------------- texts


def test_a_held_out_prompt_that_stands_in_train_is_told_with_its_text(tmp_path: Path, chat: Tokenizer) -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3+1="}]
    ours = [*problems(40), {"prompt": talk, "reference": "4"}]
    theirs = [*problems(3, first=100), {"prompt": " 7+1=\n", "reference": "8"}, {"prompt": talk, "reference": "4"}]
    theirs += [{"prompt": [talk[0], {"role": "user", "content": "3+1= "}], "reference": "4"}]
    train = read(write(tmp_path / "train.jsonl", *ours), chat).prompts
    probe = read(write(tmp_path / "probe.jsonl", *theirs), chat, key="prompts.probe").prompts
    for first, second in ((train, probe), (list(train), list(probe)), (train, list(probe))):
        with pytest.raises(BadInput) as caught:
            prompts.disjoint(first, second)
        assert caught.value.lines == (
            "prompts.probe: probe-3 also stands in prompts.train as train-7 (got ' 7+1=\\n'); "
            "take it out of one of them",
            "prompts.probe: probe-4 also stands in prompts.train as train-40 (got '3+1='); take it out of one of them",
        )
    prompts.disjoint(train, probe[:3])
    with pytest.raises(BadInput) as caught:
        prompts.disjoint(train, train)
    assert len(caught.value.lines) == 21 and caught.value.lines[-1] == "... and 21 more faults of the same input"


def test_texts_that_only_share_a_hash_are_not_told(tokenizer: Tokenizer) -> None:
    def book(*texts: str) -> PromptBook:
        whole = PromptBook.of([Prompt(text, text, tokenizer.prompt(text), "0") for text in texts])
        whole.texts = Lookup([np.full(len(texts), digest("1"), np.int64), np.arange(len(texts))])
        return whole

    prompts.disjoint(book("1", "2"), book("3"))
    with pytest.raises(BadInput, match=r"prompts\.probe: 1  also stands in prompts.train as 1 "):
        prompts.disjoint(book("1", "2"), book("1 "))


def test_demonstrations_answer_the_prompt_that_says_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    said = ["1+1=", "2+2=", "1+1=", "1+1= ", "3+3="]
    answers = [("1+1=", "#2"), ("9+9=", "#18"), ("3+3=", "#6"), ("1+1= ", "2"), ("1+1=", "so #2"), (" 2+2=", "#4")]
    for ids in (False, True):
        asked = [{"prompt": t, "reference": "", **({"id": f"p{n}"} if ids else {})} for n, t in enumerate(said)]
        book = read(write(tmp_path / "data.jsonl", *asked), tokenizer).prompts
        write(tmp_path / "demos.jsonl", *({"prompt": p, "response": r} for p, r in answers))
        config = JsonlDemonstrations(path="demos.jsonl")
        for given_prompts in (book, list(book)):
            found = load_demonstrations(config, given_prompts, tokenizer, base=tmp_path, seed=0, context=128)
            stem = "p" if ids else "train-"
            expected = {f"{stem}2": [0, 4], f"{stem}3": [3], f"{stem}4": [2]}
            assert dict(found.by_prompt) == expected and len(found.by_prompt) == 3
            assert [one.prompt_id for one in found.flat] == [
                f"{stem}2", "demos-1", f"{stem}4", f"{stem}3", f"{stem}2", "demos-5",
            ]  # fmt: skip
            second = found.for_prompt(f"{stem}2", 1)
            assert second is not None and second.text == "so #2"
            assert found.for_prompt(f"{stem}2", 2) is None and found.for_prompt("demos-1") is None
            assert found.strange == 2 and "demos.jsonl:2: " in found.strangers[0]


# ---------------------------------------------------------------- memory


def test_the_last_prompts_stay_made_and_no_more(tmp_path: Path) -> None:
    made: list[int] = []

    def make(row: Row) -> Prompt:
        made.append(row.ordinal)
        return Prompt(f"train-{row.ordinal}", str(row.values["prompt"]), np.zeros(1, np.int32), "0")

    path = write(tmp_path / "data.jsonl", *problems(RECORDS + 10))
    table = Table(path, "jsonl", (("prompt",),), "prompts.train")
    tags = [lambda _, one: digest(one.id), *(lambda _, one, at=at: marks(one.text)[at] for at in (0, 1))]
    found, _ = stream(table, make, tags)
    book = streamed(found, found.take_tags(), Numbered("train", found.ordinals))
    made.clear()
    for _ in range(2):
        assert [book.by_id[f"train-{n}"].text for n in range(RECORDS)] == [f"{n}+1=" for n in range(RECORDS)]
    assert made == list(range(RECORDS)), "the second time, nothing is read"
    book[RECORDS], book[0]
    assert made[RECORDS:] == [RECORDS, 0], "what was used longest ago made room"


LARGE, QUICK = 200_000, 40_000
"""Rows of 1000 characters."""
GROWTH = 12 << 20
INDEX = 120
"""Bytes by which the process may grow: so many for what allocators hold on to, and for each row where it lies, its
hashes and what sorting those takes."""

CHILD = """
import json, sys
from pathlib import Path
from orchestrator.config import JsonlPrompts, ParquetPrompts
from orchestrator.prompts import at_step, disjoint, load
from policies.tokens import Tokenizer
import pyarrow.parquet
kind, path, folder, small = sys.argv[1:]
def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
tokenizer = Tokenizer.load(Path(folder))
def book(name, key):
    source = {"jsonl": JsonlPrompts, "parquet": ParquetPrompts}[kind](path=name)
    return load(source, tokenizer, base=Path(), context=2048, max_tokens=512, key=key)
probe = book(small, "prompts.probe")
at_step(probe, 0, 8, 0)
before = resident("VmRSS")
train = book(path, "prompts.train")
disjoint(train, probe)
drawn = [one.id for step in range(20) for one in at_step(train, step, 32, 7)]
assert all(train.by_id[name].id == name for name in drawn)
print(resident("VmHWM") - before, len(train), *drawn)
"""


@pytest.mark.parametrize(
    ("kind", "count", "ids"),
    [
        ("jsonl", QUICK, True),
        ("parquet", QUICK, False),
        pytest.param("jsonl", LARGE, False, marks=pytest.mark.slow),
        pytest.param("parquet", LARGE, True, marks=pytest.mark.slow),
    ],
)
def test_memory_stays_flat(tmp_path: Path, kind: str, count: int, ids: bool) -> None:
    folder = materialise(TinyModel(context=2048), tmp_path / "tiny")
    path, small = tmp_path / f"large.{kind}", tmp_path / f"small.{kind}"
    _write_large(path, kind, range(count), ids)
    _write_large(small, kind, range(count, count + 8), ids)
    child = [sys.executable, "-c", CHILD, kind, str(path), str(folder), str(small)]
    done = subprocess.run(child, capture_output=True, text=True, timeout=280, check=True)
    growth, read_rows, *drawn = done.stdout.split()
    size, bound = path.stat().st_size, GROWTH + count * INDEX
    print(f"{kind}: grew by {int(growth) / 2**20:.1f} MiB of {bound / 2**20:.1f}, file {size / 2**20:.1f}")
    assert int(read_rows) == count and size > 2 * bound
    assert int(growth) < bound, f"{int(growth) >> 20} MiB for a file of {size >> 20} MiB"
    stem = "row" if ids else "train-"
    assert drawn == [f"{stem}{index}" for step in range(20) for index in draw(count, step, 32, 7)]


def _write_large(path: Path, kind: str, numbers: range, ids: bool) -> None:
    """Written piece by piece; the reference bears the weight, so that it is kept by the pass and drawn."""
    pieces = (numbers[low : low + 5000] for low in range(0, len(numbers), 5000))
    batches = ([_large(n, ids) for n in piece] for piece in pieces)
    if kind == "jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(one) + "\n" for batch in batches for one in batch)
        return
    _write_parquet(path, batches)


def _write_parquet(path: Path, batches: Iterator[list[dict[str, str]]]) -> None:
    first = pa.Table.from_pylist(next(batches))
    with pq.ParquetWriter(path, first.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(first)
        for batch in batches:
            writer.write_table(pa.Table.from_pylist(batch))


def _large(number: int, ids: bool) -> dict[str, str]:
    own = {"id": f"row{number}"} if ids else {}
    return {"prompt": f"{number}+1=", "reference": f"{number + 1}".rjust(950), **own}
