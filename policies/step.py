"""The core of a learner's step, blind to algorithms: examples to micro-batches, to log-probabilities, to a loss.

The head is computed at the slots that are asked for and nowhere else. Ranks, engines and optimizers are the actors'
business: they call `plan`, then for each part `evaluate_part` and a backward of its loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from policies.attention import packed_hidden
from policies.batch import TrajectoryBatch, collate, plan_micro_batches, slots
from policies.config import Point, Strand
from policies.example import Example
from policies.logprobs import token_logprobs
from policies.objective import Evaluation, evaluate_logps
from policies.reduce import Normalisers
from policies.slots import PolicyView
from policies.trajectory import Float32, Int32


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A model as the step sees it: hidden states out of `backbone`, logits out of `head_VH`."""

    backbone: nn.Module
    head_VH: nn.Parameter

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


def reads_old(strand: Strand) -> bool:
    """Whether a term looks at the learner's log-probabilities before the step's first update."""
    weights = {weight.kind for term in strand.terms for weight in term.weights}
    ratios = any(isinstance(term.kernel, Point) and term.kernel.denominator == "old" for term in strand.terms)
    return ratios or bool(weights & {"truncated_importance", "masked_importance"})


def plan(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Micro-batches of at most `max_tokens` positions, preference sets whole; what has no trained token is left out."""
    trained = [example for example in examples if example.trajectory.train_mask.any()]
    lengths = [slots(example.trajectory) for example in trained]
    together = [None if (p := example.trajectory.preference) is None else p.set_id for example in trained]
    return [[trained[index] for index in part] for part in plan_micro_batches(lengths, max_tokens, together)]


def evaluate_part(policy: Policy, examples: Sequence[Example], objective: Objective) -> Evaluation:
    """One micro-batch's share of the update's loss; the shares of all parts and ranks sum to the whole."""
    batch = collate(examples, pad_id=0, packed=True, device=policy.device)
    slots_N, part = batch.trained()
    hidden_NH = packed_hidden(policy.backbone, batch, slots_N)
    ids = part.teacher_topk_ids_BTK
    found = token_logprobs(
        hidden_NH, policy.head_VH, part.tokens_BT[0], topk_ids_NK=None if ids is None else ids[0].long()
    )
    view = PolicyView(
        logps_BT=found.logps_N[None],
        entropy_BT=found.entropy_N[None],
        topk_logps_BTK=None if found.topk_logps_NK is None else found.topk_logps_NK[None],
    )
    return evaluate_logps(
        objective.strands,
        part,
        view,
        normalisers=objective.normalisers,
        coefficients={s.name: objective.coefficients.get(s.name, 1.0) for s in objective.strands},
        old_is_current=objective.old_is_current,
    )


def idle_loss(policy: Policy) -> Tensor:
    """Exactly 0, through every parameter: what a rank without examples runs while the others work."""
    one = np.zeros(1, np.int32)
    batch, slots_N = _row([(one, one)], policy.device)
    hidden_NH = packed_hidden(policy.backbone, batch, slots_N)
    return token_logprobs(hidden_NH, policy.head_VH, batch.tokens_BT[0, slots_N]).logps_N.sum() * 0.0


# ---------------------------------------------------------------- scoring without a gradient


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Log-probabilities of one response's tokens. T tokens, K top-k."""

    logps: Float32
    """[T]"""
    topk_ids: Int32 | None = None
    """[T, K], most likely first."""
    topk_logps: Float32 | None = None
    """[T, K]"""


def plan_sequences(sequences: Sequence[tuple[Int32, Int32]], max_tokens: int) -> list[list[int]]:
    """Indices of (context, tokens) pairs, in parts of at most `max_tokens` positions; empty responses left out."""
    lengths = [len(context) + len(tokens) - 1 if len(tokens) else 0 for context, tokens in sequences]
    parts = plan_micro_batches(lengths, max_tokens)
    return [kept for part in parts if (kept := [index for index in part if lengths[index]])]


def logprobs_only(
    policy: Policy, sequences: Sequence[tuple[Int32, Int32]], *, max_tokens: int, top_k: int = 0
) -> list[Scored]:
    """Log-probabilities of (context, tokens) pairs at temperature 1, in order, and those of the K likeliest tokens."""
    empty = Scored(
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
    batch, slots_N = _row(sequences, policy.device)
    hidden_NH = packed_hidden(policy.backbone, batch, slots_N)
    ids_NK = None if not top_k else _top_ids(hidden_NH, policy.head_VH, top_k)
    found = token_logprobs(hidden_NH, policy.head_VH, batch.tokens_BT[0, slots_N], topk_ids_NK=ids_NK)
    ends = np.cumsum([len(tokens) for _, tokens in sequences])[:-1]
    logps = np.split(found.logps_N.float().cpu().numpy(), ends)
    if ids_NK is None or found.topk_logps_NK is None:
        return [Scored(one) for one in logps]
    ids = np.split(ids_NK.to(torch.int32).cpu().numpy(), ends)
    top = np.split(found.topk_logps_NK.float().cpu().numpy(), ends)
    return [Scored(*one) for one in zip(logps, ids, top, strict=True)]


def _top_ids(hidden_NH: Tensor, head_VH: Tensor, top_k: int) -> Tensor:
    """The K most likely tokens of each slot, by chunks of slots."""
    rows = max(1, 2**24 // head_VH.shape[0])
    return torch.cat([(part @ head_VH.T).topk(top_k, dim=-1).indices for part in torch.split(hidden_NH, rows)])


def _row(sequences: Sequence[tuple[Int32, Int32]], device: torch.device) -> tuple[TrajectoryBatch, Tensor]:
    """(context, tokens) pairs as one packed row, and the slots that predict their tokens."""
    for context, tokens in sequences:
        if not len(context) or not len(tokens):
            raise ValueError(
                f"a sequence of {len(context)} context and {len(tokens)} response tokens has no log-probability"
            )
    whole = [np.concatenate(pair) for pair in sequences]
    lengths = [len(one) - 1 for one in whole]
    starts = np.cumsum([0, *lengths])[:-1]
    answers = [
        start + np.arange(len(context) - 1, length)
        for (context, _), start, length in zip(sequences, starts, lengths, strict=True)
    ]

    def row(parts: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

    tokens_T = row([one[1:] for one in whole])
    batch = TrajectoryBatch(
        tokens_BT=tokens_T[None],
        mask_BT=torch.ones_like(tokens_T, dtype=torch.bool)[None],
        sequence_BT=row([np.full(length, index) for index, length in enumerate(lengths)])[None],
        inputs_BT=row([one[:-1] for one in whole])[None],
        positions_BT=row([np.arange(length) for length in lengths])[None],
        lengths=tuple(lengths),
    )
    return batch, row(answers)
