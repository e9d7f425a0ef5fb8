"""A Hugging Face model with a scalar head, read in batches: what the judging actor holds, or a script in its process.

Texts of like length share a batch, right-padded, of at most so many tokens; equal texts are read once. The order of
the texts does not change what is read together, nor the padding an output. Axes: B texts of a batch, T its longest.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from verifiers.grader import LATE
from verifiers.scalar_folder import ScalarFolder, examine, fingerprint
from verifiers.scalar_framing import Framed, Framer, TooLongError
from verifiers.score import Status
from verifiers.served import Exchange, Models, Reading, ScalarModel, Wanted

BATCH_TOKENS = 8192
"""Most tokens of a batch, padding included, where nobody says otherwise; a longer text goes alone."""

ONCE = "gives one number for a text, not one for each step; give a token classifier, or what prm_training leaves"

REASON = 200
"""Characters of an error that are passed on."""


def model_for(wanted: Wanted, models: Models) -> ScalarModel:
    """The model that somebody serves under this name; else one that loads in this process when it is first read."""
    served: Any = models.get(wanted.name)
    return served if served is not None else Unloaded(wanted.path)


class Unloaded:
    """A model of this process that is loaded when it is first read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._model: ScalarHead | None = None

    def read(self, exchanges: Sequence[Exchange], seconds: float) -> list[Reading]:
        """Readings; the time to load is not counted."""
        if self._model is None:
            self._model = ScalarHead(self._path)
        return self._model.read(exchanges, seconds)

    def identity(self) -> str:
        """The folder's fingerprint."""
        return fingerprint(examine(self._path).path)


class ScalarHead:
    """A loaded model. ValueError at the start for a folder that holds no scalar head."""

    def __init__(self, path: str, *, batch_tokens: int = BATCH_TOKENS, device: str = "cpu") -> None:
        self._folder = examine(path)
        self._identity = fingerprint(self._folder.path)
        self._batch_tokens, self._device = batch_tokens, device
        self._model, tokenizer = _load(self._folder, device)
        self._linear: Any = getattr(self._model, "score", None)
        self._framer = Framer(self._folder, tokenizer, pairs=self._linear is None and _encodes(tokenizer))

    def identity(self) -> str:
        """The folder's fingerprint."""
        return self._identity

    def read(self, exchanges: Sequence[Exchange], seconds: float) -> list[Reading]:
        """A reading of each, in order; a text that cannot be read costs only its own."""
        until = time.monotonic() + seconds
        framed = [self._framed(one, until) for one in exchanges]
        wanted = {one for one in framed if isinstance(one, Framed)}
        found: dict[Framed, Reading] = {}
        for batch in batches(wanted, self._batch_tokens):
            found.update(self._read_batch(batch, until))
        return [found[one] if isinstance(one, Framed) else one for one in framed]

    def _framed(self, exchange: Exchange, until: float) -> Framed | Reading:
        if time.monotonic() > until:
            return Reading((), Status.TIMEOUT, LATE)
        try:
            if exchange.ends and not self._folder.every_token:
                raise ValueError(f"{self._folder.path} {ONCE}")
            return self._framer.frame(exchange)
        except TooLongError as error:
            return Reading((), Status.REFUSED, str(error))
        except Exception as error:  # noqa: BLE001  (tokenizers and templates raise what they like on a stranger's text)
            return Reading((), Status.ERROR, f"{type(error).__name__}: {error}"[:REASON])

    def _read_batch(self, batch: Sequence[Framed], until: float) -> Mapping[Framed, Reading]:
        """Readings of a batch; one that fails is halved until the text that fails is alone."""
        if time.monotonic() > until:
            return dict.fromkeys(batch, Reading((), Status.TIMEOUT, LATE))
        try:
            return dict(zip(batch, map(_finite, self._outputs(batch)), strict=True))
        except Exception as error:  # noqa: BLE001  (out of memory, an id beyond the embeddings: no verdict, not a crash)
            if len(batch) == 1:
                return {batch[0]: Reading((), Status.ERROR, f"{type(error).__name__}: {error}"[:REASON])}
        half = len(batch) // 2
        return {**self._read_batch(batch[:half], until), **self._read_batch(batch[half:], until)}

    def _outputs(self, batch: Sequence[Framed]) -> list[tuple[float, ...]]:
        """The head's outputs at the tokens that each text asks for, in float32."""
        import torch

        ids_BT, mask_BT, given = self._padded(batch)
        row = torch.tensor([at for at, one in enumerate(batch) for _ in one.at], device=self._device)
        column = torch.tensor([place for one in batch for place in one.at], device=self._device)
        with torch.inference_mode():
            if self._linear is not None:
                read = self._model.base_model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, **given)
                logits = self._linear(read.last_hidden_state[row, column])
            else:
                logits = self._model(input_ids=ids_BT, attention_mask=mask_BT, **given).logits
                logits = logits[row, column] if self._folder.kind == "token" else logits[row]
        flat = logits.float()
        values = iter((flat[:, 1] - flat[:, 0] if self._folder.labels == 2 else flat[:, 0]).tolist())
        return [tuple(next(values) for _ in one.at) for one in batch]

    def _padded(self, batch: Sequence[Framed]) -> tuple[Any, Any, dict[str, Any]]:
        import torch

        longest = max(len(one.ids) for one in batch)
        pad = self._folder.pad_id or 0
        rows = [[*one.ids, *[pad] * (longest - len(one.ids))] for one in batch]
        mask = [[1] * len(one.ids) + [0] * (longest - len(one.ids)) for one in batch]
        given = {}
        if batch[0].segments:
            parts = [[*one.segments, *[0] * (longest - len(one.ids))] for one in batch]
            given["token_type_ids"] = torch.tensor(parts, device=self._device)
        return torch.tensor(rows, device=self._device), torch.tensor(mask, device=self._device), given


def batches(texts: Iterable[Framed], most: int) -> Iterator[list[Framed]]:
    """The texts by rising length, for the most verdicts in time, at most `most` tokens with padding in a batch."""
    batch: list[Framed] = []
    for one in sorted(texts, key=lambda one: (len(one.ids), one.ids, one.at)):
        if batch and len(one.ids) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _finite(outputs: tuple[float, ...]) -> Reading:
    strange = next((one for one in outputs if not math.isfinite(one)), None)
    if strange is not None:
        return Reading((), Status.ERROR, f"the head's output is {strange}")
    return Reading(outputs)


# ---------------------------------------------------------------- loading


def _load(folder: ScalarFolder, device: str) -> tuple[Any, Any]:
    """(model, fast tokenizer) of the folder: safetensors alone, none of its code, every weight from the file."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

    of_kind: Any = AutoModelForSequenceClassification if folder.kind == "sequence" else AutoModelForTokenClassification
    given = {"local_files_only": True, "trust_remote_code": False}
    model, report = of_kind.from_pretrained(
        folder.path, dtype="auto", use_safetensors=True, output_loading_info=True, **given
    )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"{folder.path}: has no weights for {missing}; copy the folder again, or train the head first")
    if device == "cpu" and model.dtype == torch.float16:
        model = model.float()  # half precision computes nothing faster there, and overflows
    tokenizer = AutoTokenizer.from_pretrained(folder.path, use_fast=True, **given)
    if not tokenizer.is_fast:
        raise ValueError(f"{folder.path}: its tokenizer has no offsets; save the fast one there (tokenizer.json)")
    return model.to(device).eval().requires_grad_(False), tokenizer


def _encodes(tokenizer: Any) -> bool:
    """Whether the tokenizer parts two texts, as encoders' do."""
    return tokenizer.sep_token is not None and tokenizer.cls_token is not None


def open_folder(path: str | Path, **how: Any) -> ScalarModel:
    """The model of a folder, loaded now."""
    return ScalarHead(str(path), **how)
