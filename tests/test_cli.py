"""The command line: exit codes, one JSON document, and a `check` that waits for nothing heavy."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator import doctor, recipes
from orchestrator.cli import app

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = str(ROOT / "examples" / "quickstart.yaml")
COMMANDS = [
    *["check", "run", "resume", "report", "show", "query", "label"],
    *["recipes", "submit", "manifest", "import-model", "doctor"],
]


def braid(*arguments, cwd=ROOT, **environment):
    command = [sys.executable, "-m", "orchestrator", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def plain(text):
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def test_check_is_quick_and_loads_nothing_heavy():
    program = (
        "import sys\n"
        f"sys.argv = ['braid', 'check', {QUICKSTART!r}]\n"
        "from orchestrator.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'pyarrow', 'deepspeed', 'duckdb'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 1.5, "of the processor: what a busy machine adds is not ours"


def test_check_prints_plain_lines_without_a_terminal():
    done = braid("check", QUICKSTART)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "imitation: point(current, log) / token" in done.stdout
    assert done.stdout.splitlines()[-1] == "legal"


def test_check_prints_one_json_document():
    done = braid("check", QUICKSTART, "--json", "--set", "stages.sharpen.steps=5")
    document = json.loads(done.stdout)
    assert document["legal"] is True
    assert [stage["steps"] for stage in document["stages"]][-1] == 5


def test_bad_configuration_is_exit_2_with_lines_and_json(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: bad\nstages: [{name: a, recipe: {kind: sftt}, steps: 1}]\nseeed: 1\n")
    done = braid("check", "bad.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "bad.yaml: seeed: unknown key; did you mean 'seed'?",
        "bad.yaml: stages.a.recipe.kind: unknown recipe (got 'sftt'); did you mean 'sft'? `braid recipes` lists them",
    ]
    told = braid("check", "bad.yaml", "--json", cwd=tmp_path)
    assert told.returncode == 2
    assert json.loads(told.stdout) == {"legal": False, "faults": done.stderr.splitlines()}


@pytest.mark.parametrize(
    "arguments", [["chek"], ["check"], ["check", QUICKSTART, "--jsn"], ["show", "x", "--step", "y"]]
)
def test_bad_usage_is_exit_2(arguments):
    assert braid(*arguments).returncode == 2


def test_a_run_directory_that_exists_is_never_touched(tmp_path):
    (tmp_path / "out").mkdir()
    done = braid("run", QUICKSTART, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "exists and is not overwritten" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_resume_of_nothing_is_exit_2(tmp_path):
    done = braid("resume", str(tmp_path / "none"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_every_command_teaches_with_an_example():
    runner = CliRunner(env={"COLUMNS": "200"})
    overview = runner.invoke(app, ["--help"]).output
    for command in COMMANDS:
        assert command in overview
        assert f"Example: braid {command}" in plain(runner.invoke(app, [command, "--help"]).output)


def test_recipes_are_listed_and_described():
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["recipes", "--json"]).output)
    assert [one["name"] for one in listed] == list(recipes.names())
    assert all(one["composition"] and one["labels"] and one["citation"] for one in listed)
    told = runner.invoke(app, ["recipes", "luffy"]).output
    assert "p / (p + gamma)" in told
    assert "strand off" in told
    assert "mixed · reward · expansion, reshaping" in told
    assert braid("recipes", "lufy").returncode == 2


def test_recipes_are_listed_by_label():
    listed = json.loads(
        CliRunner().invoke(app, ["recipes", "--json", "--provenance", "mixed", "--role", "expansion"]).output
    )
    assert listed
    assert all(one["labels"]["provenance"] == "mixed" and "expansion" in one["labels"]["role"] for one in listed)
    assert "luffy" in CliRunner().invoke(app, ["recipes", "--provenance", "mixed"]).output
    done = braid("recipes", "--role", "expand")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "--role: no such label (got 'expand'); it is one of expansion, reshaping, consolidation; "
        "did you mean 'expansion'?"
    ]


# ---------------------------------------------------------------- doctor


def findings(tmp_path, **environment):
    return {one.name: one for one in doctor.examine(tmp_path, environment)}


def test_doctor_looks_at_everything_and_says_it_as_json():
    done = braid("doctor", "--json")
    document = json.loads(done.stdout)
    looked_at = {"python", "packages", "names", "disk", "shared memory", "memory", "cores", "gpu", "sandbox", "ray"}
    assert {one["name"] for one in document["findings"]} == looked_at
    assert done.returncode == (0 if document["healthy"] else 1)


def test_doctor_finds_a_package_that_differs_from_the_lock(tmp_path):
    lock = tmp_path / "cpu.lock"
    lock.write_text("pydantic==0.1\nno-such-package-of-ours==1\n")
    (found,) = doctor._packages(lock)
    assert found.status == "broken"
    assert (
        "pydantic" in found.said
        and "instead of 0.1" in found.said
        and "no-such-package-of-ours is missing" in found.said
    )


def test_doctor_refuses_a_cluster_without_authentication(tmp_path):
    assert findings(tmp_path, RAY_AUTH_MODE="disabled")["ray"].status == "broken"
    assert findings(tmp_path, RAY_ADDRESS="10.0.0.1:6379")["ray"].status == "broken"


def test_doctor_sees_a_token_that_others_may_read(tmp_path):
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    assert findings(tmp_path, RAY_AUTH_TOKEN_PATH=str(token))["ray"].status == "note"
    token.chmod(0o600)
    assert findings(tmp_path, RAY_AUTH_TOKEN_PATH=str(token))["ray"].status == "ok"


# ---------------------------------------------------------------- elsewhere


def test_manifest_prints_kubernetes_documents():
    done = braid("manifest", QUICKSTART, "--image", "registry.example/braid:1")
    assert done.returncode == 0, done.stderr
    assert "RayJob" in [document["kind"] for document in yaml.safe_load_all(done.stdout)]


def test_manifest_and_submit_refuse_a_bad_pipeline_before_anything_else():
    assert braid("manifest", QUICKSTART, "--image", "x", "--set", "seed=x").returncode == 2
    done = braid("submit", QUICKSTART, "--address", "http://127.0.0.1:9", "--out", "/x", "--set", "seed=x")
    assert done.returncode == 2
    assert "seed: must be a whole number" in done.stderr
