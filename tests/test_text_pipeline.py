"""Text verifiers in a pipeline file: they survive writing and reading, and what they need is known beforehand."""

import json
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from orchestrator.legality.silence import always_passes, compares
from orchestrator.load import dump, read
from policies.bad_input import BadInput
from verifiers.config import Verifier

SCHEMA = {"type": "object", "properties": {"path": {"type": "string", "default": "a/b"}}, "required": ["path"]}
PARTS = [
    {"kind": "answer"},
    {"kind": "length", "least": 2, "most": 9, "margin": 3.5, "weight": 0.1},
    {"kind": "repetition", "ngram": 8, "weight": 0.1},
    {"kind": "tags", "tags": ["reason", "answer"], "opened": True, "role": "gate"},
    {"kind": "language", "language": "de", "among": ["de", "en"]},
    {"kind": "json_schema", "against": SCHEMA, "equals": "fields"},
    {"kind": "function", "path": "reward.py"},
]


def pipeline(folder, verifier, prompts="{kind: arithmetic, count: 8}"):
    (folder / "reward.py").write_text("def score(prompt, response, reference): return 1.0")
    path = folder / "run.yaml"
    stages = "stages: [{name: a, steps: 1, recipe: {kind: grpo}}]\n"
    path.write_text(f"name: own\nprompts: {{train: {prompts}}}\nverifier: {json.dumps(verifier)}\n{stages}")
    return path


def test_every_kind_is_read_and_written_back_equal(tmp_path):
    loaded = read(pipeline(tmp_path, {"kind": "rubric", "parts": PARTS}), ["verifier.parts[1].most=12"])
    again = tmp_path / "elsewhere" / "run.yaml"
    again.parent.mkdir()
    again.write_text(dump(loaded))
    assert read(again) == loaded
    assert loaded.verifier.parts[1].most == 12
    assert loaded.verifier.parts[5].against == SCHEMA  # a schema's own `path` is no path of ours


@pytest.mark.parametrize(
    ("verifier", "needs"),
    [
        ({"kind": "length", "most": 3}, ""),
        ({"kind": "length", "against": "reference"}, "length"),
        ({"kind": "language", "language": "en"}, ""),
        ({"kind": "language", "language": "reference"}, "language"),
        ({"kind": "json_schema", "against": SCHEMA}, ""),
        ({"kind": "json_schema", "against": "reference"}, "json_schema"),
        ({"kind": "json_schema", "equals": "yes"}, "json_schema"),
        ({"kind": "repetition"}, ""),
        ({"kind": "tags"}, ""),
        ({"kind": "function", "path": "reward.py"}, ""),
    ],
)
def test_who_needs_a_reference_is_known(tmp_path, verifier, needs):
    assert compares(TypeAdapter(Verifier).validate_python(verifier)) == needs
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    path = pipeline(tmp_path, verifier, "{kind: jsonl, path: tasks.jsonl, reference: null}")
    if needs:
        with pytest.raises(BadInput, match=f"the verifier {needs} compares with it"):
            read(path)
    else:
        read(path)


def test_a_length_among_its_group_fails_nobody():
    built = TypeAdapter(Verifier).validate_python
    assert always_passes(built({"kind": "length", "against": "group"}))
    assert not always_passes(built({"kind": "length", "most": 3}))


def test_a_check_loads_no_judging_library(tmp_path):
    path = pipeline(tmp_path, {"kind": "rubric", "parts": [part for part in PARTS if part["kind"] != "json_schema"]})
    code = (
        "import sys; from orchestrator.load import read; read(sys.argv[1]); "
        "print(*{'py3langid', 'jsonschema', 'sympy', 'reasoning_gym', 'regex', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
