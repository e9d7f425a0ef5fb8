"""The run directory and the ledger: never overwritten, never torn, and forgetful only where a resume asks."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build_run import CONFIG, ENVIRONMENT, STRANDS, build_run, example

from orchestrator.json_lines import JsonLines, mend, plain, read
from orchestrator.ledger import COEFFICIENT_SCHEMA, LedgerError, RunLedger
from orchestrator.probe_files import write_probe
from orchestrator.query import ask
from orchestrator.run_directory import RunDirectory, environment
from policies.arrow import from_table
from policies.bad_input import BadInput
from policies.trajectory import Origin

ROOT = Path(__file__).parent.parent


def new_run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", CONFIG, ENVIRONMENT)


def python(code: str, *arguments: object, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **more}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


# ---------------------------------------------------------------- the directory


def test_a_run_directory_is_made_once(tmp_path):
    run = new_run(tmp_path)
    assert run.config.read_text() == CONFIG
    assert json.loads(run.environment.read_text()) == ENVIRONMENT
    assert run.trajectory_file(12) == tmp_path / "run/ledger/trajectories/step=000012.parquet"
    with pytest.raises(BadInput, match="never overwritten"):
        RunDirectory.create(tmp_path / "run", "other", {})
    assert run.config.read_text() == CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("kind", ["file", "empty", "link"])
def test_whatever_stands_at_out_is_left_alone(tmp_path, kind):
    out = tmp_path / "out"
    match kind:
        case "file":
            out.write_text("mine")
        case "empty":
            out.mkdir()
        case "link":
            out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="exists"):
        RunDirectory.create(out, CONFIG, {})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(BadInput, match="no such directory"):
        RunDirectory.open(tmp_path / "none")
    with pytest.raises(BadInput, match=r"no config\.yaml"):
        RunDirectory.open(tmp_path)
    assert RunDirectory.open(new_run(tmp_path).root).root == tmp_path / "run"


def test_a_second_driver_is_refused_until_the_first_is_killed(tmp_path):
    run = new_run(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from orchestrator.run_directory import RunDirectory\n"
        "with RunDirectory.open(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    holder = python(code, run.root)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BadInput, match="another process"), run.lock():
        pass
    holder.kill()
    holder.wait(timeout=10)
    with run.lock():
        pass


def test_the_environment_tells_facts_and_no_variable(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "s3cr3t-value")
    facts = environment()
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["cores"] == os.cpu_count()
    assert "s3cr3t-value" not in json.dumps(facts)


# ---------------------------------------------------------------- JSON lines


def test_rows_become_valid_json_whatever_numbers_they_hold(tmp_path):
    row = {
        "nan": math.nan,
        "inf": np.float32(np.inf),
        "f": np.float32(0.5),
        "i": np.int64(3),
        "b": np.bool_(True),
        "a": np.array([1.0, np.nan]),
        "e": Origin.HINT,
        "p": Path("x"),
        "n": {"t": (1, None)},
    }
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.append(row)
    text = (tmp_path / "x.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        **{"nan": None, "inf": None, "f": 0.5, "i": 3, "b": True, "a": [1.0, None], "e": 3, "p": "x"},
        "n": {"t": [1, None]},
    }
    with pytest.raises(TypeError, match="object"):
        plain({"x": object()})


def test_a_torn_last_line_is_cut_and_a_broken_line_within_is_an_error(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"step":1}\n{"step":2}\n{"ste')
    assert read(path) == [{"step": 1}, {"step": 2}]
    assert mend(path) == 5
    lines = JsonLines(path)
    lines.append({"step": 3})
    assert [row["step"] for row in read(path)] == [1, 2, 3]
    path.write_bytes(b'{"step":1}\n{"st\n{"step":3}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:2: not JSON"):
        read(path)


# ---------------------------------------------------------------- the ledger


def test_trajectories_come_back_with_strand_stage_and_advantage(tmp_path):
    run = new_run(tmp_path)
    given = [
        example("a", strand=0, advantage=0.5, version=3, length=4),
        example("b", strand=1, advantage=-1.0, origin=Origin.DEMONSTRATION, length=2),
    ]
    with RunLedger(run, STRANDS) as ledger:
        ledger.add(4, given, "braid")
    table = pq.read_table(run.trajectory_file(4), page_checksum_verification=True)
    assert table.column("strand").to_pylist() == ["on-policy", "imitate"]
    assert table.column("stage").to_pylist() == ["braid", "braid"]
    assert table.column("step").to_pylist() == [4, 4]
    assert table.column("advantage").to_pylist() == [[0.5] * 4, [-1.0] * 2]
    back = from_table(table)
    assert [one.id for one in back] == ["a", "b"]
    np.testing.assert_array_equal(back[1].origin, [1, 1])
    assert np.isnan(back[1].behavior_logps).all()


def test_g_lies_beside_the_trajectories_row_for_row(tmp_path):
    run = new_run(tmp_path)
    given = [example("a", strand=0, length=3), example("b", strand=1, origin=Origin.DEMONSTRATION, length=2)]
    given.append(example("a", strand=1, length=3))  # the same response under another strand
    g = np.array([0.5, -0.5, 0.0, np.nan, 1e-30, 1, 2, 3], np.float32)
    with RunLedger(run, STRANDS) as ledger:
        ledger.add(4, given, "braid")
        ledger.coefficients(4, given, "braid", g)
        ledger.add(5, [], "braid")
        ledger.coefficients(5, [], "braid", np.empty(0, np.float32))
        with pytest.raises(ValueError, match="step 4: 7 coefficients for trajectories of 8 tokens"):
            ledger.coefficients(4, given, "braid", g[:7])
    table, beside = pq.read_table(run.coefficient_file(4)), pq.read_table(run.trajectory_file(4))
    assert table.schema.equals(COEFFICIENT_SCHEMA)
    for column in ("step", "stage", "strand", "id"):
        assert table.column(column).to_pylist() == beside.column(column).to_pylist()
    rows = table.column("g").to_pylist()
    assert [len(row) for row in rows] == [3, 2, 3]
    np.testing.assert_array_equal(np.concatenate([np.array(row, np.float32) for row in rows]), g)
    assert table.column("g").null_count == 0, "unknown is NaN"
    assert len(pq.read_table(run.coefficient_file(5))) == 0
    joined = (
        "SELECT t.strand, t.id, t.tokens[1], c.g[1] FROM trajectories t JOIN coefficients c USING (step, strand, id) "
        "WHERE step = 4 ORDER BY t.strand, t.id"
    )
    told = [("imitate", "a", 0, "1.0"), ("imitate", "b", 0, "nan"), ("on-policy", "a", 0, "0.5")]
    assert [(*row[:3], str(row[3])) for row in ask(run.root, joined).rows] == told


def test_a_resume_forgets_g_of_what_will_be_done_again(tmp_path):
    run = new_run(tmp_path)
    with RunLedger(run, STRANDS) as ledger:
        for step in (1, 2, 3):
            given = [example(f"t{step}")]
            ledger.add(step, given, "braid")
            if step != 2:  # nothing trained then
                ledger.coefficients(step, given, "braid", np.full(6, step, np.float32))
            ledger.metrics({"kind": "step", "step": step, "stage": "braid", "seconds": 2.0})
        (run.coefficients / "step=000004.parquet.tmp").write_bytes(b"half")
        ledger.truncate_after(1)
        assert [path.name for path in run.coefficients.glob("*.parquet")] == ["step=000001.parquet"]
        ledger.add(2, given, "braid")
        ledger.coefficients(2, given, "braid", np.full(6, 9, np.float32))
    resumed = next(row for row in read(run.events) if row["kind"] == "resumed")
    assert resumed["lost"] == [{"stage": "braid", "seconds": 4.0, "work": [], "seconds_by_role": {}}]
    with RunLedger(run, STRANDS):
        assert sorted(path.name for path in run.coefficients.iterdir()) == [
            "step=000001.parquet",
            "step=000002.parquet",
        ]


def test_the_same_run_writes_the_same_bytes_but_for_the_time(tmp_path):
    one, two = build_run(tmp_path / "one"), build_run(tmp_path / "two")
    for step in (1, 7, 16):
        assert one.trajectory_file(step).read_bytes() == two.trajectory_file(step).read_bytes()

    def timeless(path: Path) -> list[dict[str, object]]:
        return [{key: value for key, value in row.items() if key != "time"} for row in read(path)]

    for name in ("decisions.jsonl", "metrics.jsonl", "events.jsonl"):
        assert timeless(one.ledger / name) == timeless(two.ledger / name)


def test_a_flipped_byte_of_a_page_is_an_error_not_another_number(tmp_path):
    run = build_run(tmp_path / "run")
    path = run.trajectory_file(6)
    content = path.read_bytes()
    whole = repr(pq.read_table(path).to_pylist())
    caught, rng = 0, np.random.default_rng(0)
    footer = int.from_bytes(content[-8:-4], "little")
    for index in rng.integers(0, len(content) - 8 - footer, 60):
        path.write_bytes(content[:index] + bytes([content[index] ^ 16]) + content[index + 1 :])
        try:
            seen = pq.read_table(path, page_checksum_verification=True).to_pylist()
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            caught += 1
        else:
            assert repr(seen) == whole
    assert caught > 10


def test_a_step_is_added_once(tmp_path):
    with RunLedger(new_run(tmp_path), STRANDS) as ledger:
        ledger.add(1, [example("a")], "braid")
        with pytest.raises(LedgerError, match="step 1 was added before"):
            ledger.add(1, [example("b")], "braid")


def test_add_does_not_wait_for_the_disk(tmp_path):
    examples = [example(f"t{i}", length=512) for i in range(256)]
    with RunLedger(new_run(tmp_path), STRANDS) as ledger:
        began = time.perf_counter()
        ledger.add(1, examples, "braid")
        queued = time.perf_counter() - began
        ledger.flush()
        written = time.perf_counter() - began
    assert queued < written / 3


def test_a_failed_write_surfaces_at_the_next_call_with_its_own_error(tmp_path):
    run = new_run(tmp_path)
    ledger = RunLedger(run, STRANDS)
    run.trajectories.rmdir()
    ledger.add(1, [example("a")], "braid")
    with pytest.raises(LedgerError, match="No such file") as failure:
        ledger.flush()
    assert isinstance(failure.value.__cause__, FileNotFoundError)
    with pytest.raises(LedgerError):
        ledger.add(2, [example("b")], "braid")
    ledger.event("failed", error="told all the same")
    assert [row["kind"] for row in read(run.events)] == ["failed"]
    with pytest.raises(LedgerError):
        ledger.close()


def test_a_resume_forgets_what_will_be_done_again_and_keeps_what_happened(tmp_path):
    run = build_run(tmp_path / "run", until=12)
    with run.metrics.open("ab") as file:
        file.write(b'{"step": 13, "lo')
    (run.trajectories / "step=000013.parquet.tmp").write_bytes(b"half")
    with RunLedger(run, STRANDS) as ledger:
        dropped = ledger.truncate_after(8)
        assert dropped == {"decisions": 4, "metrics": 5, "trajectories": 4, "probes": 1}
        assert ledger.truncate_after(8) == {"decisions": 0, "metrics": 0, "trajectories": 0, "probes": 0}
        ledger.add(9, [example("again")], "braid")
        ledger.metrics({"step": 9})
    assert [row["step"] for row in read(run.metrics) if row.get("kind") != "probe"] == list(range(1, 10))
    assert [row["step"] for row in read(run.decisions)] == list(range(1, 9))
    assert sorted(path.name for path in run.trajectories.iterdir()) == [f"step={i:06d}.parquet" for i in range(1, 10)]
    events = read(run.events)
    assert [(row["kind"], row.get("undone", False)) for row in events] == [
        ("started", False),
        ("nonfinite_step", True),
        ("resumed", False),
        ("resumed", False),
    ]
    assert events[2]["dropped"] == dropped


def test_lines_survive_kill_9_of_the_writer(tmp_path):
    run = new_run(tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from orchestrator.ledger import RunLedger; from orchestrator.run_directory import RunDirectory\n"
        "ledger = RunLedger(RunDirectory.open(Path(sys.argv[1])))\n"
        "for step in range(200): ledger.metrics({'step': step, 'loss': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert python(code, run.root).wait(timeout=60) == -signal.SIGKILL
    assert [row["step"] for row in read(run.metrics)] == list(range(200))


def test_a_probe_is_rewritten_whole(tmp_path):
    run = new_run(tmp_path)
    row = {"prompt_id": "q", "family": "f", "greedy": True, "passed": None, "value": math.nan, "status": "timeout"}
    rows = [{**row, "tokens": 3, "text": "x"}]
    write_probe(run, 5, "braid", rows * 2)
    path = write_probe(run, 5, "braid", rows)
    table = pq.read_table(path)
    assert path.name == "step=000005.parquet"
    assert table.column("passed").to_pylist() == [None]
    assert table.column("stage").to_pylist() == ["braid"]
