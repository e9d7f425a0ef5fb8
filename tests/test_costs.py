"""The cost of a stage from a run's files, against counts made by hand: resumed runs, missing probes, unknown models."""

import math
from pathlib import Path
from typing import Any

import pytest
from build_run import ENVIRONMENT

from orchestrator import costs
from orchestrator.history import History, StageSpan, read_history
from orchestrator.json_lines import Row
from orchestrator.ledger import RunLedger
from orchestrator.probe_files import write_probe
from orchestrator.probes.cost import flops
from orchestrator.probes.model_shape import Shape
from orchestrator.run_directory import RunDirectory
from orchestrator.shapes import Sizes
from orchestrator.summary import print_summary, summarise

SHAPE = Shape(body=100, active=100, embedding=20, head=20, hidden=2, attention=3, tied=True)
SIZES = Sizes({"policy": SHAPE, "/teacher": Shape(1000, 1000, 20, 20, 2, 30, tied=True)}, {})
CONFIG = """\
name: priced
model: {kind: tiny}
stages:
- {name: first, recipe: {kind: sft}, steps: 3}
- {name: second, recipe: {kind: grpo}, steps: 3}
"""


def _entry(role: str, kind: str, positions: int, tokens: int, pairs: int, model: str = "policy") -> Row:
    counts = {"sequences": 1, "positions": positions, "tokens": tokens, "pairs": pairs}
    return {"role": role, "model": model, "kind": kind, **counts}


GENERATE = _entry("rollout", "generate", 10, 6, 55)
TRAIN = _entry("learner", "train", 20, 8, 210)
SCORE = _entry("frozen", "score", 10, 6, 55, "/teacher")
COST = {
    "generate": 2 * 100 * 10 + 4 * 3 * 55 + 2 * 20 * 6,
    "train": 3 * (2 * 100 * 20 + 4 * 3 * 210 + 2 * 20 * 8),
    "score": 2 * 1000 * 10 + 4 * 30 * 55 + 2 * 20 * 6,
}
"""By hand."""


def _step(step: int, stage: str, stage_step: int, **more: Any) -> Row:
    sampled = stage == "second"
    work = [GENERATE, TRAIN, SCORE] if sampled else [TRAIN]
    roles = {"rollout": 2.0, "frozen": 0.5, "learner": 1.0, "scorer": 0.1} if sampled else {"learner": 1.0}
    return {
        "kind": "step",
        "step": step,
        "stage": stage,
        "stage_step": stage_step,
        "stage_steps": 3,
        "seconds": 4.0 if sampled else 1.0,
        "work": work,
        "seconds_by_role": roles,
        "passed": 2 if sampled else 0,
        "funnel": {"written": 6, "given": 0, "trained": 5, "masked": 1, "aside": 0, "dropped": {"select": 1}},
        "tokens_generated": 6 if sampled else 0,
        "tokens_trained": 8,
    } | more


def _probe(step: int, stage: str) -> Row:
    work = [_entry("rollout", "generate", 30, 12, 200)]
    return {"kind": "probe", "step": step, "stage": stage, "work": work} | {
        "seconds_probe": 3.0,
        "seconds_by_role": {"rollout": 2.5},
    }


def _ran(tmp_path: Path, rows: list[Row], config: str = CONFIG, sizes: Sizes | None = SIZES) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "run", config, ENVIRONMENT)
    with RunLedger(run) as ledger:
        ledger.event("started", step=0, resumed=False)
        if sizes is not None:
            ledger.event("models", **sizes.row())
        for row in rows:
            ledger.metrics(row)
    return run


STEPS = [_step(at, "first", at) for at in (1, 2, 3)] + [_step(at, "second", at - 3) for at in (4, 5, 6)]
PROBES = [_probe(0, "first"), _probe(3, "first"), _probe(6, "second")]


def _document(run: RunDirectory, stage: str = "second", handoff: Row | None = None) -> tuple[Row, History]:
    history = read_history(run.root)
    span: StageSpan = next(one for one in history.stages if one.name == stage)
    return costs.document(history, span, handoff), history


def _gain(value: float, low: float, high: float) -> Row:
    return {"completion": {"pass_at_k": [{"k": 1, "change": {"value": value, "low": low, "high": high}}]}}


def test_the_planted_figures_are_what_the_formula_gives() -> None:
    for entry, kind in ((GENERATE, "generate"), (TRAIN, "train"), (SCORE, "score")):
        assert flops(entry, SIZES.shapes[entry["model"]]) == COST[kind]


def test_a_stage_is_the_sum_of_its_rows_and_of_no_other(tmp_path: Path) -> None:
    found, _ = _document(_ran(tmp_path, STEPS + PROBES))
    training = 3 * sum(COST.values())
    probe = 2 * 100 * 30 + 4 * 3 * 200 + 2 * 20 * 12
    assert found["parts"]["training"] == {
        "seconds": 12.0,
        "tokens_generated": 18,
        "tokens_scored": 18,
        "tokens_trained": 24,
        "flops": training,
        "price": None,
    }
    assert found["parts"]["probes"]["flops"] == probe
    assert found["parts"]["all"]["flops"] == found["flops"]["total"] == training + probe
    assert found["flops"]["train"] == 3 * COST["train"]
    assert found["work"]["frozen /teacher score"] == {"sequences": 3, "positions": 30, "tokens": 18} | {
        "flops": 3 * COST["score"]
    }
    assert found["seconds"] == {
        "frozen": 1.5,
        "learner": 3.0,
        "rollout": 8.5,
        "scorer": pytest.approx(0.3),
        "wall": 15.0,
    }
    assert found["said"] == []


def test_a_sample_s_share_leaves_the_probes_out(tmp_path: Path) -> None:
    found, _ = _document(_ran(tmp_path, STEPS + PROBES))
    spent = 3 * sum(COST.values())
    assert found["samples"]["trained"] == {"responses": 12, "flops": spent / 12, "seconds": 1.0, "price": None}
    assert found["samples"]["passed"] == {"responses": 6, "flops": spent / 6, "seconds": 2.0, "price": None}


def test_a_stage_without_rollouts_has_no_passed_sample_and_says_nothing_of_its_cost(tmp_path: Path) -> None:
    found, _ = _document(_ran(tmp_path, STEPS), "first")
    assert found["flops"] == {"generate": 0, "score": 0, "train": 3 * COST["train"], "interference": 0} | {
        "total": 3 * COST["train"]
    }
    assert found["samples"]["passed"] == {"responses": 0, "flops": None, "seconds": None, "price": None}
    assert found["samples"]["trained"]["flops"] == COST["train"] / 4


def test_prices_are_of_busy_roles_and_of_all_the_time_they_were_held(tmp_path: Path) -> None:
    priced = CONFIG + "prices: {rollout: 3600.0, learner: 7200.0}\n"
    found, history = _document(_ran(tmp_path, STEPS + PROBES, priced))
    assert found["parts"]["training"]["price"] == pytest.approx(3 * (2.0 + 2 * 1.0))
    assert found["parts"]["all"]["price"] == pytest.approx(3 * 4.0 + 2.5)
    assert found["price_held"] == pytest.approx(15.0 * 3)
    assert found["samples"]["trained"]["price"] == pytest.approx(1.0)
    assert costs.of_run(history)["price"] == pytest.approx(3 * 2.0 + 3 * 4.0 + 3 * 2.5)


# ---------------------------------------------------------------- a point


def test_a_point_has_a_cost_where_the_gain_is_sure(tmp_path: Path) -> None:
    run = _ran(tmp_path, STEPS + PROBES)
    found, _ = _document(run, handoff=_gain(0.10, 0.05, 0.20))
    spent = 3 * sum(COST.values())
    assert found["point"]["flops"] == pytest.approx({"value": spent / 10, "low": spent / 20, "high": spent / 5})
    assert found["point"]["price"] == {"value": None, "low": None, "high": None}
    unsure, _ = _document(run, handoff=_gain(0.10, -0.01, 0.20))
    assert unsure["point"]["flops"] == {"value": None, "low": None, "high": None}
    assert "holds 0" in unsure["point"]["said"]
    for nothing in (None, {}, {"completion": None}, {"completion": {"pass_at_k": []}}):
        assert _document(run, handoff=nothing)[0]["point"]["said"] == "the gain was not measured"


# ---------------------------------------------------------------- resumed, old, unknown


def test_a_resumed_run_counts_no_step_twice_and_tells_what_was_undone(tmp_path: Path) -> None:
    run = _ran(tmp_path, [*STEPS[:5], *PROBES[:2], _probe(5, "second")])
    with RunLedger(run) as ledger:
        ledger.truncate_after(3)
        ledger.event("started", step=3, resumed=True)
        for row in (*STEPS[3:], PROBES[2]):
            ledger.metrics(row)
    found, history = _document(run)
    straight, _ = _document(_ran(tmp_path / "straight", STEPS + PROBES))
    assert found["parts"]["training"] == straight["parts"]["training"]
    assert found["parts"]["probes"] == straight["parts"]["probes"]
    probe = 2 * 100 * 30 + 4 * 3 * 200 + 2 * 20 * 12
    lost = 2 * sum(COST.values()) + probe
    assert found["parts"]["lost"]["flops"] == lost
    assert found["parts"]["lost"]["seconds"] == 2 * 4.0 + 3.0
    assert found["parts"]["all"]["flops"] == straight["parts"]["all"]["flops"] + lost
    assert found["samples"]["trained"]["flops"] == (3 * sum(COST.values()) + lost) / 12, "it was paid for"
    assert found["said"] == ["1 times a resume began here; what the step then in hand had cost is not known"]
    first, _ = _document(run, "first")
    assert first["said"] == [] and first["parts"]["lost"]["flops"] == 0
    whole = costs.of_run(history)["flops"]
    assert whole == found["parts"]["all"]["flops"] + first["parts"]["all"]["flops"]


def test_work_outside_of_steps_is_preparation(tmp_path: Path) -> None:
    run = _ran(tmp_path, STEPS)
    with RunLedger(run) as ledger:
        ledger.event("work", step=3, stage="second", what="prepare", seconds=7.0, work=[GENERATE], seconds_by_role={})
    found, _ = _document(run)
    assert found["parts"]["preparation"]["flops"] == COST["generate"]
    assert found["parts"]["preparation"]["seconds"] == 7.0
    assert _document(run, "first")[0]["parts"]["preparation"]["flops"] == 0


def test_an_unknown_model_makes_its_own_kind_unknown_and_says_why(tmp_path: Path) -> None:
    sizes = Sizes({"policy": SHAPE}, {"/teacher": "model_type mamba: its parameters are not counted here"})
    found, _ = _document(_ran(tmp_path, STEPS + PROBES, sizes=sizes))
    assert found["flops"]["score"] is None and found["flops"]["total"] is None
    assert found["flops"]["train"] == 3 * COST["train"]
    assert found["parts"]["training"]["tokens_scored"] == 18, "tokens are counted whatever the model is"
    assert found["said"] == ["FLOPs of /teacher are not known: model_type mamba: its parameters are not counted here"]


def test_rows_of_an_older_version_have_their_seconds_and_no_flops(tmp_path: Path) -> None:
    older = [
        {key: value for key, value in row.items() if key not in ("work", "seconds_by_role", "passed")}
        | {"seconds_generate": 2.0, "seconds_score": 0.25, "seconds_train": 1.5, "seconds_publish": 0.125}
        for row in STEPS
    ]
    found, history = _document(_ran(tmp_path, older, sizes=None))
    assert found["flops"]["total"] is None and found["samples"]["trained"]["flops"] is None
    assert found["seconds"] == {"learner": 4.5, "publish": 0.375, "rollout": 6.0, "scorer": 0.75, "wall": 12.0}
    assert any("did not count" in one for one in found["said"])
    assert math.isnan(costs.of_run(history)["flops"])


def test_judges_are_said_to_be_uncounted(tmp_path: Path) -> None:
    sizes = Sizes(SIZES.shapes, {}, judges=("judge:/models/j",))
    found, _ = _document(_ran(tmp_path, STEPS, sizes=sizes))
    assert found["said"] == ["tokens of judge:/models/j are not counted; their time is the scorer's"]


def test_the_summary_tells_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _ran(tmp_path, STEPS + PROBES)
    told = summarise(run.root)["cost"]
    spent = 3 * sum(COST.values()) + 3 * COST["train"]
    assert told["flops_training"] == spent and told["flops_each_passed"] == spent / 6
    assert told["price"] is None
    print_summary(run.root)
    assert f"{told['flops']:.3g} FLOPs" in capsys.readouterr().out


# ---------------------------------------------------------------- the scaffold


def _answers(set_name: str, passed: int, of: int, context: int | None, tokens: int) -> list[Row]:
    """Four draws for each prompt, and a greedy one of another length, which no mean is to hold."""
    rows = []
    for at in range(of + of // 4):
        greedy = at >= of
        rows.append(
            {
                "set": set_name,
                "prompt_id": f"p{at - of if greedy else at // 4}",
                "prompt": "1+1=",
                "family": "",
                "greedy": greedy,
                "draw": -1 if greedy else at % 4,
                "passed": not greedy and at < passed,
                "status": "ok",
                "tokens": 60 if greedy else tokens,
                "context": context,
                "text": "2",
            }
        )
    return rows


MEASURED = {"measured": {"before": 3, "after": 6}, "confidence": 0.95}


def _with_scaffold(tmp_path: Path, bare_passed: int, context: int | None = 5) -> RunDirectory:
    run = _ran(tmp_path, STEPS + PROBES, CONFIG + "handoff: {probe_samples: 4, sequential: false}\n")
    write_probe(run, 3, "first", [*_answers("probe", 0, 80, context, 4), *_answers("scaffolded", 60, 80, 25, 8)])
    write_probe(
        run, 6, "second", [*_answers("probe", bare_passed, 80, context, 4), *_answers("scaffolded", 70, 80, 25, 8)]
    )
    return run


def test_answers_with_and_without_help_stand_side_by_side(tmp_path: Path) -> None:
    found, _ = _document(_with_scaffold(tmp_path, 60), handoff=MEASURED)
    told = found["scaffold"]
    bare = 2 * 100 * 8 + 4 * 3 * 36 + 2 * 20 * 4
    helped = 2 * 100 * 32 + 4 * 3 * 528 + 2 * 20 * 8
    assert told["answers"]["bare_after"]["flops"] == bare
    assert told["answers"]["scaffolded"]["flops"] == helped
    assert told["answers"]["scaffolded"]["context_tokens"] == 25
    assert told["answers"]["bare_after"]["passed"]["value"] == pytest.approx(0.75)
    assert told["answers"]["bare_before"]["passed"]["value"] == 0.0
    assert told["answers"]["bare_before"]["flops_each_passed"]["value"] is None
    spent = 3 * sum(COST.values())
    assert told["pays_after"]["answers"] == pytest.approx(spent / (helped - bare))
    each = (helped - bare) / 0.75
    assert told["pays_after"]["passed"]["value"] == pytest.approx(spent / each)
    assert told["pays_after"]["passed"]["low"] < told["pays_after"]["passed"]["value"]


@pytest.mark.parametrize(("passed", "words"), [(80, "as good without"), (20, "not yet as good"), (58, "is open")])
def test_the_quality_at_which_it_pays_is_said(tmp_path: Path, passed: int, words: str) -> None:
    found, _ = _document(_with_scaffold(tmp_path, passed), handoff=MEASURED)
    assert words in found["scaffold"]["said"]


def test_contexts_that_nobody_counted_leave_the_cost_unknown(tmp_path: Path) -> None:
    found, _ = _document(_with_scaffold(tmp_path, 60, None), handoff=MEASURED)
    assert found["scaffold"]["answers"]["bare_after"]["flops"] is None
    assert found["scaffold"]["answers"]["bare_after"]["response_tokens"] == 4
    assert found["scaffold"]["pays_after"]["answers"] is None


def test_without_a_scaffold_or_without_a_probe_there_is_none(tmp_path: Path) -> None:
    run = _ran(tmp_path, STEPS)
    assert _document(run)[0]["scaffold"] is None
    assert _document(run, handoff=MEASURED)[0]["scaffold"] is None
    write_probe(run, 6, "second", _answers("probe", 3, 8, 5, 4))
    assert _document(run, handoff=MEASURED)[0]["scaffold"] is None
