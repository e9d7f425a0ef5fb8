"""The guard fires on real shadowing: a folder with a stranger's `verifiers` before ours on the path."""

import os
import subprocess
import sys
from pathlib import Path

from orchestrator import guard

ROOT = Path(__file__).resolve().parents[1]


def braid(*arguments, cwd, path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-m", "orchestrator", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_the_names_are_ours_here():
    assert guard.strangers() == []


def test_a_strangers_package_stops_the_program_with_one_clear_error(tmp_path):
    fake = tmp_path / "fake"
    (fake / "verifiers").mkdir(parents=True)
    (fake / "verifiers" / "__init__.py").write_text("raise RuntimeError('a stranger was imported')")
    done = braid("recipes", cwd=tmp_path, path=[fake, ROOT])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"'verifiers' is imported from {fake}, not from {ROOT}; ")
    assert "a stranger was imported" not in done.stderr


def test_a_bare_folder_of_that_name_does_not_shadow(tmp_path):
    (tmp_path / "fake" / "verifiers").mkdir(parents=True)
    assert braid("recipes", cwd=tmp_path, path=[tmp_path / "fake", ROOT]).returncode == 0


def test_a_missing_package_is_told(tmp_path):
    (line,) = guard.strangers(("no_such_package_of_ours",), ROOT)
    assert "not found" in line
