"""The same pipeline twice is the same run, bit for bit, in one process or in several, whatever ran before it."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.run import run
from tests.recipe_runs import write
from tests.same_runs import assert_same, decisions
from tests.unsampleable import pipeline, start_model

ROOT = Path(__file__).resolve().parents[1]
STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.getbasetemp() / "unsampleable"
    found.mkdir(exist_ok=True)
    start_model(found)
    return found


def made(folder: Path, method: str, out: Path, seed: int = 3) -> Path:
    """A short run in this process."""
    content: dict[str, Any] = pipeline(folder, method, steps=STEPS) | {"seed": seed}
    file = write(content, out.with_suffix(".yaml"))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(file, out, in_process=True) == 0, said.getvalue()
    return out


@pytest.mark.parametrize("method", ["hpt", pytest.param("sage", marks=pytest.mark.slow), "grpo"])
def test_the_same_seed_is_the_same_run(method: str, folder: Path, tmp_path: Path) -> None:
    first = made(folder, method, tmp_path / "first")
    before = torch.get_num_threads()
    torch.set_num_threads(3)  # somebody else's wish
    try:
        second = made(folder, method, tmp_path / "second")
    finally:
        torch.set_num_threads(before)
    assert_same(first, second, STEPS)


def test_another_seed_is_another_run(folder: Path, tmp_path: Path) -> None:
    runs = [made(folder, "hpt", tmp_path / f"run{seed}", seed) for seed in (3, 4)]
    assert decisions(runs[0]) != decisions(runs[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["relift", "scaf_grpo"])
def test_another_process_makes_the_same_run(method: str, folder: Path, tmp_path: Path) -> None:
    first = made(folder, method, tmp_path / "first")
    command = [sys.executable, "-m", "orchestrator", "run", str(first.with_suffix(".yaml")), "--in-process"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "second")],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(first, tmp_path / "second", STEPS)
