"""On real runs the measures say what was done: new solutions expand, rewards on reachable prompts reshape, a teacher's
behaviour is consolidated, and over-training on a narrow set loses the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.run import DONE, run

pytestmark = pytest.mark.slow

DIGITS = {"kind": "arithmetic", "digits": [1, 2]}
ENGINES = {"rollout": {"engine": "torch"}, "learner": {"engine": "torch"}}
SAMPLING = {"max_tokens": 28}


def stage(name: str, recipe: dict[str, Any], steps: int, rate: float, prompts: int) -> dict[str, Any]:
    optimizer = {"learning_rate": rate, "schedule": {"kind": "constant", "warmup": 5}}
    if recipe["kind"] != "sft":
        optimizer["betas"] = [0.9, 0.999]
    told = {"name": name, "recipe": recipe, "steps": steps, "prompts_per_step": prompts}
    return {**told, "optimizer": optimizer, "sampling": SAMPLING}


def done(folder: Path, name: str, stages: list[dict[str, Any]], **more: Any) -> Path:
    """A run in this process; every one must end well."""
    pipeline = {
        "name": name,
        "seed": 3,
        "model": {"kind": "tiny", "preset": "arithmetic", "context": 64},
        "prompts": {"train": {**DIGITS, "count": 2048}, "probe": {**DIGITS, "count": 96, "seed": 99}},
        "demonstrations": {"kind": "careless", "carelessness": 0.1},
        "verifier": {"kind": "answer", "marker": "#"},
        "resources": ENGINES,
        "stages": stages,
        "checkpoints": {"every": 1000},
        **more,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(pipeline))
    assert run(file, folder / name, in_process=True) == DONE
    return folder / name


def handoff(out: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "handoffs" / f"{stage}.json").read_text())
    return found


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that imitates a worked method half of the way, then whole, and is reinforced then."""
    imitate = stage("imitate", {"kind": "sft"}, 300, 2e-3, 64)
    imitate["optimizer"]["schedule"] = {"kind": "cosine", "warmup": 20, "floor": 0.1}
    sharpen = stage("sharpen", {"kind": "grpo", "rollouts": 8}, 25, 5e-5, 32)
    return done(tmp_path_factory.mktemp("behaviour"), "learned", [imitate, sharpen])


def test_new_solutions_read_as_expansion(learned: Path) -> None:
    told = handoff(learned, "imitate")
    assert told["change"]["role"]["name"] == "expansion", told["change"]["role"]
    assert len(told["completion"]["support"]["expanded"]) > 48
    assert told["change"]["gain"]["expansion"]["low"] > 0.3


def test_rewards_on_reachable_prompts_read_as_reshaping(learned: Path) -> None:
    told = handoff(learned, "sharpen")
    assert told["change"]["role"]["name"] == "reshaping", told["change"]["role"]
    assert told["completion"]["support"]["expanded"] == []
    assert told["change"]["gain"]["reshaping"]["low"] > 0


def test_a_teachers_behaviour_reads_as_consolidation(learned: Path, tmp_path: Path) -> None:
    """The student is a model of the same kind that imitated less."""
    teacher = learned / "checkpoints" / "step-000325" / "model"
    early = stage("early", {"kind": "sft"}, 180, 2e-3, 64)
    early["optimizer"]["schedule"] = {"kind": "cosine", "warmup": 20, "floor": 0.1}
    compress = stage("compress", {"kind": "logit_distillation", "teacher": str(teacher)}, 200, 1e-3, 64)
    told = handoff(done(tmp_path, "taught", [early, compress]), "compress")
    assert told["change"]["role"]["name"] == "consolidation", told["change"]["role"]
    fidelity = told["handoff"]["fidelity"]
    assert fidelity["change"]["kl"]["high"] < 0 < fidelity["change"]["agreement"]["low"], fidelity


def test_over_training_on_a_narrow_set_shows_its_attrition(learned: Path, tmp_path: Path) -> None:
    model = {"kind": "hf", "path": str(learned / "checkpoints" / "step-000325" / "model"), "context": 64}
    one = {"kind": "arithmetic", "digits": [1]}
    prompts = {
        "train": {**one, "count": 40},
        "probe": {**DIGITS, "count": 64, "seed": 99},
        "guard": {"kind": "arithmetic", "digits": [2], "count": 64, "seed": 5},
    }
    contract = {"contract": {"guard": {"no_worse_than": -0.1, "otherwise": "warn"}}}
    narrow = stage("narrow", {"kind": "sft"}, 150, 2e-3, 40)
    out = done(tmp_path, "narrow", [narrow], model=model, prompts=prompts, handoff=contract)
    told = handoff(out, "narrow")
    assert told["completion"]["support"]["attrited"], told["completion"]["support"]["rates"]
    assert told["completion"]["support"]["rates"]["srr"]["high"] < 1.0
    forgetting = told["handoff"]["forgetting"]
    assert forgetting["pass_rate"]["change"]["high"] < -0.1 and forgetting["since_start"]["forgotten"]
    (term,) = told["contract"]["terms"]
    assert (term["verdict"], told["contract"]["action"]) == ("broken", "warn")
