"""Divergences over the whole vocabulary equal the dense ones, in bounded memory, wherever a term reads them."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.allocations import peak_bytes
from policies import objective
from policies.attention import packed_hidden
from policies.config import Div, Strand
from policies.example import Example
from policies.full_divergence import whole_divergence
from policies.kernels import bucket_divergence, with_tail
from policies.logprobs import token_logprobs
from policies.model_folder import materialise
from policies.models import backbone_and_head, build
from policies.reduce import normalisers
from policies.sequences import packed_row
from policies.slots import WholeVocabulary
from policies.step import Objective, Policy, evaluate_part
from policies.trajectory import Origin
from policies.vocabulary_chunks import CHUNK_ELEMENTS
from tests.divergence_cases import FORMS, TOKENS, agrees, all_agree, dense, inputs, two_agree
from tests.learner_world import TINY, example
from tests.loss_cases import LENGTHS, RECIPES, case, padded, strand, term
from tests.loss_cases import VOCABULARY as CASE_VOCABULARY
from tests.planted import Fault, planted

MODULES = ("segments", "slots", "vocabulary_chunks", "full_divergence")
MUTANTS: dict[str, Fault] = {
    "forward and reverse exchanged": (
        "full_divergence",
        "return _kl(target_bV, logps_bV)",
        "return _kl(logps_bV, target_bV)",
    ),
    "forward pulls away": (
        "full_divergence",
        "logps_bV.exp_().sub_(target_bV.exp_())",
        "target_bV.exp_().sub_(logps_bV.exp_())",
    ),
    "the mean is not taken off": (
        "full_divergence",
        "gap_bV.sub_(torch.linalg.vecdot(p_bV, gap_bV)[:, None])",
        "gap_bV",
    ),
    "the target's share of the mixture is the policy's": (
        "full_divergence",
        "logps_bV + math.log1p(-key.beta), target_bV + math.log(key.beta)",
        "logps_bV + math.log(key.beta), target_bV + math.log1p(-key.beta)",
    ),
    "weights of the jsd exchanged": (
        "full_divergence",
        "return key.beta * _kl(target",
        "return (1 - key.beta) * _kl(target",
    ),
    "share of the jsd lost": ("full_divergence", 'share = 1.0 - key.beta if form == "jsd" else 1.0', "share = 1.0"),
    "ends of the jsd exchanged": (
        "full_divergence",
        '{0.0: "forward", 1.0: "reverse"}',
        '{1.0: "forward", 0.0: "reverse"}',
    ),
    "temperature lost": ("full_divergence", "if key.temperature == 1.0 else", "if True else"),
    "gradient not over the temperature": ("full_divergence", "share / key.temperature", "share"),
    "gradient of the last key alone": ("full_divergence", "total_bV.addcmul_(", "total_bV = torch.mul("),
    "the first block's pull for every block": (
        "full_divergence",
        "gradient_KN[:, start + block.start : start + block.stop, None]",
        "gradient_KN[:, start : start + block.stop - block.start, None]",
    ),
    "a chunk's head gradient overwrites the last one's": (
        "vocabulary_chunks",
        "head_VH.addmm_(gradient_nV.T, hidden_nH)",
        "head_VH.copy_(gradient_nV.T @ hidden_nH)",
    ),
    "the ragged block is lost": ("vocabulary_chunks", "range(0, size, step)", "range(0, size - size % step, step)"),
    "the ragged chunk reads the first tokens": (
        "full_divergence",
        "hidden_NH[part], head_VH)\n    return ours_nV",
        "hidden_NH[: len(hidden_NH[part])], head_VH)\n    return ours_nV",
    ),
}


@pytest.fixture
def mutant(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], ModuleType]]:
    """The chunked divergence again, under another package name, with one fault in it (or none)."""
    fault = request.param
    with planted(tmp_path, MODULES, str(fault), MUTANTS.get(fault)) as load:
        yield load


@pytest.mark.parametrize("mutant", [None], indirect=True)
def test_the_copy_without_a_fault_agrees(mutant: Callable[[str], ModuleType]) -> None:
    all_agree(mutant)


@pytest.mark.parametrize(("mutant", "fault"), [(fault, fault) for fault in MUTANTS], indirect=["mutant"])
def test_every_mutant_dies(mutant: Callable[[str], ModuleType], fault: str) -> None:
    with pytest.raises(AssertionError):
        all_agree(mutant)


def _real(module: str) -> ModuleType:
    return importlib.import_module(f"policies.{module}")


@pytest.mark.parametrize("chunk", [1, 5, 16, TOKENS, None])
@pytest.mark.parametrize("name", FORMS)
def test_value_and_gradients_equal_dense_autograd(name: str, chunk: int | None) -> None:
    agrees(_real, name, chunk)


def test_divergences_that_share_their_chunks_add_their_gradients() -> None:
    two_agree(_real)


@pytest.mark.parametrize("name", FORMS)
def test_it_is_the_top_k_divergence_at_k_equal_v_and_no_bucket_is_above_it(name: str) -> None:
    hidden, head, target_hidden, target_head = inputs()
    ours, theirs = ((hidden @ head.T).log_softmax(-1), (target_hidden @ target_head.T).log_softmax(-1))
    key = WholeVocabulary.of(FORMS[name])
    whole = whole_divergence(hidden, head, target_hidden, target_head, [key])[key]
    torch.testing.assert_close(whole, bucket_divergence(FORMS[name], ours, theirs))
    if FORMS[name].temperature == 1.0:
        ids = theirs.topk(5, dim=-1).indices
        coarse = bucket_divergence(FORMS[name], *(with_tail(one.gather(1, ids)) for one in (ours, theirs)))
        assert bool((coarse <= whole + 1e-12).all())
        assert bool((coarse < 0.99 * whole).any())


def test_no_tokens_are_exactly_zero_gradients() -> None:
    hidden, head, target_hidden, target_head = inputs(tokens=0)
    key = WholeVocabulary.of(FORMS["jsd"])
    found = whole_divergence(hidden, head, target_hidden, target_head, [key])[key]
    assert found.shape == (0,)
    found.sum().backward()
    assert hidden.grad is not None
    assert head.grad is not None
    assert not head.grad.any()


def test_a_second_backward_through_a_kept_chunk_is_the_first() -> None:
    hidden, head, target_hidden, target_head = inputs()
    key = WholeVocabulary.of(FORMS["reverse"])
    loss = whole_divergence(hidden, head, target_hidden, target_head, [key])[key].sum()
    first = torch.autograd.grad(loss, [hidden, head], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, [hidden, head]), first, atol=0, rtol=0)


def test_a_frozen_head_and_a_constant_target_get_no_gradient() -> None:
    hidden, head, target_hidden, target_head = inputs()
    key = WholeVocabulary.of(FORMS["forward"])
    target_hidden.requires_grad_()
    whole_divergence(hidden, head.detach(), target_hidden, target_head, [key], 5)[key].sum().backward()
    assert hidden.grad is not None
    assert head.grad is None
    assert target_hidden.grad is None


def test_products_in_bfloat16_are_the_float32_ones_to_its_rounding() -> None:
    narrow = inputs(dtype=torch.bfloat16)
    wide = [one.detach().float().requires_grad_(one.requires_grad) for one in narrow]
    key = WholeVocabulary.of(FORMS["jsd"])
    for tensors in (narrow, wide):
        found = whole_divergence(*tensors, [key], 16)[key]
        assert found.dtype == torch.float32
        found.sum().backward()
    for ours, theirs in zip(narrow[:2], wide[:2], strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == torch.bfloat16
        torch.testing.assert_close(ours.grad.float(), theirs.grad, atol=0.05, rtol=0.05)


def test_different_vocabularies_are_refused() -> None:
    hidden, head, target_hidden, target_head = inputs()
    with pytest.raises(ValueError, match=r"23 tokens and the target's 22: .* use a sampled form"):
        whole_divergence(hidden, head, target_hidden, target_head[:-1], [WholeVocabulary.of(FORMS["jsd"])])


# ---------------------------------------------------------------- memory


def _excess(run: Callable[[], object], leaves: tuple[Tensor, ...]) -> int:
    """Peak bytes beyond the gradients, of which the head's is summed in float32."""
    for leaf in leaves:
        leaf.grad = None
    return peak_bytes(run) - sum(4 * leaf.numel() for leaf in leaves)


def _whole(sizes: tuple[int, int], dtype: torch.dtype, chunk: int | None) -> int:
    tokens, vocabulary = sizes
    hidden, target = (torch.randn(tokens, 2).to(dtype) for _ in range(2))
    head, target_head = (torch.randn(vocabulary, 2).to(dtype) for _ in range(2))
    leaves = (hidden.requires_grad_(), head.requires_grad_())
    keys = [WholeVocabulary.of(FORMS[name]) for name in ("reverse", "tempered jsd")]

    def run() -> object:
        found = whole_divergence(*leaves, target, target_head, keys, chunk)
        torch.stack(list(found.values())).sum().backward()
        return found

    return _excess(run, leaves)


def _logprobs(sizes: tuple[int, int], dtype: torch.dtype, chunk: int | None) -> int:
    tokens, vocabulary = sizes
    leaves = (torch.randn(tokens, 2).to(dtype).requires_grad_(), torch.randn(vocabulary, 2).to(dtype).requires_grad_())
    targets = torch.randint(0, vocabulary, (tokens,))

    def run() -> object:
        found = token_logprobs(*leaves, targets, chunk=chunk)
        (found.logps_N + 0.1 * found.entropy_N).sum().backward()
        return found

    return _excess(run, leaves)


@pytest.mark.parametrize("chunk", [64, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_is_under_one_and_a_half_chunks_of_logits(dtype: torch.dtype, chunk: int | None) -> None:
    tokens, vocabulary = 256, 4000
    logits = 4 * vocabulary * (chunk or tokens)
    assert logits < _logprobs((tokens, vocabulary), dtype, chunk) < 1.5 * logits
    assert 2 * logits < _whole((tokens, vocabulary), dtype, chunk) < 1.5 * 2 * logits


def test_the_meter_sees_what_a_dense_divergence_holds() -> None:
    hidden, head = torch.randn(256, 2).requires_grad_(), torch.randn(4000, 2).requires_grad_()

    def run() -> None:
        dense(FORMS["reverse"], hidden @ head.T, torch.randn(256, 4000)).sum().backward()

    assert _excess(run, (hidden, head)) > 4 * (4 * 256 * 4000)


@pytest.mark.slow
def test_peak_memory_at_8k_tokens_by_150k_vocabulary() -> None:
    for measured in (_logprobs, _whole):
        assert 0.9 * 4 * CHUNK_ELEMENTS < measured((8192, 150_000), torch.float32, None) < 1.5 * 4 * CHUNK_ELEMENTS


# ---------------------------------------------------------------- where terms read it


def full(form: str, target: str = "teacher", **options: float) -> Div:
    return Div(form=form, target=target, support="full", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["teacher", "reference"])
def test_the_seam_reads_a_whole_distribution_from_columns_of_k_equal_v(target: str) -> None:
    rows, values = case("ppo")
    draw = np.random.default_rng(5)
    for row, size in zip(rows, LENGTHS, strict=True):
        theirs = torch.from_numpy(draw.normal(size=(size, CASE_VOCABULARY))).log_softmax(-1).numpy()
        ids = np.stack([draw.permutation(CASE_VOCABULARY) for _ in range(size)])
        row[f"{target}_ids"], row[f"{target}_topk"] = ids, np.take_along_axis(theirs, ids, 1)
        row["dense"] = theirs
    batch, recipe = padded(rows), [strand("a", term(full("reverse", target, temperature=2.0)))]
    logits = torch.from_numpy(values).requires_grad_()
    found = objective.evaluate(recipe, batch, logits)
    kernel = FORMS["tempered reverse"].model_copy(update={"temperature": 2.0})
    kept = [
        dense(kernel, logits[i, :size], torch.from_numpy(row["dense"]))[torch.tensor(row["mask"])]
        for i, (row, size) in enumerate(zip(rows, LENGTHS, strict=True))
    ]
    want = torch.cat(kept).mean()
    torch.testing.assert_close(found.loss, want)
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (found.loss, want))
    torch.testing.assert_close(ours, theirs)

    repeated = replace(batch, **{f"{target}_topk_ids_BTK": torch.zeros(*batch.tokens_BT.shape, CASE_VOCABULARY).long()})
    with pytest.raises(ValueError, match="not every token once"):
        objective.evaluate(recipe, repeated, logits)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = materialise(TINY, tmp_path_factory.mktemp("tiny") / "model")
    return Policy(*backbone_and_head(build(folder, TINY, seed=3)))


def taught(index: int, *, strand: int, hidden: bool = True) -> Example:
    one = example(index, 4 + index, strand=strand, seed=2)
    states = np.random.default_rng([9, index]).normal(size=(len(one.trajectory.tokens), 5)).astype(np.float32)
    return replace(one, teacher_hidden=states if hidden else None)


def objective_of(policy: Policy, strands: list[Strand], examples: list[Example]) -> Objective:
    head = torch.randn(policy.head_VH.shape[0], 5, generator=torch.Generator().manual_seed(4))
    return Objective(strands, normalisers(strands, examples), {}, old_is_current=True, target_heads={"teacher": head})


def of_one(policy: Policy, one: Example, objective: Objective, kernel: Div) -> Tensor:
    """[T] dense divergences of one example's tokens."""
    assert one.teacher_hidden is not None
    batch, slots_N = packed_row([(one.trajectory.train_context, one.trajectory.tokens)], "cpu")
    logits = packed_hidden(policy.backbone, batch, slots_N) @ policy.head_VH.T
    return dense(kernel, logits, torch.from_numpy(one.teacher_hidden) @ objective.target_heads["teacher"].T)


def test_a_step_reads_hidden_states_and_a_head_where_its_strands_do(policy: Policy) -> None:
    shared, other = full("reverse"), full("jsd", beta=0.3, temperature=2.0)
    strands = [
        strand("a", term(shared), term(other, coefficient=0.5)),
        RECIPES["sft"][0].model_copy(update={"name": "b"}),  # reads no target, and its rows bring none
        strand("c", term(shared, reduce="sequence")),
    ]
    examples = [taught(index, strand=index % 3, hidden=index % 3 != 1) for index in range(6)]
    step = objective_of(policy, strands, examples)
    loss = evaluate_part(policy, examples, step).loss
    first, second = [0, 3], [2, 5]
    tokens = sum(len(examples[i].trajectory.tokens) for i in first)
    want = torch.stack(
        [
            *(of_one(policy, examples[i], step, shared).sum() / tokens for i in first),
            *(0.5 * of_one(policy, examples[i], step, other).sum() / tokens for i in first),
            evaluate_part(policy, [examples[1], examples[4]], step).loss,
            *(of_one(policy, examples[i], step, shared).mean() / 2 for i in second),
        ]
    ).sum()
    torch.testing.assert_close(loss, want)
    weights = [*policy.backbone.parameters(), policy.head_VH]
    weights = list({id(one): one for one in weights}.values())
    found = torch.autograd.grad(loss, weights)
    for ours, theirs in zip(found, torch.autograd.grad(want, weights), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_token_whose_target_is_unknown_is_refused_where_it_is_read(policy: Policy) -> None:
    strands = [strand("a", term(full("forward")))]
    examples = [taught(0, strand=0), taught(1, strand=0, hidden=False)]
    with pytest.raises(ValueError, match=r"strand 'a': div forward .* unknown .NaN. on 5 of 9 trained tokens; ask"):
        evaluate_part(policy, examples, objective_of(policy, strands, examples))


def test_a_restricted_term_needs_the_target_where_it_reads_alone(policy: Policy) -> None:
    examples = [taught(0, strand=0), taught(1, strand=0, hidden=False)]
    own = examples[1].trajectory
    hint = replace(own, origin=np.full_like(own.origin, int(Origin.HINT)))
    examples[1] = replace(examples[1], trajectory=hint)
    strands = [strand("a", term(full("forward"), origins=("demonstration",)))]
    loss = evaluate_part(policy, examples, objective_of(policy, strands, examples)).loss
    torch.testing.assert_close(
        loss, of_one(policy, examples[0], objective_of(policy, strands, examples), full("forward")).mean()
    )
    loss.backward()
    assert policy.head_VH.grad is not None
    assert bool(policy.head_VH.grad.isfinite().all())
