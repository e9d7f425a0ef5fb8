"""g, the factor on grad log p of a token, handed back to the examples that were trained: how hard each was pulled.

T = tokens of a response; N = trained slots of a micro-batch, example after example. What g is of each kernel:

point, set                       the derivative of the loss by the token's log-probability, negated
div k1, k2, k3, rk3              the same: they are estimated on the sampled token
div forward, reverse, jsd        nothing: they pull the whole next-token distribution, not one token. A token that only
    and entropy                  such terms read has no g (NaN); beside other terms, g is that of the others
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from policies import step
from policies.config import Div, Strand
from policies.example import Example
from policies.objective import Evaluation
from policies.reduce import reads
from policies.trajectory import Float32

WHOLE = ("forward", "reverse", "jsd", "entropy")
"""Forms of a divergence that pull on every token of the vocabulary."""

Mask = npt.NDArray[np.bool_]


def of_share(
    strands: Sequence[Strand], share: Sequence[Example], parts: Sequence[Evaluation] | None, max_tokens: int
) -> list[Float32]:
    """[T] of each example of one update's share, in order, from what was evaluated of its parts (`step.plan`).

    None: the update was skipped, and what would have pulled did not; NaN throughout.
    """
    nothing = np.nan if parts is None else 0.0
    found = [np.full(len(one.trajectory.tokens), nothing, np.float32) for one in share]
    if not parts:
        return found
    ordered = [place for part in step.places(share, max_tokens) for place in part]
    g_N = torch.cat([part.coefficient_BT.flatten().float() for part in parts]).cpu().numpy()
    for place, one in zip(ordered, of_examples(strands, [share[place] for place in ordered], g_N), strict=True):
        found[place] = one
    return found


def of_examples(strands: Sequence[Strand], examples: Sequence[Example], g_N: Float32) -> list[Float32]:
    """[T] of each example: g where it trains, 0 where it does not, NaN where a token has no g of its own.

    `g_N` holds g of the trained slots in the examples' order, as `collate` and `TrajectoryBatch.trained` lay them out.
    """
    trained = sum(int(np.count_nonzero(one.trajectory.train_mask)) for one in examples)
    if trained != len(g_N):
        raise ValueError(f"coefficients: {len(g_N)} for examples with {trained} trained tokens")
    whole = [_whole(strand) for strand in strands]
    found, at = list[Float32](), 0
    for example in examples:
        mask = example.trajectory.train_mask
        g = np.zeros(len(mask), np.float32)
        end = at + int(np.count_nonzero(mask))
        g[mask] = g_N[at:end]
        if whole[example.strand]:
            g[mask & untold(strands[example.strand], example)] = np.nan
        found.append(g)
        at = end
    return found


def untold(strand: Strand, example: Example) -> Mask:
    """[T] tokens that terms read, none of them by the token's own log-probability."""
    whole, own = np.zeros((2, len(example.trajectory.tokens)), np.bool_)
    for term in strand.terms:
        pulls = isinstance(term.kernel, Div) and term.kernel.form in WHOLE
        (whole if pulls else own)[reads(term.only, example)] = True
    return whole & ~own


def _whole(strand: Strand) -> bool:
    return any(isinstance(term.kernel, Div) and term.kernel.form in WHOLE for term in strand.terms)
