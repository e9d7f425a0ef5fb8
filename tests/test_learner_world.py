"""Two ranks train as one: same weights, ragged shares and all, and their state survives bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.model_folder import materialise
from tests.learner_world import TINY, pulls, result, run, spawn
from tests.test_learner import ENGINES, HALF

SCHEDULE = {"learning_rate": 1e-2, "eps": 1e-4, "schedule": {"kind": "linear", "warmup": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def _scenario(out: Path, engine: str, world_size: int, **changes: Any) -> dict[str, Any]:
    learner = ENGINES[engine] | {"threads": 1, "micro_batch_tokens": 64} | changes.pop("learner", {})
    base = {"learner": learner, "steps": [0, 3], "out": str(out), "world_size": world_size, "optimizer": SCHEDULE}
    return base | changes


def _without_clock(facts: list[dict[str, Any]]) -> str:
    return json.dumps([fact | {"seconds": 0.0} for fact in facts])


@pytest.fixture(scope="module")
def pair(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every always-run scenario of two ranks, in one pair of processes: most of the time is imports."""
    at = tmp_path_factory.mktemp("pair")
    scenarios = {
        name: _scenario(at / name, name, 2, interference=name != "zero3")
        for name in ("torch", "zero0", "zero2", "zero3")
    }
    for name in ("torch", "zero2", "zero3"):
        # One example a step: a rank has nothing at all. The second step is not finite on one rank alone.
        scenarios[f"{name}-ragged"] = _scenario(at / f"{name}-ragged", name, 2, examples=1, poison=[1])
    for name, updates in (("sharp", 1), ("sharp-twice", 2)):
        scenarios[name] = _scenario(at / name, "zero2", 2, sharp=True, updates=updates)
    updates = {"updates": 2, "learner": {"micro_batch_tokens": 48}}
    saved = str(at / "saved")
    scenarios["straight"] = _scenario(at / "straight", "zero2", 2, steps=[0, 4], **updates)
    scenarios["stopped"] = _scenario(at / "stopped", "zero2", 2, steps=[0, 2], save=saved, **updates)
    scenarios["resumed"] = _scenario(at / "resumed", "zero2", 2, steps=[2, 4], load=saved, **updates)
    spawn(folder, list(scenarios.values()))
    return scenarios


def _assert_same(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    np.testing.assert_allclose(one[0], other[0], atol=5e-6)
    for mine, theirs in zip(one[1], other[1], strict=True):
        for strand in mine["by_strand"]:
            assert mine["by_strand"][strand] == pytest.approx(
                theirs["by_strand"][strand], rel=1e-4, abs=1e-6, nan_ok=True
            )
        for key in ("loss", "gradient_norm", "learning_rate", "skipped", "tokens"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, nan_ok=True), key


@pytest.mark.parametrize("engine", ["torch", "zero0", "zero2", "zero3"])
def test_two_ranks_equal_one(folder: Path, pair, tmp_path: Path, engine: str):
    alone = _scenario(tmp_path, "torch", 1, interference=True)
    run(folder, alone)
    _assert_same(result(pair[engine]), result(alone))
    for mine, theirs in zip(result(pair[engine])[1], result(alone)[1], strict=True):
        for origin in theirs["by_origin"]:
            assert mine["by_origin"][origin] == pytest.approx(
                theirs["by_origin"][origin], rel=1e-4, abs=1e-6, nan_ok=True
            )
        if engine != "zero3":
            assert mine["interference"] == pytest.approx(theirs["interference"], abs=1e-4)


@pytest.mark.parametrize("engine", ["torch", "zero2", "zero3"])
def test_a_rank_with_nothing_to_do_still_takes_part_and_a_bad_share_stops_both(
    folder: Path, pair, tmp_path: Path, engine: str
):
    alone = _scenario(tmp_path, "torch", 1, examples=1, poison=[1])
    run(folder, alone)
    _assert_same(result(pair[f"{engine}-ragged"]), result(alone))
    assert [fact["skipped"] for fact in result(alone)[1]] == [0, 1, 0]


@pytest.mark.parametrize(("name", "updates"), [("sharp", 1), ("sharp-twice", 2)])
def test_a_figure_of_the_step_is_the_same_for_any_division_of_it(
    folder: Path, pair, tmp_path: Path, name: str, updates: int
):
    for tokens in (4096, 16):
        whole = {"micro_batch_tokens": tokens}
        alone = _scenario(tmp_path / str(tokens), "torch", 1, sharp=True, updates=updates, learner=whole)
        run(folder, alone)
        if updates == 1:  # two ranks deal two updates' examples in another order
            _assert_same(result(pair[name]), result(alone))
    ours, theirs = (result({"out": str(tmp_path / size)}) for size in ("4096", "16"))
    _assert_same(ours, theirs)
    plain = _scenario(tmp_path / "plain", "torch", 1, updates=updates)
    run(folder, plain)
    assert np.abs(result(plain)[0] - ours[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["torch", "zero0", "zero2", "zero3", "torch-ragged", "zero2-ragged", "sharp"])
def test_two_ranks_pull_each_token_as_one_does(folder: Path, pair, tmp_path: Path, name: str):
    more = {"examples": 1, "poison": [1]} if name.endswith("ragged") else {"sharp": name == "sharp"}
    alone = _scenario(tmp_path, "torch", 1, **more)
    run(folder, alone)
    for mine, theirs in zip(pulls(pair[name]), pulls(alone), strict=True):
        assert np.isfinite(theirs).all() or np.isnan(theirs).all(), "an update is skipped as a whole"
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=1e-6)
    assert sum(np.isnan(one).all() for one in pulls(alone)) == len(more.get("poison", ()))


def test_two_ranks_resume_bit_for_bit(pair):
    assert all(np.array_equal(*two) for two in zip(pulls(pair["resumed"]), pulls(pair["straight"])[2:], strict=True))
    straight, facts = result(pair["straight"])
    resumed, later = result(pair["resumed"])
    assert np.array_equal(resumed, straight)
    assert _without_clock(later) == _without_clock(facts[2:])


def test_a_state_of_two_ranks_is_refused_by_one(folder: Path, pair, tmp_path: Path):
    with pytest.raises(ValueError, match=r"resources\.learner\.replicas: 2, this learner has 1"):
        run(folder, _scenario(tmp_path, "zero2", 1, steps=[2, 3], load=pair["stopped"]["save"]))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize(
    "changes", [{}, {"model": HALF}, {"learner": {"lora": {"rank": 4}}}], ids=["fp32", "bf16", "lora"]
)
def test_two_ranks_resume_in_new_processes(folder: Path, tmp_path: Path, engine: str, changes: dict[str, Any]):
    saved = str(tmp_path / "saved")
    straight = _scenario(tmp_path / "straight", engine, 2, steps=[0, 4], **changes)
    stopped = _scenario(tmp_path / "stopped", engine, 2, steps=[0, 2], save=saved, **changes)
    resumed = _scenario(tmp_path / "resumed", engine, 2, steps=[2, 4], load=saved, **changes)
    spawn(folder, [straight, stopped])
    spawn(folder, [resumed])
    assert np.array_equal(result(resumed)[0], result(straight)[0])
    assert _without_clock(result(resumed)[1]) == _without_clock(result(straight)[1][2:])
