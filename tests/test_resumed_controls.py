"""A run that dies in the middle and is resumed decides, draws and learns what the unbroken one does, bit for bit.

One recipe for each kind of control, on the real loop in one process; tests/test_controls_resume.py drives the controls
alone through many more cuts. The run dies after a step's update and before its checkpoint, so that the step is done
again by controls whose states come out of a file.
"""

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from orchestrator.controls import Control, initial
from orchestrator.recipes import load
from orchestrator.run import FAILED, resume, run
from tests import recipe_runs, unsampleable
from tests.same_runs import assert_same, state
from tests.unsampleable import rows

STEPS, DIES = 7, 4
"""Of a run, and the one that is done twice."""
HARD = {"kind": "format", "pattern": r"(?s).*[0-1].*"}
"""Most of a group's responses fail, and often all: gates, ladders and buffers have something to decide."""


class Case(NamedTuple):
    """A recipe's small run."""

    parameters: Mapping[str, Any] = {}
    prompts: int = 0
    """Only so many prompts, so that they come back within the run; 0 is all."""
    hard: bool = False
    unsampleable: bool = False
    """On that task and from its start model, not on the tasks of tests/recipe_runs.py."""
    remembers: bool = True
    """Whether what is decided hangs on the controls' states; a schedule's hangs on the step alone."""


CASES = {
    "chord": Case({"decay": 6, "demonstrations": 4}, remembers=False),
    "gkd": Case(remembers=False),
    "hpt": Case(hard=True, remembers=False),
    "relift": Case({"size": 9, "length": 8}, unsampleable=True),
    "sage": Case(unsampleable=True, remembers=False),
    "uft": Case({"over": 5}, unsampleable=True, remembers=False),
    "hint_prefix": Case({"rollouts": 4}, prompts=6, unsampleable=True),
    "ruscarl": Case({"steepness": 5.0, "midpoint": 0.5}, remembers=False),
    "exgrpo": Case({"start": 0.55}),
    "mifo": Case({"size": 9, "decay": 0.5}, unsampleable=True),
    "expo": Case({"over": 6}, remembers=False),
    "dapo": Case({"sampling": "redraw", "rounds": 2, "rollouts": 2}),
    "mix": Case({"imitated": 0.3}),
    "alternate": Case({"sft_steps": 2, "rl_steps": 1}, remembers=False),
    "curriculum_grpo": Case(prompts=8),
    "bottleneck": Case(
        {"recheck": 2, "look": 2, "reach": 0.0, "mastered": 0.6, "confidence": 0.6}, prompts=8, hard=True
    ),
}
QUICK = ("relift", "hpt", "bottleneck")
NOWHERE = {"constant"}
"""Kinds that no recipe of the catalogue has."""


def test_every_kind_of_control_has_a_case() -> None:
    kinds = {one.model_fields["kind"].default for one in get_args(get_args(Control)[0])}
    met = {control.kind for name in CASES for control in controls_of(name)}
    assert met == kinds - NOWHERE


def controls_of(name: str) -> tuple[Any, ...]:
    teacher = {"teacher": "there"} if name == "gkd" else {}
    return load(name, **teacher).controls


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    recipe_runs.write_data(folder)
    recipe_runs.teacher_folder(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """The folder with the start model of the unsampleable task; trained when it is first asked for."""
    folder = tmp_path_factory.getbasetemp() / "unsampleable"

    def made() -> Path:
        folder.mkdir(exist_ok=True)
        unsampleable.start_model(folder)
        return folder

    return made


def pipeline(name: str, data: Path, start: Callable[[], Path]) -> dict[str, Any]:
    """The case's pipeline."""
    case = CASES[name]
    if case.unsampleable:
        content = unsampleable.pipeline(start(), name, steps=STEPS)
        del content["prompts"]["probe"]
        each = 1
    else:
        content, each = recipe_runs.pipeline(name, data, data / "teacher", steps=STEPS), 2
    (stage,) = content["stages"]
    stage["recipe"] |= case.parameters
    if case.hard:
        content["verifier"] = HARD
    if case.prompts:
        content["prompts"]["train"]["count"] = case.prompts
        content["demonstrations"]["count"] = each * case.prompts
    return content | {"checkpoints": {"every": 1, "keep": STEPS + 1}}


@pytest.mark.parametrize("name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in CASES])
def test_a_resumed_run_decides_what_the_unbroken_one_does(
    name: str, data: Path, start: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = recipe_runs.write(pipeline(name, data, start), tmp_path / "pipeline.yaml")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(file, whole, in_process=True) == 0, said.getvalue()
        monkeypatch.setenv("BRAID_FAILPOINT", f"loop.after_step.{DIES}=raise")
        assert run(file, broken, in_process=True) == FAILED
        monkeypatch.delenv("BRAID_FAILPOINT")
        assert max(int(one.name[5:]) for one in (broken / "checkpoints").iterdir()) == DIES - 1
        held = state(broken, DIES - 1)["controls"]
        assert resume(broken, in_process=True) == 0, said.getvalue()
    assert_same(whole, broken, STEPS)
    started = [initial(control) for control in controls_of(name)]
    if CASES[name].remembers:
        assert held != json.loads(json.dumps(started)), "the checkpoint held something to forget"
    assert len({json.dumps([one["plan"], one["reason"], one["routed"]]) for one in rows(whole, "decisions")}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mifo", "dapo", "bottleneck"])
def test_a_run_that_dies_twice_is_still_the_unbroken_one(
    name: str, data: Path, start: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before an update and after one; the second time in a run that was resumed."""
    file = recipe_runs.write(pipeline(name, data, start), tmp_path / "pipeline.yaml")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(file, whole, in_process=True) == 0, said.getvalue()
        monkeypatch.setenv("BRAID_FAILPOINT", "loop.before_step.3=raise")
        assert run(file, broken, in_process=True) == FAILED
        monkeypatch.setenv("BRAID_FAILPOINT", "loop.after_step.6=raise")
        assert resume(broken, in_process=True) == FAILED
        monkeypatch.delenv("BRAID_FAILPOINT")
        assert resume(broken, in_process=True) == 0, said.getvalue()
    assert_same(whole, broken, STEPS)
