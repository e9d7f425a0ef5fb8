"""Checkpoints: whole or absent whatever kills the writer, and every damaged byte is found."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from policies import checkpoint
from policies.failpoints import FailpointError, failpoint

ROOT = Path(__file__).parent.parent
CHILD = """
import sys
from pathlib import Path
from policies.checkpoint import commit
with commit(Path(sys.argv[1]), int(sys.argv[2])) as folder:
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(bytes(range(256)) * 64)
    (folder / "state.json").write_text('{"version": 2}')
"""


def write(parent: Path, step: int, content: bytes = b"weights") -> Path:
    with checkpoint.commit(parent, step) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_bytes(content)
        (folder / "state.json").write_text("{}")
    return parent / checkpoint.name(step)


def child(parent: Path, step: int, armed: str) -> int:
    environment = {**os.environ, "BRAID_FAILPOINT": armed, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", CHILD, str(parent), str(step)], env=environment, timeout=60).returncode


@pytest.mark.parametrize("phase", ["before_manifest", "after_manifest", "before_rename"])
def test_a_writer_killed_before_the_rename_leaves_the_previous_checkpoint_newest(tmp_path, phase):
    good = write(tmp_path, 1)
    assert child(tmp_path, 2, f"checkpoint.{phase}=kill9") == -signal.SIGKILL
    assert (tmp_path / "step-000002.tmp").is_dir()
    assert checkpoint.newest(tmp_path) == checkpoint.Newest(good, ())
    assert child(tmp_path, 2, "") == 0
    assert checkpoint.newest(tmp_path).path == tmp_path / "step-000002"


def test_a_writer_killed_after_the_rename_has_committed(tmp_path):
    write(tmp_path, 1)
    assert child(tmp_path, 2, "checkpoint.after_rename=kill9") == -signal.SIGKILL
    assert checkpoint.newest(tmp_path) == checkpoint.Newest(tmp_path / "step-000002", ())


@pytest.mark.parametrize("relative", ["model/weights.bin", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "grow"])
def test_every_damaged_file_is_found_by_name_and_the_one_before_is_used(tmp_path, relative, damage):
    good, bad = write(tmp_path, 5), write(tmp_path, 6, b"other weights")
    path = bad / relative
    content = path.read_bytes()
    match damage:
        case "flip":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "truncate":
            path.write_bytes(content[:-1])
        case "grow":
            path.write_bytes(content + b"{")
        case "delete":
            path.unlink()
    with pytest.raises(checkpoint.DamagedCheckpointError, match=str(path)):
        checkpoint.verify(bad)
    found = checkpoint.newest(tmp_path)
    assert found.path == good
    assert [one.path for one in found.rejected] == [bad]
    assert str(path) in found.rejected[0].reason


def test_every_single_bit_of_a_manifest_matters(tmp_path):
    path = write(tmp_path, 1) / "manifest.json"
    content = path.read_bytes()
    for index in range(0, len(content), 7):
        path.write_bytes(content[:index] + bytes([content[index] ^ (1 << index % 8)]) + content[index + 1 :])
        with pytest.raises(checkpoint.DamagedCheckpointError):
            checkpoint.verify(path.parent)


def test_a_checkpoint_under_another_steps_name_is_refused(tmp_path):
    write(tmp_path, 1).rename(tmp_path / "step-000009")
    with pytest.raises(checkpoint.DamagedCheckpointError, match="of step 1"):
        checkpoint.verify(tmp_path / "step-000009")


def test_when_all_are_damaged_none_is_newest_and_each_has_its_reason(tmp_path):
    for step in (1, 2):
        (write(tmp_path, step) / "state.json").write_text("{ }")
    found = checkpoint.newest(tmp_path)
    assert found.path is None
    assert [checkpoint.step_of(one.path) for one in found.rejected] == [2, 1]


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk"), checkpoint.commit(tmp_path, 1) as folder:
        (folder / "half").write_text("x")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_replaced_by_the_same_step(tmp_path):
    (write(tmp_path, 3) / "state.json").write_text("broken")
    checkpoint.verify(write(tmp_path, 3, b"again"))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


def test_prune_keeps_the_newest_and_the_protected(tmp_path):
    for step in range(1, 7):
        write(tmp_path, step)
    (tmp_path / "step-000009.tmp").mkdir()
    removed = checkpoint.prune(tmp_path, keep=2, protected={2})
    assert [checkpoint.step_of(path) for path in removed] == [1, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000005", "step-000006"]


def test_failpoints_act_only_where_they_are_armed(monkeypatch):
    failpoint("here")
    monkeypatch.setenv("BRAID_FAILPOINT", "there=raise, here=raise")
    with pytest.raises(FailpointError):
        failpoint("here")
    failpoint("elsewhere")
    monkeypatch.setenv("BRAID_FAILPOINT", "here=explode")
    with pytest.raises(ValueError, match="kill9, raise or hang"):
        failpoint("here")
