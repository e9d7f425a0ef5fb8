"""braid compare: planted differences are found, paired; runs that lack something give the rest."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.comparison import document
from orchestrator.comparison_text import show
from orchestrator.probe_files import write_scored
from orchestrator.probes.snapshot import Scored
from policies.bad_input import BadInput
from tests.planted_study import SAMPLES, built, file, rows, verdicts

PROMPTS = [f"probe-{at}" for at in range(60)]


def chances(rng: np.random.Generator, gain: float = 0.0) -> dict[str, float]:
    """Hard and easy prompts, each `gain` easier."""
    hard = rng.beta(0.6, 0.6, len(PROMPTS)) * (1 - gain)
    return {prompt: float(chance + gain) for prompt, chance in zip(PROMPTS, hard, strict=True)}


def two(tmp_path: Path, gain: float = 0.15, seed: int = 1, **changes: Any) -> list[str]:
    """Two finished runs; the second passes more often, on the same prompts."""
    rng = np.random.default_rng(seed)
    before = chances(rng)
    after = {prompt: chance * (1 - gain) + gain for prompt, chance in before.items()}
    pipeline = file(tmp_path, **changes)
    a = built(tmp_path / "a", pipeline, {0: rows(verdicts(rng, before)), 4: rows(verdicts(rng, before))})
    b = built(
        tmp_path / "b", pipeline, {0: rows(verdicts(rng, before)), 4: rows(verdicts(rng, after))}, sets=["seed=1"]
    )
    return [str(a.root), str(b.root)]


def test_a_planted_difference_is_covered_and_pairing_narrows_it(tmp_path: Path) -> None:
    covered, narrower = 0, 0
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        rng = np.random.default_rng(seed)
        base = chances(rng)
        truth = float(np.mean([(1 - one) * 0.15 for one in base.values()]))
        probe = document(two(folder, seed=seed))["sets"]["probe"]
        apart = probe["differences"][1]["pass_at_k"][0]
        covered += apart["low"] <= truth <= apart["high"]
        widths = [own["pass_at_k"][0]["high"] - own["pass_at_k"][0]["low"] for own in probe["runs"]]
        narrower += apart["high"] - apart["low"] < 0.7 * float(np.hypot(*widths))
    assert covered >= 4, "of 5 intervals at 95 %, two failures have a chance of 1 in 45"
    assert narrower == 5


def test_the_whole_document(tmp_path: Path) -> None:
    found = document(two(tmp_path))
    assert json.loads(json.dumps(found)) == found
    first, other = found["runs"]
    assert (first["status"], first["step"], first["stage"], first["missing"]) == ("finished", 4, "learn", [])
    assert other["spent"]["trained_tokens"] == 400
    assert other["shares"]["demonstration"] == pytest.approx(0.75)
    assert other["decisions"] == {"steps": 4, "changes": 0, "last": "as the recipe has it"}
    probe = found["sets"]["probe"]
    assert [one["k"] for one in probe["runs"][0]["pass_at_k"]] == [1, 2, 4, 8, 16]
    assert probe["differences"][0] is probe["solved"][0] is None
    assert sum(probe["solved"][1][key] for key in ("both", "only_first", "only_this", "neither", "undecided")) == 60
    assert found["config"] == [{"key": "seed", "values": [0, 1]}]
    assert found["reach"] == [None, None]


def test_checkpoints_of_one_run_by_step_and_by_stage(tmp_path: Path) -> None:
    """Never passed, then always: found as solved by this one alone, and nothing of the reverse."""
    never, always = ({prompt: [passed] * 64 for prompt in PROMPTS[:10]} for passed in (False, True))
    pipeline = file(tmp_path, handoff={"probe_samples": 64, "sequential": False})
    probes = {0: rows(never), 2: rows(always), 4: rows(always)}
    run = built(tmp_path / "run", pipeline, probes).root
    found = document([f"{run}@0", f"{run}@warm", f"{run}@2", str(run)])
    assert [one["step"] for one in found["runs"]] == [0, 2, 2, 4]
    assert [one["steps"] for one in found["runs"]] == [4] * 4
    assert found["runs"][1]["spent"]["trained_tokens"] == 200, "what was spent until then"
    probe = found["sets"]["probe"]
    assert [one and one["only_this"] for one in probe["solved"]] == [None, 10, 10, 10]
    assert probe["solved"][1]["ids"]["only_this"] == PROMPTS[:10]
    assert probe["differences"][1]["pass_at_k"][0]["value"] == 1.0
    assert probe["differences"][1]["pass_at_k"][0]["low"] < 1.0
    swapped = document([str(run), f"{run}@0"])["sets"]["probe"]["solved"][1]
    assert (swapped["only_first"], swapped["only_this"]) == (10, 0)
    assert found["notes"] == ["Checkpoints of one run: intervals are over prompts."]


def test_a_step_between_stages_was_drawn_by_the_cadences_plan(tmp_path: Path) -> None:
    """probe.samples draws there; at the ends of stages a prompt may stop early, and that is no bias."""
    rng = np.random.default_rng(3)
    pipeline = file(tmp_path, probe={"samples": 4}, handoff={"probe_samples": 64})
    easy = dict.fromkeys(PROMPTS, 0.9)
    probes = {0: rows(verdicts(rng, easy, 64)), 1: rows(verdicts(rng, easy, 4)), 4: rows(verdicts(rng, easy, 64))}
    run = built(tmp_path / "run", pipeline, probes).root
    found = document([f"{run}@1", str(run)])["sets"]["probe"]["runs"]
    assert found[0]["n"] == 4 * 60
    assert found[1]["n"] < 32 * 60, "what was drawn after the plan had ended counts in nothing"
    assert found[1]["pass_at_k"][0]["low"] <= 0.9 <= found[1]["pass_at_k"][0]["high"]


def test_only_the_prompts_in_common_are_compared_and_it_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    known = dict.fromkeys(PROMPTS, 0.5)
    some = {prompt: known[prompt] for prompt in PROMPTS[10:]} | {"other": 0.5}
    pipeline = file(tmp_path)
    a = built(tmp_path / "a", pipeline, {4: rows(verdicts(rng, known))}).root
    b = built(tmp_path / "b", pipeline, {4: rows(verdicts(rng, some))}).root
    found = document([str(a), str(b)])
    assert found["sets"]["probe"]["prompts"] == 50
    assert found["sets"]["probe"]["left_out"] == [10, 1]
    assert "compared on the 50 prompts that all have" in found["notes"][0]


def test_the_same_ids_of_other_prompts_are_refused(tmp_path: Path) -> None:
    """Generated prompts are numbered: the ids agree although not one text does."""
    rng = np.random.default_rng(0)
    drawn = verdicts(rng, dict.fromkeys(PROMPTS, 0.5))
    pipeline = file(tmp_path)
    a = built(tmp_path / "a", pipeline, {4: rows(drawn)}).root
    b = built(tmp_path / "b", pipeline, {4: rows(drawn, text="another {id}")}).root
    with pytest.raises(BadInput, match="measured on different prompts"):
        document([str(a), str(b)])


@pytest.mark.parametrize(("seed", "same"), [(9, True), (10, False)])
def test_without_texts_the_pipelines_say_whether_prompts_are_the_same(seed: int, same: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = [one | {"prompt": None} for one in rows(verdicts(rng, dict.fromkeys(PROMPTS, 0.5)))]
    pipeline = file(tmp_path)
    a = built(tmp_path / "a", pipeline, {4: drawn}).root
    b = built(tmp_path / "b", pipeline, {4: drawn}, sets=[f"prompts.probe.seed={seed}"]).root
    if same:
        assert document([str(a), str(b)])["sets"]["probe"]["prompts"] == 60
    else:
        with pytest.raises(BadInput, match="give the runs the same prompts"):
            document([str(a), str(b)])


def test_another_judge_or_length_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = rows(verdicts(rng, dict.fromkeys(PROMPTS, 0.5)))
    pipeline = file(tmp_path)
    a = built(tmp_path / "a", pipeline, {4: drawn}).root
    changes = ["verifier={kind: format, pattern: x}", "stages.learn.sampling.max_tokens=6"]
    b = built(tmp_path / "b", pipeline, {4: drawn}, sets=changes).root
    notes = " ".join(document([str(a), str(b)])["notes"])
    assert "Not measured alike" in notes
    assert "verifier.kind" in notes
    assert "stages.learn.sampling.max_tokens" in notes


def test_runs_that_go_on_or_failed_or_have_no_probe_give_what_they_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = rows(verdicts(rng, dict.fromkeys(PROMPTS, 0.5)))
    pipeline = file(tmp_path)
    whole = built(tmp_path / "whole", pipeline, {0: drawn, 4: drawn})
    going = built(tmp_path / "going", pipeline, {0: drawn, 2: drawn}, ending="running", until=3)
    failed = built(tmp_path / "failed", pipeline, {}, ending="failed", until=1)
    damaged = built(tmp_path / "damaged", pipeline, {0: drawn})
    damaged.probe_file(0).write_bytes(b"no parquet")
    fresh = built(tmp_path / "fresh", pipeline, {}, ending="running", until=0)
    every = [whole, going, failed, damaged, fresh]
    found = document([str(run.root) for run in every])
    assert [one["status"] for one in found["runs"]] == ["finished", "running", "failed", "finished", "running"]
    assert [one["step"] for one in found["runs"]] == [4, 2, None, None, None]
    assert "no probe" in " ".join(found["runs"][2]["missing"])
    assert "cannot be read" in " ".join(found["runs"][3]["missing"])
    assert "no steps yet" in " ".join(found["runs"][4]["missing"])
    probe = found["sets"]["probe"]
    assert [one is None for one in probe["runs"]] == [False, False, True, True, True]
    assert [one is None for one in probe["differences"]] == [True, False, True, True, True]
    console = Console(width=300, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    show(found, console)
    assert "cannot be read" in console.export_text()
    none = document([str(failed.root), str(fresh.root)])
    assert none["sets"] == {}, "without any probe there are still cost and config"


def test_prompts_with_no_or_few_verdicts(tmp_path: Path) -> None:
    """A prompt that nobody judged is in no figure; one with fewer verdicts than k is in none of pass@k."""
    passes: dict[str, list[bool | None]] = {f"all-{at}": [True, False] * 2 for at in range(20)}
    passes |= {"none": [None] * 4, "few": [True, None, None, None]}
    pipeline = file(tmp_path, handoff={"probe_samples": 4, "sequential": False})
    run = built(tmp_path / "run", pipeline, {0: rows(passes), 4: rows(passes)}).root
    found = document([f"{run}@0", str(run)])["sets"]["probe"]
    values = {one["k"]: one["value"] for one in found["runs"][0]["pass_at_k"]}
    assert values[1] == pytest.approx((1.0 + 20 * 0.5) / 21)
    assert values[4] == pytest.approx(1.0)
    assert (found["solved"][1]["undecided"], found["solved"][1]["both"]) == (1, 21)


def test_answers_are_counted_at_equal_draws(tmp_path: Path) -> None:
    """64 draws of three answers show as many as 4 draws do when both are counted at 4."""
    pipeline = file(tmp_path)
    long, short = ({prompt: [True] * n for prompt in PROMPTS} for n in (16, 4))
    a = built(tmp_path / "a", pipeline, {4: rows(long)}).root
    b = built(tmp_path / "b", pipeline, {4: rows(short)}).root
    answers = document([str(a), str(b)])["sets"]["probe"]["answers"]
    assert answers["draws"] == 4
    # 16 draws hold 6, 5 and 5 of the answers: of 4 without replacement, enumerated by hand
    expected = sum(1 - np.prod([(16 - x - i) / (16 - i) for i in range(4)]) for x in (6, 5, 5))
    assert answers["distinct"][0]["value"] == pytest.approx(expected)
    assert answers["distinct"][1]["value"] == pytest.approx(3.0)
    assert answers["differences"][1]["value"] == pytest.approx(3.0 - expected)


def test_reach_is_of_the_trajectories_that_both_were_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = rows(verdicts(rng, dict.fromkeys(PROMPTS, 0.5)))
    runs = [built(tmp_path / name, file(tmp_path), {0: drawn, 4: drawn}) for name in ("a", "b")]
    for run, logp, names in zip(runs, (-1.0, -0.1), ("xyz", "yzw"), strict=True):
        write_scored(run, 4, "learn", [bank(name, logp) for name in names])
    found = document([str(run.root) for run in runs])["reach"][1]
    assert found["trajectories"] == 2
    assert found["reached"]["change"]["value"] > 0.3


def bank(name: str, logp: float) -> Scored:
    tokens = np.arange(3, dtype=np.int32)
    logps = np.full(3, logp, np.float32)
    return Scored(name, f"p-{name}", "planted", "bank", "after", tokens, logps, tokens, logps)


@pytest.mark.parametrize(
    ("references", "said"),
    [
        (["{a}"], "needs two runs or more"),
        (["{a}@3", "{a}"], "nothing was probed; the steps that were are 0, 4"),
        (["{a}@lern", "{a}"], "did you mean 'learn'?"),
        (["{a}/nowhere", "{a}"], "no such directory"),
    ],
)
def test_faults_say_what_there_is(references: list[str], said: str, tmp_path: Path) -> None:
    run = two(tmp_path)[0]
    with pytest.raises(BadInput) as found:
        document([one.format(a=run) for one in references])
    assert said in str(found.value)


def test_a_directory_with_an_at_sign_is_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "a@2"
    folder.mkdir()
    assert [one["step"] for one in document(two(folder))["runs"]] == [4, 4]


def test_the_command_prints_a_table_and_a_document(tmp_path: Path) -> None:
    runs = two(tmp_path)
    told = CliRunner().invoke(app, ["compare", *runs])
    assert told.exit_code == 0, told.output
    assert f"pass@{SAMPLES}" in told.output
    assert json.loads(CliRunner().invoke(app, ["compare", *runs, "--json"]).output) == document(runs)
    with pytest.raises(BadInput):
        CliRunner().invoke(app, ["compare", runs[0], str(tmp_path / "nothing")], catch_exceptions=False)
