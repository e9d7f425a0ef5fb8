"""Bare torch: the oracle for DeepSpeed, and the lightest engine. Whole parameters and moments on every rank.

Gradients are summed in float32 in one flat buffer, over micro-batches and then over ranks by one all-reduce. A
bfloat16 model is trained through float32 masters.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from actors.backend import Compute, Update, clip_in_place, configure, make_adam, trainable
from policies.config import Optimizer


class TorchBackend:
    """Fits `actors.backend.Backend`."""

    def __init__(self, model: nn.Module, world_size: int) -> None:
        self._model = model
        self._world_size = world_size
        self._parameters = trainable(model)
        self._masters: list[Tensor] = [
            p.detach() if p.dtype == torch.float32 else p.detach().float() for p in self._parameters
        ]
        sizes = [p.numel() for p in self._parameters]
        self._flat = torch.zeros(sum(sizes), device=self._parameters[0].device)
        parts = torch.split(self._flat, sizes)
        self._views = [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]
        self._clip = 1.0
        self.adam = make_adam(self._masters)

    def forward(self, compute: Compute) -> Tensor:
        """Run it as it is."""
        return compute()

    def backward(self, loss: Tensor) -> None:
        """Gradients of this micro-batch, added to the flat buffer."""
        loss.backward()  # type: ignore[no-untyped-call]
        found = [(view, p.grad) for view, p in zip(self._views, self._parameters, strict=True) if p.grad is not None]
        if found:
            torch._foreach_add_([view for view, _ in found], [grad.float() for _, grad in found])
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> Update:
        """Sum over ranks, clip, move the masters, copy them into the model."""
        if self._world_size > 1:
            dist.all_reduce(self._flat)
        norm = clip_in_place(self._views, self._clip)  # by parameter: one sum over all of them loses digits
        update = Update(norm)
        if update.applied:
            for master, view in zip(self._masters, self._views, strict=True):
                master.grad = view
            self.adam.step()
            for master in self._masters:
                master.grad = None
            self.refresh()
        self._flat.zero_()
        return update

    def begin(self, optimizer: Optimizer) -> None:
        """Fresh moments, this stage's constants."""
        self._clip = optimizer.clip
        configure(self.adam, optimizer)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Parameters are always whole."""
        yield

    def masters(self) -> list[Tensor]:
        """The parameters themselves in float32, else their float32 copies."""
        return self._masters

    def refresh(self) -> None:
        """Copy the masters into a bfloat16 model; in float32 they are the model."""
        with torch.no_grad():
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                if parameter.dtype != torch.float32:
                    parameter.copy_(master)

    def adopt(self, parameters: Sequence[Tensor]) -> None:
        """Into the masters and the model."""
        with torch.no_grad():
            for own, master, given in zip(self._parameters, self._masters, parameters, strict=True):
                own.copy_(given)
                master.copy_(own)

    def as_masters(self, columns: list[Tensor]) -> list[Tensor]:
        """Masters have the parameters' shapes."""
        return columns
