"""The surface of the pipeline file: a new key is a visible change, and every example loads."""

from pathlib import Path

import pytest

from orchestrator import recipes
from orchestrator.config import Pipeline
from orchestrator.keys import every_key, fields, reachable
from orchestrator.load import read

ROOT = Path(__file__).resolve().parents[1]
FROZEN = Path(__file__).with_name("config_keys.txt")
CEILING = 200  # the run itself, with verifiers watched, steps labelled, judges served and handoffs measured
OF_A_KIND = 17  # one verifier, environment or tool, with what every part of a rubric has


def surface():
    parameters = [f"recipe {name}.{key}" for name in recipes.names() for key in recipes.file(name).parameters]
    return [*every_key(Pipeline), *sorted(parameters)]


def test_the_keys_are_those_that_were_agreed():
    frozen = FROZEN.read_text().splitlines()
    added, removed = set(surface()) - set(frozen), set(frozen) - set(surface())
    assert not added and not removed, f"tests/config_keys.txt: add {sorted(added)}, remove {sorted(removed)}"
    assert frozen == surface(), "tests/config_keys.txt is not sorted"


def test_there_are_no_more_keys_than_a_person_can_learn():
    """Of the run itself, and of each thing that a `kind` chooses: nobody reads about those that he did not choose."""
    chosen = [model for model in reachable(Pipeline) if model.__module__.startswith("verifiers")]
    others = [model for model in reachable(Pipeline) if model not in chosen]
    ours = {f"{model.__name__}.{key}" for model in others for key in fields(model)} & set(every_key(Pipeline))
    assert len(ours) <= CEILING
    assert {model.__name__: len(fields(model)) for model in chosen if len(fields(model)) > OF_A_KIND} == {}


def test_every_model_of_the_tree_refuses_unknown_keys_and_change():
    for model in reachable(Pipeline):
        assert model.model_config.get("frozen"), model
        assert model.model_config.get("extra") == ("allow" if model.__name__ == "RecipeChoice" else "forbid"), model
        assert model.__doc__, model
        assert fields(model), model


def model_folder(tmp_path):
    """What `check` looks for in a model folder, without the weights."""
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 8192}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads(example, tmp_path):
    sets = [f"model.path={model_folder(tmp_path)}"] if "kind: hf" in example.read_text() else []
    assert read(example, sets).name == example.stem
