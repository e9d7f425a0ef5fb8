"""Contracts: how a bound stands under an interval, what a contract asks for, and what the pipeline file may say."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import contracts
from orchestrator.config import Pipeline
from orchestrator.contracts import FIGURES, NOTHING, interval, judge, stands
from orchestrator.handoff_config import SEVERITY, Handoff
from orchestrator.json_lines import plain
from orchestrator.load import dump, read
from orchestrator.plan import plan
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.repairs import expanded, tries
from policies.bad_input import BadInput

ABOVE, ASTRIDE, BELOW = Interval(0.9, 0.85, 0.95), Interval(0.78, 0.7, 0.86), Interval(0.5, 0.4, 0.6)


# ---------------------------------------------------------------- one bound


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("shown", ["held", "undecided", "broken", "unmeasured"]),
        ("measured", ["held", "broken", "broken", "unmeasured"]),
        ("possible", ["held", "broken", "broken", "unmeasured"]),
    ],
)
def test_a_bound_of_0_8_by_when_it_counts_as_broken(when: str, expected: list[str]) -> None:
    found = [ABOVE, ASTRIDE, BELOW, UNKNOWN]
    assert [stands(one, "at_least", 0.8, when) for one in found] == expected
    turned = [Interval(-one.value, -one.high, -one.low) for one in found]
    assert [stands(one, "at_most", -0.8, when) for one in turned] == expected


def test_only_possible_tells_an_estimate_within_from_an_interval_within() -> None:
    within = Interval(0.82, 0.7, 0.9)
    assert [stands(within, "at_least", 0.8, when) for when in ("shown", "measured", "possible")] == [
        "undecided",
        "held",
        "broken",
    ]


def test_what_is_exactly_at_the_bound_keeps_it_and_an_interval_without_ends_shows_nothing() -> None:
    exact = Interval(0.8, 0.8, 0.8)
    assert {stands(exact, bound, 0.8, when) for bound in ("at_least", "at_most") for when in ("shown", "possible")} == {
        "held"
    }
    endless = Interval(0.5, math.nan, math.nan)
    assert stands(endless, "at_least", 0.8, "shown") == "undecided"
    assert stands(endless, "at_least", 0.8, "measured") == "broken"


@given(st.tuples(*[st.floats(-1, 1)] * 3).map(sorted), st.floats(-1, 1))
def test_shown_is_broken_only_where_measured_and_possible_are(ends: list[float], limit: float) -> None:
    one = Interval(ends[1], ends[0], ends[2])
    shown, measured, possible = (stands(one, "at_least", limit, when) for when in ("shown", "measured", "possible"))
    assert not (shown == "broken" and "held" in (measured, possible))
    assert not (possible == "held" and "broken" in (measured, shown))


# ---------------------------------------------------------------- a contract


def document(**more: Any) -> dict[str, Any]:
    """A handoff in which every figure is measured, each at a value of its own."""
    rows = [{"k": k, "after": Interval(v, v - 0.1, v + 0.1), "change": Interval(c, c - 0.05, c + 0.05)} for k, v, c in
            ((1, 0.5, -0.1), (4, 0.7, -0.2), (2, 0.6, 0.0))]  # fmt: skip
    one = {name: Interval(at / 100, at / 100 - 0.01, at / 100 + 0.01) for at, name in enumerate(FIGURES, 20)}
    handoff = {
        "retention": {"solved": one["retention"]},
        "portability": {"ratio": one["portability"]},
        "scaffold": {"after": one["scaffold_gap"]},
        "fidelity": {"agreement": one["agreement"], "kl": one["teacher_kl"]},
        "forgetting": {
            "pass_rate": {"after": one["guard"], "change": BELOW},
            "since_start": {"share": one["forgotten"]},
        },
    }
    change = {
        "divergence": {"from_before": one["drift"]},
        "reach": {"tokens": {"available": {"after": one["reach"], "change": ABOVE}}},
    }
    completion = {"pass_at_k": rows, "support": {"rates": {"srr": one["retained_support"]}}}
    return {"completion": completion, "change": change, "handoff": handoff, **more}


def contract(**terms: Any) -> Any:
    return Handoff.model_validate({"contract": terms}).contract


def test_every_figure_is_read_where_the_handoff_has_it() -> None:
    wanted = {name: at / 100 for at, name in enumerate(FIGURES, 20)} | {"pass_at_1": 0.5, "pass_at_k": 0.7}
    for found in (document(), json.loads(json.dumps(document(), default=asdict))):
        read_ = {name: held.now(found).value for name, held in FIGURES.items()}
        assert read_ == pytest.approx(wanted)
        changes = {name: held.change(found).value for name, held in FIGURES.items() if held.change}
        assert changes == {"pass_at_1": -0.1, "pass_at_k": -0.2, "guard": 0.5, "reach": 0.9}
    assert {name for name, held in FIGURES.items() if "no_worse_than" in held.bounds} == set(changes)


@pytest.mark.parametrize(
    "broken", [{}, {"completion": None}, {"handoff": {"fidelity": None}}, {"change": {"reach": 3}}]
)
def test_what_was_not_measured_is_unmeasured_and_asks_for_nothing(broken: dict[str, Any]) -> None:
    bounds = {name: {held.bounds[0]: 0.5, "when": "possible"} for name, held in FIGURES.items()}
    verdict = judge(contract(**bounds), broken)
    assert {term.verdict for term in verdict.terms} == {"unmeasured"}
    assert verdict.action is None and not verdict.exhausted


def test_a_contract_asks_for_the_severest_that_its_broken_terms_ask_for() -> None:
    bound = {"at_least": 1.0}
    found = document()

    def asked(**otherwise: str) -> str | None:
        terms = {name: {**bound, "otherwise": action} for name, action in otherwise.items()}
        return judge(contract(**terms), found, repairs_left=1).action

    assert asked() is None
    assert asked(retained_support="warn") == "warn"
    assert asked(retained_support="warn", pass_at_1="repair") == "repair"
    assert asked(retained_support="roll_back", pass_at_1="repair", guard="warn") == "roll_back"
    assert asked(retained_support="roll_back", pass_at_1="stop") == "stop"
    assert list(SEVERITY) == ["warn", "repair", "roll_back", "stop"]


def test_without_a_repair_left_what_asks_for_one_stops() -> None:
    terms = contract(pass_at_1={"at_least": 1.0, "otherwise": "repair"})
    assert judge(terms, document(), repairs_left=1).action == "repair"
    found = judge(terms, document())
    assert (found.action, found.exhausted) == ("stop", True)


def test_each_bound_of_a_term_is_judged_and_told() -> None:
    found = judge(contract(pass_at_1={"at_least": 0.3, "no_worse_than": -0.02, "otherwise": "warn"}), document())
    assert [(one.bound, one.limit, one.verdict) for one in found.terms] == [
        ("at_least", 0.3, "held"),
        ("no_worse_than", -0.02, "broken"),
    ]
    assert found.of("broken")[0].said() == "pass_at_1 no_worse_than -0.02: -0.1 (-0.15 to -0.05)"
    told = contracts.document(found)
    assert told["action"] == "warn"
    assert told["terms"][1]["measured"] == pytest.approx({"value": -0.1, "low": -0.15, "high": -0.05})
    assert contracts.document(judge(contract(pass_at_1={"at_least": 0.3}), {}))["terms"][0]["measured"]["value"] is None
    assert contracts.document(NOTHING) == {"terms": [], "action": None, "exhausted": False}


@given(st.floats(allow_nan=True, allow_infinity=False), st.floats(), st.floats())
def test_an_interval_survives_its_json(value: float, low: float, high: float) -> None:
    back = interval(plain({"value": value, "low": low, "high": high}))
    assert back.known == (not math.isnan(value))
    if back.known and math.isfinite(low):
        assert (back.value, back.low) == (value, low)


# ---------------------------------------------------------------- the pipeline file

BASE: dict[str, Any] = {
    "name": "x",
    "prompts": {"train": {"kind": "arithmetic"}, "probe": {"kind": "arithmetic", "count": 8, "seed": 3}},
    "stages": [
        {"name": "a", "recipe": {"kind": "sft"}, "steps": 2},
        {"name": "b", "recipe": {"kind": "grpo"}, "steps": 2},
    ],
}


def faults(folder: Path, handoff: dict[str, Any], *, stage: Any = None, probe: bool = True) -> list[str]:
    prompts = BASE["prompts"] if probe else {"train": BASE["prompts"]["train"]}
    stages = [dict(one) for one in BASE["stages"]]
    if stage is not None:
        stages[1]["contract"] = stage
    path = folder / "p.yaml"
    path.write_text(yaml.safe_dump({**BASE, "prompts": prompts, "stages": stages, "handoff": handoff}))
    try:
        read(path)
    except BadInput as error:
        return [line.removeprefix(f"{path}: ") for line in error.lines]
    return []


def test_the_designs_example_loads_and_comes_back_equal(tmp_path: Path) -> None:
    terms = {"retained_support": {"at_least": 0.95}, "pass_at_1": {"no_worse_than": -0.02}}
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({**BASE, "handoff": {"probe_samples": 16, "contract": terms}}))
    found = read(path)
    assert found.handoff.contract["pass_at_1"].no_worse_than == -0.02
    assert found.handoff.contract["retained_support"].otherwise == "stop"
    path.write_text(dump(found))
    assert read(path) == found
    assert read(path, ["handoff.contract.pass_at_1.otherwise=warn"]).handoff.contract["pass_at_1"].otherwise == "warn"
    again = read(path, ["stages.b.contract.reach.at_least=0.5"])
    assert again.stages[1].contract is not None and again.stages[1].contract["reach"].at_least == 0.5


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"pass_at_1": {}}, "handoff.contract.pass_at_1: has no bound; add at_least: 0.9 or no_worse_than: -0.02"),
        ({"drift": {"at_least": 0.1}}, "handoff.contract.drift.at_least: says nothing of drift, the KL("),
        ({"pass_at_1": {"at_least": 90}}, "lies outside of what pass_at_1 can be (got 90.0); set it between 0 and 1"),
        ({"drift": {"at_most": -1}}, "lies outside of what drift can be (got -1.0); set it to 0 or more"),
        ({"guard": {"at_least": 0.9}}, "can never be measured: the pipeline has no prompts.guard; add prompts.guard"),
        ({"forgotten": {"at_most": 0.1}}, "the pipeline has no prompts.guard"),
        ({"portability": {"at_least": 0.5}}, "the pipeline has no prompts.shifted; add prompts.shifted"),
        ({"scaffold_gap": {"at_most": 0.1}}, "handoff.scaffold is empty; give it a template"),
        ({"agreement": {"at_least": 0.5}}, "no stage that it holds has a teacher; choose a recipe with a teacher"),
        ({"reward": {"at_least": 0.5}}, "handoff.contract.reward: unknown value (got 'reward')"),
        ({"pass_at_1": {"at_leats": 0.5}}, "unknown key; did you mean 'at_least'?"),
    ],
)
def test_a_term_that_says_nothing_is_refused_with_its_key_and_a_fix(
    terms: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (line,) = faults(tmp_path, {"contract": terms})
    assert said in line and "; " in line


def test_what_a_stage_is_held_to_must_be_measurable_there(tmp_path: Path) -> None:
    retention = {"retention": {"at_least": 0.9}}
    assert faults(tmp_path, {"contract": retention}) == []  # the second stage has one before it
    (line,) = faults(tmp_path, {"contract": retention}, stage={})  # ... and is held to nothing here
    assert "no stage comes before this one" in line
    assert faults(tmp_path, {}, stage=retention) == []
    (line,) = faults(tmp_path, {}, stage={"agreement": {"at_least": 0.9}})
    assert line.startswith("stages.b.contract.agreement: can never be measured")
    (line,) = faults(tmp_path, {"contract": {"pass_at_1": {"at_least": 0.1}}}, probe=False)
    assert "the pipeline has no prompts.probe; add prompts.probe" in line
    (line,) = faults(tmp_path, {"contract": {"reach": {"at_least": 0.1}}, "bank": 0})
    assert "handoff.bank is 0; raise handoff.bank" in line
    (line,) = faults(tmp_path, {"contract": {"pass_at_k": {"at_least": 0.1}}, "probe_samples": 1})
    assert "handoff.probe_samples is 1" in line


REPAIR = {"pass_at_1": {"at_least": 0.5, "otherwise": "repair"}}


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"kind": "exgrpo"}, None),
        ({"kind": "on_policy_distillation", "teacher": "found"}, None),
        ({"kind": "on_policy_distillation"}, "handoff.repair.recipe.teacher: missing"),
        (
            {"kind": "on_policy_distillation", "teacher": "stage:b"},
            "handoff.repair.recipe.teacher: after a: no earlier",
        ),
        ({"kind": "dpo"}, "handoff.repair.recipe.kind: after a: needs preferences"),
        ({"kind": "opdd"}, "handoff.repair.recipe.kind: unknown recipe (got 'opdd'); did you mean 'opd'?"),
    ],
)
def test_a_repair_is_checked_as_the_stage_that_it_would_be(
    recipe: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    found = faults(tmp_path, {"contract": REPAIR, "repair": {"recipe": recipe}})
    assert (not found) if said is None else found[0].startswith(said), found


def test_repairs_are_planned_for_the_stages_whose_contract_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({**BASE, "handoff": {"contract": REPAIR, "repair": {"tries": 2}}}))
    found = read(path, ["stages.a.contract={}"])
    assert [tries(found, stage) for stage in found.stages] == [0, 2]
    whole, where = expanded(found)
    assert [stage.name for stage in whole.stages] == ["a", "b", "b-repair"]
    assert where[2].config.recipe.model_extra is not None
    assert where[2].config.recipe.model_extra["teacher"] == "found:b"
    planned = plan(found)
    assert [one.name for one in planned.repairs] == ["b-repair"]
    assert planned.stages[0].contract == ()
    assert planned.stages[1].contract == ("pass_at_1 at_least 0.5; broken once that is shown: repair",)
    assert "the policy as it was before stage b" in [view.note for view in planned.repairs[0].views]
    assert planned.document()["repairs"][0]["contract"]


def test_a_pipeline_without_a_contract_has_no_repair() -> None:
    found = Pipeline.model_validate(BASE)
    assert expanded(found)[1] == {} and plan(found).repairs == ()
