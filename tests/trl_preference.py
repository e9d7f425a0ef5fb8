"""TRL's preference losses, run.

DPOTrainer, KTOTrainer, ORPOTrainer, CPOTrainer, TPOTrainer, OnlineDPOTrainer, RewardTrainer.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from trl import DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.online_dpo import OnlineDPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.tpo import TPOTrainer
from trl.trainer.utils import selective_log_softmax

from tests.parity_case import Case, Floats
from tests.trl_setting import Answer, Table, answer, attention, bare, excerpt, ids, tensor

DPO_LOSSES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sigmoid_norm",
)  # fmt: skip
"""TRL 1.16's, besides `sft`. `sigmoid` takes no label smoothing there: cDPO is `exo_pair`'s, `robust`'s and `aot`'s."""
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")


def dpo(
    case: Case,
    loss: str | tuple[str, ...] = "sigmoid",
    *,
    beta: float = 0.1,
    smoothing: float = 0.0,
    weights: tuple[float, ...] = (),
    divergence: str = "reverse_kl",
    alpha: float = 0.5,
    tail: float | None = None,
    weighted: bool = False,
    temperature: float = 0.05,
) -> Answer:
    """DPOTrainer._compute_loss (trainer/dpo_trainer.py): mean over pairs, rows 0..B/2-1 chosen.

    `loss` may be several with `weights` (("sigmoid", "sft"), (1, alpha) is RPO, where sft is the chosen's NLL per
    token); `tail` is LD-DPO's ld_alpha, `weighted` WPO's use_weighting, `temperature` discopop_tau, `divergence`
    f_divergence_type. `ipo` and `sigmoid_norm` divide each score by its response's tokens. WPO's weight is exp of the
    mean over the response of log p - log sum_v p_v^2, both responses' multiplied and not capped at 1.
    TRL's alpha divergence has no float64 form: it runs in float32, so compare it to 1e-5. exo's smoothing is rounded to
    float32 (1e-8).
    """
    dtype = torch.float32 if divergence == "alpha_divergence" else torch.float64
    model, names = Table(case.logits_BTV, dtype), (loss,) if isinstance(loss, str) else loss
    tokens, completion = ids(case)
    trainer = bare(
        DPOTrainer,
        model,
        {"discopop_tau": temperature},
        ref_model=Table(case.reference_logits_BTV, dtype),
        precompute_ref_logps=False,
        ld_alpha=tail,
        f_divergence_type=divergence,
        f_alpha_divergence_coef=alpha,
        loss_types=list(names),
        loss_weights=list(weights or (1.0,) * len(names)),
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=weighted,
    )
    inputs = {"input_ids": tokens, "attention_mask": attention(completion), "completion_mask": completion}
    return answer(trainer._compute_loss(model, inputs, False), model)


def kto(
    case: Case, loss: str = "kto", *, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0
) -> Answer:
    """KTOTrainer._compute_loss (trainer/kto_trainer.py), `kto` or `apo_zero_unpaired`; mean over rows.

    z = max(mean of case.mismatched_B, 0): what TRL finds from each prompt with another's response, given here.
    """
    model = Table(case.logits_BTV)
    tokens, completion = ids(case)
    zeros = torch.zeros(len(tokens), dtype=torch.float64)
    trainer = bare(
        KTOTrainer,
        model,
        {},
        loss_type=loss,
        beta=beta,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
        calculate_KL=loss == "kto",
        precompute_ref_logps=True,
        _compute_kl_logps=lambda *_: tensor(case.mismatched_B),
    )
    inputs = {
        "input_ids": tokens,
        "attention_mask": attention(completion),
        "completion_mask": completion,
        "label": torch.tensor(case.labels_B),
        "ref_logps": tensor((case.reference_BT * case.mask_BT).sum(1)),
        "ref_KL_logps": zeros,
    }
    return answer(trainer._compute_loss(model, inputs, False), model)


def orpo(case: Case, *, beta: float = 0.1) -> Answer:
    """ORPOTrainer.get_batch_loss_metrics (experimental/orpo): NLL per token of the chosen - beta log sigmoid(odds).

    TRL casts the mean log-probabilities to float32; here they stay float64. The chosen's NLL covers prompt and
    response: the prompt has one token, which nothing predicts.
    """
    model = Table(case.logits_BTV)
    trainer = _paired(ORPOTrainer, model, case, beta=beta)
    trainer.odds_ratio_loss = lambda chosen, rejected: ORPOTrainer.odds_ratio_loss(
        trainer, _wide(chosen), _wide(rejected)
    )
    return answer(trainer.get_batch_loss_metrics(model, {"chosen_labels": _half(case)})[0], model)


def cpo(
    case: Case,
    loss: str = "sigmoid",
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    gamma: float = 0.0,
    smoothing: float = 0.0,
) -> Answer:
    """CPOTrainer.get_batch_loss_metrics (experimental/cpo): `sigmoid`, `hinge`, `ipo`, `simpo`; + alpha NLL per token.

    No reference. `sigmoid` and `hinge` sum log-probabilities, `ipo` and `simpo` average them. SimPO is loss="simpo",
    alpha=0: TRL takes gamma / beta off the difference and multiplies by beta, so `gamma` is the margin inside
    -log sigmoid(beta difference - gamma), the paper's.
    """
    model = Table(case.logits_BTV)
    trainer = _paired(
        CPOTrainer,
        model,
        case,
        beta=beta,
        loss_type=loss,
        cpo_alpha=alpha,
        simpo_gamma=gamma,
        label_smoothing=smoothing,
        alpha=0.0,
    )
    return answer(trainer.get_batch_loss_metrics(model, {"chosen_labels": _half(case)})[0], model)


def tpo(case: Case, loss: str = "sigmoid", *, beta: float = 0.1, gamma: float = 0.0, smoothing: float = 0.0) -> Answer:
    """TPOTrainer._compute_loss (experimental/tpo) without its gold response: the reference-free links, smoothed.

    `sigmoid` and `hinge` sum, `ipo` and `tpo-l` average; `gamma` as SimPO's.
    """
    model = Table(case.logits_BTV)
    tokens, completion = ids(case)
    trainer = bare(
        TPOTrainer, model, {}, loss_type=loss, beta=beta, tpo_alpha=0.0, tpo_l_gamma=gamma, label_smoothing=smoothing
    )
    inputs = {"input_ids": tokens, "attention_mask": attention(completion), "completion_mask": completion}
    return answer(trainer._compute_loss(model, inputs, False), model)


def online_dpo(case: Case, loss: str = "sigmoid", *, beta: float = 0.1) -> Answer:
    """The loss statements of OnlineDPOTrainer.training_step (experimental): `sigmoid` or `ipo`, both summed."""
    model = Table(case.logits_BTV)
    mask, tokens = tensor(case.mask_BT), torch.tensor(case.tokens_BT)
    logps = (selective_log_softmax(model.table, tokens) * mask).sum(1)
    space: dict[str, Any] = {
        "self": SimpleNamespace(args=SimpleNamespace(loss_type=loss), beta=beta),
        "cr_logprobs_sum": logps,
        "cr_ref_logprobs_sum": tensor((case.reference_BT * case.mask_BT).sum(1)),
        "batch_size": len(logps) // 2,
    }
    run = excerpt(OnlineDPOTrainer.training_step, "chosen_logprobs_sum, rejected_logprobs_sum", "loss = losses.mean()")
    exec(run, {"torch": torch, "F": functional}, space)
    return answer(space["loss"], model)


def reward(scores_B: Floats, margins_P: Floats | None = None, *, center: float | None = None) -> tuple[float, Floats]:
    """RewardTrainer.compute_loss (trainer): mean over pairs of -log sigmoid(chosen - rejected - margin).

    `center` adds center x mean (chosen + rejected)^2. Returns the loss and its gradient [B] by the head's scores.
    """
    scores = tensor(scores_B).requires_grad_()
    head: Any = lambda **_: SimpleNamespace(logits=scores[:, None])  # noqa: E731
    trainer = bare(RewardTrainer, nn.Identity(), {"center_rewards_coefficient": center})  # type: ignore[arg-type]
    inputs = {"attention_mask": torch.ones(len(scores_B), 1)}
    if margins_P is not None:
        inputs["margin"] = tensor(margins_P)
    loss = trainer.compute_loss(head, inputs)
    return float(loss.detach()), torch.autograd.grad(loss, [scores])[0].numpy()


def _paired(kind: type, model: Table, case: Case, **attributes: Any) -> Any:
    """A trainer of TRL's older form, that concatenates its pairs itself: they come concatenated."""
    tokens, completion = ids(case)
    concatenated = {
        "concatenated_input_ids": tokens,
        "concatenated_attention_mask": attention(completion),
        "concatenated_labels": tokens.masked_fill(completion == 0, -100),
    }
    return bare(
        kind,
        model,
        {},
        is_encoder_decoder=False,
        padding_value=0,
        pad_token_id=0,
        concatenated_inputs=lambda *_, **__: concatenated,
        **attributes,
    )


def _half(case: Case) -> Tensor:
    return ids(case)[0][: len(case.tokens_BT) // 2]


def _wide(values: Tensor) -> Tensor:
    """The same tensor, which answers `.float()` with itself."""
    same = values.clone()
    same.float = lambda: same  # type: ignore[method-assign]
    return same
