"""An experiment's table: planted differences are covered over seeds and prompts, and what does not count is said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.experiment_table import document
from orchestrator.experiment_text import show
from orchestrator.experiments import make, write
from orchestrator.study import Study
from orchestrator.variants import expand
from policies.bad_input import BadInput
from policies.trajectory import Origin
from tests.build_run import example
from tests.planted_study import built, file, rows, verdicts

PROMPTS = [f"probe-{at}" for at in range(40)]
LONG = {"set": {"stages.learn.optimizer.learning_rate": 0.001}}
HANDOFF = {"probe_samples": 16, "sequential": False}


def study(tmp_path: Path, variants: Mapping[str, Any], **changes: Any) -> Study:
    """An experiment's directory without runs."""
    path = file(tmp_path, variants=variants, **changes)
    return Study.open(make(tmp_path / "study", expand(path), tmp_path))


def planted(
    of: Study, gains: Mapping[str, float], *, seed: int = 0, of_seed: float = 0.0, ending: str = "finished"
) -> Study:
    """Every run: pass probabilities are hard or easy by prompt, plus the variant's gain and the seed's luck."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0.2, 0.6, len(PROMPTS))
    for name, number in of.runs:
        luck = rng.normal(0, of_seed) if name != of.baseline else 0.0
        chances = dict(zip(PROMPTS, np.clip(hard + gains[name] + luck, 0, 1), strict=True))
        probes = {0: rows(verdicts(rng, dict(zip(PROMPTS, hard, strict=True)))), 4: rows(verdicts(rng, chances))}
        built(of.place(name, number), of.pipeline_file(name), probes, sets=[f"seed={number}"], ending=ending)
    return of


def row(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["variants"] if one["name"] == name)


def test_a_planted_gain_is_covered_and_told(tmp_path: Path) -> None:
    of = {"plain": {}, "better": LONG, "worse": {"set": {"stages.learn.steps": 2, "demonstrations.carelessness": 0.4}}}
    made = planted(study(tmp_path, {"of": of, "seeds": [1, 2, 3]}), {"plain": 0.0, "better": 0.2, "worse": -0.18})
    found = document(made)
    assert json.loads(json.dumps(found)) == found
    assert [one["verdict"] for one in found["variants"]] == ["baseline", "better", "worse"]
    for name, gain in (("better", 0.2), ("worse", -0.18)):
        apart = row(found, name)["difference"]
        assert apart["low"] <= gain <= apart["high"]
    assert (row(found, "better")["seeds"], row(found, "better")["prompts"]) == (3, 40)
    assert row(found, "plain")["difference"] is None
    assert row(found, "better")["changes"] == {"stages.learn.optimizer.learning_rate": [1e-05, 0.001]}
    assert [run["spent"]["trained_tokens"] for run in row(found, "worse")["runs"]] == [400.0] * 3


def test_more_comparisons_widen_every_interval(tmp_path: Path) -> None:
    """Bonferroni: the same two variants, alone and among five."""
    widths = []
    for count in (1, 4):
        folder = tmp_path / str(count)
        folder.mkdir()
        of = {"plain": {}} | {f"other-{at}": LONG for at in range(count)}
        gains = dict.fromkeys(of, 0.1) | {"plain": 0.0}
        apart = row(document(planted(study(folder, {"of": of}), gains)), "other-0")["difference"]
        widths.append(apart["high"] - apart["low"])
    assert widths[1] > 1.15 * widths[0]


def test_seeds_that_disagree_make_the_difference_undecided(tmp_path: Path) -> None:
    of = {"plain": {}, "other": LONG}
    found = {}
    for name, spread in (("quiet", 0.0), ("loud", 0.25)):
        folder = tmp_path / name
        folder.mkdir()
        made = planted(
            study(folder, {"of": of, "seeds": [1, 2, 3]}), {"plain": 0.0, "other": 0.1}, of_seed=spread, seed=4
        )
        found[name] = row(document(made), "other")
    assert found["quiet"]["verdict"] == "better"
    assert found["loud"]["verdict"] == "undecided"
    assert found["loud"]["between_seeds"] > 0.8 > 0.5 > found["quiet"]["between_seeds"]


def test_one_seed_is_told_to_say_nothing_of_others(tmp_path: Path) -> None:
    found = document(planted(study(tmp_path, {"of": {"plain": {}, "other": LONG}}), {"plain": 0.0, "other": 0.1}))
    assert any("One seed" in note for note in found["notes"])


def test_only_seeds_with_both_runs_at_their_end_are_paired(tmp_path: Path) -> None:
    made = study(tmp_path, {"of": {"plain": {}, "other": LONG}, "seeds": [1, 2, 3, 4, 5]})
    rng = np.random.default_rng(0)
    drawn = {at: rows(verdicts(rng, dict.fromkeys(PROMPTS, 0.5))) for at in (0, 4)}
    endings = {("plain", 2): "failed", ("other", 3): "running", ("other", 4): "interrupted"}
    for name, seed in made.runs[:-1]:
        ending = endings.get((name, seed), "finished")
        built(made.place(name, seed), made.pipeline_file(name), drawn, sets=[f"seed={seed}"], ending=ending)
    found = document(made)
    assert [run["missing"] for run in row(found, "plain")["runs"]] == ["", "failed", "", "", ""]
    assert [run["missing"] for run in row(found, "other")["runs"]] == ["", "", "running", "interrupted", "not started"]
    assert (row(found, "plain")["seeds"], row(found, "other")["seeds"]) == (4, 1)


def test_an_experiment_without_any_run_is_a_table_without_figures(tmp_path: Path) -> None:
    found = document(study(tmp_path, {"of": {"plain": {}, "other": LONG}}))
    assert [one["verdict"] for one in found["variants"]] == ["baseline", "unmeasured"]
    assert found["variants"][1]["value"]["value"] is None
    console = Console(width=200, record=True)
    show(found, console)
    assert "other/seed-0: not started" in console.export_text()


def test_a_damaged_probe_does_not_cost_the_others_theirs(tmp_path: Path) -> None:
    made = planted(study(tmp_path, {"of": {"plain": {}, "other": LONG}, "seeds": [1, 2]}), {"plain": 0.0, "other": 0.1})
    (made.place("other", 1) / "probes" / "step=000004.parquet").write_bytes(b"no parquet")
    (made.place("other", 2) / "handoffs" / "warm.json").write_text("{")
    found = row(document(made), "other")
    assert "cannot be read" in found["runs"][0]["missing"]
    assert (found["seeds"], found["runs"][1]["missing"]) == (1, "")


def test_roles_and_contracts_of_the_handoffs_stand_beside(tmp_path: Path) -> None:
    made = planted(study(tmp_path, {"of": {"plain": {}, "other": LONG}}), {"plain": 0.0, "other": 0.1})
    told = {"index": 0, "change": {"role": {"name": "expansion"}}, "contract": {"action": "warn"}}
    (made.place("other", 0) / "handoffs" / "warm.json").write_text(json.dumps(told))
    found = row(document(made), "other")["runs"][0]
    assert (found["roles"], found["contract"]) == ({"warm": "expansion"}, {"warm": "warn"})
    console = Console(width=200, record=True)
    show(document(made), console)
    assert "warm expansion" in console.export_text()


# ---------------------------------------------------------------- measures


def test_pass_at_k_is_of_all_samples_of_the_handoff(tmp_path: Path) -> None:
    """Half of the prompts pass once in sixteen, the others never: pass@16 is a half, pass@1 a thirty-second."""
    once = {prompt: [at % 2 == 0, *([False] * 15)] for at, prompt in enumerate(PROMPTS)}
    for measure, value in (("pass_at_k", 0.5), ("pass_at_1", 1 / 32)):
        folder = tmp_path / measure
        folder.mkdir()
        made = study(folder, {"of": {"plain": {}, "other": LONG}, "measure": measure})
        built(made.place("plain", 0), made.pipeline_file("plain"), {0: rows(once), 4: rows(once)})
        assert row(document(made), "plain")["value"]["value"] == pytest.approx(value)


def test_retained_support_is_of_what_was_solved_at_the_start(tmp_path: Path) -> None:
    """Of ten prompts that always passed, the variant loses four; those that never passed are in no figure."""
    handoff = {"probe_samples": 64, "sequential": False}
    made = study(tmp_path, {"of": {"plain": {}, "other": LONG}, "measure": "retained_support"}, handoff=handoff)
    before = {prompt: [at < 10] * 64 for at, prompt in enumerate(PROMPTS)}
    after = {prompt: [at < 6] * 64 for at, prompt in enumerate(PROMPTS)}
    for name, last in (("plain", before), ("other", after)):
        built(made.place(name, 0), made.pipeline_file(name), {0: rows(before), 4: rows(last)})
    found = document(made)
    assert row(found, "plain")["value"]["value"] == 1.0
    assert row(found, "other")["value"]["value"] == pytest.approx(0.6)
    assert row(found, "other")["prompts"] == 10
    assert row(found, "other")["difference"]["value"] == pytest.approx(-0.4)


def test_shifted_and_guard_are_sets_of_their_own(tmp_path: Path) -> None:
    prompts = {
        "train": {"kind": "arithmetic", "digits": [1], "count": 40},
        "guard": {"kind": "arithmetic", "digits": [1], "count": 4, "seed": 3},
    }
    made = study(tmp_path, {"of": {"plain": {}, "other": LONG}, "measure": "guard"}, prompts=prompts)
    guard = rows({prompt: [True] * 16 for prompt in PROMPTS}, name="guard")
    built(made.place("plain", 0), made.pipeline_file("plain"), {4: rows({"p": [False] * 16}) + guard})
    built(made.place("other", 0), made.pipeline_file("other"), {4: rows({"p": [False] * 16})})
    found = document(made)
    assert row(found, "plain")["value"]["value"] == 1.0
    assert row(found, "other")["runs"][0]["missing"] == "the probe after step 4 has no set guard"


# ---------------------------------------------------------------- claims


SWAP = {"of": {"sft": {}, "dft": {"set": {"stages.learn.recipe.kind": "dft"}}}, "study": "interface_swap"}
DATA = {"of": {"given": {}, "other": {"set": {"demonstrations.carelessness": 0.5}}}, "study": "provenance_swap"}


def trained(of: Study, other: Mapping[int, str]) -> dict[str, Any]:
    """The second variant's row; its steps trained on the baseline's responses, but where `other` says."""
    rng = np.random.default_rng(0)
    drawn = {at: rows(verdicts(rng, dict.fromkeys(PROMPTS, 0.5))) for at in (0, 4)}
    for name, number in of.runs:
        steps = {}
        for step in range(1, 5):
            changed = other.get(step, "") if name != of.baseline else ""
            names = [f"s{step}-d{at}" for at in range(3)]
            if changed == "prompt":
                names[0] = "elsewhere"
            steps[step] = [example(one, origin=Origin.DEMONSTRATION) for one in names]
            if changed == "tokens":
                steps[step][1] = example(names[1], origin=Origin.DEMONSTRATION, length=7)
            if changed == "count":
                steps[step].append(steps[step][0])
            if changed == "order":
                steps[step].reverse()
        built(of.place(name, number), of.pipeline_file(name), drawn, trained=steps)
    return document(of)["variants"][1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("change", ["prompt", "tokens", "count"])
def test_one_other_trajectory_breaks_an_interface_swap(change: str, tmp_path: Path) -> None:
    found = trained(study(tmp_path, SWAP), {3: change})
    assert found["claim"]["verdict"] == "broken"
    assert found["claim"]["told"].startswith("step 3 trained on other trajectories")
    assert trained_note(tmp_path, "dft is not what the study claims")


def trained_note(tmp_path: Path, text: str) -> bool:
    return any(text in note for note in document(Study.open(tmp_path / "study"))["notes"])


@pytest.mark.parametrize("change", [{}, {2: "order"}])
def test_the_same_trajectories_in_any_order_keep_it(change: Mapping[int, str], tmp_path: Path) -> None:
    found = trained(study(tmp_path, SWAP), change)["claim"]
    assert (found["verdict"], found["told"]) == ("kept", "the same 12 trajectories, step by step, in 4 steps")


def test_a_provenance_swap_that_swapped_nothing_is_broken(tmp_path: Path) -> None:
    assert trained(study(tmp_path, DATA), {})["claim"]["verdict"] == "broken"


def test_a_provenance_swap_is_told_by_its_producers(tmp_path: Path) -> None:
    found = trained(study(tmp_path, DATA), {1: "tokens"})["claim"]
    assert found == {"verdict": "kept", "told": "trained on 100% demonstration and 100% demonstration"}


def test_an_order_whose_last_stage_a_budget_cut_off_is_broken(tmp_path: Path) -> None:
    made = study(tmp_path, {"study": "stage_order"}, budget={"unit": "steps", "amount": 3})
    rng = np.random.default_rng(0)
    drawn = rows(verdicts(rng, dict.fromkeys(PROMPTS, 0.5)))
    for name, number in made.runs:
        built(made.place(name, number), made.pipeline_file(name), {3: drawn}, until=3)
    claim = document(made)["variants"][1]["claim"]
    assert claim["verdict"] == "broken"
    assert claim["told"] == "learn 2, warm 1 steps, where the baseline has warm 2, learn 1"


# ---------------------------------------------------------------- budgets and files


def test_a_run_that_ended_short_of_the_budget_is_told(tmp_path: Path) -> None:
    changes = {"budget": {"unit": "trained_tokens", "amount": 400}}
    short = {"set": {"stages.learn.steps": 1}}
    made = planted(study(tmp_path, {"of": {"plain": {}, "short": short}}, **changes), {"plain": 0.0, "short": 0.0})
    notes = document(made)["notes"]
    assert "short, seed 0: its stages ended at 300 of 400 trained tokens; give them more steps." in notes
    assert not any(note.startswith("plain") for note in notes)


def test_unequal_costs_without_a_budget_are_told(tmp_path: Path) -> None:
    short = {"set": {"stages.learn.steps": 1}}
    made = planted(study(tmp_path, {"of": {"plain": {}, "short": short}}), {"plain": 0.0, "short": 0.0})
    assert any("No shared budget" in note for note in document(made)["notes"])


def test_the_written_table_is_the_document(tmp_path: Path) -> None:
    made = planted(study(tmp_path, {"of": {"plain": {}, "other": LONG}}), {"plain": 0.0, "other": 0.1})
    assert write(made) == json.loads((made.root / "experiment.json").read_text()) == document(made)


def test_a_run_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no experiment.yaml in it"):
        Study.open(tmp_path)
