"""Budgets: a run ends after the step that reaches them, measured and committed; a resume has spent what was spent."""

import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.budget import UNITS, Spending, cost, spent
from orchestrator.experiment_config import Budget
from orchestrator.history import read_history
from orchestrator.probe_files import probed_steps
from orchestrator.run import resume, run
from tests.planted_study import file
from tests.test_experiments import SMALL, STAGE

ROW = {"step": 1, "tokens_trained": 100, "tokens_generated": 40, "label_tokens": 5, "seconds": 1.5, "flops": 1e9}
COSTS = {"steps": 1, "trained_tokens": 100, "generated_tokens": 45, "seconds": 1.5, "flops": 1e9}


@pytest.mark.parametrize("unit", UNITS)
def test_a_step_costs_what_its_row_says(unit: Any) -> None:
    assert cost(ROW, unit) == COSTS[unit]
    spending = Spending(Budget(unit=unit, amount=2.5 * COSTS[unit]))
    over = []
    for _ in range(4):
        spending.step(ROW)
        over.append(spending.over)
    assert over == [False, False, True, True]
    assert spent([ROW, ROW])[unit] == 2 * COSTS[unit]


def test_a_budget_that_is_met_exactly_is_spent() -> None:
    spending = Spending(Budget(unit="steps", amount=2))
    spending.remember([ROW])
    assert not spending.over
    spending.step(ROW)
    assert spending.over


def test_without_a_budget_nothing_is_ever_spent() -> None:
    spending = Spending(None)
    spending.step({})
    assert not spending.over


@pytest.mark.parametrize("row", [{"step": 3}, {"step": 3, "flops": None}, {"step": 3, "flops": math.nan}])
def test_a_step_that_does_not_say_its_cost_is_an_error_and_no_zero(row: dict[str, Any]) -> None:
    """Else the budget would never end the run, and nobody would know."""
    with pytest.raises(ValueError, match=r"step 3 does not say its flops"):
        Spending(Budget(unit="flops", amount=1)).step(row)
    assert math.isnan(spent([ROW, row])["flops"])


def test_the_run_ends_inside_a_stage_measured_and_committed(tmp_path: Path) -> None:
    """Five steps of two stages of four; the second stage has no rollouts, and still the last weights are probed."""
    stages = [{**SMALL["stages"][0], "name": name, **STAGE, "steps": 4} for name in ("warm", "more")]
    content = {**SMALL, "stages": stages, "budget": {"unit": "steps", "amount": 5}, "checkpoints": {"every": 50}}
    assert run(file(tmp_path, **content), tmp_path / "run", in_process=True) == 0
    history = read_history(tmp_path / "run")
    assert (history.status, len(history.steps)) == ("finished", 5)
    assert probed_steps(history.run) == [0, 4, 5]
    assert (history.run.checkpoints / "step-000005").is_dir()
    assert any(event["kind"] == "budget_spent" for event in history.events)
    assert resume(tmp_path / "run", in_process=True) == 0
    assert len(read_history(tmp_path / "run").steps) == 5, "what is spent stays spent"


def test_a_resumed_run_ends_at_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = {**SMALL["stages"][0], "steps": 30}
    path = file(tmp_path, **SMALL | {"stages": [stage], "budget": {"unit": "trained_tokens", "amount": 70}})
    assert run(path, tmp_path / "whole", in_process=True) == 0
    monkeypatch.setenv("BRAID_FAILPOINT", "loop.before_step.3=raise")
    assert run(path, tmp_path / "broken", in_process=True) == 1
    monkeypatch.delenv("BRAID_FAILPOINT")
    assert resume(tmp_path / "broken", in_process=True) == 0
    rows = [[row["tokens_trained"] for row in read_history(tmp_path / name).steps] for name in ("whole", "broken")]
    assert rows[0] == rows[1]
    assert sum(rows[0][:-1]) < 70 <= sum(rows[0])
    assert len(rows[0]) > 3
