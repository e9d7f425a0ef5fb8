"""From a drawn `Case` to what a recipe makes of it: its credit's advantages, its strands' loss, gradient and g.

The case's rows become trajectories (float32, as records are) for the credit; the objective reads the case's views in
float64, so that it can be held to 1e-6 against an oracle. Rows with `off_B` are demonstrations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orchestrator import recipes
from orchestrator.recipes import Recipe
from policies.batch import TrajectoryBatch
from policies.config import GroupCredit, Strand
from policies.credit import Views, assign, over_step
from policies.objective import evaluate
from policies.reduce import Normalisers
from policies.trajectory import FinishReason, Origin, Producer, Sampling, ScoreEntry, Trajectory
from tests.parity_case import Case, Floats

CONTEXT = np.array([1], np.int32)
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the recipe says of the case."""

    loss: float
    gradient_BTV: Floats
    """d loss / d logits."""
    coefficient_BT: Floats
    """g."""
    batch: TrajectoryBatch


def trajectory(case: Case, row: int, **fields: Any) -> Trajectory:
    """A row of the case as a record; `fields` override, per token arrays in the row's own length."""
    size = int(case.mask_BT[row].sum())
    off = bool(case.off_B[row]) and not fields.pop("own", False)
    reward = float(case.rewards_B[row])
    base: dict[str, Any] = {
        "id": f"t{row}",
        "prompt_id": f"p{row // case.group_size}",
        "group_id": f"g{row // case.group_size}",
        "producer": Producer.DEMONSTRATION if off else Producer.ROLLOUT,
        "model": "book" if off else "learner",
        "version": -1 if off else 0,
        "train_context": CONTEXT,
        "behavior_context": CONTEXT,
        "teacher_context": CONTEXT,
        "tokens": case.tokens_BT[row, :size].astype(np.int32),
        "origin": np.full(size, Origin.DEMONSTRATION if off else Origin.LEARNER, np.int8),
        "token_version": np.full(size, -1 if off else 0, np.int32),
        "train_mask": np.ones(size, np.bool_),
        "behavior_logps": np.full(size, np.nan, np.float32) if off else case.behavior_BT[row, :size].astype(np.float32),
        "scores": (ScoreEntry("reward", reward, reward > 0.5),),
        "finish_reason": FinishReason.GIVEN if off else FinishReason.STOP,
        "sampling": None if off else Sampling(),
    }
    return Trajectory(**{**base, **fields})


def views(case: Case, row: int, values_BT: Floats | None = None) -> Views:
    """What the frozen models and a critic say of a row."""
    size = int(case.mask_BT[row].sum())
    return Views(
        teacher_logps=case.teacher_BT[row, :size].astype(np.float32),
        reference_logps=case.reference_BT[row, :size].astype(np.float32),
        values=None if values_BT is None else values_BT[row, :size].astype(np.float32),
    )


def credited(
    strands: Sequence[Strand], rows: Sequence[Trajectory], strand_B: Sequence[int], views_B: Sequence[Views], width: int
) -> tuple[Floats, Bools]:
    """Advantages [B, T] by each row's own strand's credit, and the rows [B] that may train.

    Groups are compared as the loop compares them, then what trains is scaled over the step.
    """
    out: list[Floats] = [np.zeros(0, np.float32) for _ in rows]
    trains_B = np.ones(len(rows), np.bool_)
    for index, strand in enumerate(strands):
        own = [i for i, of in enumerate(strand_B) if of == index]
        for group in dict.fromkeys(rows[i].group_id for i in own):
            members = [i for i, one in enumerate(rows) if one.group_id == group and _is_seen(strand, rows, own, i)]
            given = assign(strand.credit, [rows[i] for i in members], [views_B[i] for i in members])
            for at, i in enumerate(members):
                if i in own:
                    out[i] = given.advantages[at]
                    trains_B[i] = at not in (*given.masked, *given.excluded)
        own = [i for i in own if trains_B[i]]
        scaled = over_step(
            strand.credit, [out[i] for i in own], [rows[i] for i in own], [rows[i].group_id for i in own]
        )
        for i, values in zip(own, scaled, strict=True):
            out[i] = values
    return np.stack([np.pad(one.astype(np.float64), (0, width - len(one))) for one in out]), trains_B


def _is_seen(strand: Strand, rows: Sequence[Trajectory], own: Sequence[int], row: int) -> bool:
    """Whether the strand's credit sees a row of its group: a comparison sees everybody, or its children alone."""
    credit = strand.credit
    if row in own or not isinstance(credit, GroupCredit) or credit.scope == "strand":
        return row in own
    return credit.value == "own" or rows[row].parent_id in {rows[i].id for i in own}


def advantages(
    strands: Sequence[Strand], rows: Sequence[Trajectory], strand_B: Sequence[int], views_B: Sequence[Views], width: int
) -> Floats:
    """[B, T] of `credited`."""
    return credited(strands, rows, strand_B, views_B, width)[0]


def top_k(logits_BTV: Floats, k: int) -> tuple[Tensor, Tensor]:
    """Ids and log-probabilities of the k likeliest tokens."""
    best = torch.from_numpy(logits_BTV).log_softmax(-1).topk(min(k, logits_BTV.shape[-1]))
    return best.indices, best.values


def batch_of(
    case: Case, strand_B: Sequence[int], advantages_BT: Floats, *, k: int = 32, **columns: Any
) -> TrajectoryBatch:
    """The case as a padded batch in float64; `columns` (arrays or tensors) override or add."""
    teacher_ids, teacher_topk = top_k(case.teacher_logits_BTV, k)
    reference_ids, reference_topk = top_k(case.reference_logits_BTV, k)
    origin = np.where(case.off_B[:, None], int(Origin.DEMONSTRATION), int(Origin.LEARNER)) + 0 * case.tokens_BT
    given: dict[str, Any] = {
        "tokens_BT": case.tokens_BT,
        "mask_BT": case.mask_BT,
        "origin_BT": origin.astype(np.int8),
        "advantages_BT": advantages_BT,
        "old_logps_BT": case.old_BT,
        "behavior_logps_BT": np.where(case.off_B[:, None], np.nan, case.behavior_BT),
        "reference_logps_BT": case.reference_BT,
        "teacher_logps_BT": case.teacher_BT,
        "teacher_topk_ids_BTK": teacher_ids,
        "teacher_topk_logps_BTK": teacher_topk,
        "reference_topk_ids_BTK": reference_ids,
        "reference_topk_logps_BTK": reference_topk,
        "strand_B": np.asarray(strand_B, np.int64),
        **columns,
    }
    ready = {
        n: v if isinstance(v, Tensor) or v is None else torch.from_numpy(np.ascontiguousarray(v))
        for n, v in given.items()
    }
    return TrajectoryBatch(**ready)


def pairs(case: Case) -> dict[str, Any]:
    """Columns of preference sets as a Case lays them out: row i chosen, row i + B/2 rejected."""
    half = len(case.mask_BT) // 2
    return {
        "set_B": np.concatenate([np.arange(half)] * 2),
        "label_B": np.repeat([1.0, 0.0], half),
        "margin_B": np.full(2 * half, np.nan),
    }


def found(
    recipe: Recipe | Sequence[Strand],
    batch: TrajectoryBatch,
    logits_BTV: Floats,
    *,
    coefficients: Mapping[str, float] | None = None,
    **options: Any,
) -> Found:
    """Loss, gradient by the logits and g of a recipe's strands on a batch."""
    strands = recipe.strands if isinstance(recipe, Recipe) else tuple(recipe)
    logits = torch.from_numpy(logits_BTV.copy()).requires_grad_()
    said = evaluate(strands, batch, logits, coefficients=coefficients, **options)
    (gradient,) = torch.autograd.grad(said.loss, [logits], allow_unused=True)
    gradient = torch.zeros_like(logits) if gradient is None else gradient
    return Found(float(said.loss.detach()), gradient.numpy(), said.coefficient_BT.detach().numpy(), batch)


def apply(
    name: str | Sequence[Strand],
    case: Case,
    strand_B: Sequence[int] | None = None,
    *,
    rows: Sequence[Trajectory] | None = None,
    values_BT: Floats | None = None,
    coefficients: Mapping[str, float] | None = None,
    columns: Mapping[str, Any] | None = None,
    normalisers: Normalisers | None = None,
    **parameters: Any,
) -> Found:
    """The recipe `name` (or strands) with `parameters` on the case: its credit from the rewards, then its objective.

    `strand_B` says which strand reads each row (all the first one by default); `rows` replace the records that the
    credit reads; `columns` add to or replace those of the batch.
    """
    strands = recipes.load(name, **parameters).strands if isinstance(name, str) else tuple(name)
    strand_B = [0] * len(case.mask_BT) if strand_B is None else list(strand_B)
    records = [trajectory(case, i) for i in range(len(strand_B))] if rows is None else list(rows)
    views_B = [views(case, i, values_BT) for i in range(len(records))]
    width = case.mask_BT.shape[1]
    given, trains_B = credited(strands, records, strand_B, views_B, width)
    columns = {"mask_BT": case.mask_BT & trains_B[:, None], **(columns or {})}
    batch = batch_of(case, strand_B, given, **columns)
    return found(strands, batch, case.logits_BTV, coefficients=coefficients, normalisers=normalisers)


def own(case: Case) -> Case:
    """The case with every row the learner's own."""
    return replace(case, off_B=np.zeros_like(case.off_B))


def agrees(said: Found, loss: float, gradient_BTV: Floats, case: Case) -> None:
    """Equal loss and gradient, to 1e-6 relative; raises AssertionError otherwise."""
    np.testing.assert_allclose(said.loss, loss, rtol=1e-6, atol=1e-9)
    scale = float(np.abs(gradient_BTV).max())
    assert scale > 0, "an oracle whose gradient is 0 everywhere proves nothing"
    np.testing.assert_allclose(said.gradient_BTV, gradient_BTV, rtol=1e-6, atol=1e-6 * scale)
