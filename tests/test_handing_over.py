"""Contracts in whole runs: what is broken warns, rolls back, has a repair stage run, or ends the run with exit 3."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

from orchestrator import hand_over
from orchestrator.build import stage_runs
from orchestrator.config import Pipeline
from orchestrator.history import read_history
from orchestrator.loop import RunState
from orchestrator.run import resume, run
from policies import checkpoint
from policies.bad_input import BadInput
from tests.test_run import braid

SMALL = {"steps": 1, "prompts_per_step": 2, "sampling": {"max_tokens": 4}}


def never(otherwise: str) -> dict[str, Any]:
    """A contract that an untrained model breaks."""
    return {"pass_at_1": {"at_least": 1.0, "when": "measured", "otherwise": otherwise}}


def stage(name: str, contract: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "recipe": {"kind": "sft"}, "contract": contract, **SMALL, **more}


def pipeline(*stages: dict[str, Any], **handoff: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "seed": 5,
        "model": {"kind": "tiny", "preset": "arithmetic-small", "context": 32},
        "prompts": {
            "train": {"kind": "arithmetic", "digits": [1], "count": 20},
            "probe": {"kind": "arithmetic", "digits": [1], "count": 2, "seed": 9},
        },
        "handoff": {"probe_samples": 2, "bank": 0, "repair": {"steps": 2}, **handoff},
        "checkpoints": {"every": 1},
        "stages": list(stages),
    }


ALL = pipeline(
    stage("warm", never("warn")),
    stage("gone", never("roll_back")),
    stage("drill", never("repair")),
    stage("last", {}),
)
"""Every action in one run: it stops after the repair, for nothing repairs an untrained model in two steps."""
TEACHER = {"kind": "on_policy_distillation", "teacher": "stage:warm"}
PLAIN = pipeline(
    stage("warm", {}),
    stage("drill", {}),
    stage("drill-repair", {}, recipe=TEACHER, steps=2),
    stage("last", {}),
)
"""What a run of ALL comes to, written as a pipeline: without what was rolled back, and with the repair as a stage."""


def start(content: dict[str, Any], folder: Path, name: str = "run") -> int:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return run(path, folder / name, in_process=True)


def weights(out: Path, step: int) -> dict[str, bytes]:
    found = load_file(out / "checkpoints" / checkpoint.name(step) / "model/model.safetensors")
    return {name: value.tobytes() for name, value in found.items()}


def told(out: Path) -> list[str]:
    kinds = ("contract_warning", "rolled_back", "repair", "contract_stop", "contract_broken")
    events = [row for row in read_history(out).events if not row.get("undone")]
    return [str(row["kind"]) for row in events if row["kind"] in kinds]


def handoff(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"handoffs/{name}.json").read_text())
    return found


# ---------------------------------------------------------------- the state


def test_the_weights_that_a_stage_is_compared_with_follow_from_what_was_done() -> None:
    runs = stage_runs(Pipeline.model_validate(ALL))
    assert [one.config.name for one in runs] == ["warm", "gone", "drill", "last", "drill-repair"]
    state, seen = RunState(), []
    actions = {"warm": "warn", "gone": "roll_back", "drill": "repair", "drill-repair": "", "last": ""}
    for name, action in actions.items():
        now = hand_over.standing(runs, state)
        assert now is not None and now.config.name == name
        state.step, state.stage_step, state.action = state.step + now.config.steps, now.config.steps, action
        seen.append((hand_over.trains_from(state), hand_over.baseline(state), hand_over.lineage(state)))
        hand_over.hand_over(now, state)
    assert seen == [
        (0, 0, [0, 1]),
        (1, 1, [0, 1, 2]),
        (1, 1, [0, 1, 3]),
        (3, 1, [0, 1, 5]),  # it trains on from what is to be repaired, and is compared with what that had found
        (5, 5, [0, 1, 5, 6]),
    ]
    assert hand_over.standing(runs, state) is None
    assert [hand_over.left_by(state, f"stage:{name}") for name in ("warm", "gone", "drill", "last")] == [1, 1, 5, 6]
    assert [hand_over.left_by(state, f"found:{name}") for name in ("gone", "drill", "last")] == [1, 1, 5]
    assert hand_over.kept_checkpoints(state) == {0, 1, 2, 3, 5, 6}
    assert [name for name, _ in hand_over.course(runs, state)] == list(actions)
    assert RunState(**json.loads(json.dumps({"passed": state.passed}))).passed == state.passed


def test_a_repair_that_is_rolled_back_leaves_what_the_repaired_stage_found() -> None:
    runs = stage_runs(Pipeline.model_validate(ALL))
    state = RunState(stage=2, step=5, stage_step=1, action="repair")
    hand_over.hand_over(runs[2], state)
    assert (state.stage, state.repair) == (2, 1)
    state.step, state.stage_step, state.action = 7, 2, "roll_back"
    hand_over.hand_over(runs[4], state)
    assert (state.stage, state.repair, hand_over.trains_from(state)) == (3, 0, 0)
    assert hand_over.left_by(state, "stage:drill") == 0
    assert hand_over.lineage(RunState(passed=state.passed, stage=3, step=8)) == [0, 8]


def test_the_policy_of_a_stage_that_has_not_run_is_refused() -> None:
    with pytest.raises(ValueError, match="'stage:drill' is the policy of a stage that has not run"):
        hand_over.left_by(RunState(), "stage:drill")


# ---------------------------------------------------------------- the run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    assert start(ALL, folder) == 3
    return folder / "run"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    assert start(PLAIN, folder) == 0
    return folder / "run"


def test_a_run_warns_rolls_back_repairs_and_stops(stopped: Path) -> None:
    assert told(stopped) == ["contract_warning", "rolled_back", "repair", "contract_stop", "contract_broken"]
    history = read_history(stopped)
    assert history.status == "stopped"
    assert [(span.name, span.first, span.last) for span in history.stages] == [
        ("warm", 1, 1),
        ("gone", 2, 2),
        ("drill", 3, 3),
        ("drill-repair", 4, 5),
    ]
    rolled = next(row for row in history.events if row["kind"] == "rolled_back")
    assert (rolled["stage"], rolled["steps"], rolled["found"]) == ("gone", [2, 2], 1)
    assert (stopped / "report.html").is_file() and (stopped / "summary.json").is_file()
    measured = {name: handoff(stopped, name)["measured"] for name in ("warm", "gone", "drill", "drill-repair")}
    assert measured == {
        "warm": {"before": 0, "after": 1},
        "gone": {"before": 1, "after": 2},
        "drill": {"before": 1, "after": 3},
        "drill-repair": {"before": 1, "after": 5},
    }
    last = handoff(stopped, "drill-repair")["contract"]
    assert (last["action"], last["exhausted"]) == ("stop", True)
    assert [(one["figure"], one["verdict"], one["otherwise"]) for one in last["terms"]] == [
        ("pass_at_1", "broken", "repair")
    ]


def test_what_is_rolled_back_or_repaired_trains_as_the_pipeline_that_says_so(stopped: Path, plain: Path) -> None:
    for ours, theirs in ((1, 1), (3, 2), (5, 4)):  # after warm, drill, drill-repair
        assert weights(stopped, ours) == weights(plain, theirs), f"step {ours}"
    assert weights(stopped, 2) != weights(stopped, 1), "the stage that is rolled back did train"


def test_a_stopped_run_stops_again_until_its_contract_is_another(stopped: Path, plain: Path) -> None:
    assert resume(stopped, in_process=True) == 3
    with pytest.raises(BadInput, match="a run goes on as it began"):
        resume(stopped, ["seed=6"], in_process=True)
    assert resume(stopped, ["stages.drill.contract={}"], in_process=True) == 0
    assert read_history(stopped).status == "finished"
    assert handoff(stopped, "drill-repair")["contract"] == {"terms": [], "action": None, "exhausted": False}
    assert weights(stopped, 6) == weights(plain, 5)
    assert resume(stopped, in_process=True) == 0


def test_the_newest_checkpoint_of_a_run_whose_last_stage_is_rolled_back_is_what_it_found(tmp_path: Path) -> None:
    assert start(pipeline(stage("warm", {}), stage("gone", never("roll_back"))), tmp_path) == 0
    out = tmp_path / "run"
    assert weights(out, 2) == weights(out, 1)
    assert told(out) == ["rolled_back"] and read_history(out).status == "finished"
    assert resume(out, in_process=True) == 0 and weights(out, 2) == weights(out, 1)


# ---------------------------------------------------------------- kills


def torn(folder: Path, places: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of ALL that fails at each place in turn, and is resumed until its contract ends it."""
    monkeypatch.setenv("BRAID_FAILPOINT", f"{places[0]}=raise")
    assert start(ALL, folder, "torn") == 1
    for place in places[1:]:
        monkeypatch.setenv("BRAID_FAILPOINT", f"{place}=raise")
        assert resume(folder / "torn", in_process=True) == 1, place
    monkeypatch.delenv("BRAID_FAILPOINT")
    assert resume(folder / "torn", in_process=True) == 3
    return folder / "torn"


PLACES = [
    ("run.passed_on.2", "loop.after_step.5"),
    ("run.passing_on.2", "run.passing_on.3", "run.judged.5"),
    ("run.judged.2", "loop.after_step.3", "run.passed_on.3", "loop.before_step.4"),
    ("checkpoint.before_rename", "run.after_checkpoint.3", "run.passing_on.5"),
]


@pytest.mark.parametrize(
    "places", [PLACES[0], *(pytest.param(one, marks=pytest.mark.slow) for one in PLACES[1:])], ids=lambda one: one[0]
)
def test_a_run_that_dies_where_stages_meet_comes_to_the_same(
    places: Sequence[str], tmp_path: Path, stopped: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ = torn(tmp_path, places, monkeypatch)
    for name in ("warm", "gone", "drill", "drill-repair"):
        ours, theirs = handoff(run_, name), handoff(stopped, name)
        for key in ("measured", "completion", "change", "handoff"):
            assert ours[key] == theirs[key], (name, key)
    assert weights(run_, 5) == weights(plain, 4)
    assert [row["step"] for row in read_history(run_).steps] == [1, 2, 3, 4, 5]
    state = json.loads((run_ / "checkpoints/step-000005/state.json").read_text())
    assert [(one["stage"], one["kept"], one["action"]) for one in state["passed"]] == [
        ("warm", 1, "warn"),
        ("gone", 1, "roll_back"),
        ("drill", 3, "repair"),
    ]
    assert [path.name for path in sorted((run_ / "handoffs").glob("*.json"))] == [
        "drill-repair.json",
        "drill.json",
        "gone.json",
        "warm.json",
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_run_exits_3_from_the_command_line_once_it_is_resumed(tmp_path: Path, plain: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(ALL))
    out = tmp_path / "run"
    killed = braid(
        "run", str(path), "--out", str(out), "--in-process", env={"BRAID_FAILPOINT": "run.passed_on.3=kill9"}
    )
    assert killed.returncode == -signal.SIGKILL
    done = braid("resume", str(out), "--in-process")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "drill-repair broke its contract" in done.stdout and "--set stages.drill.contract" in done.stdout
    assert weights(out, 5) == weights(plain, 4)
