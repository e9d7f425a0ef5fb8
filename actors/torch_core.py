"""A Hugging Face model stepped token by token in plain torch: the oracle for vLLM, and the fallback without it.

Requests that arrive together form a cohort: one left-padded batch with its own keys and values. Cohorts take turns,
a token each a step. Axes: B rows, S slots of a left-padded row, V vocabulary.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.engine import Call, Completion, Limits, Load, RequestError, SampleRequest, TokenScores
from actors.torch_sampling import draw
from actors.torch_scoring import hidden_states, left_padded, positions, score_sequences
from actors.weights import Shapes, Weights, needed, views
from policies import models
from policies.config import Model
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Float32, Int32


@dataclass(slots=True, eq=False)
class Row:
    """One request being drawn."""

    request: SampleRequest
    generator: torch.Generator
    room: int
    started: float
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    text: str = ""
    """Known when a stop string ended it."""
    finish_reason: FinishReason | None = None


@dataclass(slots=True, eq=False)
class Cohort:
    """Rows that share a batch; ended rows keep their place until half the batch is idle."""

    rows: list[Row]
    cache: Any = None
    """None: keys and values are computed at the next step, from the contexts and the tokens so far."""
    mask_BS: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def live(self) -> list[int]:
        """Indices of the rows still being drawn."""
        return [index for index, row in enumerate(self.rows) if row.finish_reason is None]

    def compact(self) -> None:
        """Drop ended rows where that pays: always before a recomputation, else when they are half of the batch."""
        live = self.live()
        if len(live) == len(self.rows) or (self.cache is not None and 2 * len(live) > len(self.rows)):
            return
        self.rows = [self.rows[index] for index in live]
        if self.cache is not None and live:
            keep = torch.tensor(live, device=self.mask_BS.device)
            self.cache.batch_select_indices(keep)
            self.mask_BS = self.mask_BS[keep]


class TorchCore:
    """The `Core` over a transformers causal language model, on a GPU when told so."""

    def __init__(self, folder: Path, model: Model, max_concurrent: int, max_model_len: int, load: Load) -> None:
        if load == "folder" and not any(folder.glob("*.safetensors")):
            raise ValueError(f"{folder}: has no *.safetensors to serve; publish weights to the engine instead")
        self._tokenizer = Tokenizer.load(folder)
        self._max_concurrent = max_concurrent
        self._model: Any = models.build(folder, model, seed=0).requires_grad_(False)
        config: Any = self._model.config
        self._limits = Limits(max_model_len, int(config.vocab_size))
        self.shapes: Shapes = needed(self._model)
        self.version = 0 if load == "folder" else -1
        self._waiting: list[Row] = []
        self._cohorts: list[Cohort] = []

    def to(self, device: str) -> "TorchCore":
        """Move the model."""
        self._model.to(device)
        return self

    def add(self, request: SampleRequest) -> None:
        """Queue a request; it joins with the next cohort."""
        tokens = self._limits.room(request)
        generator = torch.Generator(self._model.device).manual_seed(request.seed & (2**63 - 1))
        self._waiting.append(Row(request, generator, tokens, time.monotonic()))

    def busy(self) -> bool:
        """Whether a request is waiting or being drawn."""
        return bool(self._waiting or self._cohorts)

    def step(self) -> list[Completion]:
        """One token for every row of every cohort."""
        space = self._max_concurrent - sum(len(cohort.live()) for cohort in self._cohorts)
        if self._waiting and space > 0:
            self._cohorts.append(Cohort(self._waiting[:space]))
            del self._waiting[:space]
        ended = [row for cohort in self._cohorts for row in self._advance(cohort)]
        self._sweep()
        return [self._completion(row) for row in ended]

    def abort(self, ids: Sequence[str]) -> list[Completion]:
        """End these rows with the tokens they have."""
        wanted = set(ids)
        drawn = [cohort.rows[index] for cohort in self._cohorts for index in cohort.live()]
        ended = [row for row in [*self._waiting, *drawn] if row.request.id in wanted]
        for row in ended:
            row.finish_reason = FinishReason.ABORT
        self._waiting = [row for row in self._waiting if row.finish_reason is None]
        self._sweep()
        return [self._completion(row) for row in ended]

    def score(self, sequences: Sequence[tuple[Int32, Int32]], top_k: int) -> list[TokenScores]:
        """One forward a batch of sequences of like length."""
        self._limits.check_scorable(sequences)
        return score_sequences(self._model, sequences, top_k)

    def hidden(self, sequences: Sequence[tuple[Int32, Int32]]) -> list[Float32]:
        """[T, H] last hidden states at the slots that predict the tokens of each (context, tokens), in float32."""
        self._limits.check_scorable(sequences)
        return hidden_states(self._model, sequences)

    def head(self) -> Float32:
        """[V, H] the matrix that makes logits of hidden states, in float32; ValueError where logits are more."""
        head: Float32 = models.backbone_and_head(self._model)[1].detach().float().cpu().numpy()
        return head

    def load(self, weights: Weights) -> None:
        """Copy into the parameters in place; every cohort's keys and values are computed afresh."""
        own = self._model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, tensor in views(weights):
                own[name].copy_(tensor)
        for cohort in self._cohorts:
            cohort.cache = None
        self.version = weights.manifest.version

    def transfer(self, call: Call, payload: Any) -> None:
        """None: plain torch takes weights as a buffer."""
        raise RequestError(f"the torch engine has no weight transfer to {call}; publish with update_weights")

    def close(self) -> None:
        """Drop the model."""
        del self._model

    # ------------------------------------------------------------ one step

    @torch.no_grad()
    def _advance(self, cohort: Cohort) -> list[Row]:
        """Draw one token for each live row; the rows that ended with it."""
        cohort.compact()
        live = cohort.live()
        logits_BV = (self._prefill(cohort) if cohort.cache is None else self._decode(cohort))[live]
        rows = [cohort.rows[index] for index in live]
        samplings = [row.request.sampling for row in rows]
        tokens_B, logps_B = draw(logits_BV, samplings, [row.generator for row in rows])
        for row, token, logp in zip(rows, tokens_B.tolist(), logps_B.tolist(), strict=True):
            row.tokens.append(token)
            row.logps.append(logp)
            row.versions.append(self.version)
            self._judge(row)
        return [row for row in rows if row.finish_reason]

    def _prefill(self, cohort: Cohort) -> torch.Tensor:
        """Logits [B, V] after the contexts and all tokens so far; fills the cache."""
        from transformers import DynamicCache

        sequences = [np.concatenate([row.request.context, np.asarray(row.tokens, np.int32)]) for row in cohort.rows]
        ids_BS, cohort.mask_BS = left_padded(sequences, self._tokenizer.pad_id, self._model.device)
        cohort.cache = DynamicCache(config=self._model.config)
        return self._forward(ids_BS, cohort.mask_BS, positions(cohort.mask_BS), cohort.cache)

    def _decode(self, cohort: Cohort) -> torch.Tensor:
        """Logits [B, V] after each row's last token."""
        last_B1 = torch.tensor([row.tokens[-1:] or [0] for row in cohort.rows], device=self._model.device)
        cohort.mask_BS = torch.cat([cohort.mask_BS, torch.ones_like(last_B1)], 1)
        return self._forward(last_B1, cohort.mask_BS, positions(cohort.mask_BS)[:, -1:], cohort.cache)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, place: torch.Tensor, cache: Any) -> torch.Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def _judge(self, row: Row) -> None:
        """Set why the row ends with its newest token, if it does."""
        stops = row.request.sampling.stop
        if stops:
            text = self._tokenizer.decode(row.tokens)
            ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
            if ends:
                row.text, row.finish_reason = text[: min(ends)], FinishReason.STOP
                return
        if row.tokens[-1] in self._tokenizer.eos_ids:
            row.finish_reason = FinishReason.STOP
        elif len(row.tokens) == row.room:
            row.finish_reason = FinishReason.LENGTH

    def _sweep(self) -> None:
        self._cohorts = [cohort for cohort in self._cohorts if cohort.live()]

    def _completion(self, row: Row) -> Completion:
        return Completion(
            id=row.request.id,
            tokens=np.asarray(row.tokens, np.int32),
            logps=np.asarray(row.logps, np.float32),
            versions=np.asarray(row.versions, np.int32),
            text=row.text or self._tokenizer.decode(row.tokens),
            finish_reason=row.finish_reason or FinishReason.ERROR,
            seconds=time.monotonic() - row.started,
        )
