"""Strands and a batch to a loss, and to g, the factor on grad log p of every token.

loss = sum over strands and terms of coefficient / normaliser x sum of (kernel x detached weights).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import torch
from torch import Tensor

from policies import kernels, set_kernels, token_weights, whole_views
from policies.batch import TrajectoryBatch
from policies.config import Div, Point, Reduce, Set, Strand, Term
from policies.logprobs import entropy
from policies.reduce import UNARY, Counts, Normalisers, of_counts
from policies.slots import PolicyView, Slots, take
from policies.statistics import NONE, Statistics, key
from policies.step_statistics import of_slots
from policies.strand_facts import Facts, measure


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The loss of a batch and what pulls on which token."""

    loss: Tensor
    coefficient_BT: Tensor
    """g, reducer and coefficients included: for point, set and sampled div kernels grad loss = -sum(g * grad logp)."""
    by_strand: Facts
    """Strand name -> facts; strand_facts.merge joins those of several batches."""


def evaluate(  # noqa: PLR0913  (what a step knows: each has a default and a name)
    strands: Sequence[Strand],
    batch: TrajectoryBatch,
    logits_BTV: Tensor,
    *,
    normalisers: Normalisers | None = None,
    coefficients: Mapping[str, float] | None = None,
    old_is_current: bool = False,
    statistics: Statistics | None = None,
) -> Evaluation:
    """The strands' loss on a batch; logits_BTV[b, t] predicts tokens_BT[b, t].

    `normalisers` are those of the whole optimizer step (reduce.normalisers); None: this batch is the step.
    `coefficients` scale strands by name. `old_is_current`: the step is one update, so old = current where not given.
    `statistics` are those of the whole step (policies.statistics); None: this batch is the step.
    A divergence over the whole vocabulary reads its target's top-k columns, which then hold all V tokens.
    Raises ValueError, naming strand, reader, count and fix, when a view that a strand reads is missing or unknown.
    """
    if logits_BTV.shape[:2] != batch.tokens_BT.shape:
        raise ValueError(f"logits_BTV: shape {tuple(logits_BTV.shape)}, expected {(*batch.tokens_BT.shape, 'V')}")
    wide = logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()
    logps_BTV = wide.log_softmax(-1)
    teacher_ids, reference_ids = batch.teacher_topk_ids_BTK, batch.reference_topk_ids_BTK
    policy = PolicyView(
        logps_BT=logps_BTV.gather(-1, batch.tokens_BT.long()[..., None])[..., 0],
        entropy_BT=entropy(logps_BTV),
        topk_logps_BTK=None if teacher_ids is None else logps_BTV.gather(-1, teacher_ids.long()),
        reference_ids_logps_BTK=None if reference_ids is None else logps_BTV.gather(-1, reference_ids.long()),
        collision_BT=(2.0 * logps_BTV.detach()).logsumexp(-1),
    )
    policy = replace(policy, whole=whole_views.from_columns(strands, batch, policy, logits_BTV.shape[-1]))
    return evaluate_logps(
        strands,
        batch,
        policy,
        normalisers=normalisers,
        coefficients=coefficients,
        old_is_current=old_is_current,
        statistics=statistics,
    )


@torch.enable_grad()
def evaluate_logps(  # noqa: PLR0913
    strands: Sequence[Strand],
    batch: TrajectoryBatch,
    policy: PolicyView,
    *,
    normalisers: Normalisers | None = None,
    coefficients: Mapping[str, float] | None = None,
    old_is_current: bool = False,
    statistics: Statistics | None = None,
) -> Evaluation:
    """`evaluate` from the policy's log-probabilities (and entropy, top-k) at the batch's slots."""
    _check_names(strands, coefficients)
    follows = policy.logps_BT.requires_grad
    live_BT = policy.logps_BT if follows else policy.logps_BT.detach().requires_grad_()
    policy = replace(policy, logps_BT=live_BT)
    only = len(strands) == 1
    parts = [
        take((index, strand.name), batch, policy, only=only, old_is_current=old_is_current)
        for index, strand in enumerate(strands)
    ]
    if normalisers is None:
        normalisers = of_counts(
            strands, [[_count(term, slots) for term in one.terms] for one, slots in zip(strands, parts, strict=True)]
        )
    if statistics is None:
        statistics = of_slots(strands, parts)
    losses = [
        (coefficients or {}).get(strand.name, 1.0) * strand_loss(strand, slots, denominators, statistics)
        for strand, slots, denominators in zip(strands, parts, normalisers, strict=True)
    ]
    # nothing of the policy is summed, so that an empty batch is exactly 0 and still has a graph
    loss = torch.stack([live_BT.flatten()[:0].sum(), *losses]).sum()
    (gradient_BT,) = torch.autograd.grad(loss, [live_BT], retain_graph=True)
    coefficient_BT = -gradient_BT
    facts = {
        strand.name: measure(strand, slots, own, _of_strand(index, coefficient_BT, batch))
        for index, (strand, slots, own) in enumerate(zip(strands, parts, losses, strict=True))
    }
    return Evaluation(loss if follows or loss_follows(policy) else loss.detach(), coefficient_BT, facts)


def strand_loss(strand: Strand, slots: Slots, denominators: Sequence[float], statistics: Statistics = NONE) -> Tensor:
    """The sum of the strand's terms; exactly 0, with a graph, when it has no trained token here."""
    terms = [
        term.coefficient * term_sum(term, slots.read_by(term.only), statistics) / denominator
        for term, denominator in zip(strand.terms, denominators, strict=True)
    ]
    return torch.stack([slots.logps_N[:0].sum(), *terms]).sum()


def term_sum(term: Term, slots: Slots, statistics: Statistics = NONE) -> Tensor:
    """The term before its normaliser: kernel x weights, summed over the slots or sets that it reads."""
    kernel = term.kernel
    match kernel:
        case Set():
            if term.weights:
                raise ValueError(f"strand {slots.strand!r}, term {term.name!r}: a set kernel takes no token weights")
            return set_kernels.loss(kernel, slots, statistics.get(key(slots.strand, term.name, kernel.link))).sum()
        case Point():
            loss_N = kernels.point(kernel, slots)
        case Div():
            loss_N = kernels.divergence(kernel, slots)
        case _:
            assert_never(kernel)
    return (loss_N * token_weights.product(term, slots, statistics) * share(term.reduce, slots)).sum()


def share(reduce: Reduce, slots: Slots) -> Tensor:
    """What each token counts: 1, or 1 / T of its trajectory where sequences count alike."""
    if reduce.kind == "sequence":
        return (1.0 / slots.counts_B().clamp(min=1))[slots.trajectory_N]
    return torch.ones_like(slots.logps_N, requires_grad=False)


def loss_follows(policy: PolicyView) -> bool:
    """Whether anything but the log-probabilities carries gradient."""
    others = (policy.entropy_BT, policy.topk_logps_BTK, policy.reference_ids_logps_BTK, *policy.whole.values())
    return any(one is not None and one.requires_grad for one in others)


def _check_names(strands: Sequence[Strand], coefficients: Mapping[str, float] | None) -> None:
    names = [strand.name for strand in strands]
    if len(set(names)) < len(names):
        raise ValueError(f"strands share a name: {names}")
    unknown = sorted(set(coefficients or {}) - set(names))
    if unknown:
        raise ValueError(f"coefficients for {unknown}: no such strand; the strands are {names}")


def _count(term: Term, slots: Slots) -> Counts:
    """Counts of a term when the batch is the whole step."""
    slots = slots.read_by(term.only)
    member_B = slots.counts_B() > 0
    return Counts(
        tokens=len(slots.logps_N),
        sequences=int(member_B.sum()),
        sets=_sets(term.kernel, slots, member_B) if isinstance(term.kernel, Set) else 0,
    )


def _sets(kernel: Set, slots: Slots, member_B: Tensor) -> int:
    """What a set kernel gives a value for: tokens with a target, labelled rows, or preference sets."""
    if kernel.unit == "token":
        return 0 if slots.targets_N is None else int(slots.targets_N.isfinite().sum())
    if kernel.link in UNARY:
        return 0 if slots.label_B is None else int((member_B & slots.label_B.isfinite()).sum())
    return 0 if slots.set_B is None else len(torch.unique(slots.set_B[member_B & (slots.set_B >= 0)]))


def _of_strand(index: int, coefficient_BT: Tensor, batch: TrajectoryBatch) -> Tensor:
    if batch.strand_B is None or not batch.size:
        return coefficient_BT
    return coefficient_BT[batch.strand_B[batch.trajectory_BT.clamp(min=0)] == index]
