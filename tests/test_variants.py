"""Variants of a pipeline file: what they expand to, what a study may not change, and every fault at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.load import read
from orchestrator.variants import Expanded, expand
from policies.bad_input import BadInput

ROOT = Path(__file__).resolve().parents[1]

PIPELINE: dict[str, Any] = {
    "name": "study",
    "model": {"kind": "tiny", "preset": "arithmetic-small", "context": 64},
    "prompts": {
        "train": {"kind": "arithmetic", "digits": [1], "count": 40},
        "probe": {"kind": "arithmetic", "digits": [1], "count": 8, "seed": 9},
    },
    "stages": [
        {"name": "warm", "recipe": {"kind": "sft"}, "steps": 3, "sampling": {"max_tokens": 8}},
        {"name": "learn", "recipe": {"kind": "sft"}, "steps": 4, "sampling": {"max_tokens": 8}},
    ],
}


def written(folder: Path, variants: Any, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**PIPELINE, **changes, "variants": variants}, sort_keys=False))
    return path


def expanded(folder: Path, variants: Any, **changes: Any) -> Expanded:
    return expand(written(folder, variants, **changes))


def faults(folder: Path, variants: Any, **changes: Any) -> list[str]:
    path = written(folder, variants, **changes)
    with pytest.raises(BadInput) as found:
        expand(path)
    return [line.removeprefix(f"{path}: ") for line in found.value.lines]


SWAP = {"kind": "rest_em", "restart": False}


def test_each_variant_is_a_pipeline_of_its_own(tmp_path: Path) -> None:
    of = {"long": {"set": {"stages.learn.steps": 9, "demonstrations.carelessness": 0.5}}, "plain": {}}
    found = expanded(tmp_path, {"of": of, "baseline": "plain", "seeds": [3, 5]})
    assert found.baseline == "plain"
    assert [stage.steps for stage in found.variants["long"].stages] == [3, 9]
    assert found.variants["plain"].stages == read(tmp_path / "study.yaml").stages
    assert all(one.variants is None for one in found.variants.values())
    assert found.runs == [("plain", 3), ("long", 3), ("plain", 5), ("long", 5)]
    assert found.steps == 2 * (7 + 12)
    assert list(found.experiment.of) == ["plain", "long"], "what is stored has the baseline first"


def test_the_command_lines_changes_reach_every_variant(tmp_path: Path) -> None:
    path = written(tmp_path, {"of": {"plain": {}, "long": {"set": {"stages.learn.steps": 9}}}})
    found = expand(path, ["stages.warm.steps=2"])
    assert [[stage.steps for stage in one.stages] for one in found.variants.values()] == [[2, 4], [2, 9]]


def test_paths_in_a_variant_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "given.jsonl").write_text('{"prompt": "1+2=", "response": "3"}\n')
    given = {"demonstrations": {"kind": "jsonl", "path": "given.jsonl"}}
    found = expanded(tmp_path, {"study": "provenance_swap", "of": {"plain": {}, "given": {"set": given}}})
    assert found.variants["given"].demonstrations.path == str(tmp_path / "given.jsonl")  # type: ignore[union-attr]


def test_an_order_moves_whole_stages(tmp_path: Path) -> None:
    stages = [*PIPELINE["stages"], {**PIPELINE["stages"][0], "name": "more", "recipe": {"kind": "dft"}, "steps": 2}]
    found = expanded(tmp_path, {"study": "stage_order"}, stages=stages)
    assert len(found.variants) == 6
    assert found.baseline == "warm-then-learn-then-more"
    for name, pipeline in found.variants.items():
        assert [stage.name for stage in pipeline.stages] == name.split("-then-")
        assert {one.name: one for one in pipeline.stages} == {one.name: one for one in found.base.stages}


def test_a_shared_budget_is_the_baselines_where_it_has_no_amount(tmp_path: Path) -> None:
    of = {"plain": {}, "long": {"set": {"stages.learn.steps": 9}}}
    found = expanded(tmp_path, {"of": of}, budget={"unit": "trained_tokens"})
    assert found.variants["plain"].budget is None
    assert found.variants["long"].budget is not None
    fixed = expanded(tmp_path, {"of": of}, budget={"unit": "steps", "amount": 4})
    assert {one.budget.amount for one in fixed.variants.values() if one.budget} == {4}


# ---------------------------------------------------------------- claims


def test_studies_that_are_what_they_say_are_taken(tmp_path: Path) -> None:
    of = {
        "given": {},
        "own": {"set": {"stages.learn.recipe": SWAP}},
        "careful": {"set": {"demonstrations.carelessness": 0}},
    }
    assert set(expanded(tmp_path, {"study": "provenance_swap", "of": of}).variants) == set(of)
    of = {"sft": {}, "dft": {"set": {"stages.learn.recipe.kind": "dft", "stages.learn.optimizer.learning_rate": 1e-3}}}
    assert set(expanded(tmp_path, {"study": "interface_swap", "of": of}).variants) == set(of)


def test_under_a_budget_another_source_may_take_more_steps(tmp_path: Path) -> None:
    of = {"given": {}, "own": {"set": {"stages.learn.recipe": SWAP, "stages.learn.steps": 9}}}
    block = {"study": "provenance_swap", "of": of}
    assert "stages.learn.steps (got 9)" in faults(tmp_path, block)[0]
    assert expanded(tmp_path, block, budget={"unit": "trained_tokens"}).variants["own"].stages[1].steps == 9


PAIRS = {"preferences": {"kind": "jsonl", "path": "pairs.jsonl"}}


def test_losses_over_the_same_pairs_are_an_interface_swap(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "1+2=", "chosen": "3", "rejected": "4"}\n')
    stages = [{**PIPELINE["stages"][0], "recipe": {"kind": "dpo", "pairs": 4}}]
    of = {
        "dpo": {},
        "ipo": {"set": {"stages.warm.recipe.loss": "ipo"}},
        "simpo": {"set": {"stages.warm.recipe": {"kind": "simpo", "pairs": 4}}},
        "fewer": {"set": {"stages.warm.recipe.pairs": 2}},
    }
    found = faults(tmp_path, {"study": "interface_swap", "of": of}, stages=stages, **PAIRS)
    assert len(found) == 1
    assert "variants.of.fewer: stages.warm.recipe: dpo has other sources than dpo" in found[0]


@pytest.mark.parametrize(
    ("study", "change", "said"),
    [
        ("provenance_swap", {"stages.learn.recipe": {"kind": "dft"}}, "dft has another credit or loss than sft"),
        ("provenance_swap", {"stages.learn.recipe": {"kind": "chord"}}, "has 2 strands and sft 1"),
        ("provenance_swap", {"stages.learn.recipe": {**SWAP, "restart": True}}, "restart is true"),
        ("provenance_swap", {"stages.learn.steps": 5}, "stages.learn.steps (got 5), where the baseline has 4"),
        ("provenance_swap", {"stages.learn.optimizer.learning_rate": 1e-3}, "optimizer.learning_rate (got 0.001)"),
        ("provenance_swap", {}, "changes no source"),
        ("interface_swap", {"stages.learn.recipe": SWAP}, "rest_em has other sources than sft"),
        ("interface_swap", {"stages.learn.recipe": {"kind": "grpo"}}, "strand rollouts is written by the policy"),
        ("interface_swap", {"demonstrations.carelessness": 0.5}, "demonstrations.carelessness (got 0.5)"),
        ("interface_swap", {"stages.learn.optimizer.learning_rate": 1e-3}, "changes no loss"),
        ("stage_order", {"stages.learn.steps": 5}, "stages.learn.steps: changed"),
        ("stage_order", {}, "is the baseline's"),
        ("overrides", {"prompts.probe.count": 4}, "prompts.probe.count (got 4)"),
        ("overrides", {"verifier": {"kind": "format", "pattern": "."}}, "verifier.kind (got 'format')"),
        ("overrides", {"stages.learn.sampling.max_tokens": 4}, "the last probe is drawn with it"),
    ],
)
def test_what_a_study_does_not_claim_is_refused(study: str, change: Any, said: str, tmp_path: Path) -> None:
    found = faults(tmp_path, {"study": study, "of": {"plain": {}, "other": {"set": change}}})
    assert all(line.startswith("variants.of.other: ") for line in found), found
    assert any(said in line for line in found), found


def test_a_stage_after_the_swap_must_not_write_its_own_trajectories(tmp_path: Path) -> None:
    """The first stages' policies have parted, so that what the second one prepares has parted, too."""
    stages = [PIPELINE["stages"][0], {**PIPELINE["stages"][1], "recipe": SWAP}]
    first = {"of": {"sft": {}, "dft": {"set": {"stages.warm.recipe": {"kind": "dft"}}}}, "study": "interface_swap"}
    found = faults(tmp_path, first, stages=stages)
    assert len(found) == 1
    assert "stages.learn.recipe: strand kept is written by the policy" in found[0]
    same = {**PIPELINE["stages"][1], "recipe": {**SWAP, "kind": "rest_em"}}
    last = {"study": "interface_swap", "of": {"sft": {}, "dft": {"set": {"stages.more.recipe": {"kind": "dft"}}}}}
    given = {**PIPELINE["stages"][0], "name": "more"}
    assert expanded(tmp_path, last, stages=[PIPELINE["stages"][0], same, given]).baseline == "sft"


def test_a_subset_of_the_stages_is_no_order_but_may_be_an_override(tmp_path: Path) -> None:
    of = {"all": {}, "short": {"order": ["learn"]}}
    assert "learn are not all stages" in faults(tmp_path, {"study": "stage_order", "of": of})[0]
    assert [stage.name for stage in expanded(tmp_path, {"of": of}).variants["short"].stages] == ["learn"]


# ---------------------------------------------------------------- faults


def test_every_fault_of_every_variant_comes_at_once(tmp_path: Path) -> None:
    of = {
        "plain": {},
        "one": {"set": {"stages.learn.recipe.kind": "stf"}},
        "two": {"set": {"stages.lern.steps": 3, "stages.learn.steps": "many"}},
        "three": {"set": {"stages.learn.steps": 0}},
    }
    found = faults(tmp_path, {"of": of})
    assert [line.split(":")[0] for line in found] == [
        "variants.of.one",
        "variants.of.two",
        "variants.of.two",
        "variants.of.three",
    ]
    assert "did you mean 'sft'?" in found[0]
    assert "did you mean 'learn'?" in "\n".join(found)


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({"of": {"plain": {}}}, "variants.of: 1 variants, and there is nothing to compare"),
        ({}, "variants.of: 0 variants"),
        ({"of": {"a": {}, "b": {}}, "baseline": "c"}, "variants.baseline: no such variant (got 'c')"),
        ({"of": {"a": {}, "b": {"order": ["lern"]}}}, "variants.of.b.order: no stage 'lern'; did you mean 'learn'?"),
        ({"of": {"a": {}, "b": {"order": ["warm", "warm"]}}}, "a stage stands twice"),
        ({"of": {"a": {}, "b": {"order": []}}}, "name each once"),
        ({"of": {"a": {}, "b": {"set": {"seed": 3}}}}, "variants.of.b.set.seed: is the study's"),
        ({"of": {"a": {}, "b": {"set": {"variants.seeds": [3]}}}}, "variants have no variants"),
        ({"of": {"a": {}, "b": {}}, "seeds": [1, 1]}, "variants.seeds: a seed stands twice"),
        ({"of": {"a": {}, "b": {}}, "measure": "guard"}, "variants.measure: there are no such prompts"),
    ],
)
def test_faults_of_the_block_name_their_key_and_the_fix(variants: Any, said: str, tmp_path: Path) -> None:
    assert any(said in line for line in faults(tmp_path, variants))


def test_too_few_samples_cannot_show_that_support_was_lost(tmp_path: Path) -> None:
    block = {"of": {"a": {}, "b": {}}, "measure": "retained_support"}
    found = faults(tmp_path, block, handoff={"probe_samples": 58})
    assert "set handoff.probe_samples to 59 or more" in found[0]
    assert expanded(tmp_path, block, handoff={"probe_samples": 59}).baseline == "a"


def test_a_budget_without_an_amount_is_for_studies_alone(tmp_path: Path) -> None:
    path = written(tmp_path, None, budget={"unit": "steps"})
    with pytest.raises(BadInput, match=r"budget.amount: missing"):
        read(path)


def test_check_expands_a_study_and_counts_its_steps(tmp_path: Path) -> None:
    of = {"plain": {}, "long": {"set": {"stages.learn.steps": 9}}}
    path = written(tmp_path, {"of": of, "seeds": [1, 2]}, budget={"unit": "seconds", "amount": 60})
    command = [sys.executable, "-m", "orchestrator", "check", str(path), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)["experiment"]
    assert (found["runs"], found["steps"], found["baseline"]) == (4, 2 * (7 + 12), "plain")
    assert found["variants"]["long"]["changes"] == {"stages.learn.steps": [4, 9]}
    assert found["variants"]["long"]["plan"]["legal"]
