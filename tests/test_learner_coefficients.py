"""g in the ledger is the derivative of the loss by a token's log-probability, whatever carried the token there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.config import Learner
from actors.learner import LearnerRank
from actors.sharding import deal, in_order, split
from orchestrator import recipes
from policies.coefficients import of_examples, untold
from policies.config import ConstantCredit, Div, Log, Only, Optimizer, Point, Set, Source, Strand, Term
from policies.example import Example
from policies.model_folder import materialise
from policies.models import build
from policies.reduce import normalisers
from policies.trajectory import Origin, Preference
from tests.learner_world import IMITATION, REINFORCE, STRANDS, TINY, example, examples
from tests.test_learner import ENGINES

Flat = np.ndarray[Any, np.dtype[np.float32]]
Loss = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""Log-probabilities of the examples, [T] each, to the loss of the update."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")


def _step(
    folder: Path,
    strands: Sequence[Strand],
    shares: Sequence[Sequence[Example]],
    coefficients: dict[str, float] | None = None,
    **learner: Any,
) -> list[list[Flat]]:
    """g of each example, by update, as a learner's step gives it."""
    made = {"engine": "torch", "threads": 1, "micro_batch_tokens": 64} | learner
    rank = LearnerRank(folder, TINY, Learner(**made), seed=3)
    rank.begin_stage(strands, Optimizer(learning_rate=3e-2, eps=1e-4), steps=10)
    counts = [normalisers(strands, share) for share in shares]
    found = rank.step(shares, counts, coefficients or {}, len(shares) > 1)
    assert found.coefficients is not None and found.coefficients.dtype == np.float32
    sizes = [len(one.trajectory.tokens) for share in shares for one in share]
    flat = iter(np.split(found.coefficients, np.cumsum(sizes)[:-1]))
    return [[next(flat) for _ in share] for share in shares]


def _logps(model: torch.nn.Module, one: Example) -> torch.Tensor:
    """A plain forward pass over one example alone."""
    whole = torch.from_numpy(np.concatenate([one.trajectory.train_context, one.trajectory.tokens])).long()
    first = len(one.trajectory.train_context) - 1
    logps = model(whole[None]).logits[0, first:-1].log_softmax(-1)
    return logps.gather(1, whole[first + 1 :, None])[:, 0]


def _pulled(model: torch.nn.Module, share: Sequence[Example], loss: Loss) -> list[Flat]:
    """The oracle: torch's own gradient of a loss that is written out, by the log-probabilities, negated."""
    leaves = [_logps(model, one).detach().requires_grad_() for one in share]
    found = torch.autograd.grad(loss(leaves), leaves, allow_unused=True)
    return [
        np.zeros(len(leaf), np.float32) if one is None else -one.numpy()
        for one, leaf in zip(found, leaves, strict=True)
    ]


def _same(found: Sequence[Flat], expected: Sequence[Flat], **tolerance: float) -> None:
    assert any(np.abs(one).max(initial=0.0) > 1e-5 for one in expected), "the oracle pulls somewhere"
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **({"rtol": 1e-4, "atol": 1e-7} | tolerance))


# ---------------------------------------------------------------- imitation and reinforcement


def _textbook(share: Sequence[Example], old: Sequence[torch.Tensor] | None) -> Loss:
    """Likelihood of demonstrations by token; PPO's clipped surrogate of rollouts, mean over tokens, then sequences."""
    counts = [sum(len(one.trajectory.tokens) for one in share if one.strand == 0)]
    counts.append(sum(one.strand == 1 for one in share))

    def loss(leaves: Sequence[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(())
        for at, (one, logps) in enumerate(zip(share, leaves, strict=True)):
            if one.strand == 0:
                total = total - logps.sum() / counts[0]
                continue
            ratio = (logps - (logps.detach() if old is None else old[at])).exp()
            advantage = torch.from_numpy(one.advantages)
            held = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            total = total - 0.5 * held.mean() / counts[1]
        return total

    return loss


@pytest.mark.parametrize("engine", ["torch", "zero0", "zero2", "zero3"])
@pytest.mark.parametrize("tokens", [16, 4096])
def test_imitation_and_grpo_pull_as_their_formulas_say(folder: Path, engine: str, tokens: int) -> None:
    batch = examples()
    found = _step(folder, STRANDS, [batch], {"reinforce": 0.5}, micro_batch_tokens=tokens, **ENGINES[engine])
    expected = _pulled(build(folder, TINY, seed=3), batch, _textbook(batch, None))
    _same(found[0], expected)


def test_in_the_second_update_the_clip_holds_tokens_that_went_too_far(folder: Path) -> None:
    """The same data twice: the first update moves the policy, and the second meets the clip."""
    batch = examples()
    found = _step(folder, STRANDS, [batch, batch], {"reinforce": 0.5})
    model = build(folder, TINY, seed=3)
    old = [_logps(model, one).detach() for one in batch]
    _same(found[0], _pulled(model, batch, _textbook(batch, old)))
    adam = torch.optim.AdamW(model.parameters(), lr=3e-2, betas=(0.9, 0.95), eps=1e-4, weight_decay=0.0)
    whole = [_logps(model, one) for one in batch]
    tokens = sum(len(one.trajectory.tokens) for one in batch if one.strand == 1)
    bonus = sum(_minus_entropy(model, one) for one in batch if one.strand == 1)
    (_textbook(batch, old)(whole) + 0.5 * 0.01 * bonus / tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    expected = _pulled(model, batch, _textbook(batch, old))
    own = [at for at, one in enumerate(batch) if one.strand == 1]
    held = sum(int((expected[at] == 0.0).sum()) for at in own)
    assert 0 < held < sum(len(expected[at]) for at in own), "some tokens are held, not all"
    _same(found[1], expected, rtol=2e-2, atol=2e-5)
    assert sum(int((found[1][at] == 0.0).sum()) for at in own) == held


def _minus_entropy(model: torch.nn.Module, one: Example) -> torch.Tensor:
    whole = torch.from_numpy(np.concatenate([one.trajectory.train_context, one.trajectory.tokens])).long()
    first = len(one.trajectory.train_context) - 1
    logps = model(whole[None]).logits[0, first:-1].log_softmax(-1)
    return (logps.exp() * logps).sum()


def test_g_is_of_the_right_example_whatever_deals_them_out(folder: Path) -> None:
    """Updates deal groups in another order than they were given in; micro-batches sort them by length."""
    batch = examples(18)
    places = deal(batch, 3, 1)
    shares = [update[0] for update in split(batch, 3, 1)]
    assert [place for update in places for place in update[0]] != list(range(18)), "the order is another one"
    found = _step(folder, STRANDS, shares, {"reinforce": 0.5}, micro_batch_tokens=32)
    flat = in_order(batch, places, [np.concatenate([one for update in found for one in update])])
    assert flat is not None and len(flat) == sum(len(one.trajectory.tokens) for one in batch)
    starts = np.cumsum([0, *(len(one.trajectory.tokens) for one in batch)])
    first = dict(zip(places[0][0], found[0], strict=True))
    expected = _pulled(build(folder, TINY, seed=3), shares[0], _textbook(shares[0], None))
    for place, own in zip(places[0][0], expected, strict=True):
        np.testing.assert_allclose(flat[starts[place] : starts[place + 1]], own, rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(first[place], flat[starts[place] : starts[place + 1]])


def test_the_same_trajectory_under_two_strands_has_two_pulls(folder: Path) -> None:
    one = example(1, 6, strand=1, group="g")
    twice = [one, replace(one, strand=0, advantages=np.ones(6, np.float32))]
    found = _step(folder, STRANDS, [twice])[0]
    np.testing.assert_allclose(found[0], np.full(6, one.advantages[0] / 6), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.full(6, 1 / 6), rtol=1e-5)


# ---------------------------------------------------------------- preferences


DPO = Strand(
    name="prefer",
    source=Source(producer="preference", per_step=2),
    credit=ConstantCredit(),
    terms=(Term(name="dpo", kernel=Set(beta=0.3)),),
)


def test_dpo_pulls_winners_up_and_losers_down_by_one_minus_the_chance_of_the_pair(folder: Path) -> None:
    batch = []
    for at in range(6):
        one = example(at, 3 + at, strand=0)
        told = replace(one.trajectory, preference=Preference(f"s{at // 2}", float(at % 2 == 0)))
        reference = np.linspace(-3.0, -1.0, 3 + at, dtype=np.float32)
        batch.append(replace(one, trajectory=told, reference_logps=reference))
    found = _step(folder, [DPO], [batch], micro_batch_tokens=16)[0]
    model = build(folder, TINY, seed=3)
    gains = [float(_logps(model, one).detach().sum()) - float(one.reference_logps.sum()) for one in batch]
    for won, lost in ((0, 1), (2, 3), (4, 5)):
        pull = 0.3 / (1 + math.exp(0.3 * (gains[won] - gains[lost]))) / 3
        np.testing.assert_allclose(found[won], pull, rtol=1e-4)
        np.testing.assert_allclose(found[lost], -pull, rtol=1e-4)


# ---------------------------------------------------------------- mixtures


def test_luffy_shapes_what_was_demonstrated_and_not_what_was_sampled(folder: Path) -> None:
    strands = recipes.load("luffy", rollouts=3, length=40, gamma=0.2).strands
    batch = [replace(one, strand=1 - one.strand) for one in examples(6)]  # its first strand is the rollouts
    batch = [
        replace(one, advantages=np.full(len(one.advantages), 0.5 - at / 4, np.float32)) for at, one in enumerate(batch)
    ]
    found = _step(folder, strands, [batch])[0]
    model = build(folder, TINY, seed=3)
    for one, own in zip(batch, found, strict=True):
        p = _logps(model, one).detach().exp().numpy()
        shaped = p * 0.2 / (p + 0.2) ** 2 if one.strand == 1 else np.ones(len(p))
        np.testing.assert_allclose(own, one.advantages * shaped / 40, rtol=2e-4, atol=1e-9)


# ---------------------------------------------------------------- what has no g


def test_tokens_that_do_not_train_pull_nothing_and_a_masked_example_neither(folder: Path) -> None:
    one, other = example(0, 8, strand=0), example(3, 5, strand=0)
    mask = np.arange(8) % 3 != 1
    holed = replace(one, trajectory=replace(one.trajectory, train_mask=mask))
    idle = replace(other, trajectory=replace(other.trajectory, train_mask=np.zeros(5, np.bool_)))
    found = _step(folder, STRANDS, [[idle, holed]])[0]
    np.testing.assert_array_equal(found[0], 0.0)
    np.testing.assert_allclose(found[1], np.where(mask, 1 / mask.sum(), 0.0), rtol=1e-6)


def test_a_skipped_update_is_unknown_and_the_others_are_not(folder: Path) -> None:
    batch = examples()
    bad = [replace(batch[0], advantages=np.full_like(batch[0].advantages, np.inf)), *batch[1:]]
    first, second, third = _step(folder, STRANDS, [batch, bad, batch])
    assert all(np.isfinite(one).all() for one in (*first, *third))
    assert all(np.isnan(one).all() for one in second)


WHOLE = Term(name="teach", kernel=Div(form="forward", target="teacher"))
SAMPLED = Term(name="stay", kernel=Div(form="k3", target="reference"))
NLL = Term(name="nll", kernel=Point(denominator="current", shape=Log()))


@pytest.mark.parametrize(
    ("terms", "known"),
    [
        ((WHOLE,), []),
        ((WHOLE, SAMPLED), [0, 1, 2, 3]),
        ((WHOLE, NLL.model_copy(update={"only": Only(origins=("demonstration",))})), [0, 1]),
        ((WHOLE.model_copy(update={"only": Only(origins=("teacher",))}), NLL), [0, 1, 2, 3]),
        ((NLL.model_copy(update={"only": Only(origins=("demonstration",))}),), [0, 1, 2, 3]),
        ((WHOLE.model_copy(update={"only": Only(origins=("teacher",))}),), [0, 1]),
    ],
    ids=["only whole", "beside k3", "elsewhere", "within", "none", "not read"],
)
def test_a_token_that_only_whole_distributions_read_has_no_g(terms: tuple[Term, ...], known: list[int]) -> None:
    one = example(0, 4, strand=0)
    origin = np.array([Origin.DEMONSTRATION, Origin.DEMONSTRATION, Origin.TEACHER, Origin.TEACHER], np.int8)
    one = replace(one, trajectory=replace(one.trajectory, origin=origin))
    strand = IMITATION.model_copy(update={"terms": terms})
    assert np.flatnonzero(~untold(strand, one)).tolist() == known
    found = of_examples([strand], [one], np.arange(1, 5, dtype=np.float32))[0]
    assert np.flatnonzero(~np.isnan(found)).tolist() == known
    assert all(found[at] == at + 1 for at in known)


def test_counts_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 for examples with 4"):
        of_examples([REINFORCE], [example(0, 4, strand=0)], np.zeros(3, np.float32))


def test_a_rank_that_says_nothing_leaves_the_step_without_g() -> None:
    batch = examples(2)
    places = deal(batch, 1, 2)
    assert in_order(batch, places, [np.zeros(3, np.float32), None]) is None
