"""Experiments run in this process: a miniature of each study, what a kill leaves, and what a failure costs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.experiment_table import document
from orchestrator.experiments import resume, start
from orchestrator.history import read_history
from orchestrator.probe_files import probed_steps
from orchestrator.study import Study
from orchestrator.study_facts import trained
from policies.bad_input import BadInput
from tests.planted_study import file

ROOT = Path(__file__).resolve().parents[1]
STAGE = {"steps": 2, "prompts_per_step": 2, "sampling": {"max_tokens": 4}, "optimizer": {"learning_rate": 1e-3}}
SMALL: dict[str, Any] = {
    "prompts": {
        "train": {"kind": "arithmetic", "digits": [1], "count": 40},
        "probe": {"kind": "arithmetic", "digits": [1], "count": 3, "seed": 9},
    },
    "handoff": {"probe_samples": 2, "sequential": False, "bank": 0},
    "checkpoints": {"every": 1},
    "stages": [{"name": "warm", "recipe": {"kind": "sft"}, **STAGE}],
}
SFT_DFT = {"study": "interface_swap", "of": {"sft": {}, "dft": {"set": {"stages.warm.recipe.kind": "dft"}}}}


def small(folder: Path, variants: Any, **changes: Any) -> Path:
    return file(folder, **{**SMALL, **changes}, variants=variants)


def kinds(run: Path) -> list[str]:
    return [str(event["kind"]) for event in read_history(run).events]


def test_an_interface_swap_trains_on_the_very_same_trajectories(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert start(small(tmp_path, SFT_DFT | {"seeds": [3, 4]}), out, in_process=True) == 0
    found = json.loads((out / "experiment.json").read_text())
    assert found == document(Study.open(out))
    assert found["variants"][1]["claim"] == {
        "verdict": "kept",
        "told": "the same 4 trajectories, step by step, in 2 steps",
    }
    assert found["variants"][1]["seeds"] == 2
    runs = [read_history(out / name / f"seed-{seed}") for name, seed in Study.open(out).runs]
    assert [(one.status, one.config["seed"]) for one in runs] == [("finished", seed) for seed in (3, 3, 4, 4)]
    assert trained(runs[0].run, 1) != trained(runs[2].run, 1), "another seed draws others"
    losses = [one.steps[0]["loss"] for one in runs]
    assert losses[0] != losses[1]


def test_a_provenance_swap_trains_on_others(tmp_path: Path) -> None:
    """Demonstrations against what the policy writes itself before the stage, under the same loss."""
    own = {"set": {"stages.warm.recipe": {"kind": "rest_em", "samples": 2}}}
    pattern = {"kind": "format", "pattern": "(?s).*"}
    variants = {"study": "provenance_swap", "of": {"given": {}, "own": own}}
    out = tmp_path / "out"
    assert start(small(tmp_path, variants, verifier=pattern), out, in_process=True) == 0
    rows = document(Study.open(out))["variants"]
    assert rows[1]["claim"]["verdict"] == "kept"
    shares = [read_history(out / name / "seed-0").steps[0]["share_learner"] for name in ("given", "own")]
    assert shares == [0.0, 1.0]


def test_a_stage_order_runs_the_same_stages_in_other_orders(tmp_path: Path) -> None:
    stages = [*SMALL["stages"], {"name": "focus", "recipe": {"kind": "dft"}, **STAGE}]
    out = tmp_path / "out"
    assert start(small(tmp_path, {"study": "stage_order"}, stages=stages), out, in_process=True) == 0
    for name in ("warm-then-focus", "focus-then-warm"):
        assert [span.name for span in read_history(out / name / "seed-0").stages] == name.split("-then-")
    assert document(Study.open(out))["variants"][1]["claim"]["verdict"] == "kept"


def test_the_baseline_sets_the_budget_of_the_others(tmp_path: Path) -> None:
    """The variant could go on for 50 steps; it ends where it has spent what the baseline did with that seed."""
    of = {"plain": {}, "long": {"set": {"stages.warm.steps": 50, "stages.warm.prompts_per_step": 1}}}
    out = tmp_path / "out"
    path = small(tmp_path, {"of": of, "seeds": [2]}, budget={"unit": "trained_tokens"})
    assert start(path, out, in_process=True) == 0
    plain, long = (read_history(out / name / "seed-2") for name in of)
    spent, each = sum(row["tokens_trained"] for row in plain.steps), [row["tokens_trained"] for row in long.steps]
    assert len(plain.steps) == 2
    assert sum(each[:-1]) < spent <= sum(each)
    assert probed_steps(long.run) == [0, len(each)], "the last step is measured, wherever the budget falls"
    assert not any("give them more steps" in note for note in document(Study.open(out))["notes"])


def test_a_failed_variant_costs_the_others_nothing(tmp_path: Path) -> None:
    """Its step has nothing to train on, which ends that run alone; the exit code tells."""
    own = {"set": {"stages.warm.recipe": {"kind": "rest_em", "samples": 1, "restart": False}}}
    never = {"kind": "format", "pattern": "never"}
    of = {"given": {}, "own": own, "careful": {"set": {"demonstrations.carelessness": 0}}}
    out = tmp_path / "out"
    path = small(tmp_path, {"study": "provenance_swap", "of": of}, verifier=never)
    assert start(path, out, in_process=True) == 1
    rows = {row["name"]: row for row in document(Study.open(out))["variants"]}
    assert [rows[name]["runs"][0]["status"] for name in of] == ["finished", "failed", "finished"]
    assert rows["own"]["verdict"] == "unmeasured"
    assert rows["careful"]["verdict"] == "undecided"
    before = kinds(out / "given" / "seed-0")
    assert resume(out, in_process=True) == 1, "it fails again"
    assert kinds(out / "given" / "seed-0") == before, "what was finished is left alone"
    assert kinds(out / "own" / "seed-0").count("failed") == 2


def test_without_the_baseline_a_variant_that_takes_its_budget_waits(tmp_path: Path) -> None:
    own = {"kind": "rest_em", "samples": 1}
    of = {"own": {"set": {"stages.warm.recipe": own}}, "given": {}}
    path = small(tmp_path, {"of": of}, verifier={"kind": "format", "pattern": "never"}, budget={"unit": "steps"})
    out = tmp_path / "out"
    assert start(path, out, in_process=True) == 1
    assert Study.open(out).status("given", 0) == "not started"


def assert_same(here: Path, there: Path) -> None:
    """Two experiments' runs trained on the same and came to the same weights."""
    for name in ("sft", "dft"):
        one, other = (read_history(place / name / "seed-0") for place in (here, there))
        assert [trained(one.run, step) for step in (1, 2)] == [trained(other.run, step) for step in (1, 2)]
        model = "checkpoints/step-000002/model/model.safetensors"
        assert (one.run.root / model).read_bytes() == (other.run.root / model).read_bytes()


def test_a_variant_that_broke_off_is_resumed_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both break off after their first step; resumed, they are what they would have been."""
    path = small(tmp_path, SFT_DFT)
    monkeypatch.setenv("BRAID_FAILPOINT", "loop.before_step.2=raise")
    assert start(path, tmp_path / "out", in_process=True) == 1
    assert [row["runs"][0]["missing"] for row in document(Study.open(tmp_path / "out"))["variants"]] == ["failed"] * 2
    monkeypatch.delenv("BRAID_FAILPOINT")
    assert resume(tmp_path / "out", in_process=True) == 0
    assert start(path, tmp_path / "whole", in_process=True) == 0
    assert_same(tmp_path / "out", tmp_path / "whole")
    assert "resumed" in kinds(tmp_path / "out" / "sft" / "seed-0")


KILLED = f"""
import sys
import time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from orchestrator.experiments import start
start(Path(sys.argv[1]), Path(sys.argv[2]), in_process=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["loop.after_step.2", "run.before_checkpoint.0"])
def test_a_killed_experiment_goes_on_with_the_variant_that_was_cut(point: str, tmp_path: Path) -> None:
    """Killed in its first variant; the same experiment without a kill has the same trajectories and weights."""
    path = small(tmp_path, SFT_DFT)
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [sys.executable, "-c", KILLED, str(path), str(out)]
    env = {**os.environ, "BRAID_FAILPOINT": f"{point}=kill9"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode not in (0, 1), done.stdout + done.stderr
    assert [Study.open(out).status(name, 0) for name in ("sft", "dft")] == ["running", "not started"]
    assert CliRunner().invoke(app, ["resume", str(out), "--in-process"]).exit_code == 0
    assert start(path, whole, in_process=True) == 0
    assert_same(out, whole)


@pytest.mark.slow
def test_an_interrupted_experiment_starts_nothing_more(tmp_path: Path) -> None:
    """Exit code 4 after the step in hand; what is left runs on resume."""
    of = {name: {"set": {"stages.warm.steps": 400}} for name in ("one", "two")}
    path, out = small(tmp_path, {"of": of}, checkpoints={"every": 400}), tmp_path / "out"
    command = [sys.executable, "-m", "orchestrator", "run", str(path), "--out", str(out), "--in-process"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    metrics, deadline = out / "one" / "seed-0" / "ledger" / "metrics.jsonl", time.monotonic() + 240
    while not (metrics.is_file() and len(metrics.read_bytes().splitlines()) > 5):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "no step within 240 s"
        time.sleep(0.05)
    running.terminate()
    running.communicate(timeout=240)
    assert running.returncode == 4
    assert [Study.open(out).status(name, 0) for name in of] == ["interrupted", "not started"]
    assert json.loads((out / "experiment.json").read_text())["variants"][1]["runs"][0]["status"] == "not started"


@pytest.mark.slow
def test_a_run_whose_directory_was_only_claimed_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert start(small(tmp_path, SFT_DFT), out, in_process=True) == 0
    study = Study.open(out)
    (out / "dft" / "seed-0").rename(tmp_path / "aside")
    study.place("dft", 0).mkdir()
    assert resume(out, in_process=True) == 0
    assert study.status("dft", 0) == "finished"


def test_what_stands_there_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(BadInput, match="never overwritten"):
        start(small(tmp_path, SFT_DFT), out, in_process=True)
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_bad_variants_make_no_directory(tmp_path: Path) -> None:
    path = small(tmp_path, {"of": {"plain": {}, "bad": {"set": {"stages.warm.steps": 0}}}})
    with pytest.raises(BadInput, match=r"variants.of.bad: stages.warm.steps"):
        start(path, tmp_path / "out", in_process=True)
    assert not (tmp_path / "out").exists()
