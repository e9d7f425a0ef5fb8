"""Builders for the engines' tests: tiny models whose distributions are far from uniform, and requests."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.engine import SampleRequest
from actors.torch_sampling import reshape
from actors.weights import Weights, pack
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.models import build, save_hf
from policies.tokens import Tokenizer
from policies.trajectory import Sampling

MODEL = TinyModel(context=96)


def empty_folder(directory: Path) -> Path:
    """Config and tokenizer, no weights."""
    return materialise(MODEL, directory)


def drawn_model(folder: Path, seed: int, model: TinyModel = MODEL) -> Any:
    """A model drawn from `seed`, spread so that its next tokens differ by whole nats."""
    made = build(folder, model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.06)
            else:
                parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator).to(parameter.dtype))
            assert torch.isfinite(parameter).all(), name
    return made


def weights_of(model: Any, version: int) -> Weights:
    """What the learner publishes."""
    return pack(model.named_parameters(), version)


def saved(model: Any, source: Path, directory: Path) -> Path:
    """The model as a Hugging Face folder."""
    save_hf(model, source, directory)
    return directory


def requests(
    folder: Path, prompts: list[str], *, name: str = "r", seed: int = 0, **sampling: Any
) -> list[SampleRequest]:
    """One request for each prompt."""
    tokenizer = Tokenizer.load(folder)
    return [
        SampleRequest(f"{name}{index}", tokenizer.encode(text), Sampling(**sampling), seed + index)
        for index, text in enumerate(prompts)
    ]


PROMPTS = ["12+34=", "7-5=", "901+88=", "1+1=", "hello there", "5", "999-1=", "abc"]
"""Of unequal lengths, so that padding is at work."""


@torch.no_grad()
def reference_logps(model: Any, context: np.ndarray, tokens: np.ndarray) -> torch.Tensor:
    """[T, V] next-token log-probabilities from one plain forward of one unpadded sequence."""
    ids = torch.from_numpy(np.concatenate([context, tokens]).astype(np.int64))[None]
    logits = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits[len(context) - 1 : -1].log_softmax(-1)


def chosen(logps_TV: torch.Tensor, tokens: np.ndarray) -> np.ndarray:
    """[T] of the given tokens."""
    return logps_TV.gather(1, torch.from_numpy(tokens.astype(np.int64))[:, None])[:, 0].numpy()


def processed(logps_TV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """[T, V] log-probabilities after temperature, top-k and top-p; at temperature 0 those of temperature 1."""
    return reshape(logps_TV, [sampling] * len(logps_TV)).log_softmax(-1)
