"""A case as the batch that the objective reads: the same numbers in float64, right-padded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from policies.batch import TrajectoryBatch
from policies.config import Clip, Div, Log, Only, Point, Reduce, Set, Source, Strand, Term, TokenWeight
from policies.objective import evaluate
from policies.trajectory import Origin
from tests.parity_case import Case, Floats, log_softmax

NLL = Point(denominator="current", shape=Log())
CLIP = Point(shape=Clip(low=0.2, high=0.28))
EVERYBODY = Only()
CHOSEN, ON, OFF = Only(label="chosen"), Only(origins=("learner",)), Only(origins=("demonstration",))


def term(
    kernel: Point | Set | Div, *weights: TokenWeight, reduce: str = "token", only: Only = EVERYBODY, by: float = 1.0
) -> Term:
    """A term of any name; the lengths of reducers that want one are 9."""
    length = 9 if "length" in reduce else None
    return Term(
        name="t",
        kernel=kernel,
        weights=weights,
        reduce=Reduce(kind=reduce, length=length),
        only=only,
        coefficient=by,  # type: ignore[arg-type]
    )


def weight(kind: str, **fields: object) -> TokenWeight:
    return TokenWeight(kind=kind, **fields)  # type: ignore[arg-type]


def strand(*terms: Term) -> list[Strand]:
    named = tuple(one.model_copy(update={"name": f"t{i}"}) for i, one in enumerate(terms))
    return [Strand(name="s", source=Source(producer="rollout"), terms=named)]


def ones(case: Case) -> Floats:
    return np.ones(len(case.mask_BT))


def batch(case: Case, advantages: Floats | None = None, *, top_k: int = 4, **columns: Any) -> TrajectoryBatch:
    """Every view of the case; advantages [B] or [B, T] (case.advantages_B by default); `columns` replace or add.

    Rows i and i + B/2 are pair i. case.off_B rows are demonstrations. The teacher's and the reference's top-k are of
    their own distributions. Strand 0 is every row's, unless strand_B is given.
    """
    rows, width = case.mask_BT.shape
    given = case.advantages_B if advantages is None else advantages
    teacher, reference = (_top(one, top_k) for one in (case.teacher_logits_BTV, case.reference_logits_BTV))
    built = TrajectoryBatch(
        tokens_BT=torch.tensor(case.tokens_BT),
        mask_BT=torch.tensor(case.mask_BT),
        origin_BT=torch.tensor(_origins(case)),
        advantages_BT=_wide(given[:, None] * np.ones(width) if given.ndim == 1 else given),
        old_logps_BT=_wide(case.old_BT),
        behavior_logps_BT=_wide(case.behavior_BT),
        reference_logps_BT=_wide(case.reference_BT),
        teacher_logps_BT=_wide(case.teacher_BT),
        old_entropy_BT=_wide(case.entropy_BT),
        teacher_topk_ids_BTK=teacher[0],
        teacher_topk_logps_BTK=teacher[1],
        reference_topk_ids_BTK=reference[0],
        reference_topk_logps_BTK=reference[1],
        group_B=torch.arange(rows) // case.group_size,
        set_B=torch.arange(rows) % (rows // 2),
        label_B=_wide((np.arange(rows) < rows // 2).astype(np.float64)),
        strand_B=torch.zeros(rows, dtype=torch.int64),
    )
    return replace(built, **columns)


def kto_columns(case: Case) -> dict[str, Any]:
    """Labels of single rows in the place of pairs'; the statistic is `baseline(case)`."""
    return {"label_B": _wide(case.labels_B.astype(np.float64)), "set_B": torch.arange(len(case.labels_B))}


def baseline(case: Case) -> float:
    """KTO's z of the case."""
    return max(float(case.mismatched_B.mean()), 0.0)


def gradient(
    strands: Sequence[Strand], case: Case, of: TrajectoryBatch, statistics: Mapping[str, float] | None = None
) -> tuple[float, Floats, Floats]:
    """The objective's loss, its gradient by the logits [B, T, V], and its coefficient_BT."""
    live = torch.tensor(case.logits_BTV, requires_grad=True)
    found = evaluate(strands, of, live, statistics=statistics)
    (by_logits,) = torch.autograd.grad(found.loss, [live])
    return float(found.loss.detach()), by_logits.numpy(), found.coefficient_BT.numpy()


def agrees(found: Floats, want: Floats, tolerance: float = 1e-6) -> bool:
    """To the tolerance of the largest entry, which is not 0."""
    scale = float(np.abs(want).max())
    return scale > 0 and float(np.abs(found - want).max()) <= tolerance * scale


def _origins(case: Case) -> np.ndarray:
    own = np.where(case.off_B, int(Origin.DEMONSTRATION), int(Origin.LEARNER))
    return np.where(case.mask_BT, own[:, None], -1).astype(np.int64)


def _wide(values: Floats) -> torch.Tensor:
    return torch.tensor(np.asarray(values, np.float64))


def _top(logits: Floats, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    keep = np.argsort(-logits, axis=-1)[..., :k]
    return torch.tensor(keep), _wide(np.take_along_axis(log_softmax(logits), keep, -1))
