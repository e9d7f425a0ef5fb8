"""Links of the set kernel: the loss of a pair by the two scores, or of a labelled row. P pairs, U rows."""

from typing import assert_never

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from policies.config import Set


def of_pair(kernel: Set, won_P: Tensor, lost_P: Tensor, margin_P: Tensor | float) -> Tensor:
    """[P] losses by the scores of chosen and rejected.

    Links of the difference alone: `of_difference`. Links that hold each score to a level of its own: `of_each`.
    """
    match kernel.link:
        case "nca" | "sppo" | "apo_zero" | "apo_down" | "bco":
            return of_each(kernel, kernel.beta * won_P, kernel.beta * lost_P)
        case "odds":
            return softplus(-(log_odds(won_P) - log_odds(lost_P)))
        case _:
            return of_difference(kernel, kernel.beta * (won_P - lost_P) - margin_P)


def of_difference(kernel: Set, z_P: Tensor) -> Tensor:
    """Loss by the scaled score difference.

    logistic: DPO (arXiv 2305.18290, eq. 7), cDPO where smoothed; hinge: SLiC; square: IPO (2310.12036, eq. 17);
    exponential: GPO (2402.05749); robust: 2403.00409, eq. 12; exo: 2402.00856, eq. 16; discopop: 2406.08414, eq. 5;
    aot: 2406.05882.
    """
    match kernel.link:
        case "logistic" | "aot" | "aot_unpaired" | "robust" | "exo":
            return _with_doubt(kernel, z_P)
        case "hinge":
            return (1.0 - z_P).clamp(min=0.0)
        case "square":
            return ((z_P - 0.5) / kernel.beta) ** 2
        case "exponential":
            return torch.exp(-z_P)
        case "discopop":
            share_P = torch.sigmoid(z_P / kernel.temperature)
            return softplus(-z_P) * (1.0 - share_P) + torch.exp(-z_P) * share_P
        case "nca" | "sppo" | "apo_zero" | "apo_down" | "bco" | "odds" | "kto" | "bce" | "value" | "regression":
            raise ValueError(f"link {kernel.link} is no function of a pair's difference")
        case _:
            assert_never(kernel.link)


def _with_doubt(kernel: Set, z_P: Tensor) -> Tensor:
    """Logistic losses of a label that is wrong with probability `smoothing`."""
    if kernel.link == "exo":
        return _exo(kernel, z_P)
    if not kernel.smoothing:
        return softplus(-z_P)
    if not kernel.smoothing:
        return softplus(-z_P)
    clean_P, flipped_P = (1.0 - kernel.smoothing) * softplus(-z_P), kernel.smoothing * softplus(z_P)
    if kernel.link == "robust":
        return (clean_P - flipped_P) / (1.0 - 2.0 * kernel.smoothing)
    return clean_P + flipped_P


def _exo(kernel: Set, z_P: Tensor) -> Tensor:
    """KL of the policy's preference (sigmoid z, sigmoid -z) from the smoothed label (1 - e, e)."""
    if not kernel.smoothing:
        raise ValueError("link exo needs smoothing > 0: a label without doubt has an infinite divergence")
    sure, doubt = torch.tensor(1.0 - kernel.smoothing, dtype=z_P.dtype), torch.tensor(kernel.smoothing, dtype=z_P.dtype)
    won_P, lost_P = logsigmoid(z_P), logsigmoid(-z_P)
    return won_P.exp() * (won_P - sure.log()) + lost_P.exp() * (lost_P - doubt.log())


def of_each(kernel: Set, won_P: Tensor, lost_P: Tensor) -> Tensor:
    """Loss by beta x each score.

    nca: arXiv 2402.05369; sppo with hard labels: 2405.00675; apo: 2408.06266, eq. 7 and 8; bco without its running
    shift: 2404.04656.
    """
    match kernel.link:
        case "nca":
            return softplus(-won_P) + 0.5 * softplus(won_P) + 0.5 * softplus(lost_P)
        case "sppo":
            return ((won_P - 0.5) / kernel.beta) ** 2 + ((lost_P + 0.5) / kernel.beta) ** 2
        case "apo_zero":
            return torch.sigmoid(-won_P) + torch.sigmoid(lost_P)
        case "apo_down":
            return torch.sigmoid(won_P) + torch.sigmoid(-(won_P - lost_P))
        case "bco":
            return softplus(-won_P) + softplus(lost_P)
        case _:
            raise ValueError(f"link {kernel.link} does not read each score by itself")


def log_odds(logp_P: Tensor) -> Tensor:
    """log p - log(1 - p) of a mean log-probability (ORPO, arXiv 2403.07691, eq. 4)."""
    logp_P = logp_P.clamp(max=-torch.finfo(logp_P.dtype).eps)
    return logp_P - torch.log(-torch.expm1(logp_P))


def kto(kernel: Set, score_U: Tensor, label_U: Tensor, baseline: float) -> Tensor:
    """1 - sigmoid of beta x (score - baseline) for desirable rows, mirrored for undesirable ones, each x its weight."""
    desirable_U = (label_U > 0.5).to(score_U.dtype)
    weight_U = desirable_U * (kernel.desirable - kernel.undesirable) + kernel.undesirable
    return weight_U * torch.sigmoid((1.0 - 2.0 * desirable_U) * kernel.beta * (score_U - baseline))
