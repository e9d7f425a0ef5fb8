"""What was computed, as FLOPs, and what a useful thing cost. Pure: counts in, numbers out; unknown is NaN.

FLOPs of one forward pass over a sequence, with the shape's N (`active`), head, and attention width A = L q d:

    2 N positions + 2 V H tokens + 4 A pairs

positions: tokens read; tokens: those of them at which the head is computed; pairs: n (n + 1) / 2 of a sequence of n,
for a position looks at itself and at all before it. Two FLOPs a multiply-and-add. This is Kaplan et al. (arXiv
2001.08361, section 2.1 and table 1): 2 N + 2 L n A a token, where n / 2 positions stand before a token on average; with
the logits counted, as Hoffmann et al. do (arXiv 2203.15556, appendix F), for the head of a small model is not small.
Norms, softmax, rotations and sampling are left out, as there; so are bytes moved, which is what decoding waits for.

A training pass costs 3 forward passes (the backward is twice the forward), hence 6 N a token; one more of the body,
8 N, where activations are computed again. Adapters spare the gradients of the weights: 4 N, 6 N with recomputation.
Counts are as if no engine kept the prefixes that several responses share: with prefix caching fewer are computed.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.model_shape import Shape

KINDS = ("generate", "score", "train", "interference")
POINT = 0.01
"""A point of pass@1."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How the learner trains."""

    adapters: bool = False
    """The model's own weights stay as they are."""
    recomputes: bool = False
    """Activations are computed again in the backward."""


PLAIN = Passes()


def flops(work: Mapping[str, Any], shape: Shape, passes: Passes = PLAIN) -> float:
    """Of one entry of `work` (`bills`): kind, positions, tokens, pairs."""
    positions, tokens, pairs = (float(work[key]) for key in ("positions", "tokens", "pairs"))
    body = 2.0 * shape.active * positions + 4.0 * shape.attention * pairs
    head = 2.0 * shape.head * tokens
    if work["kind"] in ("generate", "score"):
        return body + head
    times = 2 if passes.adapters else 3
    return (times + passes.recomputes) * body + times * head


def by_kind(work: Iterable[Mapping[str, Any]], shapes: Mapping[str, Shape], passes: Passes = PLAIN) -> dict[str, float]:
    """Kind -> FLOPs; NaN where a model's shape is not known."""
    found = dict.fromkeys(KINDS, 0.0)
    for one in work:
        shape = shapes.get(one["model"])
        found[one["kind"]] += math.nan if shape is None else flops(one, shape, passes)
    return found


def priced(seconds: Mapping[str, float], hourly: Mapping[str, float]) -> float:
    """What the roles' seconds cost, at a price an hour of each; NaN without prices. A role without one is free."""
    if not hourly:
        return math.nan
    return math.fsum(spent * hourly.get(role, 0.0) for role, spent in seconds.items()) / 3600.0


def each(cost: float, count: int) -> float:
    """The share of one of `count` things; NaN of none."""
    return cost / count if count else math.nan


def per_point(cost: float, gain: Interval) -> Interval:
    """What one point of pass@1 cost, where the gain is surely one; unknown where its interval holds 0, or it is a loss.

    cost / gain is monotone in the gain, so the ends of its interval are those of the gain's, turned round.
    """
    if not gain.known or math.isnan(cost) or not gain.low > 0.0:
        return UNKNOWN
    return Interval(*(cost * POINT / one for one in (gain.value, gain.high, gain.low)))


def gain_in_words(gain: Interval) -> str:
    """Why there is a price of a point, or none."""
    if not gain.known:
        return "the gain was not measured"
    told = f"{gain.value / POINT:+.1f} points [{gain.low / POINT:+.1f}, {gain.high / POINT:+.1f}]"
    if gain.low > 0.0:
        return told
    if gain.high < 0.0:
        return f"{told}: a loss, so no point was gained"
    return f"{told}: the interval holds 0, so no cost of a point is finite"


# ---------------------------------------------------------------- scaffolded and amortised


def per_passed(cost: float, share: Interval) -> Interval:
    """What a passing answer costs, asking until one comes: cost / pass rate. No upper end where the rate may be 0."""
    if math.isnan(cost) or not share.known or share.value <= 0.0:
        return UNKNOWN
    high = cost / share.low if share.low > 0.0 else math.inf
    return Interval(cost / share.value, cost / share.high, high)


def break_even(training: float, scaffolded: Interval, bare: Interval) -> Interval:
    """After how many answers the training that spares the scaffold has paid for itself: training / saving.

    `scaffolded` and `bare` are what an answer costs, before and after. NaN where the saving is unknown or none; the
    ends are those of the extreme savings, with no upper end where there may be none.
    """
    saving = scaffolded.value - bare.value
    if math.isnan(training) or math.isnan(saving) or saving <= 0.0:
        return UNKNOWN
    most, least = scaffolded.high - bare.low, scaffolded.low - bare.high
    return Interval(training / saving, training / most, training / least if least > 0.0 else math.inf)


def exactly(value: float) -> Interval:
    """A number that is counted, not estimated."""
    return Interval(value, value, value)
