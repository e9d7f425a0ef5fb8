"""Effective support at the level of completions: prompts that a checkpoint passes with probability at least epsilon.

What is claimed of a prompt, and how sure it is (alpha = 1 - confidence; exact tests, no normal approximations):

* In support, outside: binomial tests of one side against epsilon, at alpha for each prompt and checkpoint. `retained`
  is in at both, `absent` is outside at both; each is false of a prompt with probability at most alpha.
* `expanded` needs three things: in support after; outside before; and the rise itself shown. The last is corrected for
  the number of prompts and both directions (Holm): whatever the pass probabilities, the chance that any prompt at all
  whose probability did not rise is called expanded, or any whose probability did not fall is called attrited, is at
  most alpha. Its p-value is the exact size of the region {before as absent as the design can show, after at least what
  was seen}: the greatest product of the two tails over a common p (unconditional, so that n may have been random).
* Outside before with few samples: no count refutes epsilon if n < ln(alpha) / ln(1 - epsilon), 59 at .05 and .05. A
  rise from no pass at all is then called expansion only if the prompts as a family say so: among those in support
  after, those with one or two passes before must be so few that at most a share alpha of the claims is expected to be
  wrong (selective sequential testing, Barber and Candes, Annals of Statistics 43, 2015: a prompt at epsilon or more has
  no pass at most r times as often as one or two, r known exactly). So making reliable what passed now and then is not
  taken for expansion.
* `attrited` is `expanded` with before and after changed over. All others are `undecided`.

Draws of before and after that share seeds are alike rather than unlike, which makes false changes rarer still.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.probes.sequential import Counts, Plan, counts, floor, matched, reaching, steepest
from orchestrator.probes.snapshot import Float64, Int64, Sampled
from policies.bad_input import BadInput, refuse

Int8 = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SupportChange:
    """Prompts by what became of them, as rising indices; each prompt stands in exactly one of the five."""

    expanded: Int64
    """Outside effective support before, in it after."""
    retained: Int64
    """In it at both."""
    attrited: Int64
    """In it before, outside after."""
    absent: Int64
    """Outside at both."""
    undecided: Int64
    """The counts do not say."""
    before_P: Int8
    """1 shown in support, -1 shown outside, 0 neither; each at the stated confidence for that prompt alone."""
    after_P: Int8
    prompts: tuple[str, ...] = ()
    """[P] ids, where they are known."""

    def ids(self, where: Int64) -> list[str]:
        """The ids of prompts given by index; the indices as text where ids are unknown."""
        return [self.prompts[at] if self.prompts else str(at) for at in where.tolist()]


def compare(
    before: tuple[int | npt.ArrayLike, npt.ArrayLike],
    after: tuple[int | npt.ArrayLike, npt.ArrayLike],
    *,
    epsilon: float,
    confidence: float,
    plan: Plan | None = None,
) -> SupportChange:
    """What became of each prompt between two checkpoints, from (samples, successes [P]) before and after; samples is
    one number or [P]. With the plan that ended the draws, counts are those of `Plan.counted`.

    BadInput: lengths that differ, counts that are not whole numbers or out of range, epsilon or confidence not between
    0 and 1.
    """
    first, last = _counts("before", before, plan), _counts("after", after, plan)
    return change(first, last, epsilon=epsilon, confidence=confidence)


def change(before: Counts, after: Counts, *, epsilon: float, confidence: float) -> SupportChange:
    """`compare` of counts that each bring the plan that ended their draws; rows are the same prompts."""
    for name, value in (("epsilon", epsilon), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise BadInput((f"support: {name} must lie between 0 and 1 (got {value})",))
    if len(before.c_P) != len(after.c_P):
        lengths = f"{len(before.c_P)} and {len(after.c_P)}"
        raise BadInput((f"support: before and after must have the same prompts (got {lengths})",))
    return _compared(before, after, epsilon, 1.0 - confidence)


def of(
    before: Sampled, after: Sampled, *, epsilon: float, confidence: float, plan: Plan | None = None
) -> SupportChange:
    """`compare` of the prompts that both have, in the order of `before`, with their ids; `plan` is what drew both."""
    mine, theirs = matched(before, after)
    found = change(
        counts(before, plan).rows(mine), counts(after, plan).rows(theirs), epsilon=epsilon, confidence=confidence
    )
    return replace(found, prompts=tuple(before.prompts[at] for at in mine))


def shown(of: Counts, epsilon: float, confidence: float) -> Int8:
    """[P]: 1 shown to pass with at least epsilon, -1 shown to pass with less, 0 neither; at the stated confidence for
    each prompt."""
    at_most, at_least = _tails(of, epsilon)
    alpha = 1.0 - confidence
    return np.where(at_least <= alpha, 1, np.where(at_most <= alpha, -1, 0)).astype(np.int8)


def _counts(side: str, given: tuple[Any, Any], plan: Plan | None) -> Counts:
    c, n = np.asarray(given[1]), np.asarray(given[0])
    c = c.astype(np.int64) if c.size == 0 else c
    faults = [
        f"support.compare: {side}: {name} must be whole numbers (got {value.dtype})"
        for name, value in (("samples", n), ("successes", c))
        if not np.issubdtype(value.dtype, np.integer)
    ]
    if c.ndim != 1 or n.ndim > 1 or (n.ndim == 1 and n.shape != c.shape):
        faults.append(
            f"support.compare: {side}: successes must be one list, and samples a number or a list as long "
            f"(got shapes {c.shape} and {n.shape})"
        )
    refuse(faults)
    n_P = np.broadcast_to(n, c.shape).astype(np.int64)
    wrong = np.flatnonzero((c < 0) | (c > n_P) | (n_P < 0))
    refuse([f"support.compare: {side}: prompt {at}: {c[at]} of {n_P[at]} samples passed; it needs 0 <= c <= n" for at in
            wrong[:21].tolist()])  # fmt: skip
    return Counts(n_P, c.astype(np.int64), plan)


def _compared(before: Counts, after: Counts, epsilon: float, alpha: float) -> SupportChange:
    in_before, in_after = (shown(side, epsilon, 1.0 - alpha) for side in (before, after))
    rise, fall = (
        _p_of_rise(low, high, verdict, epsilon, alpha)
        for low, high, verdict in ((before, after, in_after), (after, before, in_before))
    )
    count = 2 * int(np.sum((before.n_P > 0) & (after.n_P > 0)))
    rose, fell = np.split(_holm(np.concatenate([rise, fall]), count, alpha), 2)
    expanded = rose & _outside(before, in_before, in_after, rose, epsilon, alpha)
    attrited = fell & _outside(after, in_after, in_before, fell, epsilon, alpha)
    retained, absent = (in_before == 1) & (in_after == 1), (in_before == -1) & (in_after == -1)
    rest = ~(expanded | attrited | retained | absent)
    expansion, core, attrition, neither, unclear = map(np.flatnonzero, (expanded, retained, attrited, absent, rest))
    return SupportChange(expansion, core, attrition, neither, unclear, in_before, in_after)


def _holm(p_H: Float64, hypotheses: int, alpha: float) -> Bools:
    """Which are rejected so that any true one is with probability at most alpha (Holm, 1979); those of prompts without
    samples are not counted, nothing could reject them."""
    order = np.argsort(p_H, kind="stable")
    left = np.maximum(hypotheses - np.arange(len(p_H)), 1)
    passed = np.cumprod(p_H[order] <= alpha / left).astype(bool)
    rejected = np.zeros(len(p_H), bool)
    rejected[order[passed]] = True
    return rejected


def _p_of_rise(low: Counts, high: Counts, verdict_P: Int8, epsilon: float, alpha: float) -> Float64:
    """[P]: p-value against "the probability of `high` is not above that of `low`", 1 where `low` is not as absent as
    its design can show or `high` is not in support."""
    out = np.ones(len(low.n_P))
    reach_P = np.zeros(len(low.n_P))
    for design, rows in low.designs():
        reach_P[rows] = max(alpha, design.outcomes().at_most(np.array([epsilon]))[0, 0])
    who = (verdict_P == 1) & (low.n_P > 0) & (_tails(low, epsilon)[0] <= reach_P)
    for design, rows in low.designs(who):
        falling_G = floor(design, epsilon, alpha)
        for other, those in high.designs(np.isin(np.arange(len(who)), rows)):
            at = other.outcomes().place(high.n_P[those], high.c_P[those])
            for place in np.unique(at).tolist():
                out[those[at == place]] = steepest(falling_G, reaching(other, place))
    return out


def _tails(of: Counts, p: float) -> tuple[Float64, Float64]:
    """([P], [P]): probabilities of an outcome at most, and at least, as able as each prompt's where responses pass with
    probability p; 1 where a prompt has no samples."""
    at_most, at_least = np.ones(len(of.n_P)), np.ones(len(of.n_P))
    for design, rows in of.designs():
        outcomes = design.outcomes()
        at = outcomes.place(of.n_P[rows], of.c_P[rows])
        at_most[rows] = outcomes.at_most(np.array([p]))[at, 0]
        at_least[rows] = outcomes.at_least(np.array([p]))[at, 0]
    return at_most, at_least


def _outside(low: Counts, low_P: Int8, high_P: Int8, claimed_P: Bools, epsilon: float, alpha: float) -> Bools:
    """[P]: prompts outside support at `low`, each by its own count or, without any pass, by those of all that are in
    support at `high`."""
    shown_P, silent = low_P == -1, (high_P == 1) & (low_P == 0) & (low.n_P > 0) & (low.c_P == 0)
    few = (high_P == 1) & (low.n_P > 0) & (low.c_P >= 1) & (low.c_P <= 2)
    ratio = max((_silence(design, epsilon) for design, _ in low.designs(silent | few)), default=np.inf)
    claims = int(np.sum(silent & claimed_P))
    by_family = claims > 0 and ratio * (1 + np.sum(few)) <= alpha * claims
    outside: Bools = shown_P | (silent & by_family)
    return outside


def _silence(design: Plan, epsilon: float) -> float:
    """How often, at most, a prompt of at least epsilon has no pass for each time that it has one or two."""
    of = design.outcomes()
    chance = of.chances(np.array([epsilon]))[:, 0]
    few = (of.c_O >= 1) & (of.c_O <= 2) & (of.n_O == design.looks[-1])
    return float(chance[of.c_O == 0].sum() / chance[few].sum())
