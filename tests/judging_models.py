"""Tiny models with scalar heads as folders, made by transformers itself, and what transformers says of a text."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.chat_folder import CHATML, chat_folder
from verifiers.served import Exchange, Message, Reading

WORDS = ("the sky is blue", "2+2= #4", "what color", "sun", "warm\n\n", "é and 😀", "a b  c", " ", "system", "user")


def classifier_folder(
    folder: Path, *, token: bool = False, labels: int = 1, template: str | None = CHATML, **config: Any
) -> Path:
    """A Qwen3 classifier with weights large enough that texts differ, and the chat tokenizer of the tests."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification, Qwen3ForTokenClassification

    chat_folder(folder, template)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 400, "max_position_embeddings": 256}
    shape |= {"initializer_range": 0.3, "eos_token_id": 2, "pad_token_id": 0, "num_labels": labels}
    kind = Qwen3ForTokenClassification if token else Qwen3ForSequenceClassification
    with torch.random.fork_rng():
        torch.manual_seed(7)
        kind(Qwen3Config(**shape | config)).save_pretrained(folder)
    return folder


def transformers_of(folder: Path, *, token: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer) by the library's own doors."""
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

    kind: Any = AutoModelForTokenClassification if token else AutoModelForSequenceClassification
    return kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def asks(prompt: str, response: str, **more: Any) -> Exchange:
    """One user's turn and a response."""
    return Exchange((Message("user", prompt),), response, **more)


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(prompt, response) of very different lengths."""
    draw = torch.Generator().manual_seed(seed)

    def some(most: int) -> str:
        size = int(torch.randint(1, most + 1, (1,), generator=draw))
        picks: Sequence[int] = torch.randint(0, len(WORDS), (size,), generator=draw).tolist()
        return " ".join(WORDS[one] for one in picks)

    return [(some(4), some(12)) for _ in range(count)]


class Slow:
    """An actor that takes its time."""

    def read(self, exchanges: Sequence[Exchange], seconds: float, asked: float) -> list[Reading]:
        time.sleep(3)
        return [Reading((0.0,)) for _ in exchanges]
