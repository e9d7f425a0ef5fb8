"""`Average`: float32 weights that follow another's: replaced by them, or a share of them mixed in (Polyak averaging).

Kept on the host in float32, whatever the models' type: in bfloat16 a share of 0.001 of a small change would be lost.
On disk it is one safetensors file, without pickle.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.weights import Weights, pack, views

if TYPE_CHECKING:
    import torch

FILE: Final = "weights.safetensors"
"""In the directory that `save` is given."""
VERSION: Final = "version"


class Average:
    """Holds nothing before the first `replace` or `load`. Its version counts its own changes, not the learner's."""

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._version = -1

    def replace(self, weights: Weights) -> None:
        """Forget what was and take these."""
        self._dtypes = {name: tensor.dtype for name, tensor in views(weights)}
        self._tensors = {
            name: tensor.float() if _moves(tensor) else tensor.clone() for name, tensor in _copies(weights)
        }
        self._version += 1

    def mix(self, weights: Weights, rate: float) -> None:
        """average = (1 - rate) average + rate weights, each product rounded once; ValueError before any `replace`."""
        if not self._tensors:
            raise ValueError("an average has no weights to mix into; give it whole ones first")
        for name, tensor in views(weights):
            own = self._tensors[name]
            if _moves(tensor):
                own.mul_(1.0 - rate).add_(tensor.float() * rate)
            else:
                own.copy_(tensor)
        self._version += 1

    def weights(self) -> Weights:
        """As an engine loads them, in the type of the weights that were given."""
        return pack(((name, tensor.to(self._dtypes[name])) for name, tensor in self._tensors.items()), self._version)

    def save(self, directory: Path) -> None:
        """Write the average, with the types that it is served in and its version."""
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        types = {name: str(dtype).removeprefix("torch.") for name, dtype in self._dtypes.items()}
        save_file(self._tensors, directory / FILE, metadata=types | {f"/{VERSION}": str(self._version)})

    def load(self, directory: Path) -> None:
        """What `save` wrote, bit for bit; ValueError names a file that cannot be read."""
        import torch
        from safetensors import SafetensorError, safe_open

        path = directory / FILE
        try:
            with safe_open(path, "pt") as file:
                facts = file.metadata()
                self._tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); resume from an earlier checkpoint") from error
        self._version = int(facts.pop(f"/{VERSION}"))
        self._dtypes = {name: getattr(torch, kind) for name, kind in facts.items()}


def _copies(weights: Weights) -> Iterator[tuple[str, "torch.Tensor"]]:
    for name, tensor in views(weights):
        yield name, tensor.clone()


def _moves(tensor: "torch.Tensor") -> bool:
    """Whether a mean of it means anything: a buffer of integers does not."""
    return bool(tensor.is_floating_point())
