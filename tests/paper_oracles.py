"""The papers' losses in plain numpy as oracles, where TRL has none or where two sources are better than one.

`paper_imitation`, `paper_reward`, `paper_mixed`, `paper_process` and `paper_teacher` hold the losses, of
log-probabilities `c` [B, T] or of logits [B, T, V]; `paper_coefficients` their gradients in closed form. `g_of(loss,
case)` is -d loss / dc and `logits_slope(loss, case)` d loss / d logits, both by central differences.
"""

from tests import paper_coefficients as coefficients
from tests import paper_imitation as imitation
from tests import paper_mixed as mixed
from tests import paper_process as process
from tests import paper_reward as reward
from tests import paper_teacher as teacher
from tests.paper_parts import g_of, logits_slope, reduced
from tests.parity_case import Case, at, random_case, slope, through_softmax

__all__ = [
    "Case", "at", "coefficients", "g_of", "imitation", "logits_slope", "mixed", "process", "random_case", "reduced",
    "reward", "slope", "teacher", "through_softmax",
]  # fmt: skip
