"""A whole run on real Ray actors: what the directory holds, what a kill leaves, what a resume gives."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from policies import checkpoint
from policies.arrow import from_table
from policies.trajectory import Origin

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

PIPELINE: dict[str, Any] = {
    "name": "small",
    "seed": 5,
    "model": {"kind": "tiny", "preset": "arithmetic-small", "context": 64},
    "prompts": {
        "train": {"kind": "arithmetic", "digits": [1], "count": 40},
        "probe": {"kind": "arithmetic", "digits": [1], "count": 4, "seed": 9},
    },
    "resources": {"rollout": {"engine": "torch"}, "learner": {"engine": "torch"}},
    "stages": [
        {
            "name": "imitate",
            "recipe": {"kind": "sft"},
            "steps": 2,
            "prompts_per_step": 4,
            "sampling": {"max_tokens": 8},
        },
        {
            "name": "mix",
            "recipe": {"kind": "luffy", "rollouts": 3, "length": 32},
            "steps": 2,
            "prompts_per_step": 2,
            "updates": 2,
            "sampling": {"max_tokens": 8},
        },
        {
            "name": "sharpen",
            "recipe": {"kind": "grpo", "rollouts": 4, "kl": 0.1},
            "steps": 2,
            "prompts_per_step": 2,
            "sampling": {"max_tokens": 8},
            "optimizer": {"learning_rate": 1e-3, "schedule": {"kind": "cosine", "warmup": 1}},
        },
    ],
    "checkpoints": {"every": 1},
}


def braid(*words: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestrator", *words]
    settings = {**os.environ, "COLUMNS": "200", **(env or {})}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=600, check=False)


def pipeline_file(folder: Path, **changes: Any) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({**PIPELINE, **changes}))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = braid("run", str(pipeline_file(folder)), "--out", str(folder / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report.html" in done.stdout
    return folder / "run"


def test_the_run_directory_is_the_designs(whole: Path) -> None:
    for name in ("config.yaml", "environment.json", "ledger/decisions.jsonl", "ledger/metrics.jsonl", "report.html"):
        assert (whole / name).stat().st_size > 0, name
    steps = sorted(path.name for path in (whole / "ledger/trajectories").iterdir())
    assert steps == [f"step={step:06d}.parquet" for step in range(1, 7)]
    kept = [path.name for path in checkpoint.steps(whole / "checkpoints")]
    assert {"step-000000", "step-000002", "step-000004", "step-000006"} <= set(kept), "the ends of stages stay"
    decisions = lines(whole / "ledger/decisions.jsonl")
    assert [row["step"] for row in decisions] == list(range(1, 7))
    assert all(row["reason"] for row in decisions)
    assert {path.name for path in (whole / "probes").iterdir()} == {f"step={step:06d}.parquet" for step in (0, 2, 4, 6)}


def test_the_ledger_says_who_wrote_what(whole: Path) -> None:
    for step, expected in (
        (1, {Origin.DEMONSTRATION}),
        (3, {Origin.DEMONSTRATION, Origin.LEARNER}),
        (5, {Origin.LEARNER}),
    ):
        records = from_table(pq.read_table(whole / f"ledger/trajectories/step={step:06d}.parquet"))
        assert {int(origin) for one in records for origin in one.origin} == {int(origin) for origin in expected}
        own = [one for one in records if one.origin[0] == Origin.LEARNER]
        assert all((one.token_version == step - 1).all() for one in own), "synchronous: the newest version wrote it"


def test_the_last_checkpoint_loads_in_transformers(whole: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = whole / "checkpoints/step-000006/model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("3+4=", return_tensors="pt").input_ids
    assert model(ids).logits.shape[:2] == ids.shape


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # The driver dies after step 4's update and before its checkpoint: step 4 is done again, in the middle of a stage.
    killed = braid(
        "run", str(pipeline_file(tmp_path)), "--out", str(run), env={"BRAID_FAILPOINT": "loop.after_step.4=kill9"}
    )
    assert killed.returncode == -signal.SIGKILL
    assert max(path.name for path in checkpoint.steps(run / "checkpoints")) == "step-000003"
    resumed = braid("resume", str(run))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    ours, theirs = (load_file(one / "checkpoints/step-000006/model/model.safetensors") for one in (run, whole))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name] == value).all(), name
    for step in range(1, 7):
        drawn = [
            [
                one.tokens.tolist()
                for one in from_table(pq.read_table(place / f"ledger/trajectories/step={step:06d}.parquet"))
            ]
            for place in (run, whole)
        ]
        assert drawn[0] == drawn[1], f"step {step}"
        pulls = [pq.read_table(place / f"ledger/coefficients/step={step:06d}.parquet") for place in (run, whole)]
        assert repr(pulls[0].to_pylist()) == repr(pulls[1].to_pylist()), f"step {step}"
    assert [row["step"] for row in lines(run / "ledger/decisions.jsonl")] == list(range(1, 7)), "no step twice"


def test_a_run_directory_is_never_overwritten_and_no_ray_starts(whole: Path, tmp_path: Path) -> None:
    before = (whole / "config.yaml").read_bytes()
    again = braid("run", str(pipeline_file(tmp_path)), "--out", str(whole))
    assert again.returncode == 2 and "not overwritten" in again.stderr
    assert "Ray" not in again.stdout
    assert (whole / "config.yaml").read_bytes() == before


def test_a_prompt_longer_than_the_context_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    rows = [{"prompt": "1+1=", "reference": "2"}, {"prompt": "1+" * 60, "reference": "3"}]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = {"train": {"kind": "jsonl", "path": "tasks.jsonl"}}
    path = pipeline_file(tmp_path, prompts=prompts, demonstrations=None, stages=PIPELINE["stages"][2:])
    refused = braid("run", str(path), "--out", str(tmp_path / "run"))
    assert refused.returncode == 2
    assert "tasks.jsonl" in refused.stderr and ":2" in refused.stderr and "context" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_failing_run_exits_1_and_says_why(tmp_path: Path) -> None:
    failed = braid(
        "run",
        str(pipeline_file(tmp_path)),
        "--out",
        str(tmp_path / "run"),
        env={"BRAID_FAILPOINT": "loop.after_step.1=raise"},
    )
    assert failed.returncode == 1
    assert "FailpointError" in failed.stdout
    events = lines(tmp_path / "run/ledger/events.jsonl")
    assert [event["error"] for event in events if event["kind"] == "failed"] == ["FailpointError"]
