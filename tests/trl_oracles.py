"""TRL's real losses as oracles: each runs the installed TRL's own code in float64 on a `Case`.

They give a loss and its gradient by the policy's logits, for nothing of ours to be compared with itself. TRL has no
trainer for PPO, online process rewards, XPO, Nash-MD, MiniLLM or PRM in this version: `paper_oracles` speaks for these.
"""

from tests.trl_distillation import divergence, gkd, iw_opd, sdpo, sft
from tests.trl_policy import (
    GRPO_LOSSES,
    IMPORTANCE,
    a2po,
    gmpo,
    grpo,
    grpo_advantages,
    importance,
    rloo,
    rloo_advantages,
)
from tests.trl_preference import DPO_LOSSES, SMOOTHED, cpo, dpo, kto, online_dpo, orpo, reward, tpo
from tests.trl_setting import Answer

__all__ = [
    "DPO_LOSSES", "GRPO_LOSSES", "IMPORTANCE", "SMOOTHED", "Answer", "a2po", "cpo", "divergence", "dpo", "gkd", "gmpo",
    "grpo", "grpo_advantages", "importance", "iw_opd", "kto", "online_dpo", "orpo", "reward", "rloo", "rloo_advantages",
    "sdpo", "sft", "tpo",
]  # fmt: skip
