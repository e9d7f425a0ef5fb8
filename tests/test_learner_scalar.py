"""A scalar head: transformers' own sequence classifier, trained by the learner's one step on every engine.

It stands beside test_learner.py: DeepSpeed holds on to the process group of its first learner, and an engine of vLLM in
the same process ends that group when it closes. In a run the two never share a process.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from actors.config import Learner
from actors.learner import LearnerRank
from actors.weights import views
from policies.config import ConstantCredit, HfModel, Lora, Optimizer, Reduce, Set, Source, Strand, Term
from policies.example import Example
from policies.model_folder import materialise
from policies.models import build, merged_state, plain, save_hf
from policies.reduce import normalisers
from policies.trajectory import Preference
from tests.learner_world import FAST, TINY, example

ENGINES: dict[str, dict[str, Any]] = {
    "torch": {"engine": "torch"},
    "zero0": {"engine": "deepspeed", "zero_stage": 0},
    "zero2": {"engine": "deepspeed", "zero_stage": 2},
    "zero3": {"engine": "deepspeed", "zero_stage": 3},
}


def strand(**kernel: Any) -> Strand:
    return Strand(
        name="judge",
        source=Source(producer="preference", per_step=1),
        credit=ConstantCredit(),
        terms=(Term(name="fit", kernel=Set(score="head", reference=False, **kernel), reduce=Reduce(kind="token")),),
    )


PAIRS = strand(link="logistic", beta=1.0)
VALUE = strand(link="value", unit="token")
CLIPPED = strand(link="value", unit="token", clip=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def judge(folder: Path, engine: str = "torch", **config: Any) -> LearnerRank:
    learner = Learner(**{"threads": 1, "micro_batch_tokens": 64} | ENGINES[engine] | config)
    return LearnerRank(folder, TINY, learner, seed=3, head="scalar")


def preferences(count: int = 8, seed: int = 0) -> list[Example]:
    """Pairs of a chosen and a rejected response of other lengths."""
    found = []
    for index in range(count):
        one = example(index, 3 + (5 * index) % 11, strand=0, seed=seed)
        preference = Preference(set_id=f"s{index // 2}", label=float(index % 2 == 0))
        found.append(replace(one, trajectory=replace(one.trajectory, preference=preference)))
    return found


def returns(count: int = 6, seed: int = 0) -> list[Example]:
    """Each token has a target, but for the first of each response."""
    found = []
    for index in range(count):
        one = example(index, 3 + (5 * index) % 11, strand=0, seed=seed)
        targets = np.random.default_rng([seed, index]).normal(size=len(one.trajectory.tokens)).astype(np.float32)
        targets[0] = np.nan
        found.append(replace(one, targets=targets))
    return found


def train(learner: LearnerRank, of: Strand, batches: list[list[Example]], **optimizer: Any) -> list[float]:
    learner.begin_stage((of,), Optimizer(**FAST | optimizer), steps=10)
    return [learner.step([batch], [normalisers((of,), batch)], {}, compute_old=False).loss for batch in batches]


def read(model: Any, one: Example) -> torch.Tensor:
    """[C + T] outputs of transformers' classifier, each for the text up to and with a token."""
    whole = torch.from_numpy(np.concatenate([one.trajectory.train_context, one.trajectory.tokens])).long()
    hidden = model.base_model(whole[None]).last_hidden_state[0]
    return model.score(hidden)[:, 0]


def textbook(model: Any, batches: list[list[Example]], loss_of: Any) -> list[float]:
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-4, weight_decay=0.0)
    losses = []
    for batch in batches:
        loss = loss_of(model, batch)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
    return losses


def pair_loss(model: Any, batch: list[Example]) -> torch.Tensor:
    scores = torch.stack([read(model, one)[-1] for one in batch])
    return -logsigmoid(scores[0::2] - scores[1::2]).mean()


def value_loss(model: Any, batch: list[Example]) -> torch.Tensor:
    errors, tokens = [], 0
    for one in batch:
        before = read(model, one)[len(one.trajectory.train_context) - 1 : -1]
        target = torch.from_numpy(one.targets)
        errors.append(0.5 * ((before - target)[target.isfinite()] ** 2).sum())
        tokens += int(target.isfinite().sum())
    return torch.stack(errors).sum() / tokens


# ---------------------------------------------------------------- the model


def test_the_backbone_is_the_causal_models_and_the_head_the_seeds(folder: Path):
    scalar, causal = build(folder, TINY, seed=3, head="scalar"), build(folder, TINY, seed=3)
    own, others = dict(scalar.named_parameters()), dict(causal.named_parameters())
    assert set(own) - set(others) == {"score.weight"} and own["score.weight"].shape == (1, 64)
    assert all(torch.equal(own[name], others[name]) for name in set(own) & set(others))
    again, other = (build(folder, TINY, seed=seed, head="scalar").score.weight for seed in (3, 4))
    assert torch.equal(own["score.weight"], again) and not torch.equal(again, other)
    assert 0 < own["score.weight"].abs().max() < 0.1


def test_a_folder_of_a_causal_model_gives_its_backbone(folder: Path, tmp_path: Path):
    causal = build(folder, TINY, seed=8)
    save_hf(causal, folder, tmp_path)
    scalar = build(tmp_path, HfModel(path="", context=64, dtype="float32"), seed=3, head="scalar")
    own = dict(scalar.named_parameters())
    assert all(torch.equal(own[name], tensor) for name, tensor in causal.named_parameters())


def test_a_classifier_of_two_labels_is_refused(folder: Path, tmp_path: Path):
    save_hf(build(folder, TINY, seed=3, head="scalar"), folder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "bad", "1": "good"}}))
    with pytest.raises(ValueError, match=r"model\.path: .* into 2 labels; a scalar head has num_labels 1"):
        build(tmp_path, TINY, seed=3, head="scalar")


@pytest.mark.parametrize("engine", ["torch", "zero2", "zero3"])
@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["whole", "lora"])
def test_transformers_loads_what_was_saved_and_gives_the_same_scores(
    folder: Path, tmp_path: Path, engine: str, lora: Lora | None
):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    learner = judge(folder, engine, lora=lora)
    batch = preferences()
    contexts, tokens = [e.trajectory.train_context for e in batch], [e.trajectory.tokens for e in batch]
    first = learner.scores(contexts, tokens)
    train(learner, PAIRS, [batch, batch])
    learner.save(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    pad = AutoTokenizer.from_pretrained(tmp_path / "model").pad_token_id
    whole = [np.concatenate(pair) for pair in zip(contexts, tokens, strict=True)]
    width = max(len(one) for one in whole)
    ids = torch.tensor([[*one.tolist(), *[pad] * (width - len(one))] for one in whole])
    with torch.no_grad():
        expected = loaded(ids, attention_mask=(ids != pad).long()).logits[:, 0]
    scores = learner.scores(contexts, tokens)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
    assert np.abs(np.array(scores) - first).max() > 1e-2
    again = build(tmp_path / "model", HfModel(path="", context=64, dtype="float32"), seed=99, head="scalar")
    stored = dict(loaded.named_parameters())
    assert all(torch.equal(tensor, stored[name]) for name, tensor in merged_state(again))


def test_a_value_is_foreseen_and_a_score_has_read_the_last_token(folder: Path):
    learner, model = judge(folder), build(folder, TINY, seed=3, head="scalar")
    batch = returns()
    contexts, tokens = [e.trajectory.train_context for e in batch], [e.trajectory.tokens for e in batch]
    values, scores = (
        learner.values([*contexts, contexts[0]], [*tokens, tokens[0][:0]]),
        learner.scores(contexts, tokens),
    )
    assert values[-1].shape == (0,) and np.isnan(learner.scores(contexts[:1], [tokens[0][:0]])).all()
    for one, value, score in zip(batch, values, scores, strict=False):
        with torch.no_grad():
            outputs = read(model, one).numpy()
        np.testing.assert_allclose(value, outputs[len(one.trajectory.train_context) - 1 : -1], atol=1e-5)
        assert value.dtype == np.float32 and score == pytest.approx(outputs[-1], abs=1e-5)


def test_a_language_model_has_no_values(folder: Path):
    learner = LearnerRank(folder, TINY, Learner(engine="torch", threads=1), seed=3)
    with pytest.raises(RuntimeError, match="build it with head scalar"):
        learner.values([np.ones(2, np.int32)], [np.ones(2, np.int32)])


# ---------------------------------------------------------------- the step


@pytest.mark.parametrize("engine", ["torch", "zero0", "zero2", "zero3"])
@pytest.mark.parametrize(
    ("of", "data", "loss_of"), [(PAIRS, preferences, pair_loss), (VALUE, returns, value_loss)], ids=["pairs", "value"]
)
def test_training_equals_the_textbook(folder: Path, engine: str, of: Strand, data: Any, loss_of: Any):
    model = build(folder, TINY, seed=3, head="scalar")
    batches = [data(seed=index) for index in range(3)]
    expected = textbook(model, batches, loss_of)
    learner = judge(folder, engine)
    assert train(learner, of, batches) == pytest.approx(expected, abs=1e-5)
    weights = dict(views(learner.export_weights(1)))
    for name, tensor in merged_state(plain(model)):
        np.testing.assert_allclose(weights[name].numpy(), tensor.numpy(), atol=5e-6, err_msg=name)


def test_old_values_are_those_before_the_first_update_unless_given(folder: Path):
    batch = returns()
    pairs = ([e.trajectory.train_context for e in batch], [e.trajectory.tokens for e in batch])
    given = [replace(e, old_values=v) for e, v in zip(batch, judge(folder).values(*pairs), strict=True)]
    wrong = [replace(e, old_values=e.old_values + 5) for e in given]
    losses = []
    for share in (batch, given, wrong):
        learner = judge(folder)
        learner.begin_stage((CLIPPED,), Optimizer(learning_rate=3e-2), steps=4)
        denominators = [normalisers((CLIPPED,), share)] * 2
        losses.append(learner.step([share, share], denominators, {}, compute_old=True).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] > losses[0] + 1


@pytest.mark.parametrize("engine", ["torch", "zero2", "zero3"])
def test_a_scalar_learner_resumes_bit_for_bit(folder: Path, tmp_path: Path, engine: str):
    straight, stopped, resumed = judge(folder, engine), judge(folder, engine), judge(folder, engine)
    batches = [preferences(seed=index) for index in range(4)]
    train(straight, PAIRS, batches)
    train(stopped, PAIRS, batches[:2])
    stopped.save(tmp_path)
    resumed.load(tmp_path)
    for batch in batches[2:]:
        resumed.step([batch], [normalisers((PAIRS,), batch)], {}, compute_old=False)
    checksums = {learner.export_weights(1).manifest.checksum for learner in (straight, resumed)}
    assert len(checksums) == 1 and stopped.export_weights(1).manifest.checksum not in checksums
