"""The cosine between strands' gradients is the textbook's, and measuring it changes nothing."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.config import Learner
from actors.learner import LearnerRank
from policies.config import Optimizer, Strand
from policies.example import Example
from policies.model_folder import materialise
from policies.models import build, merged_state
from policies.reduce import normalisers
from tests.learner_world import FAST, IMITATION, REINFORCE, STRANDS, TINY, example, examples, result, run

ENGINES: dict[str, dict[str, Any]] = {
    "torch": {"engine": "torch"},
    "zero0": {"engine": "deepspeed", "zero_stage": 0},
    "zero2": {"engine": "deepspeed", "zero_stage": 2},
    "zero3": {"engine": "deepspeed", "zero_stage": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def rank(folder: Path, engine: str = "torch", tokens: int = 64) -> LearnerRank:
    learner = Learner(**{"threads": 1, "micro_batch_tokens": tokens} | ENGINES[engine])
    return LearnerRank(folder, TINY, learner, seed=3)


def cosines(
    learner: LearnerRank, strands: tuple[Strand, ...], batch: list[Example], updates: int = 1
) -> dict[str, float]:
    learner.begin_stage(strands, Optimizer(**FAST), 10)
    shares = [batch[at::updates] for at in range(updates)]
    counts = [normalisers(strands, share) for share in shares]
    return dict(learner.step(shares, counts, {}, updates > 1, interference=True).interference)


def textbook(folder: Path, batch: list[Example]) -> float:
    """Each strand's loss by a plain padded forward, differentiated by itself."""
    model = build(folder, TINY, seed=3)
    losses: list[list[torch.Tensor]] = [[], []]
    bonus, tokens = [], [0, 0]
    for one in batch:
        whole = torch.from_numpy(np.concatenate([one.trajectory.train_context, one.trajectory.tokens])).long()
        first = len(one.trajectory.train_context) - 1
        logps = model(whole[None]).logits[0, first:-1].log_softmax(-1)
        chosen = logps.gather(1, whole[first + 1 :, None])[:, 0]
        tokens[one.strand] += len(chosen)
        if one.strand == 0:
            losses[0].append(-chosen.sum())
        else:
            losses[1].append(-((chosen - chosen.detach()).exp() * torch.from_numpy(one.advantages)).mean())
            bonus.append((logps.exp() * logps).sum())
    imitate = torch.stack(losses[0]).sum() / tokens[0]
    reinforce = torch.stack(losses[1]).mean() + 0.01 * torch.stack(bonus).sum() / tokens[1]
    ours, theirs = (
        torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)])
        for loss in (imitate, reinforce)
    )
    return float(torch.cosine_similarity(ours.double(), theirs.double(), dim=0))


@pytest.mark.parametrize("tokens", [64, 4096])
def test_the_cosine_is_the_textbooks(folder: Path, tokens: int) -> None:
    batch = examples()
    found = cosines(rank(folder, tokens=tokens), STRANDS, batch)
    want = textbook(folder, batch)
    assert found == {"imitate|reinforce": pytest.approx(want, abs=1e-4)}
    assert abs(want) > 1e-3, "a cosine that is nearly 0 would prove nothing"


def test_of_several_updates_it_is_the_first_ones(folder: Path) -> None:
    batch = examples()
    found = cosines(rank(folder), STRANDS, batch, updates=2)
    assert found["imitate|reinforce"] == pytest.approx(textbook(folder, batch[::2]), abs=1e-4)


def likelihood(name: str) -> Strand:
    return IMITATION.model_copy(update={"name": name})


@pytest.mark.parametrize(("sign", "want"), [(1.0, 1.0), (-1.0, -1.0)])
def test_a_strand_agrees_with_itself_and_contradicts_its_negation(folder: Path, sign: float, want: float) -> None:
    """The same responses under two strands, of which the second is credited with `sign`."""
    own = [example(at, 6 + at, strand=0) for at in range(4)]
    again = [replace(one, strand=1, advantages=sign * one.advantages) for one in own]
    found = cosines(rank(folder), (likelihood("a"), likelihood("b")), [*own, *again])
    assert found == {"a|b": pytest.approx(want, abs=1e-5)}


def test_a_strand_without_a_gradient_has_no_cosine(folder: Path) -> None:
    own = [example(at, 6 + at, strand=0) for at in range(4)]
    still = [replace(one, strand=1, advantages=np.zeros_like(one.advantages)) for one in own]
    strands = tuple(likelihood(name) for name in "abc")
    found = cosines(rank(folder), strands, [*own, *still])
    assert list(found) == ["a|b", "a|c", "b|c"]
    assert all(np.isnan(value) for value in found.values()), "b pulls nowhere, c has no example"


def test_one_strand_alone_has_nobody_to_be_compared_with(folder: Path) -> None:
    assert cosines(rank(folder), (REINFORCE,), [replace(one, strand=0) for one in examples()]) == {}


@pytest.mark.parametrize("engine", ["torch", "zero0", "zero2"])
def test_measuring_changes_no_bit_of_the_training(folder: Path, tmp_path: Path, engine: str) -> None:
    found = []
    for measured in (False, True):
        out = tmp_path / str(measured)
        learner = ENGINES[engine] | {"threads": 1, "micro_batch_tokens": 64}
        scenario = {"learner": learner, "steps": [0, 3], "out": str(out), "interference": measured}
        run(folder, scenario)
        found.append(result(scenario))
    (before, _), (after, facts) = found
    np.testing.assert_array_equal(before, after)
    assert [list(one["interference"]) for one in facts] == [["imitate|reinforce"]] * 3
    assert any(one["interference"] != other["interference"] for one, other in pairwise(facts))


def test_without_whole_parameters_it_is_refused_with_the_keys(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"stages\.interference: at resources\.learner\.zero_stage 3"):
        cosines(rank(folder, "zero3"), STRANDS, examples())


# ---------------------------------------------------------------- what the policy says of given responses


def test_the_policys_log_probabilities_are_a_plain_forwards(folder: Path) -> None:
    learner = rank(folder)
    model = build(folder, TINY, seed=3)
    pairs = [(one.trajectory.train_context, one.trajectory.tokens) for one in examples()]
    pairs.insert(2, (pairs[0][0], np.empty(0, np.int32)))
    found = learner.logprobs([context for context, _ in pairs], [tokens for _, tokens in pairs])
    assert found[2].shape == (0,)
    for (context, tokens), logps in zip(pairs, found, strict=True):
        whole = torch.from_numpy(np.concatenate([context, tokens])).long()[None]
        with torch.no_grad():
            want = model(whole).logits[0, len(context) - 1 : -1].log_softmax(-1)
        np.testing.assert_allclose(logps, want.gather(1, whole[0, len(context) :, None])[:, 0].numpy(), atol=1e-5)


def test_asking_changes_no_weight(folder: Path) -> None:
    learner = rank(folder)
    before = [tensor.clone() for _, tensor in merged_state(learner._model)]
    learner.logprobs([np.array([3, 4], np.int32)], [np.array([5, 6], np.int32)])
    assert all(torch.equal(one, other) for one, (_, other) in zip(before, merged_state(learner._model), strict=True))
