"""What a divergence over the whole vocabulary must agree with: dense float64 log-softmax and autograd."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from policies.config import Div

TOKENS, VOCABULARY, HIDDEN, TARGET_HIDDEN = 37, 23, 6, 4
"""With chunks of 16 the last one is ragged, and so is the last block of a chunk of 37."""

FORMS = {
    "forward": Div(form="forward", support="full"),
    "reverse": Div(form="reverse", support="full"),
    "jsd": Div(form="jsd", beta=0.3, support="full"),
    "jsd at 0": Div(form="jsd", beta=0.0, support="full"),
    "jsd at 1": Div(form="jsd", beta=1.0, support="full"),
    "tempered forward": Div(form="forward", temperature=2.0, support="full"),
    "tempered reverse": Div(form="reverse", temperature=0.7, support="full"),
    "tempered jsd": Div(form="jsd", beta=0.8, temperature=2.0, support="full"),
}


def inputs(tokens: int = TOKENS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states and head of a policy that trains, and of a target of another hidden size."""
    draw = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    hidden, head = normal(tokens, HIDDEN), normal(VOCABULARY, HIDDEN)
    return hidden.requires_grad_(), head.requires_grad_(), normal(tokens, TARGET_HIDDEN), normal(VOCABULARY, 4)


def slope(tokens: int) -> Tensor:
    """What the loss multiplies each token's divergence by."""
    return torch.linspace(-1.0, 2.0, tokens, dtype=torch.float64)


def dense(kernel: Div, ours_NV: Tensor, theirs_NV: Tensor) -> Tensor:
    """The divergence from logits, written from the definition."""
    p, q = ((one / kernel.temperature).softmax(-1) for one in (ours_NV, theirs_NV))

    def kl(left: Tensor, right: Tensor) -> Tensor:
        return (left * (left / right).log()).sum(-1)

    if kernel.form == "forward" or (kernel.form == "jsd" and kernel.beta == 0):
        return kl(q, p)
    if kernel.form == "reverse" or kernel.beta == 1:
        return kl(p, q)
    mixture = kernel.beta * q + (1 - kernel.beta) * p
    return kernel.beta * kl(q, mixture) + (1 - kernel.beta) * kl(p, mixture)


def agrees(load: Any, name: str, chunk: int | None) -> None:
    """Value and both gradients; `load` gives the modules under test. Raises AssertionError otherwise."""
    under_test: ModuleType = load("full_divergence")
    key = load("slots").WholeVocabulary.of(FORMS[name])
    hidden, head, target_hidden, target_head = inputs()
    got = under_test.whole_divergence(hidden, head, target_hidden, target_head, [key], chunk)[key]
    want = dense(FORMS[name], hidden @ head.T, target_hidden @ target_head.T)
    torch.testing.assert_close(got, want)
    weights = slope(TOKENS)
    found = torch.autograd.grad((got * weights).sum(), [hidden, head])
    torch.testing.assert_close(found, torch.autograd.grad((want * weights).sum(), [hidden, head]))


def two_agree(load: Any) -> None:
    """Two divergences that share their chunks, pulled unequally, with gradients that add up."""
    key_of = load("slots").WholeVocabulary.of
    kernels = [FORMS["tempered reverse"], FORMS["jsd"]]
    hidden, head, target_hidden, target_head = inputs()
    keys = [key_of(kernel) for kernel in kernels]
    got = load("full_divergence").whole_divergence(hidden, head, target_hidden, target_head, keys, 16)
    weights = slope(TOKENS)
    ours = sum(scale * (got[key] * weights).sum() for key, scale in zip(keys, (1.0, -0.3), strict=True))
    theirs = sum(
        scale * (dense(kernel, hidden @ head.T, target_hidden @ target_head.T) * weights).sum()
        for kernel, scale in zip(kernels, (1.0, -0.3), strict=True)
    )
    found = torch.autograd.grad(ours, [hidden, head])
    torch.testing.assert_close(found, torch.autograd.grad(theirs, [hidden, head]))


def all_agree(load: Any) -> None:
    """Every form, in several chunks and in one."""
    for name in FORMS:
        for chunk in (16, None):
            agrees(load, name, chunk)
    two_agree(load)
