"""Drawing the next token in plain torch. Equal seeds give equal tokens here, not those of vLLM's own noise.

Axes: B rows, V vocabulary.
"""

from collections.abc import Sequence

import torch

from policies.trajectory import Sampling

GREEDY = 1e-5
"""Temperatures below this take the most likely token."""


def draw(
    logits_BV: torch.Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Next tokens [B] and their log-probabilities [B], each under the distribution its sampling names.

    A row's noise comes from its own generator alone, so what it draws does not depend on its neighbours. Greedy rows
    get the log-probability at temperature 1.
    """
    raw_BV = logits_BV.float().log_softmax(-1)
    processed_BV = reshape(logits_BV.float(), samplings).log_softmax(-1)
    noise_BV = torch.empty_like(processed_BV)
    for row, generator in enumerate(generators):
        noise_BV[row].exponential_(generator=generator)
    # argmax of p/q with q ~ Exp(1) is a draw from p (the exponential race)
    drawn_B = processed_BV.exp().div(noise_BV).argmax(-1)
    greedy_B = torch.tensor([s.temperature < GREEDY for s in samplings], device=logits_BV.device)
    tokens_B = torch.where(greedy_B, raw_BV.argmax(-1), drawn_B)
    raw_named_B = torch.tensor([s.logprobs == "raw" for s in samplings], device=logits_BV.device)
    logps_BV = torch.where((greedy_B | raw_named_B)[:, None], raw_BV, processed_BV)
    return tokens_B, logps_BV.gather(1, tokens_B[:, None])[:, 0]


def reshape(logits_BV: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Temperature, then top-k, then top-p: what is cut gets -inf."""
    device, vocabulary = logits_BV.device, logits_BV.shape[1]
    temperature = [1.0 if s.temperature < GREEDY else s.temperature for s in samplings]
    logits_BV = logits_BV / torch.tensor(temperature, device=device)[:, None]
    cut = [s.temperature >= GREEDY and (0 < s.top_k < vocabulary or s.top_p < 1.0) for s in samplings]
    rows = torch.tensor([row for row, wanted in enumerate(cut) if wanted], dtype=torch.long, device=device)
    if len(rows):
        logits_BV[rows] = _cut(logits_BV[rows], [s for s, wanted in zip(samplings, cut, strict=True) if wanted])
    return logits_BV


def _cut(logits_BV: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Ties at the k-th value stay, as does the most likely token whatever top_p says."""
    vocabulary = logits_BV.shape[1]
    sorted_BV, order_BV = logits_BV.sort(-1)
    keep = [s.top_k if 0 < s.top_k < vocabulary else vocabulary for s in samplings]
    least_B = sorted_BV.gather(1, vocabulary - torch.tensor(keep, device=logits_BV.device)[:, None])
    sorted_BV = sorted_BV.masked_fill(sorted_BV < least_B, -torch.inf)
    top_p_B = torch.tensor([s.top_p for s in samplings], device=logits_BV.device)[:, None]
    beyond_BV = sorted_BV.softmax(-1).cumsum(-1) <= 1 - top_p_B
    beyond_BV[:, -1] = False
    return torch.empty_like(logits_BV).scatter(1, order_BV, sorted_BV.masked_fill(beyond_BV, -torch.inf))
