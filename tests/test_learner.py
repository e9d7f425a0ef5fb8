"""One learner rank: its step is the textbook's, in parts or whole, on every engine; state survives bit for bit."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.config import Learner
from actors.learner import LearnerRank
from actors.sharding import merge_facts, split
from actors.weights import views
from policies.attention import PACKED
from policies.config import Lora, Optimizer, Schedule, TinyModel, TokenWeight
from policies.model_folder import materialise
from policies.models import backbone_and_head, build, merged_state
from policies.reduce import normalisers
from policies.schedule import learning_rate
from policies.step import Policy, logprobs_only, reads_old
from policies.trajectory import Preference
from tests.learner_world import REINFORCE, STRANDS, TINY, example, examples, result, run

ENGINES: dict[str, dict[str, Any]] = {
    "torch": {"engine": "torch"},
    "zero0": {"engine": "deepspeed", "zero_stage": 0},
    "zero1": {"engine": "deepspeed", "zero_stage": 1},
    "zero2": {"engine": "deepspeed", "zero_stage": 2},
    "zero3": {"engine": "deepspeed", "zero_stage": 3},
}
HALF = TINY.model_copy(update={"dtype": "bfloat16"}).model_dump()
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def _scenario(out: Path, engine: str, **changes: Any) -> dict[str, Any]:
    learner = ENGINES[engine] | {"threads": 1, "micro_batch_tokens": 64} | changes.pop("learner", {})
    return {"learner": learner, "steps": [0, 3], "out": str(out), **changes}


def _run(folder: Path, out: Path, engine: str, **changes: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
    scenario = _scenario(out, engine, **changes)
    run(folder, scenario)
    return result(scenario)


def _learner(folder: Path, **config: Any) -> LearnerRank:
    return LearnerRank(folder, TINY, Learner(**{"engine": "torch", "threads": 1} | config), seed=3)


# ---------------------------------------------------------------- the step


def textbook(folder: Path, steps: int) -> tuple[np.ndarray, list[float]]:
    """The same training by a padded forward of the plain model and torch's own clip and AdamW: the oracle."""
    model = build(folder, TINY, seed=3)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-4, weight_decay=0.0)
    losses = []
    for index in range(steps):
        batch = examples(seed=index)
        loss = _textbook_loss(model, batch)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
    return np.concatenate([tensor.numpy().ravel() for _, tensor in merged_state(model)]), losses


def _textbook_loss(model: torch.nn.Module, batch: list[Any]) -> torch.Tensor:
    nll, clip, bonus, tokens = [], [], [], [0, 0]
    for one in batch:
        whole = torch.from_numpy(np.concatenate([one.trajectory.train_context, one.trajectory.tokens])).long()
        first = len(one.trajectory.train_context) - 1
        logps = model(whole[None]).logits[0, first:-1].log_softmax(-1)
        chosen = logps.gather(1, whole[first + 1 :, None])[:, 0]
        tokens[one.strand] += len(chosen)
        if one.strand == 0:
            nll.append(-chosen.sum())
        else:
            clip.append(-((chosen - chosen.detach()).exp() * torch.from_numpy(one.advantages)).mean())
            bonus.append((logps.exp() * logps).sum())
    reinforce = torch.stack(clip).mean() + 0.01 * torch.stack(bonus).sum() / tokens[1]
    return torch.stack(nll).sum() / tokens[0] + 0.5 * reinforce


@pytest.mark.parametrize("engine", ["torch", "zero0", "zero2", "zero3", pytest.param("zero1", marks=SLOW)])
def test_training_equals_the_textbook(folder: Path, tmp_path: Path, engine: str):
    expected, losses = textbook(folder, 3)
    weights, facts = _run(folder, tmp_path, engine)
    assert [fact["loss"] for fact in facts] == pytest.approx(losses, abs=1e-5)
    packed = _unpadded(folder, weights)
    np.testing.assert_allclose(packed, expected, atol=5e-6)


def _unpadded(folder: Path, weights: np.ndarray) -> np.ndarray:
    """The buffer's tensors without its alignment."""
    parts, at = [], 0
    for _, tensor in merged_state(build(folder, TINY, seed=3)):
        at = -(-at // 16) * 16
        parts.append(weights[at : at + tensor.numel()])
        at += tensor.numel()
    return np.concatenate(parts)


@pytest.mark.parametrize("engine", ["torch", "zero2"])
def test_any_division_into_micro_batches_is_the_undivided_step(folder: Path, tmp_path: Path, engine: str):
    whole, facts = _run(folder, tmp_path / "whole", engine, learner={"micro_batch_tokens": 4096})
    divided, others = _run(folder, tmp_path / "divided", engine, learner={"micro_batch_tokens": 16})
    np.testing.assert_allclose(divided, whole, atol=5e-6)
    for one, other in zip(facts, others, strict=True):
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)
        for strand in ("imitate", "reinforce"):
            assert one["by_strand"][strand] == pytest.approx(
                other["by_strand"][strand], rel=1e-4, abs=1e-6, nan_ok=True
            )


def test_recomputed_activations_do_not_change_the_step(folder: Path, tmp_path: Path):
    plain, _ = _run(folder, tmp_path / "plain", "torch")
    saved, _ = _run(folder, tmp_path / "saved", "torch", learner={"gradient_checkpointing": True})
    np.testing.assert_allclose(saved, plain, atol=5e-6)


def test_bfloat16_trains_through_float32_masters_alike_on_both_engines(folder: Path, tmp_path: Path):
    bare, facts = _run(folder, tmp_path / "torch", "torch", model=HALF)
    zero, others = _run(folder, tmp_path / "zero", "zero2", model=HALF)
    assert [f["loss"] for f in facts] == pytest.approx([f["loss"] for f in others], rel=2e-2)
    assert np.abs(bare - zero).mean() < 2e-4


def test_old_log_probabilities_are_those_before_the_first_update(folder: Path):
    learner = _learner(folder)
    learner.begin_stage(STRANDS, Optimizer(learning_rate=3e-2), steps=4)
    batch = examples()
    share = [batch, batch]
    denominators = [normalisers(STRANDS, batch)] * 2
    facts = learner.step(share, denominators, {}, compute_old=True)
    reinforce = facts.by_strand["reinforce"]
    # Same data twice: the ratio is 1 in the first update and has moved in the second.
    assert reinforce["ratio_max"] > 1.02 and reinforce["clip_share"] > 0
    alone = _learner(folder)
    alone.begin_stage(STRANDS, Optimizer(learning_rate=3e-2), steps=4)
    first = alone.step([batch], denominators[:1], {}, compute_old=False).by_strand["reinforce"]
    assert (first["ratio_max"], first["clip_share"]) == (1.0, 0.0)


def test_old_log_probabilities_are_recomputed_only_where_a_term_reads_them():
    corrected = REINFORCE.terms[1].model_copy(update={"weights": (TokenWeight(kind="truncated_importance"),)})
    assert [reads_old(strand) for strand in STRANDS] == [False, True]
    assert not reads_old(REINFORCE.model_copy(update={"terms": REINFORCE.terms[1:]}))
    assert reads_old(REINFORCE.model_copy(update={"terms": (corrected,)}))


def test_log_probabilities_without_gradient_equal_a_plain_forward(folder: Path):
    model = build(folder, TINY, seed=3, attention=PACKED)
    plain = build(folder, TINY, seed=3)
    pairs = [(e.trajectory.train_context, e.trajectory.tokens) for e in examples()]
    pairs.insert(1, (pairs[0][0], np.empty(0, np.int32)))
    scored = logprobs_only(Policy(*backbone_and_head(model)), pairs, max_tokens=40, top_k=3)
    assert len(scored[1].logps) == 0
    for (context, tokens), one in zip(pairs, scored, strict=True):
        whole = torch.from_numpy(np.concatenate([context, tokens])).long()[None]
        with torch.no_grad():
            logps = plain(whole).logits[0, len(context) - 1 : -1].log_softmax(-1)
        chosen = logps.gather(1, torch.tensor(tokens).long()[:, None])[:, 0]
        np.testing.assert_allclose(one.logps, chosen.numpy(), atol=1e-5)
        top = logps.topk(3, dim=-1)
        np.testing.assert_allclose(one.topk_logps, top.values.numpy(), atol=1e-5)
        assert np.array_equal(one.topk_ids, top.indices.numpy())


# ---------------------------------------------------------------- what is not finite


@pytest.mark.parametrize("engine", ["torch", "zero0", "zero2", "zero3"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(folder: Path, tmp_path: Path, engine: str):
    before, _ = _run(folder, tmp_path / "before", engine, steps=[0, 1])
    after, facts = _run(folder, tmp_path / "after", engine, steps=[0, 2], poison=[1])
    assert np.array_equal(after, before)
    assert [fact["skipped"] for fact in facts] == [0, 1]
    assert math.isnan(facts[1]["gradient_norm"]) and not math.isfinite(facts[1]["loss"])
    onward, facts = _run(folder, tmp_path / "onward", engine, steps=[0, 3], poison=[1])
    assert facts[2]["skipped"] == 0 and np.isfinite(onward).all() and not np.array_equal(onward, before)


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("engine", ["torch", "zero2", pytest.param("zero3", marks=SLOW)])
def test_adapters_alone_are_trained_and_the_export_is_merged(folder: Path, engine: str):
    config = ENGINES[engine] | {"lora": Lora(rank=4, targets=("q_proj", "up_proj"))}
    learner = _learner(folder, **config)
    base = dict(merged_state(build(folder, TINY, seed=3)))
    learner.begin_stage(STRANDS, Optimizer(learning_rate=1e-2), steps=4)
    for _ in range(2):
        learner.step([examples()], [normalisers(STRANDS, examples())], {}, compute_old=False)
    exported = dict(views(learner.export_weights(3)))
    assert exported.keys() == base.keys()
    moved = {name for name in base if not torch.equal(exported[name], base[name])}
    assert moved and all(".q_proj." in name or ".up_proj." in name for name in moved)
    assert len(moved) == 4


# ---------------------------------------------------------------- state


RESUMES = [
    ("torch", {}),
    ("zero0", {}),
    ("zero2", {"model": HALF}),
    ("zero3", {}),
    ("torch", {"model": HALF, "learner": {"lora": {"rank": 4}}}),
    pytest.param("torch", {"model": HALF}, marks=SLOW),
    pytest.param("zero1", {}, marks=SLOW),
    pytest.param("zero1", {"model": HALF}, marks=SLOW),
    pytest.param("zero2", {}, marks=SLOW),
    pytest.param("zero3", {"model": HALF}, marks=SLOW),
    pytest.param("zero2", {"learner": {"lora": {"rank": 4}}}, marks=SLOW),
    pytest.param("zero3", {"learner": {"lora": {"rank": 4}}}, marks=SLOW),
]


@pytest.mark.parametrize(("engine", "changes"), RESUMES)
def test_after_a_load_every_later_step_is_bit_for_bit_as_if_never_stopped(
    folder: Path, tmp_path: Path, engine: str, changes: dict[str, Any]
):
    schedule = {"learning_rate": 1e-2, "schedule": {"kind": "cosine", "warmup": 2}}
    changes = {"optimizer": schedule, "updates": 2, **changes}
    straight, facts = _run(folder, tmp_path / "a", engine, steps=[0, 4], **changes)
    _run(folder, tmp_path / "b", engine, steps=[0, 2], save=str(tmp_path / "saved"), **changes)
    resumed, later = _run(folder, tmp_path / "c", engine, steps=[2, 4], load=str(tmp_path / "saved"), **changes)
    assert np.array_equal(resumed, straight)
    exact = [replace_seconds(fact) for fact in facts[2:]]
    assert json.dumps([replace_seconds(fact) for fact in later]) == json.dumps(exact)
    assert not any(path.suffix in (".pt", ".pkl", ".bin") for path in (tmp_path / "saved").rglob("*"))


def replace_seconds(fact: dict[str, Any]) -> dict[str, Any]:
    """Facts without the clock."""
    return fact | {"seconds": 0.0}


def test_random_states_come_back(folder: Path, tmp_path: Path):
    import random

    learner = _learner(folder)
    learner.begin_stage(STRANDS, Optimizer(), steps=1)
    learner.save(tmp_path)
    drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    learner.load(tmp_path)
    assert [random.random(), float(np.random.rand()), float(torch.rand(()))] == drawn


def test_a_new_stage_keeps_the_weights_and_forgets_the_moments(folder: Path):
    first, second = _learner(folder), _learner(folder)
    first.begin_stage(STRANDS, Optimizer(learning_rate=1e-2), steps=2)
    denominators = normalisers(STRANDS, examples())
    first.step([examples()], [denominators], {}, compute_old=False)
    before = first.export_weights(1).manifest.checksum
    first.begin_stage(STRANDS, Optimizer(learning_rate=1e-3, clip=0.5), steps=2)
    assert first.export_weights(1).manifest.checksum == before
    assert not first._backend.adam.state
    facts = first.step([examples()], [denominators], {}, compute_old=False)
    assert facts.learning_rate == 1e-3
    with pytest.raises(RuntimeError, match="call begin_stage or load first"):
        second.step([examples()], [denominators], {}, compute_old=False)


def test_the_saved_folder_and_the_export_are_the_model(folder: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    learner = _learner(folder)
    learner.begin_stage(STRANDS, Optimizer(learning_rate=1e-2), steps=2)
    learner.step([examples()], [normalisers(STRANDS, examples())], {}, compute_old=False)
    learner.save(tmp_path)
    loaded = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "model").named_parameters())
    weights = learner.export_weights(5)
    assert weights.manifest.version == 5
    exported = dict(views(weights))
    assert exported.keys() == loaded.keys()
    assert all(torch.equal(exported[name], loaded[name]) for name in loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "deepspeed"}, r"resources\.learner\.engine: 'torch', this learner has 'deepspeed'"),
        ({"lora": Lora(rank=2)}, r"resources\.learner\.lora: None"),
    ],
)
def test_a_state_of_another_layout_is_refused_with_the_fix(folder: Path, tmp_path: Path, change, message: str):
    saved = _learner(folder)
    saved.begin_stage(STRANDS, Optimizer(), steps=1)
    saved.save(tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*\n.*resume with the saved values"):
        _learner(folder, **change).load(tmp_path)


def test_a_damaged_state_is_refused_by_name(folder: Path, tmp_path: Path):
    learner = _learner(folder)
    learner.begin_stage(STRANDS, Optimizer(), steps=1)
    learner.save(tmp_path)
    path = tmp_path / "learner" / "rank-0.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"rank-0\.safetensors: cannot be read"):
        learner.load(tmp_path)
    with pytest.raises(ValueError, match=r"rank-0\.json: missing"):
        learner.load(tmp_path / "elsewhere")


def test_bfloat16_at_stage_0_is_refused_before_anything_starts(folder: Path):
    with pytest.raises(ValueError, match=r"zero_stage: 0 with model\.dtype bfloat16"):
        LearnerRank(folder, TinyModel(dtype="bfloat16"), Learner(engine="deepspeed", zero_stage=0))


# ---------------------------------------------------------------- schedule and shares


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1, 1, 1, 1, 1]),
        (Schedule(warmup=2), [0.5, 1, 1, 1, 1]),
        (Schedule(kind="linear"), [1, 0.75, 0.5, 0.25, 0]),
        (Schedule(kind="linear", warmup=2, floor=0.4), [0.5, 1, 0.8, 0.6, 0.4]),
        (Schedule(kind="cosine"), [1, 0.8535534, 0.5, 0.1464466, 0]),
    ],
)
def test_learning_rates(schedule: Schedule, expected: list[float]):
    assert [learning_rate(schedule, 2.0, i, 5) for i in range(5)] == pytest.approx([2.0 * e for e in expected])
    assert learning_rate(schedule, 2.0, 9, 5) == pytest.approx(2.0 * expected[-1])
    assert learning_rate(schedule, 2.0, 0, 1) == pytest.approx(2.0 * expected[0])


def test_shares_keep_groups_in_an_update_and_cover_every_example_once():
    batch = examples(48)
    updates = split(batch, 3, 2)
    flat = [e.trajectory.id for update in updates for share in update for e in share]
    assert len(updates) == 3 and sorted(flat) == sorted(e.trajectory.id for e in batch)
    where = [{e.trajectory.group_id for share in update for e in share} for update in updates]
    assert not where[0] & where[1] and not where[1] & where[2] and not where[0] & where[2]
    for update in updates:
        assert {e.strand for share in update for e in share} == {0, 1}
        loads = [sum(len(e.trajectory.tokens) for e in share) for share in update]
        assert max(loads) <= 1.5 * min(loads)
    assert [[e.trajectory.id for e in s] for u in split(batch, 3, 2) for s in u] == [
        [e.trajectory.id for e in share] for update in updates for share in update
    ]


def test_a_preference_set_is_never_parted():
    batch = []
    for index in range(12):
        one = example(index, 5 + index, strand=1, group=f"g{index // 6}")
        pair = Preference(set_id=f"s{index // 2}", label=float(index % 2))
        batch.append(replace(one, trajectory=replace(one.trajectory, preference=pair)))
    shares = [share for update in split(batch, 2, 2) for share in update]
    sets = [{e.trajectory.preference.set_id for e in share} for share in shares]
    assert sum(len(s) for s in sets) == 6 == len(set().union(*sets))


def test_fewer_groups_than_updates_give_fewer_updates_and_ranks_may_be_idle():
    assert len(split(examples(1), 4, 2)) == 1
    assert sorted(len(share) for share in split(examples(1), 1, 2)[0]) == [0, 1]
    assert split([], 2, 2) == []


def test_merged_facts_take_as_long_as_the_slowest(folder: Path):
    learner = _learner(folder)
    learner.begin_stage(STRANDS, Optimizer(), steps=1)
    facts = learner.step([examples()], [normalisers(STRANDS, examples())], {}, compute_old=False)
    assert merge_facts([facts, replace(facts, seconds=99.0)]) == replace(facts, seconds=99.0)
    assert facts.tokens == sum(len(e.trajectory.tokens) for e in examples())
