"""`Backend`: what the learner needs of an engine that holds the model, its gradients and its optimizer."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from policies.config import Optimizer

Compute = Callable[[], Tensor]
"""A forward pass up to its loss; it reads the model that the backend holds."""


@dataclass(frozen=True, slots=True)
class Update:
    """What became of one optimizer update."""

    gradient_norm: float
    """Global norm before clipping; NaN when it was not finite, and then nothing changed."""

    @property
    def applied(self) -> bool:
        """Whether parameters and moments moved."""
        return not math.isnan(self.gradient_norm)


class Backend(Protocol):
    """One rank's engine. Every method but `masters` and `adam` is collective: all ranks call it alike."""

    adam: torch.optim.AdamW
    """Its state is keyed by the tensors of `masters`."""

    def forward(self, compute: Compute) -> Tensor:
        """Run a forward pass with every parameter in place."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`; over ranks and calls the gradients sum."""
        ...

    def step(self) -> Update:
        """Clip and apply the summed gradient, or drop it on all ranks when its norm is not finite."""
        ...

    def begin(self, optimizer: Optimizer) -> None:
        """Fresh moments and the optimizer's constants; the weights stay."""
        ...

    def gathered(self) -> AbstractContextManager[None]:
        """Inside, every rank sees whole parameters."""
        ...

    def masters(self) -> list[Tensor]:
        """This rank's float32 tensors that the optimizer moves."""
        ...

    def refresh(self) -> None:
        """Write the masters back into the model, after they were changed."""
        ...

    def adopt(self, parameters: Sequence[Tensor]) -> None:
        """Take these values for the trainable parameters, whole, in their order; moments stay."""
        ...

    def as_masters(self, columns: list[Tensor]) -> list[Tensor]:
        """Tensors of the trainable parameters' shapes (masks), cut as this rank's masters are."""
        ...


def make_adam(parameters: list[Tensor] | list[nn.Parameter]) -> torch.optim.AdamW:
    """torch's AdamW; a stage sets its constants with `configure`."""
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=True)


def configure(adam: torch.optim.AdamW, optimizer: Optimizer) -> None:
    """No moments, and the constants of a stage."""
    adam.state.clear()
    for group in adam.param_groups:
        group["betas"] = optimizer.betas
        group["eps"] = optimizer.eps
        group["weight_decay"] = optimizer.weight_decay


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that have a gradient, tied ones once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def clip_in_place(gradients: list[Tensor], limit: float) -> float:
    """Scale to at most `limit` in global norm; returns the norm before, NaN (and no scaling) when not finite."""
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not math.isfinite(norm):
        return math.nan
    if norm > limit:
        torch._foreach_mul_(gradients, limit / norm)
    return norm
