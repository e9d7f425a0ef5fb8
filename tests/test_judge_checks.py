"""`braid check` of judges: keys, folders, templates, references and groups, each with its key and fix."""

import time
from pathlib import Path

import pytest

from orchestrator.load import read
from orchestrator.notation import write
from policies.bad_input import BadInput

SECRET = "sk-very-secret-0123456789"
ENDPOINT = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "model": "m"}
PAIRS = {"kind": "pairwise", "against": "all"}


def lines(folder: Path, verifier: dict, recipe: dict | None = None, **more: object) -> list[str]:
    """The faults of a pipeline with this verifier."""
    stage = {"name": "one", "recipe": recipe or {"kind": "grpo"}, "steps": 2}
    path = folder / "p.yaml"
    path.write_text(write({"name": "judged", "verifier": verifier, "stages": [stage], **more}))
    try:
        read(path)
    except BadInput as error:
        return [line.replace(f"{folder}/", "") for line in error.lines]
    return []


def judge(model: dict | None = None, form: dict | None = None, **own: object) -> dict:
    return {"kind": "judge", "model": ENDPOINT | (model or {}), "form": form or {"kind": "rubric"}, **own}


def test_a_right_one_is_right(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    assert lines(tmp_path, judge({"key_variable": "JUDGE_KEY"})) == []
    assert lines(tmp_path, judge(form=PAIRS)) == []
    assert lines(tmp_path, {"kind": "rubric", "parts": [{"kind": "answer"}, judge(form=PAIRS)]}) == []


@pytest.mark.parametrize(
    ("verifier", "recipe", "expected"),
    [
        (
            judge({"key_variable": "JUDGE_KEY"}),
            None,
            "p.yaml: verifier.model.key_variable: the environment variable JUDGE_KEY is not set; "
            "export it where the scorers run",
        ),
        (
            {"kind": "rubric", "parts": [{"kind": "answer"}, judge({"key_variable": SECRET})]},
            None,
            "p.yaml: verifier.parts[1].model.key_variable: key_variable should be the NAME of an environment variable, "
            "such as JUDGE_KEY, and never the key",
        ),
        (
            {"kind": "judge", "model": {"kind": "folder", "path": "absent"}, "form": {"kind": "rubric"}},
            None,
            "p.yaml: verifier.model.path: no such folder (got 'absent'); give a Hugging Face folder on this machine; "
            "`braid import-model` makes one of a GGUF file",
        ),
        (
            {"kind": "judge", "model": {"kind": "folder", "path": "."}, "form": {"kind": "rubric"}},
            None,
            "p.yaml: verifier.model.path: holds no config.json, tokenizer.json, *.safetensors",
        ),
        (judge(template="{{ response }} {{ anwser }}"), None, "no such variable (got 'anwser')"),
        (judge(template="{{ prompt }}"), None, "does not show {{ response }}"),
        (judge(form={"kind": "constitution", "principles": []}), None, "verifier.form.principles: too few entries"),
        (judge(form={"kind": "voting"}), None, "unknown kind (got 'voting')"),
        (
            judge(form=PAIRS),
            {"kind": "ppo", "rollouts": 1},
            "stages.one.recipe.kind: a prompt has one response, and the verifier compares the responses of a group",
        ),
        (
            judge(form=PAIRS),
            {"kind": "star"},
            "what strand kept prepares is judged one by one",
        ),
        (
            {"kind": "steps", "step": judge(form=PAIRS), "outcome": {"kind": "answer"}},
            None,
            "p.yaml: verifier.step.kind: compares the responses of a group, and a step has none (got 'judge')",
        ),
    ],
)
def test_a_wrong_one_is_told_with_its_key(tmp_path, monkeypatch, verifier, recipe, expected):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    found = lines(tmp_path, verifier, recipe)
    assert any(expected in line for line in found), found
    assert not any(SECRET in line for line in found)


def test_pairs_against_a_reference_that_no_prompt_has(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "1+1="}\n')
    prompts = {"train": {"kind": "jsonl", "path": "prompts.jsonl", "reference": None}}
    for form in ({"kind": "pairwise"}, {"kind": "checklist"}):
        found = lines(tmp_path, judge(form=form), prompts=prompts)
        assert any("prompts.train.reference is null" in line for line in found), found
    assert not any("reference is null" in line for line in lines(tmp_path, judge(form=PAIRS), prompts=prompts))


def test_checking_loads_no_client(tmp_path):
    import subprocess
    import sys

    began = time.monotonic()
    code = (
        "import sys; from orchestrator.load import read; read(sys.argv[1]); "
        "assert not {'openai', 'httpx', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    lines(tmp_path, judge())
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60
