"""TRL's policy gradient losses and advantages, run: GRPOTrainer, GMPOTrainer, RLOOTrainer, A2POTrainer.

What TRL computes inside its one long rollout method (advantages, vLLM importance ratios) is run by `excerpt`: the very
statements of the installed source, compiled alone.
"""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer
from trl.experimental.a2po import A2POTrainer
from trl.experimental.gmpo import GMPOTrainer
from trl.trainer.utils import nanstd

from tests.parity_case import Case, Floats
from tests.trl_setting import Answer, Table, answer, attention, bare, excerpt, ids, tensor

GRPO_LOSSES = ("grpo", "dr_grpo", "bnpo", "dapo", "cispo", "sapo", "luspo", "vespo")
VESPO = {"vespo_k_pos": 2.0, "vespo_lambda_pos": 3.0, "vespo_k_neg": 3.0, "vespo_lambda_neg": 2.0}
IMPORTANCE = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def grpo(
    case: Case,
    loss: str = "grpo",
    *,
    low: float = 0.2,
    high: float = 0.2,
    level: str = "token",
    length: int = 9,
    delta: float | None = None,
    beta: float = 0.0,
    unbiased: bool = False,
    quantile: float = 1.0,
    entropy: float = 0.0,
    mode: str | None = None,
    cap: float = 2.0,
    floor: float | None = None,
    off_policy: float | None = None,
    taus: tuple[float, float] = (1.0, 1.05),
) -> Answer:
    """GRPOTrainer._compute_loss (trainer/grpo_trainer.py) with case.advantages_B and case.old_BT.

    Reducers: grpo, sapo: mean over rows of the mean over tokens; bnpo, dapo, cispo, vespo: / tokens; dr_grpo:
    / (rows x `length`); luspo: mean over rows of the sum over tokens. `level="sequence"` is GSPO's geometric ratio.
    cispo reads `high` as an absolute cap (min(r, high), no lower bound); `delta` is the upper bound on r for the
    unclipped side; `beta` weighs k3 against the reference, `unbiased` multiplies it by r (use_bias_correction_kl).
    `quantile` keeps the share of tokens with the highest entropy (top_entropy_quantile; the threshold is
    torch.quantile's interpolation in float32, tokens at or above it stay). `entropy` is the bonus's coefficient, over
    tokens. `mode` corrects for case.behavior_BT (vllm_importance_sampling_mode, with `floor` and `cap`).
    `off_policy` masks rows with A < 0 and mean(behavior - c) above it. `taus` are SAPO's for A > 0 and A <= 0, rounded
    to float32 (1e-8).
    """
    model = Table(case.logits_BTV)
    args = {"delta": delta, "use_bias_correction_kl": unbiased, "steps_per_generation": 1, **VESPO}
    trainer = bare(
        GRPOTrainer,
        model,
        args | {"sapo_temperature_pos": taus[0], "sapo_temperature_neg": taus[1]},
        loss_type=loss,
        epsilon_low=low,
        epsilon_high=high,
        importance_sampling_level=level,
        max_completion_length=length,
        beta=beta,
        top_entropy_quantile=quantile,
        off_policy_mask_threshold=off_policy,
        use_vllm=mode is not None,
        vllm_importance_sampling_correction=mode is not None,
        _entropy_bonus_enabled=entropy != 0.0,
        use_adaptive_entropy=False,
        entropy_coef=entropy,
    )
    inputs = _rollout(case)
    if mode is not None:
        inputs["importance_sampling_ratio"] = importance(case, mode, cap=cap, floor=floor)
    return answer(trainer._compute_loss(model, inputs), model)


def gmpo(case: Case, *, low: float = 0.4, high: float = 0.4, beta: float = 0.0) -> Answer:
    """GMPOTrainer._compute_loss (experimental/gmpo): log-ratios held at [-low, high] on the side of A's sign, then the
    geometric mean over the row; mean over rows. Bounds are in log space."""
    model = Table(case.logits_BTV)
    trainer = bare(GMPOTrainer, model, {}, epsilon_low=low, epsilon_high=high, beta=beta, top_entropy_quantile=1.0)
    return answer(trainer._compute_loss(model, _rollout(case)), model)


def rloo(case: Case, *, low: float = 0.2, high: float = 0.2) -> Answer:
    """RLOOTrainer._compute_loss (trainer/rloo_trainer.py): the ratio of whole responses, clipped; mean over rows."""
    model = Table(case.logits_BTV)
    trainer = bare(RLOOTrainer, model, {}, epsilon_low=low, epsilon_high=high)
    inputs = _rollout(case) | {"old_logps": tensor((case.old_BT * case.mask_BT).sum(1))}
    return answer(trainer._compute_loss(model, inputs), model)


def a2po(case: Case, values_B: Floats, *, beta: float = 0.1) -> Answer:
    """A2POTrainer.compute_loss (experimental): mean over rows of (beta (c - ref) - (R - V*))^2, summed over tokens."""
    model = Table(case.logits_BTV)
    tokens, completion = ids(case)
    trainer = bare(A2POTrainer, model, {"beta2": beta}, model_kwarg_keys=set())
    inputs = {
        "input_ids": tokens,
        "attention_mask": attention(completion),
        "logits_to_keep": tokens.shape[1] - 1,
        "ref_logps": tensor((case.reference_BT * case.mask_BT).sum(1)),
        "rewards": tensor(case.rewards_B),
        "v_star": tensor(values_B),
    }
    return answer(trainer.compute_loss(model, inputs), model)


# ---------------------------------------------------------------- out of the rollout methods


def grpo_advantages(case: Case, scale: str = "group") -> Floats:
    """Advantages [B] of case.rewards_B: R - group mean, over std + 1e-4 (ddof 1) of the `group`, `batch` or `none`."""
    trainer = SimpleNamespace(
        multi_objective_aggregation="sum_then_normalize", scale_rewards=scale, reward_weights=torch.ones(1).double()
    )
    space = _scored(case, trainer)
    run = excerpt(
        GRPOTrainer._generate_and_score_completions, "if self.multi_objective_aggregation == 'sum_then_normalize':"
    )
    exec(run, {"torch": torch, "nanstd": nanstd}, space)
    advantages: Floats = space["advantages"].numpy()
    return advantages


def rloo_advantages(case: Case, *, beta: float = 0.0, normalise: bool = False) -> Floats:
    """Advantages [B] of case.rewards_B: R - beta x sum over tokens of (old - reference), less the mean of the others.

    `normalise` divides by the whole batch's deviation + 1e-4, after taking off its mean.
    """
    trainer = SimpleNamespace(
        reward_weights=torch.ones(1).double(), reward_clip_range=None, beta=beta, normalize_advantages=normalise
    )
    space = _scored(case, trainer) | {
        "old_per_token_logps": tensor(case.old_BT),
        "ref_per_token_logps": tensor(case.reference_BT),
        "completion_mask": tensor(case.mask_BT),
    }
    run = excerpt(RLOOTrainer._generate_and_score_completions, "unscorable_mask =", "is_std_zero =")
    exec(run, {"torch": torch, "nanstd": nanstd, "gather": lambda x: x}, space)
    advantages: Floats = space["advantages"].numpy()
    return advantages


def importance(case: Case, mode: str, *, cap: float = 2.0, floor: float | None = None) -> Tensor:
    """exp(old - behavior), [B, T] for token modes and [B, 1] (of the sum) for sequence modes, cut or zeroed outside."""
    trainer = SimpleNamespace(
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=floor,
        vllm_importance_sampling_clip_max=cap,
    )
    space: dict[str, Any] = {
        "self": trainer,
        "tool_mask": None,
        "completion_mask": tensor(case.mask_BT),
        "old_per_token_logps": tensor(case.old_BT),
        "sampling_per_token_logps": tensor(case.behavior_BT),
    }
    run = excerpt(
        GRPOTrainer._generate_and_score_completions,
        "if self.use_vllm and self.vllm_importance_sampling_correction:",
        containing="logps_diff",
    )
    exec(run, {"torch": torch, "math": math}, space)
    ratio: Tensor = space["vllm_importance_sampling_ratio"]
    return ratio


def _scored(case: Case, trainer: SimpleNamespace) -> dict[str, Any]:
    return {
        "self": trainer,
        "device": torch.device("cpu"),
        "num_generations": case.group_size,
        "rewards_per_func": tensor(case.rewards_B)[:, None],
        "unscorable_mask": torch.zeros(len(case.rewards_B), dtype=torch.bool),
    }


def _rollout(case: Case) -> dict[str, Any]:
    tokens, completion = ids(case)
    return {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": torch.ones_like(tokens[:, :1]),
        "completion_ids": tokens[:, 1:],
        "completion_mask": completion[:, 1:],
        "advantages": tensor(case.advantages_B),
        "old_per_token_logps": tensor(case.old_BT),
        "ref_per_token_logps": tensor(case.reference_BT),
        "sampling_per_token_logps": tensor(case.behavior_BT),
        "num_items_in_batch": tensor(case.mask_BT.sum()),
    }
