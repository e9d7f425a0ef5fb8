"""What a step needs to know before its first update: the learner's own views as they are, and figures of the step.

One forward pass without gradient over the examples whose strands ask, in parts; then the ranks exchange figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.backend import Backend
from actors.meter import Work
from actors.ranks import Ranks
from policies import statistics, step
from policies.config import Set, Strand
from policies.example import Example
from policies.scalar_head import foresees, outputs_only
from policies.sequences import Pair, plan_sequences
from policies.statistics import Statistics
from policies.step import Policy, Scored
from policies.trajectory import Float32

Updates = Sequence[Sequence[Example]]
"""This rank's share of each update."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Runs a model over given tokens, without gradient, in parts that fit. Collective: all ranks call it alike."""

    policy: Policy
    backend: Backend
    ranks: Ranks
    max_tokens: int
    read: Work = field(default_factory=Work)
    """What this rank has read so far."""

    def scored(self, pairs: Sequence[Pair]) -> list[Scored | None]:
        """Log-probabilities and entropies of (context, tokens); None for an empty response."""
        return self._run(pairs, lambda part: step.score_part(self.policy, [pairs[i] for i in part]))

    def values(self, pairs: Sequence[Pair], before: Sequence[bool]) -> list[Float32 | None]:
        """A scalar head's outputs for (context, tokens), [T] each; None for an empty response."""
        backbone, head = self.policy.backbone, self.policy.head_VH

        def read(part: Sequence[int]) -> list[Float32]:
            return outputs_only(backbone, head, [pairs[i] for i in part], [before[i] for i in part])

        return self._run(pairs, read)

    def _run(self, pairs: Sequence[Pair], read: Callable[[Sequence[int]], Sequence[Any]]) -> list[Any]:
        parts = plan_sequences(pairs, self.max_tokens)
        for context, tokens in pairs:
            if len(tokens):
                self.read.add(len(context) + len(tokens) - 1, len(tokens))
        found: list[Any] = [None] * len(pairs)

        def forward(index: int) -> Tensor:
            if index >= len(parts):
                return step.idle_loss(self.policy)
            for place, one in zip(parts[index], read(parts[index]), strict=True):
                found[place] = one
            return torch.zeros(())

        with torch.no_grad():
            for index in range(self.ranks.most(len(parts))):
                self.backend.forward(_bound(forward, index))
        return found


def prepare(
    reader: Reader, strands: Sequence[Strand], updates: Updates, *, compute_old: bool
) -> tuple[Updates, Statistics]:
    """The examples with the views that were asked for, and the step's statistics, the same on every rank.

    `compute_old`: the step has several updates, so that the learner at its start is not the current one. A step of one
    update whose strands want no statistic runs no forward pass at all.
    """
    wanted = statistics.wanted(strands)
    if reader.policy.scalar:
        prepared = _with_values(reader, strands, updates)
    elif compute_old or wanted:
        prepared = _with_logps(reader, strands, updates, compute_old=compute_old)
    else:
        return updates, statistics.NONE
    if not wanted:
        return prepared, statistics.NONE
    own = statistics.local(strands, [example for share in prepared for example in share])
    return prepared, statistics.finish(strands, reader.ranks.gather(own))


def _with_logps(reader: Reader, strands: Sequence[Strand], updates: Updates, *, compute_old: bool) -> Updates:
    """Old log-probabilities and entropies where a term or a statistic of the example's strand reads them."""
    logps = [(compute_old and step.reads_old(one)) or statistics.reads_old_logps(one) for one in strands]
    entropy = [statistics.reads_old_entropy(one) for one in strands]
    asked = [example for share in updates for example in share if logps[example.strand] or entropy[example.strand]]
    known = iter(reader.scored([(one.trajectory.train_context, one.trajectory.tokens) for one in asked]))

    def viewed(example: Example) -> Example:
        if not (logps[example.strand] or entropy[example.strand]):
            return example
        found = next(known)
        nothing = example.trajectory.behavior_logps  # right for an empty response: no token, no value
        if logps[example.strand]:
            example = replace(example, old_logps=found.logps if found else nothing)
        if entropy[example.strand]:
            example = replace(example, old_entropy=found.entropy if found else nothing)
        return example

    return [[viewed(example) for example in share] for share in updates]


def _with_values(reader: Reader, strands: Sequence[Strand], updates: Updates) -> Updates:
    """Old values where a term of the example's strand is held near them and the example brings none."""
    reads = [_holds_values(strand) for strand in strands]
    if not any(reads):
        return updates
    asked = [one for share in updates for one in share if reads[one.strand] and one.old_values is None]
    pairs = [(one.trajectory.train_context, one.trajectory.tokens) for one in asked]
    found = reader.values(pairs, [foresees(strands[one.strand]) for one in asked])
    nothing = np.empty(0, np.float32)
    known = {id(one): nothing if own is None else own for one, own in zip(asked, found, strict=True)}
    return [[replace(e, old_values=known[id(e)]) if id(e) in known else e for e in share] for share in updates]


def _holds_values(strand: Strand) -> bool:
    return any(isinstance(term.kernel, Set) and term.kernel.clip is not None for term in strand.terms)


def _bound(function: Callable[[int], Tensor], index: int) -> Callable[[], Tensor]:
    return lambda: function(index)
