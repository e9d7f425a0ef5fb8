"""Which slots need a divergence over the whole vocabulary, and the values there: `PolicyView.whole`.

From hidden states and heads, chunk by chunk, where the learner trains; from columns that hold all V tokens where a
batch is that small. Strands that share a divergence share its computation. A slot that no strand reads it at, or whose
target nobody knows, is left out: its value is NaN, and no gradient comes from it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from policies.batch import TrajectoryBatch
from policies.config import Div, Strand
from policies.full_divergence import whole_divergence
from policies.kernels import bucket_divergence
from policies.slots import PolicyView, WholeVocabulary

TARGETS: Final = ("teacher", "reference")


def from_hidden(
    strands: Sequence[Strand],
    part: TrajectoryBatch,
    policy: tuple[Tensor, Tensor],
    target_heads: Mapping[str, Tensor],
) -> dict[WholeVocabulary, Tensor]:
    """[1, N] values at the slots of `part`, a batch of one row.

    `policy` is its hidden states (N, H) at these slots and its head (V, H). A target whose hidden states or head are
    not there is left out.
    """
    hidden_NH, head_VH = policy
    found: dict[WholeVocabulary, Tensor] = {}
    for target in TARGETS:
        kernels, read_BT = _reading(strands, part, target)
        theirs_BTH = part.teacher_hidden_BTH if target == "teacher" else part.reference_hidden_BTH
        if not kernels or theirs_BTH is None or target not in target_heads:
            continue
        target_head_VG = target_heads[target]
        at_n = (read_BT & ~theirs_BTH.isnan().any(-1))[0].nonzero()[:, 0]
        target_nG = theirs_BTH[0, at_n].to(target_head_VG.dtype)
        values = whole_divergence(hidden_NH[at_n], head_VH, target_nG, target_head_VG, list(kernels))
        found |= {key: _placed(value_n, at_n, part) for key, value_n in values.items()}
    return found


def from_columns(
    strands: Sequence[Strand], batch: TrajectoryBatch, policy: PolicyView, vocabulary: int
) -> dict[WholeVocabulary, Tensor]:
    """[B, T] values where the target's top-k columns hold the whole vocabulary: K = V, in any order."""
    columns = {
        "teacher": (batch.teacher_topk_ids_BTK, batch.teacher_topk_logps_BTK, policy.topk_logps_BTK),
        "reference": (batch.reference_topk_ids_BTK, batch.reference_topk_logps_BTK, policy.reference_ids_logps_BTK),
    }
    found: dict[WholeVocabulary, Tensor] = {}
    for target, (ids_BTK, theirs_BTK, ours_BTK) in columns.items():
        kernels, read_BT = _reading(strands, batch, target)
        if not kernels or ids_BTK is None or theirs_BTK is None or ours_BTK is None or ids_BTK.shape[-1] != vocabulary:
            continue
        at_n = (read_BT & ~theirs_BTK.isnan().any(-1)).flatten().nonzero()[:, 0]
        _check_permutation(target, ids_BTK.flatten(0, 1)[at_n])
        ours_nV, theirs_nV = (one.flatten(0, 1)[at_n] for one in (ours_BTK, theirs_BTK.detach()))
        found |= {
            key: _placed(bucket_divergence(kernel, ours_nV, theirs_nV), at_n, batch) for key, kernel in kernels.items()
        }
    return found


def _check_permutation(target: str, ids_nV: Tensor) -> None:
    wrong = (ids_nV.sort(-1).values != torch.arange(ids_nV.shape[-1], device=ids_nV.device)).any(-1)
    if bool(wrong.any()):
        raise ValueError(
            f"{target}_topk_ids_BTK: {int(wrong.sum())} slots have K = V ids that are not every token once; a "
            "divergence over the whole vocabulary reads each token's log-probability"
        )


def _reading(
    strands: Sequence[Strand], batch: TrajectoryBatch, target: str
) -> tuple[dict[WholeVocabulary, Div], Tensor]:
    """The divergences from this target, and the trained slots [B, T] of the strands that read any of them."""
    kernels: dict[WholeVocabulary, Div] = {}
    readers: list[int] = []
    for index, strand in enumerate(strands):
        for term in strand.terms:
            kernel = term.kernel
            if isinstance(kernel, Div) and is_whole(kernel) and kernel.target == target:
                kernels[WholeVocabulary.of(kernel)] = kernel
                readers.append(index)
    read_BT = batch.mask_BT
    if kernels and batch.strand_B is not None and batch.size:
        of_strand_BT = batch.strand_B[batch.trajectory_BT.clamp(min=0)]
        read_BT = read_BT & torch.isin(of_strand_BT, torch.tensor(readers, device=of_strand_BT.device))
    return kernels, read_BT


def is_whole(kernel: Div) -> bool:
    """Whether it compares distributions over the whole vocabulary."""
    return kernel.support == "full" and kernel.form in ("forward", "reverse", "jsd")


def _placed(value_n: Tensor, at_n: Tensor, batch: TrajectoryBatch) -> Tensor:
    """[B, T]: the values at these slots (indices into the flattened B x T), NaN at all others."""
    unknown = value_n.new_full((batch.tokens_BT.numel(),), torch.nan)
    return unknown.index_put((at_n,), value_n).reshape(batch.tokens_BT.shape)
