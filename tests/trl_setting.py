"""What TRL's loss methods read of their trainer, without its __init__: a table for a model, a lone process.

A prompt is one token (so that TRL's losses over prompt and response speak of the response alone); the logits of its
position and of the response's, but the last, are the case's.
"""

import ast
import contextlib
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import CodeType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from trl.trainer.utils import FusedCausalLMOutput, entropy_from_logits, selective_log_softmax

from tests.parity_case import Case, Floats


@dataclass(frozen=True, slots=True)
class Answer:
    """A loss and its gradient with respect to the policy's logits [B, T, V]."""

    loss: float
    gradient_BTV: Floats


class Table(nn.Module):
    """A model that answers with the rows of a table of logits [B, 1 + T, V], whatever it is asked."""

    def __init__(self, logits_BTV: Floats, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(logits_BTV, dtype=dtype))
        self.is_gradient_checkpointing = False
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(), is_encoder_decoder=False)

    def logits(self) -> Tensor:
        """The table, and a last position that predicts nothing."""
        return torch.cat([self.table, torch.zeros_like(self.table[:, :1])], 1)

    def forward(self, *_: Any, labels: Tensor | None = None, fused_lm_head: bool = False, **__: Any) -> Any:
        """Logits, or TRL's record of what its fused head finds at the labels: 0 where the label is -100."""
        if not fused_lm_head:
            return SimpleNamespace(logits=self.logits())
        assert labels is not None
        mask, logits = labels[:, 1:] != -100, self.logits()[:, :-1]
        logps = selective_log_softmax(logits, labels[:, 1:].clamp(min=0), row_mask=mask)
        return FusedCausalLMOutput(
            log_probs=logps,
            entropy=entropy_from_logits(logits).masked_fill(~mask, 0.0),
            log_sum_sq_probs=(2 * logits.log_softmax(-1)).logsumexp(-1).masked_fill(~mask, 0.0).detach(),
            mean_logits=logits.mean(-1).masked_fill(~mask, 0.0).detach(),
            is_top1=(logits.argmax(-1) == labels[:, 1:]) & mask,
            label_mask=mask,
        )


def alone() -> SimpleNamespace:
    """What accelerate offers to a single process on a CPU."""
    same: Callable[..., Any] = lambda x, *_, **__: x  # noqa: E731
    return SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        is_main_process=True,
        sync_gradients=True,
        gather=same,
        gather_for_metrics=same,
        reduce=same,
        pad_across_processes=same,
        unwrap_model=same,
        autocast=contextlib.nullcontext,
    )


def bare(kind: type, model: Table, args: dict[str, Any], **attributes: Any) -> Any:
    """A trainer of this kind that has nothing but what its loss reads."""
    trainer = object.__new__(kind)
    trainer.__dict__.update(
        {
            "model": model,
            "accelerator": alone(),
            "args": SimpleNamespace(gradient_checkpointing_kwargs=None, report_to=[], **args),
            "aux_loss_enabled": False,
            "current_gradient_accumulation_steps": 1,
            "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
            "_total_train_tokens": 0,
            "_tp_size": 1,
            **attributes,
        }
    )
    return trainer


def answer(loss: Tensor, model: Table) -> Answer:
    """The loss and what it does to the table."""
    (gradient,) = torch.autograd.grad(loss, [model.table])
    return Answer(float(loss.detach()), gradient.double().numpy())


def ids(case: Case) -> tuple[Tensor, Tensor]:
    """Token ids [B, 1 + T] with the prompt, and the mask [B, 1 + T] of the response."""
    first = np.zeros((len(case.tokens_BT), 1), np.int64)
    tokens = torch.tensor(np.concatenate([first, case.tokens_BT], 1))
    return tokens, torch.tensor(np.concatenate([first, case.mask_BT.astype(np.int64)], 1))


def attention(completion: Tensor) -> Tensor:
    """The mask of the prompt's token and the response's."""
    return torch.cat([torch.ones_like(completion[:, :1]), completion[:, 1:]], 1)


def tensor(values: Any) -> Tensor:
    """In float64."""
    return torch.tensor(np.asarray(values, np.float64))


@cache
def excerpt(method: Callable[..., Any], first: str, last: str | None = None, containing: str = "") -> CodeType:
    """The method's own statements, from the one that begins with `first` to the one that begins with `last`.

    Texts are those of ast.unparse; without `last` it is the one statement. `containing` tells apart equal beginnings.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        texts = [ast.unparse(one) for one in body] if isinstance(body, list) else []
        starts = [i for i, text in enumerate(texts) if text.startswith(first) and containing in text]
        if not starts:
            continue
        ends = [i for i, text in enumerate(texts) if last and text.startswith(last)] or starts
        return compile(ast.Module(body[starts[0] : ends[-1] + 1], []), method.__qualname__, "exec")
    raise AssertionError(f"{method.__qualname__}: no statement that begins with {first!r}")
