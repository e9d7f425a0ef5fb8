"""The handoff's key `completion`: its shape, its agreement with the parts, and hard cases."""

import json
from typing import Any

import numpy as np
import pytest

from orchestrator.json_lines import plain
from orchestrator.probes import completion, curves, support
from orchestrator.probes.sequential import Plan, counts, plan
from orchestrator.probes.snapshot import Sampled, SetName, Snapshot
from tests.drawn import sampled

PLAN = plan(64, 0.05, 0.95)
ASKED: dict[str, Any] = {"epsilon": 0.05, "confidence": 0.95}
INTERVAL = {"value", "low", "high"}


def probe(rng: np.random.Generator, rates: list[float], design: Plan = PLAN, *, judged: bool = False) -> Sampled:
    """Verdicts as the prober draws them, an answer each, half of the passes sound."""
    verdicts, answers, sound = [], [], []
    for rate in rates:
        drawn = rng.random(design.looks[-1]) < rate
        (n,), (c,) = design.counted([drawn.tolist()])
        verdicts.append(drawn[:n].tolist())
        wrong = {str(at): 1 for at in range(int(n - c))}
        answers.append(wrong | ({"right": int(c)} if c else {}))
        sound.append(int(rng.binomial(c, 0.5)))
    return sampled(verdicts, answers=answers, sound=sound if judged else None)


def snapshot(found: Sampled, name: SetName = "probe", step: int = 0) -> Snapshot:
    return Snapshot(step, "first", {name: found})


def test_the_document_says_what_its_parts_say() -> None:
    rng = np.random.default_rng(1)
    before = probe(rng, [0.0] * 10 + [0.7] * 20 + [0.0] * 10, judged=True)
    after = probe(rng, [0.7] * 10 + [0.7] * 10 + [0.0] * 20, judged=True)
    found = completion.document(snapshot(before), snapshot(after), **ASKED, plan=PLAN)
    assert found is not None
    change = support.of(before, after, **ASKED, plan=PLAN)
    said = found["support"]
    for name in ("expanded", "retained", "attrited", "undecided"):
        assert said[name] == change.ids(getattr(change, name))
    assert (len(said["expanded"]), len(said["retained"]), len(said["attrited"]), said["absent"]) == (10, 10, 10, 10)
    assert said["rates"]["srr"]["value"] == 0.5
    assert set(said["solved"]) == {"k", "srr", "ndr", "sds", "nscr", "by_chance"}
    sides = [counts(one, PLAN) for one in (before, after)]
    for row in found["pass_at_k"]:
        (moved,) = curves.change(sides[0], sides[1], [row["k"]], confidence=0.95)
        assert row["change"] == {"value": moved.value, "low": moved.low, "high": moved.high}
        assert set(row["before"]) == set(row["after"]) == set(row["samples_change"]) == INTERVAL
    assert [row["k"] for row in found["pass_at_k"]] == [1, 2, 4, 8, 16, 32, 64]
    assert [row["k"] for row in found["cot_pass_at_k"]] == [1, 2, 4, 8]
    assert found["cot_pass_at_k"][0]["after"]["value"] < found["pass_at_k"][0]["after"]["value"]
    assert found["answers"]["prompts"] == 40
    assert found["samples"]["after"] == int(after.n_P.sum()) < 40 * 64
    assert json.loads(json.dumps(plain(found), allow_nan=False)) == plain(found)


def test_without_a_probe_before_there_are_levels_and_no_changes() -> None:
    found = completion.document(None, snapshot(probe(np.random.default_rng(2), [0.5] * 6)), **ASKED, plan=PLAN)
    assert found is not None
    assert found["support"] is None
    assert found["cot_pass_at_k"] is None
    assert found["pass_at_k"][0]["before"] is found["pass_at_k"][0]["change"] is None
    assert found["pass_at_k"][0]["after"]["low"] < 0.5 < found["pass_at_k"][0]["after"]["high"]


def test_other_sets_have_the_same_document_and_absent_ones_none() -> None:
    guard = snapshot(probe(np.random.default_rng(3), [0.9] * 4), "guard")
    assert completion.document(guard, guard, **ASKED, plan=PLAN) is None
    found = completion.document(guard, guard, **ASKED, plan=PLAN, set_name="guard")
    assert found is not None
    assert len(found["support"]["retained"]) == 4
    new = completion.document(snapshot(probe(np.random.default_rng(3), [0.9])), guard, **ASKED, set_name="guard")
    assert new is not None
    assert new["support"] is None


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("passed", [False, True])
def test_few_prompts_few_verdicts_and_none_are_a_document_without_made_up_figures(
    n: int, size: int, passed: bool
) -> None:
    one = snapshot(sampled([[passed] * n] * size))
    found = completion.document(one, one, **ASKED)
    assert found is not None
    assert len(found["support"]["undecided"]) == (0 if passed and n else size)
    text = json.dumps(plain(found), allow_nan=False)
    assert ("pass_at_k" in text) and (found["pass_at_k"] == []) == (n * size == 0)


def test_only_prompts_of_both_probes_are_compared() -> None:
    before = sampled([[True] * 64, [True] * 64], ids=["a", "b"])
    after = sampled([[False] * 64, [True] * 64, [True] * 64], ids=["b", "c", "a"])
    found = completion.document(snapshot(before), snapshot(after), **ASKED)
    assert found is not None
    assert (found["support"]["retained"], found["support"]["attrited"]) == (["a"], ["b"])
    assert found["samples"]["prompts"] == 2
