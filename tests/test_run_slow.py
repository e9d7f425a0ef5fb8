"""Whole runs of the heavy kind: vLLM and DeepSpeed, two of each, and a replica that dies."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.numpy import load_file

from policies import checkpoint
from tests.test_run import PIPELINE, ROOT, braid, lines, pipeline_file

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def heavy(**resources: Any) -> dict[str, Any]:
    """The small pipeline on vLLM and DeepSpeed."""
    changed = copy.deepcopy(PIPELINE)
    changed["resources"] = {
        "rollout": {"engine": "vllm", "replicas": resources.get("rollouts", 1)},
        "learner": {
            "engine": "deepspeed",
            "replicas": resources.get("ranks", 1),
            "zero_stage": resources.get("zero", 0),
        },
        "scorer": {"replicas": resources.get("rollouts", 1)},
    }
    return changed


def test_two_engines_two_ranks_and_two_scorers_run_the_same_pipeline(tmp_path: Path) -> None:
    path = pipeline_file(tmp_path, **heavy(rollouts=2, ranks=2, zero=2))
    done = braid("run", str(path), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run/checkpoints/step-000006/model/model.safetensors").is_file()


def test_a_killed_run_on_vllm_and_deepspeed_resumes_bit_for_bit(tmp_path: Path) -> None:
    path = pipeline_file(tmp_path, **heavy())
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert braid("run", str(path), "--out", str(whole)).returncode == 0
    killed = braid("run", str(path), "--out", str(run), env={"BRAID_FAILPOINT": "loop.after_step.6=kill9"})
    assert killed.returncode == -signal.SIGKILL
    assert braid("resume", str(run)).returncode == 0
    ours, theirs = (load_file(one / "checkpoints/step-000006/model/model.safetensors") for one in (run, whole))
    assert all((ours[name] == value).all() for name, value in theirs.items())


def test_a_replica_that_dies_is_replaced_and_only_time_is_lost(tmp_path: Path) -> None:
    pipeline = heavy(rollouts=2)
    pipeline["stages"] = [{**pipeline["stages"][2], "steps": 40}]
    pipeline["checkpoints"] = {"every": 100}
    path, run = pipeline_file(tmp_path, **pipeline), tmp_path / "run"
    command = [sys.executable, "-m", "orchestrator", "run", str(path), "--out", str(run)]
    driver = subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stdout=subprocess.PIPE, text=True)
    _wait_for_steps(run, 3, driver)
    replicas = [
        one
        for one in psutil.Process(driver.pid).children(recursive=True)
        if "ray::SamplerReplica" in " ".join(one.cmdline())
    ]
    assert len(replicas) == 2
    replicas[0].kill()
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    restarts = [event for event in lines(run / "ledger/events.jsonl") if event["kind"] == "rollout_restart"]
    assert len(restarts) == 1
    steps = [row["step"] for row in lines(run / "ledger/decisions.jsonl")]
    assert steps == list(range(1, 41)), "every step once"


def _wait_for_steps(run: Path, count: int, driver: "subprocess.Popen[str]") -> None:
    """Until the run has done `count` steps, or 300 s are gone."""
    decisions, deadline = run / "ledger/decisions.jsonl", time.monotonic() + 300
    while time.monotonic() < deadline and driver.poll() is None:
        if decisions.exists() and len(decisions.read_text().splitlines()) >= count:
            return
        time.sleep(0.2)
    raise AssertionError(f"the run did not reach step {count}")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path) -> None:
    path, run = pipeline_file(tmp_path), tmp_path / "run"
    assert braid("run", str(path), "--out", str(run), env={"BRAID_FAILPOINT": "loop.after_step.6=kill9"}).returncode
    newest = checkpoint.steps(run / "checkpoints")[-1]
    model = newest / "model/model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    resumed = braid("resume", str(run))
    assert resumed.returncode == 0, resumed.stdout
    assert newest.name in resumed.stdout and "model.safetensors" in resumed.stdout
    rejected = [event for event in lines(run / "ledger/events.jsonl") if event["kind"] == "checkpoint_rejected"]
    assert json.dumps(rejected).count(newest.name) >= 1
