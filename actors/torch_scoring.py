"""Log-probabilities of given tokens from a Hugging Face model, in batches of like length.

Axes: B sequences, S slots of a left-padded row, T response tokens, V vocabulary, K top-k.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from actors.engine import TokenScores
from policies.trajectory import Float32, Int32

LOGITS = 1 << 26
"""Most logits of one forward: 256 MiB in float32."""
SLOTS = 1 << 14
"""Most token slots of one forward."""


@torch.no_grad()
def score_sequences(model: Any, sequences: Sequence[tuple[Int32, Int32]], top_k: int) -> list[TokenScores]:
    """Scores of each (context, tokens) pair at temperature 1, in the order given."""
    found: dict[int, TokenScores] = {}
    for batch in batches(sequences, int(model.config.vocab_size)):
        logps_BTV = _response_logps(model, [sequences[index] for index in batch])
        for row, index in enumerate(batch):
            tokens = sequences[index][1]
            found[index] = _scores(logps_BTV[row, -len(tokens) :], tokens, top_k)
    return [found[index] for index in range(len(sequences))]


@torch.no_grad()
def hidden_states(model: Any, sequences: Sequence[tuple[Int32, Int32]]) -> list[Float32]:
    """[T, H] of each (context, tokens) pair: the decoder's last hidden states where the tokens are predicted."""
    found: dict[int, Float32] = {}
    for batch in batches(sequences, int(model.config.hidden_size)):
        joined = [np.concatenate(sequences[index]) for index in batch]
        ids_BS, mask_BS = left_padded(joined, 0, model.device)
        output = model.get_decoder()(
            input_ids=ids_BS, attention_mask=mask_BS, position_ids=positions(mask_BS), use_cache=False
        )
        hidden_BSH = output.last_hidden_state[:, :-1].float().cpu().numpy()
        for row, index in enumerate(batch):
            found[index] = hidden_BSH[row, -len(sequences[index][1]) :].copy()
    return [found[index] for index in range(len(sequences))]


def batches(sequences: Sequence[tuple[Int32, Int32]], vocabulary: int) -> Iterator[list[int]]:
    """Indices, longest first, cut so that one forward stays within LOGITS and SLOTS; a sequence too long goes alone."""
    order = sorted(range(len(sequences)), key=lambda i: -(len(sequences[i][0]) + len(sequences[i][1])))
    batch: list[int] = []
    slots = response = 0
    for index in order:
        context, tokens = sequences[index]
        response = max(response, len(tokens) + 1)
        rows = len(batch) + 1
        if batch and (rows * response * vocabulary > LOGITS or rows * slots > SLOTS):
            yield batch
            batch, response = [], len(tokens) + 1
        if not batch:
            slots = len(context) + len(tokens)
        batch.append(index)
    if batch:
        yield batch


def _response_logps(model: Any, pairs: Sequence[tuple[Int32, Int32]]) -> torch.Tensor:
    """[B, T, V] log-probabilities of every next token, right-aligned: the last slot predicts the last token."""
    joined = [np.concatenate(pair) for pair in pairs]
    ids_BS, mask_BS = left_padded(joined, 0, model.device)
    longest = max(len(tokens) for _, tokens in pairs)
    output = model(
        input_ids=ids_BS,
        attention_mask=mask_BS,
        position_ids=positions(mask_BS),
        use_cache=False,
        logits_to_keep=longest + 1,
    )
    logps_BTV: torch.Tensor = output.logits[:, :-1].float().log_softmax(-1)
    return logps_BTV


def _scores(logps_TV: torch.Tensor, tokens: Int32, top_k: int) -> TokenScores:
    chosen_T1 = torch.from_numpy(tokens.astype(np.int64)).to(logps_TV.device)[:, None]
    logps_T = logps_TV.gather(1, chosen_T1)[:, 0].cpu().numpy()
    if not top_k:
        return TokenScores(logps_T)
    best = logps_TV.topk(min(top_k, logps_TV.shape[-1]), -1)
    return TokenScores(logps_T, best.indices.cpu().numpy().astype(np.int32), best.values.cpu().numpy())


def left_padded(sequences: Sequence[Int32], pad: int, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [B, S], every sequence ending in the last slot."""
    longest = max(len(sequence) for sequence in sequences)
    ids_BS = np.full((len(sequences), longest), pad, np.int64)
    mask_BS = np.zeros((len(sequences), longest), np.int64)
    for row, sequence in enumerate(sequences):
        ids_BS[row, longest - len(sequence) :] = sequence
        mask_BS[row, longest - len(sequence) :] = 1
    return torch.from_numpy(ids_BS).to(device), torch.from_numpy(mask_BS).to(device)


def positions(mask_BS: torch.Tensor) -> torch.Tensor:
    """0, 1, 2 ... from each row's first real slot."""
    return (mask_BS.cumsum(1) - 1).clamp(min=0)
