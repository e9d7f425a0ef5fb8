"""The key `diagnosis` of a handoff, and the figures of `braid probe` and `eval`: functions of what was measured."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.diagnosis import diagnosed, document, scaffold_gap
from orchestrator.load import read
from orchestrator.probes.bottleneck import KINDS, Kind, Marks
from orchestrator.probes.snapshot import Sampled, Snapshot
from orchestrator.probing_now import lines, reached
from tests.bottleneck_cases import counted, scored, world
from tests.diagnosed_cases import available
from tests.recipe_runs import teacher_folder, write_data

HOW = {"epsilon": 0.05, "confidence": 0.95}


def test_a_handoffs_diagnosis_is_json_and_its_pipeline_stands_beside_it(tmp_path: Path) -> None:
    write_data(tmp_path)
    has = replace(available(tmp_path, teacher_folder(tmp_path), tmp_path / "teacher"), probe=None)
    kinds: list[Kind] = ["unreached_prefix"] * 30 + ["mastered"] * 10
    one = world(kinds, 5, clear=True, banked=0.8)
    file = tmp_path / "handoffs" / "stage.recommended.yaml"
    found = document(one.snapshots, **HOW, available=has, file=file)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["bottleneck"] == "unreached_prefix" and found["recommendation"]["file"] == file.name
    assert [stage.recipe.kind for stage in read(file).stages] == ["sft", "grpo"]
    assert {choice["key"] for choice in found["recommendation"]["choices"]} >= {"stages.import.recipe"}
    assert set(found["classes"]) == set(KINDS) and sum(one["named"] for one in found["classes"].values()) == 40
    assert [row["id"] for row in found["prompts"]] == [f"p{at}" for at in range(40)]
    assert any(row["reach"] is None for row in found["prompts"]), "a prompt without a trajectory has no reach"
    assert found == document(one.snapshots, **HOW, available=has, file=file), "a repeat gives the same figures"


def test_of_a_mastered_set_nothing_is_written_and_without_data_nothing_is_recommended(tmp_path: Path) -> None:
    write_data(tmp_path)
    has = available(tmp_path, teacher_folder(tmp_path), tmp_path / "teacher")
    mastered = world(["mastered"] * 30, 1, clear=True)
    found = document(mastered.snapshots, **HOW, available=has, file=tmp_path / "none.yaml")
    assert found["recommendation"]["file"] == "" and "harder prompts" in found["recommendation"]["told"]
    assert not (tmp_path / "none.yaml").exists()
    assert document(mastered.snapshots, **HOW, available=None, file=None)["recommendation"] is None
    empty = diagnosed([Snapshot(0, "a")], Marks(), has)
    assert empty.text == "" and empty.document["pass_at_1"]["value"] is None


def test_crucial_tokens_are_kept_of_few_prompts() -> None:
    found = diagnosed(world(["unavailable_action"] * 30, 2, clear=True).snapshots, Marks()).document
    assert len(found["crucial"]) == 20 and found["bottleneck"] == "unavailable_action"
    for one in found["crucial"]:
        assert one["tokens"] and all(token["probability"] < 0.05 for token in one["tokens"])


def test_the_scaffold_gap_is_paired_by_prompt() -> None:
    """Between prompts the rates differ widely; of each, the scaffold adds one response in ten."""
    passes = np.arange(0, 90, 3)
    bare, helped = counted([100] * 30, passes.tolist()), counted([100] * 30, (passes + 10).tolist())
    gap = scaffold_gap(Snapshot(0, "a", {"probe": bare, "scaffolded": helped}), 0.95)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))
    fewer = replace(helped, prompts=tuple(f"q{at}" for at in range(30)))
    assert not scaffold_gap(Snapshot(0, "a", {"probe": bare, "scaffolded": fewer}), 0.95).known
    assert not scaffold_gap(Snapshot(0, "a", {"probe": bare}), 0.95).known
    silent = counted([0] * 30, [0] * 30)
    assert not scaffold_gap(Snapshot(0, "a", {"probe": silent, "scaffolded": helped}), 0.95).known


def families(found: Sampled, names: tuple[str, ...], greedy: list[float]) -> Sampled:
    return replace(found, families=names, greedy_P=np.array(greedy))


def test_accuracy_is_given_by_family_and_unknown_where_nothing_was_judged() -> None:
    found = families(counted([4, 4, 0, 4], [4, 0, 0, 2]), ("a", "a", "", "b"), [1.0, 0.0, math.nan, 1.0])
    told = {one.family: one for one in lines(found, 0.95)}
    assert list(told) == ["all", "-", "a", "b"] and [one.prompts for one in told.values()] == [4, 1, 2, 1]
    assert told["all"].greedy.value == pytest.approx(2 / 3) and told["all"].sampled.value == pytest.approx(0.5)
    assert told["a"].greedy.value == 0.5 and not told["-"].greedy.known and not told["-"].sampled.known
    assert told["b"].greedy.low > 0 and told["b"].greedy.high == 1.0
    assert [one.family for one in lines(counted([4], [1]), 0.95)] == ["all"], "a single family is all"


def test_reach_is_what_enumeration_says() -> None:
    draws = np.random.default_rng(0)
    paths = [np.array(one) for one in ([0.9, 0.8, 0.7], [0.5, 0.01], [1.0, 1.0, 1.0, 1.0])]
    found = reached([scored(f"p{at}", path, draws) for at, path in enumerate(paths)], 0.05, 0.95)
    assert found is not None and (found["trajectories"], found["prompts"]) == (3, 3)
    followed = [np.cumprod(path).mean() for path in paths]
    assert found["reached"]["value"] == pytest.approx(2 / 3)
    assert found["followed"]["value"] == pytest.approx(np.mean(followed), rel=1e-5)
    assert sum(found["obstacles"].values()) == 3
    assert reached([], 0.05, 0.95) is None
