"""The core of a learner's step, blind to algorithms: examples to micro-batches, to log-probabilities, to a loss.

The head is computed at the slots that are asked for and nowhere else. Ranks, engines and optimizers are the actors'
business: they call `plan`, then for each part `evaluate_part` and a backward of its loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from policies import statistics, whole_views
from policies.attention import packed_hidden
from policies.batch import TrajectoryBatch, collate, plan_micro_batches, slots
from policies.config import Point, Strand
from policies.example import Example
from policies.logprobs import token_logprobs
from policies.objective import Evaluation, evaluate_logps
from policies.reduce import Normalisers
from policies.scalar_head import trained_outputs
from policies.sequences import packed_row, plan_sequences
from policies.slots import PolicyView
from policies.statistics import Statistics
from policies.trajectory import Float32, Int32


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A model as the step sees it: hidden states out of `backbone`, logits out of `head_VH`.

    The outputs of a `scalar` head, (1, H), stand in the place of log-probabilities.
    """

    backbone: nn.Module
    head_VH: nn.Parameter
    scalar: bool = False

    @property
    def device(self) -> torch.device:
        """Where the batches go."""
        return self.head_VH.device


@dataclass(frozen=True, slots=True)
class Objective:
    """What one optimizer update minimises, over all its parts and ranks."""

    strands: Sequence[Strand]
    normalisers: Normalisers
    coefficients: Mapping[str, float]
    old_is_current: bool
    """The step is one update: where an example has no old log-probabilities, the current ones stand in."""
    statistics: Statistics = field(default_factory=dict)
    """What terms need to know of the whole step."""
    target_heads: Mapping[str, Tensor] = field(default_factory=dict)
    """`teacher`, `reference` -> that model's (V, H) head, where a term compares whole vocabularies."""


def reads_old(strand: Strand) -> bool:
    """Whether a term looks at the learner's log-probabilities before the step's first update."""
    weights = {weight.kind for term in strand.terms for weight in term.weights}
    ratios = any(isinstance(term.kernel, Point) and term.kernel.denominator == "old" for term in strand.terms)
    corrected = bool(weights & {"truncated_importance", "masked_importance", "clipped_ratio"})
    return ratios or corrected or statistics.reads_old_logps(strand)


def plan(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Micro-batches of at most `max_tokens` positions, units whole; what has no trained token is left out."""
    return [[examples[place] for place in part] for part in places(examples, max_tokens)]


def places(examples: Sequence[Example], max_tokens: int) -> list[list[int]]:
    """`plan`, as indices of the examples."""
    trained = [place for place, example in enumerate(examples) if example.trajectory.train_mask.any()]
    lengths = [slots(examples[place].trajectory) for place in trained]
    together = [examples[place].together for place in trained]
    return [[trained[index] for index in part] for part in plan_micro_batches(lengths, max_tokens, together)]


def evaluate_part(policy: Policy, examples: Sequence[Example], objective: Objective) -> Evaluation:
    """One micro-batch's share of the update's loss; the shares of all parts and ranks sum to the whole."""
    batch = collate(examples, pad_id=0, packed=True, device=policy.device)
    slots_N, part = batch.trained()
    if policy.scalar:
        view = _scalar_view(policy, examples, objective)
    else:
        view = _language_view(policy, packed_hidden(policy.backbone, batch, slots_N), part, objective)
    return evaluate_logps(
        objective.strands,
        part,
        view,
        normalisers=objective.normalisers,
        coefficients={s.name: objective.coefficients.get(s.name, 1.0) for s in objective.strands},
        old_is_current=objective.old_is_current,
        statistics=objective.statistics,
    )


def _language_view(policy: Policy, hidden_NH: Tensor, part: TrajectoryBatch, objective: Objective) -> PolicyView:
    """Log-probabilities and entropy at the trained slots, and what the terms read beside them."""
    asked = [ids[0].long() for ids in (part.teacher_topk_ids_BTK, part.reference_topk_ids_BTK) if ids is not None]
    found = token_logprobs(
        hidden_NH, policy.head_VH, part.tokens_BT[0], topk_ids_NK=torch.cat(asked, dim=1) if asked else None
    )
    topk_NK = found.topk_logps_NK
    given = iter(() if topk_NK is None else torch.split(topk_NK, [ids.shape[1] for ids in asked], dim=1))
    return PolicyView(
        logps_BT=found.logps_N[None],
        entropy_BT=found.entropy_N[None],
        topk_logps_BTK=None if part.teacher_topk_ids_BTK is None else next(given)[None],
        reference_ids_logps_BTK=None if part.reference_topk_ids_BTK is None else next(given)[None],
        collision_BT=found.collision_N[None],
        whole=whole_views.from_hidden(objective.strands, part, (hidden_NH, policy.head_VH), objective.target_heads),
    )


def _scalar_view(policy: Policy, examples: Sequence[Example], objective: Objective) -> PolicyView:
    """The scalar head's outputs at the trained slots."""
    values_N = trained_outputs(policy.backbone, policy.head_VH, examples, objective.strands)
    return PolicyView(logps_BT=values_N[None], scalar=True)


def idle_loss(policy: Policy) -> Tensor:
    """Exactly 0, through every parameter: what a rank without examples runs while the others work."""
    one = np.zeros(1, np.int32)
    batch, slots_N = packed_row([(one, one)], policy.device)
    hidden_NH = packed_hidden(policy.backbone, batch, slots_N)
    if policy.scalar:
        return (hidden_NH @ policy.head_VH.T).sum() * 0.0
    return token_logprobs(hidden_NH, policy.head_VH, batch.tokens_BT[0, slots_N]).logps_N.sum() * 0.0


# ---------------------------------------------------------------- scoring without a gradient


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Log-probabilities of one response's tokens. T tokens, K top-k."""

    logps: Float32
    """[T]"""
    entropy: Float32
    """[T] of the whole next-token distribution, in nats."""
    topk_ids: Int32 | None = None
    """[T, K], most likely first."""
    topk_logps: Float32 | None = None
    """[T, K]"""


def logprobs_only(
    policy: Policy, sequences: Sequence[tuple[Int32, Int32]], *, max_tokens: int, top_k: int = 0
) -> list[Scored]:
    """Log-probabilities of (context, tokens) pairs at temperature 1, in order, and those of the K likeliest tokens."""
    empty = Scored(
        np.empty(0, np.float32),
        np.empty(0, np.float32),
        np.empty((0, top_k), np.int32) if top_k else None,
        np.empty((0, top_k), np.float32) if top_k else None,
    )
    scored = [empty] * len(sequences)
    for part in plan_sequences(sequences, max_tokens):
        for index, one in zip(part, score_part(policy, [sequences[i] for i in part], top_k=top_k), strict=True):
            scored[index] = one
    return scored


@torch.no_grad()
def score_part(policy: Policy, sequences: Sequence[tuple[Int32, Int32]], *, top_k: int = 0) -> list[Scored]:
    """`logprobs_only` in one forward pass."""
    batch, slots_N = packed_row(sequences, policy.device)
    hidden_NH = packed_hidden(policy.backbone, batch, slots_N)
    ids_NK = None if not top_k else _top_ids(hidden_NH, policy.head_VH, top_k)
    found = token_logprobs(hidden_NH, policy.head_VH, batch.tokens_BT[0, slots_N], topk_ids_NK=ids_NK)
    ends = np.cumsum([len(tokens) for _, tokens in sequences])[:-1]
    logps = np.split(found.logps_N.float().cpu().numpy(), ends)
    entropy = np.split(found.entropy_N.float().cpu().numpy(), ends)
    if ids_NK is None or found.topk_logps_NK is None:
        return [Scored(*one) for one in zip(logps, entropy, strict=True)]
    ids = np.split(ids_NK.to(torch.int32).cpu().numpy(), ends)
    top = np.split(found.topk_logps_NK.float().cpu().numpy(), ends)
    return [Scored(*one) for one in zip(logps, entropy, ids, top, strict=True)]


def _top_ids(hidden_NH: Tensor, head_VH: Tensor, top_k: int) -> Tensor:
    """The K most likely tokens of each slot, by chunks of slots."""
    rows = max(1, 2**24 // head_VH.shape[0])
    return torch.cat([(part @ head_VH.T).topk(top_k, dim=-1).indices for part in torch.split(hidden_NH, rows)])
