"""Which single elements of the parameters other steps moved most, and how they are held still for a step.

MIFO (arXiv 2510.04454) freezes, while it imitates, what reinforcement changed most. The movement of an element is
sum |after - before| over the steps that were not frozen. The `share` is of each tensor's elements, not of all of them
together: tensors of other scale would take it all. Ranks that hold whole parameters have the same sums.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from actors.backend import Backend

FILE: Final = "movement.safetensors"


class Movement:
    """Sums of movement, one tensor for each trainable parameter, on the parameters' device in float32.

    After a frozen step the next movement starts anew on `decay` times the old.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self._sums = [torch.zeros_like(one, dtype=torch.float32, requires_grad=False) for one in self._parameters]
        self._used = False
        """Whether a frozen step has read the sums since they last grew."""

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Add what the steps inside move; it costs one copy of the parameters meanwhile."""
        before = [one.detach().clone() for one in self._parameters]
        yield
        for total, old, new in zip(self._sums, before, self._parameters, strict=True):
            if self._used:
                total.mul_(self._decay)
            total.add_((new.detach().float() - old.float()).abs_())
        self._used = False

    @contextmanager
    def frozen(self, share: float) -> Iterator[list[Tensor]]:
        """Inside, the most-moved elements have gradient 0; gives their masks, for `held`."""
        self._used = True
        masks = [most_moved(total, share) for total in self._sums]
        hooks = [
            parameter.register_hook(_zeroing(mask))  # type: ignore[no-untyped-call]
            for parameter, mask in zip(self._parameters, masks, strict=True)
        ]
        yield masks
        for hook in hooks:
            hook.remove()

    def save(self, directory: Path) -> None:
        """Write the sums."""
        named = {str(index): total.cpu() for index, total in enumerate(self._sums)}
        save_file(named, directory / FILE, metadata={"used": str(int(self._used))})

    def load(self, directory: Path) -> None:
        """What `save` wrote; ValueError names a file that cannot be read."""
        path = directory / FILE
        try:
            with safe_open(path, "pt") as file:
                self._used = file.metadata()["used"] == "1"
                for index, total in enumerate(self._sums):
                    total.copy_(file.get_tensor(str(index)))
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); resume from an earlier checkpoint") from error


def most_moved(total: Tensor, share: float) -> Tensor:
    """bool: the `share` of the elements with the largest movement (ties included); never one that did not move."""
    count = int(share * total.numel())
    if not count:
        return torch.zeros_like(total, dtype=torch.bool)
    least = total.flatten().topk(count).values[-1]
    return (total >= least) & (total > 0)


@contextmanager
def held(backend: Backend, masks: Sequence[Tensor]) -> Iterator[None]:
    """An optimizer step inside leaves these elements bit for bit as they are: no momentum, no decay."""
    cut = backend.as_masters(list(masks))
    kept = [master[mask].clone() for master, mask in zip(backend.masters(), cut, strict=True)]
    yield
    with torch.no_grad():
        for master, mask, old in zip(backend.masters(), cut, kept, strict=True):
            master[mask] = old
    backend.refresh()


def _zeroing(mask: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient.masked_fill(mask, 0.0)
