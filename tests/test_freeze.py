"""Weights that go back to the run's first ones, and single elements that a step leaves bit for bit as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.config import Learner
from actors.freeze import most_moved
from actors.learner import LearnerRank
from actors.weights import views
from policies.config import Lora, Model, Optimizer
from policies.model_folder import materialise
from policies.reduce import normalisers
from tests.learner_world import STRANDS, TINY, examples

ENGINES: dict[str, dict[str, Any]] = {
    "torch": {"engine": "torch"},
    "zero0": {"engine": "deepspeed", "zero_stage": 0},
    "zero1": {"engine": "deepspeed", "zero_stage": 1},
    "zero2": {"engine": "deepspeed", "zero_stage": 2},
    "zero3": {"engine": "deepspeed", "zero_stage": 3},
}
HALF = TINY.model_copy(update={"dtype": "bfloat16"})
STRONG = Optimizer(learning_rate=1e-2, weight_decay=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def learner(folder: Path, engine: str, model: Model = TINY, **config: Any) -> LearnerRank:
    return LearnerRank(folder, model, Learner(**{"threads": 1} | ENGINES[engine] | config), seed=3)


def train(rank: LearnerRank, seed: int, freeze: float | None = None) -> Any:
    batch = examples(seed=seed)
    return rank.step([batch], [normalisers(STRANDS, batch)], {}, False, freeze)


def weights(rank: LearnerRank) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in views(rank.export_weights(1))}


@pytest.mark.parametrize(
    ("engine", "model"),
    [*((engine, TINY) for engine in ENGINES), *((engine, HALF) for engine in ("torch", "zero2", "zero3"))],
)
def test_a_restart_is_the_first_weights_and_trains_from_there_as_new(folder: Path, engine: str, model: Model):
    rank = learner(folder, engine, model)
    rank.begin_stage(STRANDS, STRONG, steps=4)
    first = weights(rank)
    train(rank, 0)
    after = weights(rank)
    train(rank, 1)
    rank.restart()
    rank.begin_stage(STRANDS, STRONG, steps=4)
    again = weights(rank)
    assert all(torch.equal(again[name], first[name]) for name in first)
    train(rank, 0)
    new = weights(rank)
    assert all(torch.equal(new[name], after[name]) for name in first)
    assert any(not torch.equal(new[name], first[name]) for name in first)


def test_adapters_go_back_too(folder: Path):
    rank = learner(folder, "torch", lora=Lora(rank=4))
    first = weights(rank)
    rank.begin_stage(STRANDS, STRONG, steps=2)
    train(rank, 0)
    rank.restart()
    again = weights(rank)
    assert all(torch.equal(again[name], first[name]) for name in first)


# ---------------------------------------------------------------- freezing


@pytest.mark.parametrize(
    ("engine", "model"),
    [*((engine, TINY) for engine in ("torch", "zero0", "zero1", "zero2")), ("torch", HALF), ("zero2", HALF)],
)
def test_what_moved_most_stays_bit_for_bit_and_the_rest_moves(folder: Path, engine: str, model: Model):
    rank = learner(folder, engine, model)
    rank.begin_stage(STRANDS, STRONG, steps=8, track=0.0)
    states = [weights(rank)]
    for seed in range(2):
        train(rank, seed)
        states.append(weights(rank))
    train(rank, 2, freeze=0.3)
    last = weights(rank)
    for name, before in states[2].items():
        steps = [(states[i + 1][name].float() - states[i][name].float()).abs() for i in range(2)]
        moved = (steps[0] + steps[1]).numpy().ravel()
        order = np.sort(moved)[::-1]
        frozen = torch.from_numpy((moved >= order[int(0.3 * len(moved)) - 1]) & (moved > 0)).view(before.shape)
        assert 0.25 * len(moved) <= int(frozen.sum()) or model is HALF
        assert torch.equal(last[name][frozen], before[frozen]), name
        assert (last[name][~frozen] != before[~frozen]).float().mean() > (0.9 if model is TINY else 0.2), name


def test_frozen_elements_take_no_part_in_the_gradients_norm(folder: Path):
    norms = []
    for share in (None, 0.5):
        rank = learner(folder, "torch")
        rank.begin_stage(STRANDS, STRONG, steps=8, track=0.0)
        train(rank, 0)
        norms.append(train(rank, 1, freeze=share).gradient_norm)
    assert norms[1] < 0.95 * norms[0]


def test_movement_is_of_the_steps_since_the_last_freeze_and_decays(folder: Path):
    sums = []
    for decay in (0.0, 0.5):
        rank = learner(folder, "torch")
        rank.begin_stage(STRANDS, STRONG, steps=8, track=decay)
        train(rank, 0)
        first = [total.clone() for total in rank._movement._sums]
        train(rank, 1, freeze=0.3)
        assert all(torch.equal(a, b) for a, b in zip(first, rank._movement._sums, strict=True))
        before = weights(rank)["model.norm.weight"]
        train(rank, 2)
        after = weights(rank)["model.norm.weight"]
        train(rank, 3)
        moved = (after - before).abs() + (weights(rank)["model.norm.weight"] - after).abs()
        torch.testing.assert_close(rank._movement._sums[-1], decay * first[-1] + moved)
        sums.append(rank._movement._sums[-1])
    assert not torch.equal(*sums)


def test_movement_survives_a_resume(folder: Path, tmp_path: Path):
    straight, stopped, resumed = (learner(folder, "zero2") for _ in range(3))
    for rank in (straight, stopped):
        rank.begin_stage(STRANDS, STRONG, steps=8, track=0.5)
        train(rank, 0)
        train(rank, 1, freeze=0.3)
        train(rank, 2)
    stopped.save(tmp_path)
    resumed.load(tmp_path)
    for rank in (straight, resumed):
        train(rank, 3, freeze=0.3)
        train(rank, 4)
    ours, theirs = weights(straight), weights(resumed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_share_is_of_what_moved():
    total = torch.tensor([0.0, 3.0, 1.0, 2.0, 0.0, 0.0])
    assert most_moved(total, 0.34).tolist() == [False, True, False, True, False, False]
    assert most_moved(total, 0.9).tolist() == [False, True, True, True, False, False]
    assert not most_moved(total, 0.1).any() and not most_moved(torch.zeros(4), 0.5).any()


def test_freezing_is_refused_where_it_cannot_be(folder: Path):
    with pytest.raises(ValueError, match=r"resources\.learner\.zero_stage: 3 .*freeze needs; set it to 2 or less"):
        learner(folder, "zero3").begin_stage(STRANDS, STRONG, steps=1, track=0.0)
    rank = learner(folder, "torch")
    rank.begin_stage(STRANDS, STRONG, steps=1)
    with pytest.raises(RuntimeError, match="begin the stage with track"):
        train(rank, 0, freeze=0.5)
