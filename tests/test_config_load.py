"""Reading a pipeline: changes by `--set`, paths, resolved recipes, and the way back to YAML."""

import pytest

from orchestrator.load import dump, read
from orchestrator.notation import parse, write

TEXT = """\
name: here
prompts:
  train: {kind: jsonl, path: data/train.jsonl}
demonstrations: {kind: jsonl, path: data/worked.jsonl}
stages:
  - {name: one, recipe: {kind: sft}, steps: 2}
  - {name: two, recipe: {kind: luffy, gamma: 0.3}, steps: 2, optimizer: {learning_rate: 1e-3}}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"prompt": "1+1=", "reference": "2"}\n')
    (tmp_path / "data" / "worked.jsonl").write_text('{"prompt": "1+1=", "response": "#2"}\n')
    path = tmp_path / "here.yaml"
    path.write_text(TEXT)
    return path


def test_paths_are_relative_to_the_file_and_come_out_absolute(file, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    pipeline = read(file)
    assert pipeline.prompts.train.path == str(file.parent / "data" / "train.jsonl")
    assert pipeline.demonstrations.path == str(file.parent / "data" / "worked.jsonl")


def test_recipes_come_out_with_every_parameter(file):
    luffy = read(file).stages[1].recipe
    assert luffy.model_extra == {"rollouts": 7, "demonstrations": 1, "gamma": 0.3, "length": 8192, "entropy": 0.001}


def test_a_resolved_pipeline_is_read_back_equal_from_anywhere(file, tmp_path_factory):
    pipeline = read(file)
    copy = tmp_path_factory.mktemp("run") / "config.yaml"
    copy.write_text(dump(pipeline))
    assert read(copy) == pipeline
    assert dump(read(copy)) == dump(pipeline)


@pytest.mark.parametrize("key", ["stages.two.steps", "stages.1.steps", "stages[1].steps"])
def test_a_stage_goes_by_name_or_index(file, key):
    assert [stage.steps for stage in read(file, [f"{key}=5"]).stages] == [2, 5]


def test_changes_reach_what_the_file_leaves_out(file):
    sets = ["resources.scorer.replicas=3", "verifier.marker='='", "stages.two.recipe.rollouts=3", "probe.samples=2"]
    pipeline = read(file, [*sets, "stages.two.sampling.stop=[a, b]", "stages.one.optimizer.learning_rate=2e-4"])
    assert pipeline.resources.scorer.replicas == 3
    assert pipeline.verifier.marker == "="
    assert pipeline.stages[1].recipe.model_extra["rollouts"] == 3
    assert pipeline.stages[1].sampling.stop == ("a", "b")
    assert pipeline.stages[0].optimizer.learning_rate == 2e-4


def test_of_two_changes_to_a_key_the_last_stands(file):
    assert read(file, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        ("1_000", 1000),
        (".5", 0.5),
        ("007", "007"),
        ("12:30:45", "12:30:45"),
        ("2026-01-02", "2026-01-02"),
        ("null", None),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(text)
    assert found == value
    assert type(found) is type(value)
    assert parse(write({"key": value})) == {"key": value}


@pytest.mark.parametrize("text", ["1e-3", "off", "true", "007", "1_0", "null", "", " x ", "a: b", "#x", "ü\n", ".inf"])
def test_text_that_looks_like_something_else_stays_text(text):
    assert parse(write({"key": text})) == {"key": text}


def test_a_pipeline_for_another_machine_keeps_its_paths_and_looks_for_nothing(tmp_path):
    path = tmp_path / "there.yaml"
    path.write_text("model: {kind: hf, path: /runs/models/m, dtype: float32}\n" + TEXT.replace("here", "there"))
    pipeline = read(path, elsewhere=True)
    assert (pipeline.model.path, pipeline.prompts.train.path) == ("/runs/models/m", "data/train.jsonl")
    assert pipeline.stages[1].recipe.model_extra["rollouts"] == 7
