"""Packed and padded layouts are one model; chunked log-probabilities are log_softmax."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from policies.attention import PACKED, packed_hidden, plan_packing
from policies.batch import collate
from policies.example import Example
from policies.logprobs import token_logprobs
from tests.test_trajectory import demonstration

RAGGED = ((3, 1), (9, 30), (1, 1), (5, 29), (2, 12), (4, 11), (1, 60))
"""(context, response) lengths, with responses of one token and a row of one slot."""


def example(context: int, size: int, seed: int = 0) -> Example:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 50, context + size).astype(np.int32)
    one = demonstration(size, id=f"t{seed}", train_context=ids[:context], tokens=ids[context:])
    return Example(one, strand=0, advantages=np.ones(size, np.float32))


def model(kind: str, attention: str, window: int | None = None) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = dict(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, attn_implementation=attention,
    )  # fmt: skip
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    sliding = dict(use_sliding_window=True, sliding_window=window, max_window_layers=0) if window else {}
    return Qwen3ForCausalLM(Qwen3Config(head_dim=8, **shape, **sliding))


def single(net: PreTrainedModel, one: Example) -> Tensor:
    """Log-probabilities of one response by the stock model, alone and unpadded."""
    context, tokens = (
        torch.tensor(ids, dtype=torch.int64) for ids in (one.trajectory.train_context, one.trajectory.tokens)
    )
    logits = net(input_ids=torch.cat([context, tokens])[None]).logits[0]
    return logits[len(context) - 1 : -1].log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def gradients(net: PreTrainedModel, logps: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, len(logps))
    return list(torch.autograd.grad((weights * logps).sum(), list(net.parameters())))


@pytest.mark.parametrize(
    ("kind", "window", "stock", "packed"),
    [
        ("llama", None, "sdpa", True),
        ("llama", None, "sdpa", False),
        ("qwen3", None, "eager", True),
        ("qwen3", None, "sdpa", True),
        ("qwen3", None, "sdpa", False),
        ("qwen3", 8, "eager", True),
    ],
)
def test_a_batch_equals_each_sequence_alone(kind: str, window: int | None, stock: str, packed: bool) -> None:
    examples = [example(context, size, seed) for seed, (context, size) in enumerate(RAGGED)]
    alone = model(kind, stock, window)
    want = torch.cat([single(alone, one) for one in examples])

    net = model(kind, PACKED if packed else "sdpa", window)
    batch = collate(examples, pad_id=0, packed=packed)
    slots, responses = batch.responses()
    hidden = packed_hidden(net.get_decoder(), batch, slots)
    got = token_logprobs(hidden, net.lm_head.weight, responses.tokens_BT[0], chunk=7).logps_N

    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients(net, got), gradients(alone, want), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_keeps_the_packing() -> None:
    examples = [example(context, size, seed) for seed, (context, size) in enumerate(RAGGED)]
    batch = collate(examples, pad_id=0)
    slots, responses = batch.responses()
    found = []
    for checkpointing in (False, True):
        net = model("qwen3", PACKED)
        net.train()
        if checkpointing:
            net.gradient_checkpointing_enable({"use_reentrant": False})
        hidden = packed_hidden(net.get_decoder(), batch, slots)
        found.append(gradients(net, token_logprobs(hidden, net.lm_head.weight, responses.tokens_BT[0]).logps_N))
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_packing_pads_little_and_loses_no_slot() -> None:
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(1, 400, 64).tolist(), 0]
    packing = plan_packing(lengths)
    filled = packing.pad_M[~packing.empty_M]
    assert sorted(filled.tolist()) == list(range(sum(lengths)))
    assert torch.equal(packing.pad_M[packing.unpad_N], torch.arange(sum(lengths)))
    area = sum(stack.count * stack.width**2 for stack in packing.stacks)
    assert area < 1.35 * sum(length**2 for length in lengths)
    assert area < 0.6 * len(lengths) * max(lengths) ** 2  # of what padding would compute


def test_packed_attention_without_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the trajectories' bounds"):
        model("llama", PACKED)(input_ids=torch.zeros(1, 3, dtype=torch.int64))


def logits_case(size: int = 11, vocabulary: int = 37) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(size, 8, generator=generator).requires_grad_()
    head = torch.randn(vocabulary, 8, generator=generator).requires_grad_()
    targets = torch.randint(0, vocabulary, (size,), generator=generator)
    ids = torch.stack([torch.randperm(vocabulary, generator=generator)[:4] for _ in range(size)])
    return hidden, head, targets, ids


@pytest.mark.parametrize("chunk", [1, 3, 11, None])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("wanted", ["logps", "entropy", "topk", "all"])
def test_chunked_logprobs_equal_log_softmax_with_gradients(chunk: int | None, temperature: float, wanted: str) -> None:
    hidden, head, targets, ids = logits_case()
    ids[0, 0] = targets[0]  # the sampled token may be among the top-k
    got = token_logprobs(hidden, head, targets, temperature=temperature, topk_ids_NK=ids, chunk=chunk)
    full = (hidden @ head.T / temperature).log_softmax(-1)
    entropy = -(full.exp() * full).sum(-1)
    assert got.topk_logps_NK is not None
    pairs = {
        "logps": (got.logps_N, full.gather(1, targets[:, None])[:, 0]),
        "entropy": (got.entropy_N, entropy),
        "topk": (got.topk_logps_NK, full.gather(1, ids)),
    }
    chosen = list(pairs.values()) if wanted == "all" else [pairs[wanted]]
    ours, theirs = torch.zeros(()), torch.zeros(())
    for mine, want in chosen:
        torch.testing.assert_close(mine, want)
        slope = torch.linspace(-1, 2, mine.numel()).reshape(mine.shape)
        ours, theirs = ours + (slope * mine).sum(), theirs + (slope * want).sum()
    found = torch.autograd.grad(ours, [hidden, head])
    want_gradients = torch.autograd.grad(theirs, [hidden, head])
    for mine, want in zip(found, want_gradients, strict=True):
        torch.testing.assert_close(mine, want, atol=1e-5, rtol=1e-4)


def test_nothing_of_tokens_by_vocabulary_is_kept_for_the_backward() -> None:
    hidden, head, targets, _ = logits_case(size=64, vocabulary=500)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        token_logprobs(hidden, head, targets, chunk=8)
    assert max(kept) == head.numel()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        (hidden @ head.T).log_softmax(-1)
    assert max(kept) == 64 * 500  # what the plain way keeps


def test_a_frozen_head_gets_no_gradient_and_no_tokens_are_fine() -> None:
    hidden, head, targets, _ = logits_case()
    token_logprobs(hidden, head.detach(), targets, chunk=2).logps_N.sum().backward()
    assert head.grad is None
    assert hidden.grad is not None
    none = token_logprobs(hidden[:0], head, targets[:0])
    none.logps_N.sum().backward()
    assert head.grad is not None
    assert not head.grad.any()
