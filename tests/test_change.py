"""The document of a change: what it holds, that its parts agree, and what it says where parts are missing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.json_lines import plain
from orchestrator.probe_files import read_snapshot, write_probe, write_scored
from orchestrator.probes import change, completion, sequential
from orchestrator.probes.role import Facts
from orchestrator.probes.snapshot import Snapshot
from orchestrator.run_directory import RunDirectory
from tests import planted_stages as planted

EPSILON, CONFIDENCE = 0.05, 0.95


def world(intervene, seed: int = 1, prompts: int = 80, **draws):
    random = np.random.default_rng(seed)
    made = intervene(planted.world(prompts, random), random)
    return made, planted.snapshots(made, planted.Draws(**draws), random)


def told(before: Snapshot, after: Snapshot, **more):
    """As a reader of the file finds it."""
    found = change.document(before, after, epsilon=EPSILON, confidence=CONFIDENCE, **more)
    return json.loads(json.dumps(plain(found), allow_nan=False))


def test_everything_that_was_measured_is_told_and_agrees() -> None:
    made, (before, after) = world(planted.taught, samples=16)
    found = told(before, after, facts=made.facts)
    assert set(found) == {"reach", "divergence", "gain", "gain_at_k", "role", "distance"}
    gain = found["gain"]
    parts = [gain[name]["value"] for name in ("expansion", "reshaping", "attrition", "outside")]
    assert sum(parts) == pytest.approx(gain["total"]["value"], abs=1e-12)
    done = completion.document(before, after, epsilon=EPSILON, confidence=CONFIDENCE)
    assert done is not None
    by_k = {row["k"]: row["change"] for row in done["pass_at_k"]}
    assert gain["total"] == pytest.approx(by_k[1]) and found["gain_at_k"]["k"] == 8
    assert found["gain_at_k"]["total"] == pytest.approx(by_k[8])
    assert found["role"]["name"] == "consolidation" and found["role"]["for"]
    assert found["distance"]["teacher_kl"]["after"]["value"] < found["distance"]["teacher_kl"]["before"]["value"]
    assert found["divergence"]["from_before"]["low"] > 0
    assert found["reach"]["trajectories"] == 64
    assert len(json.dumps(found)) < 60_000


def test_parts_that_were_not_measured_are_null_and_the_others_stay() -> None:
    made, (before, after) = world(planted.imported)
    whole = told(before, after, facts=made.facts)
    bare = told(before, replace(after, scored=()), facts=made.facts)
    assert bare["reach"] is None and bare["divergence"]["from_before"]["value"] is None
    assert bare["gain"]["total"] == whole["gain"]["total"] and bare["role"]["name"] == "expansion"
    unsampled = told(replace(before, sets={}), replace(after, sets={}))
    assert unsampled["gain"]["prompts"] == 0 and unsampled["gain"]["total"]["value"] is None
    assert unsampled["gain_at_k"] is None and unsampled["role"]["name"] == "undecided"
    assert unsampled["reach"] == whole["reach"]
    nothing = told(Snapshot(0, "a"), Snapshot(1, "a"))
    assert nothing["role"] == {
        "name": "undecided",
        "for": [],
        "against": [{"evidence": "no pass rates before and after", "value": False}],
    }


def test_prompts_are_matched_by_id() -> None:
    _, (before, after) = world(planted.reweighted)
    probe = after.sets["probe"]
    order = np.random.default_rng(2).permutation(len(probe.prompts))[:50]
    some = replace(
        probe,
        prompts=tuple(probe.prompts[at] for at in order),
        n_P=probe.n_P[order],
        c_P=probe.c_P[order],
        passed_P=tuple(probe.passed_P[at] for at in order),
    )
    found = told(before, replace(after, sets={"probe": some}))["gain"]
    first = before.sets["probe"]
    expected = np.mean([probe.c_P[at] / 16 - first.c_P[at] / 16 for at in order])
    assert found["prompts"] == 50 and found["total"]["value"] == pytest.approx(expected)


def test_the_bank_is_found_in_either_snapshot() -> None:
    """Before's scores stand in the later file, or only in the earlier one, where that policy was `after`."""
    _, (before, after) = world(planted.reweighted)
    pairs = change.paired_bank(before, after)
    assert len(pairs) == 64
    earlier = tuple(replace(one, model="after") for one, _ in pairs)
    later = tuple(one for one in after.scored if not (one.writer == "bank" and one.model == "before"))
    apart = change.paired_bank(replace(before, scored=earlier), replace(after, scored=later))
    assert [(one.id, one.logps.tolist()) for one, _ in apart] == [(one.id, one.logps.tolist()) for one, _ in pairs]
    assert change.paired_bank(before, replace(after, scored=later)) == []


def test_the_bank_is_evidence_of_reach() -> None:
    """40 prompts, none passed before and half of the draws after; the policy wrote the known answer one time in ten."""
    made, (before, after) = world(planted.reweighted, prompts=40)
    probe = replace(before.sets["probe"], c_P=np.zeros(40, np.int64), passed_P=((False,) * 16,) * 40)
    solved = replace(probe, c_P=np.full(40, 8), passed_P=((True, False) * 8,) * 40)
    likely = [
        replace(one, logps=np.append(np.float32(np.log(0.1)), np.zeros(len(one.tokens) - 1, np.float32)))
        for one in after.scored
        if one.writer == "bank"
    ]
    sides = replace(before, sets={"probe": probe}), replace(after, sets={"probe": solved}, scored=())
    without = told(*sides, facts=made.facts)
    assert without["gain"]["expansion"]["low"] > 0.2 and without["role"]["name"] == "expansion"
    found = told(sides[0], replace(sides[1], scored=tuple(likely)), facts=made.facts)
    assert found["gain"]["reshaping"]["low"] > 0.2 and found["role"]["name"] == "reshaping"
    other = told(sides[0], replace(sides[1], scored=tuple(likely)), facts=replace(made.facts, temperature=0.6))
    assert other["gain"] == without["gain"] and "temperature 0.6" in other["divergence"]["warnings"][-1]


def test_the_plan_that_ended_the_draws_is_counted_in() -> None:
    _, (before, after) = world(planted.reweighted, prompts=300, samples=64)
    plan = sequential.plan(64, EPSILON, CONFIDENCE, prompts=300)

    def cut(one: Snapshot) -> Snapshot:
        """What a prober that follows the plan would have drawn."""
        probe = one.sets["probe"]
        n_P, c_P = plan.counted(probe.passed_P)
        passed = tuple(row[:n] for row, n in zip(probe.passed_P, n_P.tolist(), strict=True))
        return replace(one, sets={"probe": replace(probe, n_P=n_P, c_P=c_P, passed_P=passed)})

    fixed, stopped = told(before, after), told(cut(before), cut(after), plan=plan)
    assert stopped["gain"]["total"]["value"] == pytest.approx(fixed["gain"]["total"]["value"], abs=0.025)
    for name in ("expansion", "reshaping"):
        assert stopped["gain"][name]["value"] == pytest.approx(fixed["gain"][name]["value"], abs=0.03)


def test_a_run_read_from_its_files_gives_the_same_figures(tmp_path) -> None:
    made, (before, after) = world(planted.internalised, prompts=30, samples=8, bank=20)
    run = RunDirectory(tmp_path)
    for one in (before, after):
        rows = [
            {
                "set": name,
                "prompt_id": prompt,
                "family": "family",
                "greedy": False,
                "draw": draw,
                "passed": passed,
                "tokens": 3,
            }
            for name, found in one.sets.items()
            for prompt, verdicts in zip(found.prompts, found.passed_P, strict=True)
            for draw, passed in enumerate(verdicts)
        ]
        write_probe(run, one.step, one.stage, rows)
        if one.scored:
            write_scored(run, one.step, one.stage, one.scored)
    read = [read_snapshot(run, step) for step in (0, 10)]
    assert told(read[0], read[1], facts=made.facts) == told(before, after, facts=made.facts)


def test_a_scaffold_that_only_after_was_drawn_under_says_nothing() -> None:
    made, (before, after) = world(planted.internalised)
    found = told(replace(before, sets={"probe": before.sets["probe"]}), after, facts=made.facts)
    assert found["distance"]["scaffold"]["closed"]["value"] is None and found["role"]["name"] == "undecided"
    assert told(before, after, facts=made.facts)["role"]["name"] == "consolidation"
    assert told(before, after, facts=Facts())["role"]["name"] == "undecided"
