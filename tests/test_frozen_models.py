"""Which models a stage keeps frozen, and a whole run with all of them that is killed and resumes bit for bit."""

import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from orchestrator.build import stage_runs
from orchestrator.config import Pipeline
from orchestrator.frozen_models import EARLIER, REFERENCE, SELF, Cast, cast, share
from orchestrator.loop import StageRun
from orchestrator.recipes.schema import Refresh
from orchestrator.views import EVERYBODY
from policies.bad_input import BadInput
from policies.config import ConstantCredit, Div, Prepare, Source, Strand, Term
from tests.test_run import braid, pipeline_file

STAGE = {"name": "only", "recipe": {"kind": "sft"}, "steps": 4}


def strand(*kernels: Div, **source: Any) -> Strand:
    terms = tuple(Term(name=f"term-{index}", kernel=kernel) for index, kernel in enumerate(kernels))
    chosen = Source(**{"producer": "rollout", "per_prompt": 1} | source)
    return Strand(name="rollouts", source=chosen, credit=ConstantCredit(), terms=terms)


def stage(one: Strand, **fields: Any) -> StageRun:
    return StageRun(0, Pipeline(name="x", stages=[STAGE]).stages[0], (one,), (), **fields)


KL, TAUGHT = Div(form="k3"), Div(form="forward", target="teacher")
WHOLE = Div(form="forward", target="teacher", support="full")
AVERAGE = Refresh(kind="average")


@pytest.mark.parametrize(
    ("one", "fields", "expected"),
    [
        (strand(), {"teacher": "book"}, Cast()),
        (strand(KL), {}, Cast(REFERENCE)),
        (strand(KL), {"refresh": AVERAGE}, Cast(REFERENCE, {}, REFERENCE)),
        (strand(TAUGHT), {"teacher": "/book"}, Cast("", {EVERYBODY: "/book"})),
        (strand(TAUGHT), {"teacher": SELF}, Cast("", {EVERYBODY: REFERENCE})),
        (strand(TAUGHT, KL), {"teacher": SELF}, Cast(REFERENCE, {EVERYBODY: REFERENCE})),
        (strand(TAUGHT, KL), {"teacher": SELF, "refresh": AVERAGE}, Cast(REFERENCE, {EVERYBODY: SELF}, SELF)),
        (strand(WHOLE), {"teacher": SELF}, Cast("", {EVERYBODY: REFERENCE}, "", {"teacher": REFERENCE})),
        (
            strand(TAUGHT),
            {"teachers": {"sums": "/a", "words": "/a", EVERYBODY: f"{EARLIER}first"}},
            Cast("", {"sums": "/a", "words": "/a", EVERYBODY: "stage:first"}),
        ),
        (strand(producer="teacher"), {"teacher": "/book"}, Cast("", {EVERYBODY: "/book"})),
        (strand(producer="reference"), {}, Cast(REFERENCE)),
        (strand(prepare=Prepare(writer="teacher")), {"teacher": "/book"}, Cast("", {EVERYBODY: "/book"})),
        (strand(prepare=Prepare(writer="nobody", rank="likelihood")), {}, Cast(REFERENCE)),
    ],
)
def test_a_stage_starts_the_frozen_models_that_it_reads_and_no_other(one: Strand, fields: Any, expected: Cast):
    found = cast(stage(one, **fields))
    assert found == expected
    assert set(found.anchored) == {name for name in found.names if name in (REFERENCE, SELF)}


def test_whole_vocabularies_have_one_teacher():
    with pytest.raises(BadInput, match="has one teacher's head, and this stage has 2 teachers; set support: top_k"):
        cast(stage(strand(WHOLE), teachers={"sums": "/a", "words": "/b"}))


def test_a_follower_takes_its_share_when_its_rule_says_so():
    def taken(**refresh: Any) -> list[float]:
        return [share(stage(strand(), refresh=Refresh(**refresh)), step) for step in range(1, 5)]

    assert taken() == taken(kind="best") == [0, 0, 0, 0]
    assert taken(kind="every", every=2) == [0, 1, 0, 1]
    assert taken(kind="average", rate=0.05) == [0.05] * 4


def test_a_run_has_one_kind_of_head():
    mixed = [{**STAGE, "name": "judge", "recipe": {"kind": "reward_model_training"}}, STAGE]
    with pytest.raises(BadInput, match="stages: judge trains a scalar head and only a language model"):
        stage_runs(Pipeline(name="x", stages=mixed))


# ---------------------------------------------------------------- the run


MODELS: list[dict[str, Any]] = [
    {"name": "first", "recipe": {"kind": "sft"}, "steps": 1, "prompts_per_step": 4},
    {"name": "critic", "recipe": {"kind": "ppo", "rollouts": 2}, "steps": 2, "prompts_per_step": 2},
    {
        "name": "follow",
        "recipe": {"kind": "iterative_rpo", "rollouts": 6, "round": 1},
        "steps": 2,
        "prompts_per_step": 4,
    },
    {"name": "again", "recipe": {"kind": "ppo", "rollouts": 2}, "steps": 1, "prompts_per_step": 2},
    {
        "name": "distil",
        "recipe": {"kind": "on_policy_distillation", "teacher": "stage:first"},
        "steps": 2,
        "prompts_per_step": 2,
    },
]


@pytest.mark.parametrize(
    "how", [("--in-process",), pytest.param((), marks=[pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_run_with_a_critic_a_follower_and_an_earlier_stages_teacher_resumes_bit_for_bit(
    how: tuple[str, ...], tmp_path: Path
) -> None:
    stages = [one | {"sampling": {"max_tokens": 8}} for one in MODELS]
    chance = {"kind": "format", "pattern": "(?s)[a-m0-4].*"}  # an untrained model passes about every other time
    path = pipeline_file(tmp_path, stages=stages, verifier=chance)
    whole = tmp_path / "whole"
    done = braid("run", str(path), "--out", str(whole), *how)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in (5, 7):  # within the follower's stage, and within the one that the first stage's policy teaches
        run = tmp_path / f"killed-{step}"
        killed = braid(
            "run", str(path), "--out", str(run), *how, env={"BRAID_FAILPOINT": f"loop.after_step.{step}=kill9"}
        )
        assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
        resumed = braid("resume", str(run), *how)
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
        for part in ("model/model.safetensors", "learners/critic/model/model.safetensors"):
            ours, theirs = (load_file(one / "checkpoints/step-000008" / part) for one in (run, whole))
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                assert (ours[name] == value).all(), f"{part}: {name}"
    assert (whole / "checkpoints/step-000005/frozen/weights.safetensors").is_file()
    critics = [
        load_file(whole / f"checkpoints/step-{step:06d}/learners/critic/model/model.safetensors") for step in (3, 6)
    ]
    assert any((critics[0][name] != critics[1][name]).any() for name in critics[0]), "it trained on"
