"""Every fault names the file, the key, the value and the fix, and all faults come at once."""

import contextlib
import copy
import math
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.load import dump, read
from orchestrator.notation import write
from policies.bad_input import BadInput

GOOD = """\
name: good
stages:
  - {name: one, recipe: {kind: sft}, steps: 2}
  - {name: two, recipe: {kind: grpo}, steps: 2}
"""


def lines(tmp_path, text, sets=()):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read(path, sets)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.lines]


def line(tmp_path, text, sets=()):
    (found,) = lines(tmp_path, text, sets)
    return found


def test_the_good_one_is_good(tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    assert [stage.name for stage in read(tmp_path / "good.yaml").stages] == ["one", "two"]


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("modle: {}", "bad.yaml: modle: unknown key; did you mean 'model'?"),
        (
            "seed: x",
            "bad.yaml: seed: must be a whole number (got 'x'); write it without quotes and decimals, such as 8",
        ),
        (
            "seed: 1.5",
            "bad.yaml: seed: must be a whole number (got 1.5); write it without quotes and decimals, such as 8",
        ),
        (
            "verifier: {kind: answr}",
            "bad.yaml: verifier: unknown kind (got 'answr'); did you mean 'answer'? "
            "the kinds are answer, program, math, format, reasoning_gym, function, length, repetition, tags, language, "
            "json_schema, environment, reward_model, preference_model, prm, judge, steps, rubric",
        ),
        (
            "model: {preset: arithmetic}",
            "bad.yaml: model: has no kind (got a mapping); add `kind:` and one of tiny, hf",
        ),
        (
            "prompts: {train: {kind: arithmetic, digits: []}}",
            "bad.yaml: prompts.train.digits: too few entries (got a list of 0); give 1 or more",
        ),
        (
            "verifier: {kind: rubric, parts: [{kind: answer}, {kind: math, timeout: 99}]}",
            "bad.yaml: verifier.parts[1].timeout: too large (got 99); set it to 60 or less",
        ),
        (
            "demonstrations: {kind: model, model: {kind: hf}}",
            "bad.yaml: demonstrations.model.path: missing; "
            "add it: The folder, absolute or relative to the pipeline file.",
        ),
        (
            "resources: {rollout: {engine: vlm}}",
            "bad.yaml: resources.rollout.engine: unknown value (got 'vlm'); did you mean 'vllm'? use 'vllm' or 'torch'",
        ),
        (
            "resources: {scorer: 3}",
            "bad.yaml: resources.scorer: must be a mapping (got 3); write its keys (replicas, timeout) as `key: value`",
        ),
        (
            "prompts: {train: {kind: jsonl, path: no.jsonl}}\ndemonstrations: {kind: jsonl, path: .}",
            "bad.yaml: prompts.train.path: no such file (got 'no.jsonl'); "
            "paths are relative to the pipeline file's folder",
        ),
        (
            "model: {kind: hf, path: nowhere, dtype: float32}",
            "bad.yaml: model.path: no such folder (got 'nowhere'); "
            "give a Hugging Face folder on this machine; `braid import-model` makes one of a GGUF file",
        ),
        (
            "model: {kind: tiny, dtype: bfloat16}",
            "bad.yaml: resources.learner.zero_stage: bfloat16 with DeepSpeed needs partitioned optimizer state "
            "(got 0); set it to 1 or more, or model.dtype to float32",
        ),
        (
            "demonstrations: null",
            "bad.yaml: stages.one.recipe.kind: needs demonstrations, but demonstrations is null (got 'sft'); "
            "add demonstrations, or choose a recipe without them",
        ),
        (
            "demonstrations: {kind: chain_solver}",
            "bad.yaml: demonstrations.kind: solves reasoning_gym's chain_sum alone, but prompts.train is arithmetic "
            "(got 'chain_solver'); take demonstrations from jsonl, parquet or model",
        ),
        (
            "prompts: {train: {kind: reasoning_gym, dataset: chain_sum}}",
            "bad.yaml: demonstrations.kind: the careless teacher solves arithmetic alone, but prompts.train is "
            "reasoning_gym chain_sum, and sft needs demonstrations (got 'careless'); "
            "take demonstrations from jsonl, parquet or model",
        ),
        (
            "verifier: {kind: reasoning_gym, dataset: chain_sum}",
            "bad.yaml: verifier.kind: judges reasoning_gym tasks, but prompts.train is arithmetic "
            "(got 'reasoning_gym'); use the answer verifier, or reasoning_gym prompts",
        ),
        (
            "probe: {every: 5}",
            "bad.yaml: probe.every: there is nothing to probe (got 5); add prompts.probe, or remove this",
        ),
    ],
)
def test_one_fault_one_line(tmp_path, addition, expected):
    assert expected in lines(tmp_path, GOOD + addition + "\n")


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (
            "{name: one, recipe: {kind: grpo}, steps: 2}",
            "bad.yaml: stages[2].name: stage 0 has this name (got 'one'); rename one",
        ),
        (
            "{name: x, recipe: {kind: gropo}, steps: 2}",
            "bad.yaml: stages.x.recipe.kind: unknown recipe (got 'gropo'); did you mean 'grpo'? "
            "`braid recipes` lists them",
        ),
        (
            "{name: x, recipe: {kind: luffy, rolouts: 3}, steps: 2}",
            "bad.yaml: stages.x.recipe.rolouts: unknown key; did you mean 'rollouts'?",
        ),
        (
            "{name: x, recipe: {kind: grpo, rollouts: 1}, steps: 2}",
            "bad.yaml: stages.x.recipe.rollouts: too small (got 1); set it to 2 or more",
        ),
        (
            "{name: x, recipe: {kind: on_policy_distillation}, steps: 2}",
            "bad.yaml: stages.x.recipe.teacher: missing; "
            "add it: Folder of the teacher model; its tokenizer must be the learner's.",
        ),
        (
            "{name: x, recipe: {kind: on_policy_distillation, teacher: nowhere}, steps: 2}",
            "bad.yaml: stages.x.recipe.teacher: no model folder (got 'nowhere'); "
            "give a Hugging Face folder; paths are relative to the pipeline file's folder",
        ),
        (
            "{name: x, recipe: {kind: sft}, steps: 2, max_staleness: 1}",
            "bad.yaml: stages.x.max_staleness: sft draws no rollouts that could lag (got 1); remove it",
        ),
        (
            "{name: x, recipe: {kind: grpo}, steps: 2, sampling: {max_tokens: 128}}",
            "bad.yaml: stages.x.sampling.max_tokens: leaves no room for a prompt in model.context 128 (got 128); "
            "set it below 128, or raise model.context",
        ),
        (
            "{name: x, recipe: {kind: grpo}, steps: 2, prompts_per_step: 1, updates: 9}",
            "bad.yaml: stages.x.updates: a step has 8 trajectories to split (got 9); "
            "set it to 8 or less, or raise prompts_per_step",
        ),
        (
            "{name: X, recipe: {kind: grpo}, steps: 2}",
            "bad.yaml: stages.X.name: not a name (got 'X'); use lower-case letters, digits and dashes, a letter first",
        ),
    ],
)
def test_a_stages_fault_goes_by_the_stages_name(tmp_path, stage, expected):
    assert line(tmp_path, GOOD + f"  - {stage}\n") == expected


def test_all_faults_come_at_once_and_no_more_than_those(tmp_path):
    text = "nme: x\nstages:\n  - {name: a, recipe: {kind: sftt}, steps: 0}\n  - {name: b, recipe: {kind: grpo, x: 1}}\n"
    found = lines(tmp_path, text, ["sede=3", "stages.c.steps=1"])
    assert [one.split(";")[0] for one in found] == [
        "bad.yaml: name: missing",
        "bad.yaml: stages.a.steps: too small (got 0)",
        "bad.yaml: stages.b.steps: missing",
        "bad.yaml: nme: unknown key",
        "--set: sede: unknown key",
        "--set: stages.c.steps: no stage 'c'",
        "bad.yaml: stages.a.recipe.kind: unknown recipe (got 'sftt')",
        "bad.yaml: stages.b.recipe.x: unknown key",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "bad.yaml: is empty; a pipeline has `name:` and `stages:` at least"),
        ("- 1\n", "bad.yaml: is not a mapping; a pipeline has `name:` and `stages:` at least"),
        ("name: a\nname: b\n", "bad.yaml: line 2, column 1: key 'name' stands twice; keep one of the two"),
        (
            "name: [a\nseed: 3\n",
            "bad.yaml: line 2, column 5: expected ',' or ']', but got ':'; "
            "check the indentation, brackets and quotes there and on the line above",
        ),
        (
            "name:\n\tx: 1\n",
            "bad.yaml: line 2, column 1: found character '\\t' that cannot start any token; "
            "indent with spaces, not tabs",
        ),
    ],
)
def test_what_is_no_yaml_names_the_line(tmp_path, text, expected):
    assert line(tmp_path, text) == expected


def test_a_tag_that_would_run_code_is_refused(tmp_path):
    assert "could not determine a constructor" in line(tmp_path, "name: !!python/object/apply:os.getcwd []\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="is a directory"):
        read(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(BadInput, match="not UTF-8"):
        read(tmp_path / "latin.yaml")


def test_a_model_folder_must_be_whole_and_long_enough(tmp_path):
    text = GOOD + "model: {kind: hf, path: m, dtype: float32, context: 512}\n"
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"max_position_embeddings": 256}')
    assert lines(tmp_path, text) == [
        "bad.yaml: model.path: holds no tokenizer.json, *.safetensors (got 'm'); "
        "give the folder that transformers' save_pretrained wrote",
        "bad.yaml: model.context: longer than the model's 256 (got 512); set it to 256",
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("stages", "--set: stages: is not a change; write key.path=value"),
        ("stages.three.steps=1", "--set: stages.three.steps: no stage 'three'; the stages are 0 one, 1 two"),
        ("stages.7.steps=1", "--set: stages.7.steps: no stage '7'; the stages are 0 one, 1 two"),
        (
            "stages.tow.steps=1",
            "--set: stages.tow.steps: no stage 'tow'; did you mean 'two'? the stages are 0 one, 1 two",
        ),
        ("resources.rollout.replica=2", "--set: resources.rollout.replica: unknown key; did you mean 'replicas'?"),
        ("verifier.markr=x", "--set: verifier.markr: unknown key; did you mean 'marker'?"),
        ("seed.x=1", "--set: seed.x: cannot be set in part; set seed as a whole, [a, b]"),
        ("stages.one.steps.x=1", "--set: stages.one.steps.x: stages.one.steps is a single value and has no key 'x'"),
        ("seed=[1", "--set: seed: the value is not YAML (got '[1'); quote it"),
        (
            "stages.one.steps=0",
            "bad.yaml with --set: stages.one.steps: too small (got 0); set it to 1 or more",
        ),
    ],
)
def test_a_change_that_leads_nowhere_is_refused(tmp_path, change, expected):
    assert line(tmp_path, GOOD, [change]) == expected


SCRAPS = st.sampled_from(
    [None, True, -1, 0, 0.5, math.nan, math.inf, "", "x", "$x", [], [1], {}, {"kind": "x"}, {"a": 1}]
)
EVERYTHING = {
    "name": "all",
    "model": {"kind": "tiny", "preset": "arithmetic"},
    "prompts": {"train": {"kind": "arithmetic", "digits": [2, 3]}, "probe": None},
    "verifier": {"kind": "rubric", "parts": [{"kind": "answer"}, {"kind": "format"}]},
    "demonstrations": {"kind": "model", "model": {"kind": "tiny"}},
    "resources": {"learner": {"lora": {"rank": 4}}, "rollout": {"gpus": 0}},
    "stages": [
        {"name": "a", "recipe": {"kind": "luffy", "gamma": 0.2}, "steps": 1, "optimizer": {"schedule": {"warmup": 1}}},
        {"name": "b", "recipe": {"kind": "grpo"}, "steps": 1, "sampling": {"stop": ["x"]}},
    ],
}


def places(node, path=()):
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(sorted(places(EVERYTHING), key=repr)), SCRAPS), min_size=1, max_size=3))
def test_whatever_stands_in_the_file_it_is_read_or_refused_in_lines(tmp_path, changes):
    content = copy.deepcopy(EVERYTHING)
    for path, scrap in changes:
        here = content
        with contextlib.suppress(LookupError, TypeError):  # an earlier change took the place away
            for key in path[:-1]:
                here = here[key]
            here[path[-1]] = copy.deepcopy(scrap)
    path = tmp_path / "fuzz.yaml"
    path.write_text(write(content))
    try:
        pipeline = read(path)
    except BadInput as error:
        assert error.lines
        assert all(one.startswith(str(path)) or one.startswith("...") for one in error.lines)
    else:
        path.write_text(dump(pipeline))
        assert read(path) == pipeline


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        (
            "preferences: {kind: jsonl, path: pair.jsonl}",
            "bad.yaml: preferences.path: no such file (got 'pair.jsonl'); did you mean 'pairs.jsonl'?; "
            "paths are relative to the pipeline file's folder",
        ),
        (
            "preferences: {kind: jsonl, path: pairs.jsonl, rejected: worse}",
            "bad.yaml: preferences: pairs.jsonl: no column 'worse' (got prompt, chosen, rejected, worst); "
            "did you mean 'worst'?; name the column in the pipeline file, or add it",
        ),
        (
            "labels: {kind: parquet, path: pairs.jsonl}",
            "bad.yaml: labels.path: not readable as Parquet: ",
        ),
        ("labels: {kind: jsonl, path: .}", "bad.yaml: labels: pairs.jsonl: no columns 'completion', 'label' (got "),
        ("demonstrations: {kind: jsonl, path: data-*.jsonl}", "bad.yaml: demonstrations.path: the pattern matches no"),
        ("labels: {path: pairs.jsonl}", "bad.yaml: labels.kind: missing"),
        ("labels: {kind: jsonl, path: x, on_bad_row: drop}", "unknown value (got 'drop'); use 'refuse' or 'skip'"),
    ],
)
def test_data_that_cannot_be_read_is_named_before_a_run(tmp_path, addition, expected):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "worst": "d"}\n')
    assert any(expected in one for one in lines(tmp_path, GOOD + addition + "\n"))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("dpo", "stages.one.recipe.kind: needs preferences, but preferences is null (got 'dpo'); add preferences: "),
        ("kto", "stages.one.recipe.kind: needs labelled responses, but labels is null (got 'kto'); add labels: "),
    ],
)
def test_data_that_a_recipe_wants_and_nobody_gives(tmp_path, recipe, expected):
    text = GOOD.replace("kind: sft", f"kind: {recipe}")
    assert any(f"bad.yaml: {expected}" in one for one in lines(tmp_path, text))


def test_check_needs_neither_torch_nor_transformers(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    path = tmp_path / "good.yaml"
    path.write_text(GOOD + "preferences: {kind: jsonl, path: pairs.jsonl}\n")
    code = (
        "import sys; from orchestrator.load import read; read(sys.argv[1]);"
        "print(*sorted({'torch', 'transformers', 'ray', 'vllm', 'pyarrow', 'reasoning_gym'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
