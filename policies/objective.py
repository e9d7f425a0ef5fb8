"""Strands and a batch to a loss, and to g, the factor on grad log p of every token.

loss = sum over strands and terms of coefficient / normaliser x sum of (kernel x detached weights).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import torch
from torch import Tensor

from policies import kernels, set_kernels, token_weights, whole_views
from policies.batch import TrajectoryBatch
from policies.config import Div, Point, Set, Strand, Term
from policies.logprobs import entropy
from policies.origin_facts import OriginFacts, by_origin
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
    by_origin: OriginFacts = field(default_factory=dict)
    """Origin -> facts; origin_facts.merge joins those of several batches."""


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
    pull = pull_of(
        strands,
        batch,
        policy,
        normalisers=normalisers,
        coefficients=coefficients,
        old_is_current=old_is_current,
        statistics=statistics,
    )
    facts = {
        strand.name: measure(strand, slots, own, _of_strand(index, pull.coefficient_BT, batch, len(strands)))
        for index, (strand, slots, own) in enumerate(zip(strands, pull.parts, pull.losses, strict=True))
    }
    losses = [facts[strand.name]["loss"] for strand in strands]
    origins = by_origin(strands, batch, None if policy.scalar else policy.logps_BT, pull.coefficient_BT, losses)
    return Evaluation(pull.loss, pull.coefficient_BT, facts, origins)


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """The loss with its gradient already taken, and what it was made of."""

    loss: Tensor
    coefficient_BT: Tensor
    """g, as in `Evaluation`."""
    parts: Sequence[Slots]
    """Of each strand, without gradient to the policy."""
    losses: Sequence[Tensor]


@torch.enable_grad()
def pull_of(  # noqa: PLR0913
    strands: Sequence[Strand],
    batch: TrajectoryBatch,
    policy: PolicyView,
    *,
    normalisers: Normalisers | None = None,
    coefficients: Mapping[str, float] | None = None,
    old_is_current: bool = False,
    statistics: Statistics | None = None,
) -> Pull:
    """`evaluate_logps` without facts.

    The gradient is taken here, once, for g; the loss's own backward starts from it and does not repeat the kernels.
    """
    _check_names(strands, coefficients)
    live, leaves = as_leaves(policy)
    parts = [
        take((index, strand.name), batch, live, only=len(strands) == 1, old_is_current=old_is_current)
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
    loss = sum(losses, policy.logps_BT.new_zeros(()))
    gradient_BT, others = _gradients(loss, live.logps_BT, [leaf for _, leaf in leaves])
    coefficient_BT = -gradient_BT
    sources = [policy.logps_BT, *(source for source, _ in leaves)]
    return Pull(known_gradient(loss.detach(), sources, [gradient_BT, *others]), coefficient_BT, parts, losses)


def _gradients(loss: Tensor, logps_BT: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Of the log-probabilities, zeros where nothing reads them, and of the leaves beside them."""
    if not loss.requires_grad:
        return torch.zeros_like(logps_BT, requires_grad=False), [None] * len(leaves)
    first, *others = torch.autograd.grad(loss, [logps_BT, *leaves], allow_unused=True)
    return torch.zeros_like(logps_BT, requires_grad=False) if first is None else first, others


def as_leaves(policy: PolicyView) -> tuple[PolicyView, list[tuple[Tensor, Tensor]]]:
    """The view cut off from the model, so that its gradients are those of the kernels alone.

    Gives the view and, for each tensor beside the log-probabilities that follows the model, (tensor, its leaf).
    """
    leaves: list[tuple[Tensor, Tensor]] = []

    def leaf(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or not tensor.requires_grad:
            return tensor
        leaves.append((tensor, tensor.detach().requires_grad_()))
        return leaves[-1][1]

    cut: dict[str, Any] = {
        name: leaf(getattr(policy, name)) for name in ("entropy_BT", "topk_logps_BTK", "reference_ids_logps_BTK")
    }
    whole = {key: value for key, one in policy.whole.items() if (value := leaf(one)) is not None}
    return replace(policy, logps_BT=policy.logps_BT.detach().requires_grad_(), **cut, whole=whole), leaves


def known_gradient(loss: Tensor, sources: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """`loss`, whose gradient for each of `sources` is the one given (None: nothing)."""
    pairs = [(one, slope) for one, slope in zip(sources, gradients, strict=True) if one.requires_grad]
    pairs = [(one, slope) for one, slope in pairs if slope is not None]
    if not pairs:
        return loss
    found: Tensor = _Known.apply(loss, [slope for _, slope in pairs], *(one for one, _ in pairs))  # type: ignore[no-untyped-call]
    return found


class _Known(torch.autograd.Function):
    """A number with a gradient that somebody took before."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, slopes: Sequence[Tensor], *sources: Tensor) -> Tensor:
        ctx.slopes = slopes
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(slope * gradient for slope in ctx.slopes)


def strand_loss(strand: Strand, slots: Slots, denominators: Sequence[float], statistics: Statistics = NONE) -> Tensor:
    """The sum of the strand's terms; exactly 0 when it has no trained token here."""
    terms = [
        term.coefficient * term_sum(term, slots.read_by(term.only), statistics) / denominator
        for term, denominator in zip(strand.terms, denominators, strict=True)
    ]
    return sum(terms, slots.logps_N.new_zeros(()))


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
    if term.weights:
        loss_N = loss_N * token_weights.product(term, slots, statistics)
    return mean_of_sequences(loss_N, slots) if term.reduce.kind == "sequence" else loss_N.sum()


def mean_of_sequences(loss_N: Tensor, slots: Slots) -> Tensor:
    """The sum over trajectories of each one's mean: sequences count alike, whatever their length."""
    return slots.mean_by_trajectory(loss_N).sum()


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


def _of_strand(index: int, coefficient_BT: Tensor, batch: TrajectoryBatch, strands: int) -> Tensor:
    if strands == 1 or batch.strand_B is None or not batch.size:
        return coefficient_BT
    return coefficient_BT[batch.strand_B[batch.trajectory_BT.clamp(min=0)] == index]
