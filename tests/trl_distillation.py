"""TRL's token target and teacher losses, run: SFTTrainer, GKDTrainer, SDPOTrainer, IWOPDTrainer."""

from types import SimpleNamespace
from typing import Any

import torch
from trl import SFTTrainer
from trl.experimental.gkd import GKDTrainer
from trl.experimental.iw_opd import IWOPDTrainer
from trl.experimental.sdpo import SDPOTrainer

from tests.parity_case import Case
from tests.trl_setting import Answer, Table, answer, attention, bare, ids, tensor


def sft(case: Case, loss: str = "nll") -> Answer:
    """SFTTrainer.compute_loss (trainer/sft_trainer.py), `nll` or `dft` (times p, detached); sum / trained tokens."""
    model = Table(case.logits_BTV)
    tokens, completion = ids(case)
    args = {"loss_type": loss, "average_tokens_across_devices": False}
    trainer = bare(SFTTrainer, model, args, compute_loss_func=None, label_smoother=None)
    trainer.accelerator.parallelism_config = None
    inputs = {
        "input_ids": tokens,
        "attention_mask": attention(completion),
        "labels": tokens.masked_fill(completion == 0, -100),
    }
    return answer(trainer.compute_loss(model, inputs), model)


def gkd(case: Case, *, beta: float = 0.5) -> Answer:
    """GKDTrainer.compute_loss (experimental/gkd): JSD over the whole vocabulary at temperature 1, / trained tokens.

    beta 0: KL(teacher || policy); 1: KL(policy || teacher); between: beta KL(T || m) + (1 - beta) KL(policy || m),
    m = beta T + (1 - beta) policy.
    """
    model = Table(case.logits_BTV)
    tokens, completion = ids(case)
    trainer = bare(GKDTrainer, model, {}, teacher_model=Table(case.teacher_logits_BTV), beta=beta)
    inputs = {
        "input_ids": tokens,
        "attention_mask": attention(completion),
        "labels": tokens.masked_fill(completion == 0, -100),
    }
    return answer(trainer.compute_loss(model, inputs), model)


def divergence(case: Case, *, beta: float = 0.5, temperature: float = 1.0, top_k: int = 0, tail: bool = True) -> Answer:
    """IWOPDTrainer.generalized_jsd_loss (experimental/iw_opd): GKD's with a temperature and a top-k; / trained tokens.

    The temperature divides both logits, and the loss is not multiplied by its square. The top-k is the teacher's for
    beta 0, the policy's for beta 1, the union of both between; `tail` adds a bucket for the rest, else renormalises.
    """
    model = Table(case.logits_BTV)
    labels = torch.tensor(case.tokens_BT).masked_fill(torch.tensor(~case.mask_BT), -100)
    loss = IWOPDTrainer.generalized_jsd_loss(
        model.table,
        tensor(case.teacher_logits_BTV),
        labels=labels,
        beta=beta,
        temperature=temperature,
        top_k=top_k,
        add_tail=tail,
    )
    return answer(loss, model)


def iw_opd(case: Case, *, gamma: float = 0.5, sampled: bool = True) -> Answer:
    """IWOPDTrainer._compute_iw_opd_loss: - w (T - behavior) c, w = 1 + gamma (1 - share of |A| before t); / tokens.

    gamma 0 is sampled-token distillation at ratio 1. `sampled=False` takes the policy itself for the behavior.
    """
    model = Table(case.logits_BTV)
    trainer = bare(IWOPDTrainer, model, {}, temperature=1.0, iw_opd_gamma=gamma, iw_opd_epsilon=1e-8)
    loss = trainer._compute_iw_opd_loss(
        model.table,
        torch.tensor(case.tokens_BT),
        torch.tensor(case.tokens_BT).masked_fill(torch.tensor(~case.mask_BT), -100),
        tensor(case.teacher_BT),
        tensor(case.behavior_BT) if sampled else None,
    )
    return answer(loss, model)


def sdpo(
    case: Case,
    mode: str = "topk_logits",
    *,
    alpha: float = 0.5,
    top_k: int = 4,
    tail: bool = True,
    clip: float | None = None,
) -> Answer:
    """SDPOTrainer._compute_self_distillation_loss (experimental/sdpo; sdft's functions are the same).

    `mode`: topk_logits (the policy's own top-k, with a tail bucket or renormalised), full_logits, sampled_token (alpha
    1: sg(c - T) c). alpha 0: KL(teacher || policy), 1: KL(policy || teacher), between: GKD's JSD with beta = alpha.
    `clip` multiplies by min(exp(c - old), clip), detached. Mean over rows of the mean over tokens.
    """
    model = Table(case.logits_BTV)
    args: dict[str, Any] = {
        "distillation_mode": mode,
        "distillation_topk": top_k,
        "distillation_alpha": alpha,
        "distillation_add_tail": tail,
        "distillation_is_clip": clip,
    }
    trainer = bare(SDPOTrainer, model, args, _name="SDPO")
    mask = tensor(case.mask_BT)
    logits = SimpleNamespace(
        completion_ids=torch.tensor(case.tokens_BT),
        completion_mask=mask,
        loss_mask=mask,
        student_logits=model.table,
        teacher_logits=tensor(case.teacher_logits_BTV),
    )
    inputs = {"old_per_token_logps": tensor(case.old_BT)}
    return answer(trainer._compute_self_distillation_loss(model, inputs, logits), model)
