"""A run that goes on: lines in pieces, files that are replaced, cut, torn, damaged or gone while they are read."""

import json
import os
import random
import threading
from pathlib import Path

import pytest

from orchestrator.json_lines import JsonLines, rewrite
from orchestrator.page import documents
from orchestrator.page.documents import Asked, Page, Reading
from orchestrator.page.tail import Tail, row_of, step_of
from orchestrator.page.watch import PARTS, changed, stamps
from policies.bad_input import BadInput
from tests.build_page_run import build_page_run
from tests.build_run import build_run


class Taken:
    """What a tail gave, and how often it began anew."""

    def __init__(self, path: Path) -> None:
        self.lines: list[bytes] = []
        self.begun = 0
        self.tail = Tail(path, self.take, self.forget)

    def take(self, offset: int, line: bytes) -> None:
        assert offset == sum(len(one) + 1 for one in self.lines)
        self.lines.append(line)

    def forget(self) -> None:
        self.lines.clear()
        self.begun += 1


@pytest.mark.parametrize("seed", range(5))
def test_lines_that_come_in_pieces_are_each_given_once(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    lines = [json.dumps({"step": step, "text": "ü\\n" * rng.randrange(200)}).encode() for step in range(60)]
    whole, at, path = b"".join(line + b"\n" for line in lines), 0, tmp_path / "lines"
    taken = Taken(path)
    assert not taken.tail.refresh()
    with path.open("ab", buffering=0) as file:
        while at < len(whole):
            at += file.write(whole[at : at + rng.randrange(1, 900)])
            taken.tail.refresh()
            assert taken.lines == whole[:at].split(b"\n")[:-1]
    assert taken.lines == lines and taken.begun == 0
    assert not taken.tail.refresh(), "nothing new"


def test_lines_longer_than_a_block_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = [b"x" * 9_000_000, b"", b"y"]
    path.write_bytes(b"\n".join(lines) + b"\ntorn")
    taken = Taken(path)
    taken.tail.refresh()
    assert taken.lines == lines


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"".join(b'{"step": %d}\n' % step for step in range(100)))
    taken = Taken(path)
    taken.tail.refresh()
    rewrite(path, lambda row: row if row["step"] < 50 else None)
    assert taken.tail.refresh() and (len(taken.lines), taken.begun) == (50, 1)
    # In place, with the same inode, longer than before: only what stood there tells.
    with path.open("r+b") as file:
        file.write(b"".join(b'{"step": %d, "other": 1}\n' % step for step in range(90)))
    assert taken.tail.refresh() and (len(taken.lines), taken.begun) == (90, 2)
    os.truncate(path, 0)
    assert taken.tail.refresh() and (taken.lines, taken.begun) == ([], 3)
    path.write_bytes(b"{}\n")
    taken.tail.refresh()
    path.unlink()
    assert taken.tail.refresh() and taken.lines == []
    assert not taken.tail.refresh()


def test_a_step_is_read_without_the_rest_and_what_is_no_row_is_none() -> None:
    assert step_of(b'{"step": 12, "x": ') == 12 and step_of(b'{"step":3}') == 3
    assert step_of(b'{"stage": "a", "step": 7}') == 7 and step_of(b'{"stage": "a"}') is None
    assert step_of(b'{"step": 1.5}') is None and step_of(b"\xff") is None and step_of(b"") is None
    assert row_of(b"[1]") is None and row_of(b"{") is None and row_of(b"\xff\xfe") is None
    assert row_of(b'{"a": 1}') == {"a": 1}


def test_a_broken_line_is_passed_over(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", probes=False)
    for path in (run.metrics, run.decisions, run.events):
        lines = path.read_text().splitlines()
        lines[3:3] = ["{broken", "[]", '{"step": "three", "kind": 4, "stage": null}', "\x00"]
        path.write_text("\n".join(lines) + '\n{"step": 17, "torn')
    reading = Reading.open(run.root)
    assert documents.run(reading)["status"] == "finished"
    assert documents.braid(reading)["steps"] == list(range(1, 17))
    assert documents.decisions(reading)["total"] == 16


def test_the_same_run_is_the_same_read_in_one_go_or_as_it_grows(tmp_path: Path) -> None:
    whole = build_page_run(tmp_path / "run", (("warm-start", 3), ("braid", 6)))
    run = whole.run
    parts = {path: path.read_bytes() for path in (run.metrics, run.decisions, run.events)}
    for path in parts:
        path.write_bytes(b"")
    reading = Reading.open(run.root)
    rng = random.Random(1)
    places = dict.fromkeys(parts, 0)
    while any(places[path] < len(parts[path]) for path in parts):
        path = rng.choice(list(parts))
        with path.open("ab") as file:
            places[path] += file.write(parts[path][places[path] : places[path] + rng.randrange(1, 3000)])
        reading.refresh()
    fresh = Reading.open(run.root)
    for make in (documents.braid, documents.curves, documents.decisions, documents.decided, documents.costs):
        assert make(reading) == make(fresh)
    assert documents.run(reading)["events"] == documents.run(fresh)["events"]


def test_damaged_and_absent_files_leave_gaps_and_nothing_else(tmp_path: Path) -> None:
    run = build_page_run(tmp_path / "run", (("warm-start", 3), ("braid", 6))).run
    run.trajectory_file(8).write_bytes(b"PAR1 and no more")
    run.trajectory_file(7).write_bytes(b"")
    (run.trajectories / "step=000010.parquet.tmp").write_bytes(b"being written")
    run.probe_file(3).write_bytes(b"damaged")
    (run.probes / "step=000009.parquet.tmp").write_bytes(b"being written")
    run.handoff_file("braid").write_text('{"stage": "bra')
    run.coefficient_file(9).unlink()
    run.environment.unlink()
    reading = Reading.open(run.root)
    told = documents.trajectories(reading, page=Page(limit=500))
    assert (sorted(told["unread"]), told["steps"]) == ([7, 8], [1, 9])
    assert {row["step"] for row in told["rows"]} == {1, 2, 3, 4, 5, 6, 9}
    assert documents.trajectories(reading, page=Page(step=8))["rows"] == []
    for step in (7, 8):
        with pytest.raises(BadInput, match="cannot be read"):
            documents.trajectory(reading, step, 0)
    one = documents.trajectory(reading, 9, 0)
    assert one["tokens"]["g"] is None and one["previous"] == {"step": 6, "row": 15}
    assert [one["step"] for one in documents.support(reading)["checkpoints"]] == [0, 9]
    assert [one["stage"] for one in documents.handoffs(reading)["stages"]] == ["warm-start"]
    assert documents.prompt(reading, "q001", step=3)["responses"] == []
    # A file that is put right is seen.
    run.handoff_file("braid").write_text('{"stage": "braid", "index": 1}')
    assert [one["stage"] for one in documents.handoffs(reading)["stages"]] == ["warm-start", "braid"]
    assert documents.handoffs(reading)["stages"][1]["role"] is None


def test_coefficients_of_another_trajectory_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    run = build_page_run(tmp_path / "run", (("warm-start", 2),)).run
    run.coefficient_file(1).replace(run.coefficient_file(2))
    assert documents.trajectory(Reading.open(run.root), 2, 0)["tokens"]["g"] is None


def test_probes_of_before_there_were_sets_are_of_the_set_probe(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run = build_run(tmp_path / "run")
    for path in run.probes.glob("step=*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["set", "prompt", "draw", "sound", "answer"]), path)
    told = documents.support(Reading.open(run.root), Asked(sort="given"))
    assert told["sets"] == ["probe"] and told["total"] == 32
    assert [row["c"][-1] for row in told["prompts"]] == [1] * 26 + [0] * 6


def test_a_document_is_made_while_another_thread_reads_on(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", probes=False, until=9)
    reading, stop, faults = Reading.open(run.root), threading.Event(), []
    row = json.loads(run.metrics.read_text().splitlines()[-1])

    def look() -> None:
        try:
            while not stop.is_set():
                with reading.lock:
                    told = documents.braid(reading)
                assert told["until"][-1] == told["last"]
                reading.refresh()
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            faults.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for one in threads:
        one.start()
    lines = JsonLines(run.metrics)
    for step in range(10, 200):
        lines.append(row | {"step": step})
    lines.close()
    stop.set()
    for one in threads:
        one.join(30)
    reading.refresh()
    assert not faults and documents.braid(reading)["last"] == 199


def test_what_changed_is_told_by_the_documents_that_read_it(tmp_path: Path) -> None:
    run = build_page_run(tmp_path / "run", (("warm-start", 2),)).run
    reading = Reading.open(run.root)
    before = stamps(reading)
    assert changed(before, stamps(reading)) == []
    os.utime(run.handoff_file("warm-start"), (1, 1))
    assert set(changed(before, stamps(reading))) == {"run", "support", "handoffs", "handoff", "reach", "costs"}
    before = stamps(reading)
    run.probe_file(0).rename(run.probe_file(1))
    assert {"support", "prompt"} <= set(changed(before, stamps(reading)))
    assert set(PARTS) >= set(documents.__all__) - {
        "Reading",
        "Wanted",
        "Page",
        "Asked",
        "runs",
        "compare",
        "comparison",
    }
