"""How far two policies are apart on each one's own states, and how sure each is of itself there.

Estimated from own rollouts that both models score: at a token that w wrote, r = p_other / p_w. Expectations over w of

* k1 = -log r            KL(w || other), unbiased; single terms may be below 0
* k3 = r - 1 - log r     the same, never below 0 and less spread where the two are close (Schulman 2020, "Approximating
                         KL divergence"); but it needs the tail of r: of tokens that w seldom writes and the other does
                         not, none may have been drawn, and then it and its interval are too low
* split                  where both find the same token likeliest, its part and the part of "any other" are known, so
                         that much is exact and not below 0; k1 is left for which other it was, and for positions whose
                         likeliest tokens differ. Unbiased, without k3's tail, and with little of k1's spread, for most
                         tokens are the likeliest one

Summed over a response, each is unbiased for the KL between whole responses (the chain rule). All need responses drawn
from w itself, at temperature 1 and untruncated. Warnings say where few tokens carry the figure.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.probes import clusters, scores
from orchestrator.probes.clusters import Terms
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.scores import Floats, Pair
from orchestrator.probes.snapshot import Scored, Who

FEW_RESPONSES, FEW_TOKENS, LEAST_SHARE = 10, 10, 0.1
MOST_STEPS, LARGEST, LEAST = 20, 50.0, 1e-8
"""Steps that are told apart; log r that counts at most, and the least probability of all but the likeliest token, for
the log-probabilities are single precision."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(writer || other) on the writer's own states."""

    responses: int
    prompts: int
    tokens: int
    per_token: Interval
    """Mean over tokens of split, nats."""
    per_response: Interval
    """Mean over responses of its sum."""
    per_token_k1: Interval
    per_token_k3: Interval
    """For comparison; valid where the two are close, and too low where the tail is heavy."""
    effective_share: float
    """Effective sample size of the weights r over the tokens, divided by their number; NaN of none."""
    warnings: tuple[str, ...]
    """Why the figures are not to be leant on: few responses; few tokens carry them."""


def divergence(pairs: Sequence[Pair], confidence: float) -> Divergence:
    """`pairs`: each own rollout under its writer, and under the other model (`scores.paired`)."""
    if not pairs:
        return Divergence(0, 0, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, float("nan"), ())
    log_r = [_log_ratio(pair) for pair in pairs]
    sums, sizes, prompts = apart(pairs)
    ones, k3 = np.ones(len(pairs)), [_k3(one) for one in log_r]

    def mean(up: Any, down: Any) -> Interval:
        return clusters.ratio((up, down, prompts), confidence=confidence)

    return Divergence(
        len(pairs),
        len(set(prompts)),
        int(np.sum(sizes)),
        _not_below_zero(mean(sums, sizes)),
        _not_below_zero(mean(sums, ones)),
        mean([-float(one.sum()) for one in log_r], sizes),
        _not_below_zero(mean([float(one.sum()) for one in k3], sizes)),
        _effective_share(np.concatenate(log_r)),
        _warnings(np.concatenate(log_r), np.concatenate([_split(pair) for pair in pairs]), len(pairs)),
    )


def entropy(rows: Sequence[Scored], confidence: float) -> Interval:
    """Mean of -log p over the tokens that the model wrote itself: its entropy per token on its own states, nats."""
    return clusters.ratio(_negative_logps(rows), confidence=confidence)


def agreement(pairs: Sequence[Pair], confidence: float) -> Interval:
    """Share of positions at which both models would choose the same token greedily."""
    return clusters.share(agreeing(pairs), confidence=confidence)


def apart(pairs: Sequence[Pair]) -> Terms:
    """Split summed over each response, its tokens, and whose it is."""
    split = [_split(pair) for pair in pairs]
    return [float(one.sum()) for one in split], [float(len(one)) for one in split], [one.prompt for one, _ in pairs]


def _split(pair: Pair) -> Floats:
    """Of the tokens that both know."""
    writer, other = pair
    both = scores.known(writer) & scores.known(other)
    k1 = scores.logps(writer) - scores.logps(other)
    same = (writer.best_ids >= 0) & (writer.best_ids == other.best_ids)
    best, rest = (list(one) for one in zip(*(_likeliest(row) for row in pair), strict=True))
    exact = np.exp(best[0]) * (best[0] - best[1]) + np.exp(rest[0]) * (rest[0] - rest[1])
    which = np.where(writer.tokens == writer.best_ids, 0.0, k1 - (rest[0] - rest[1]))
    return np.asarray(np.where(same, exact + which, k1)[both])


def _likeliest(row: Scored) -> tuple[Floats, Floats]:
    """log p of the likeliest token and of all the others together."""
    best = np.minimum(row.best_logps.astype(np.float64), 0.0)
    return best, np.log(np.maximum(-np.expm1(best), LEAST))


def agreeing(pairs: Sequence[Pair]) -> Terms:
    """Positions of each response with the same greedy choice, those where both are known, and whose."""
    both = [_comparable(one, other) for one, other in pairs]
    same = [one.best_ids == other.best_ids for one, other in pairs]
    hits = [float((a & b).sum()) for a, b in zip(both, same, strict=True)]
    return hits, [float(one.sum()) for one in both], [one.prompt for one, _ in pairs]


def document(scored: Sequence[Scored], *, confidence: float) -> dict[str, Any]:
    """Before and after on their own rollouts; figures are null where nobody wrote or scored what they need.

    from_before: Interval, KL(after || before) per token on after's own rollouts; to_after: KL(before || after) on
    before's own. Nats. after_own, before_own: the whole `Divergence` of each. entropy, agreement: {"before", "after"
    on own states, "change": Interval}; agreement's keys are {"before_own", "after_own"}: greedy choices that before and
    after share. steps: {"at": [1, ..], "after_own", "before_own": {"value", "low", "high": [..]}}: KL per token in the
    first step of a response, the second, ..; null where steps are unknown. warnings: [text].
    """
    own: dict[Who, list[Pair]] = {
        "before": scores.paired(scored, "before", "before", "after"),
        "after": scores.paired(scored, "after", "after", "before"),
    }
    found = {name: divergence(pairs, confidence) for name, pairs in own.items()}
    alone = {name: list(scores.under(scored, name, name).values()) for name in own}
    sides = {name: entropy(rows, confidence) for name, rows in alone.items()}
    moved = clusters.difference(
        _negative_logps(alone["before"]), _negative_logps(alone["after"]), confidence=confidence
    )
    return {
        "from_before": asdict(found["after"].per_token),
        "to_after": asdict(found["before"].per_token),
        "after_own": asdict(found["after"]),
        "before_own": asdict(found["before"]),
        "entropy": {**{name: asdict(one) for name, one in sides.items()}, "change": asdict(moved)},
        "agreement": {f"{name}_own": asdict(agreement(pairs, confidence)) for name, pairs in own.items()},
        "steps": _steps(own, confidence),
        "warnings": [f"{name}'s own rollouts: {text}" for name, one in found.items() for text in one.warnings],
    }


def _log_ratio(pair: Pair) -> Floats:
    """log p_other - log p_writer of the tokens that both know."""
    both = scores.known(pair[0]) & scores.known(pair[1])
    return np.asarray((scores.logps(pair[1]) - scores.logps(pair[0]))[both])


def _k3(log_r: Floats) -> Floats:
    return np.asarray(np.expm1(np.minimum(log_r, LARGEST)) - log_r)


def _not_below_zero(one: Interval) -> Interval:
    return (
        one if np.isnan(one.value) else Interval(*(float(np.maximum(x, 0.0)) for x in (one.value, one.low, one.high)))
    )


def _effective_share(log_r: Floats) -> float:
    if not len(log_r):
        return float("nan")
    weight = np.exp(log_r - log_r.max())
    return float(weight.sum() ** 2 / (weight**2).sum() / len(weight))


def _warnings(log_r: Floats, split: Floats, responses: int) -> tuple[str, ...]:
    said = []
    if responses < FEW_RESPONSES:
        said.append(f"{responses} responses: too few for an interval to hold")
    if (share := _effective_share(log_r)) < LEAST_SHARE:
        said.append(f"the weights' effective sample is {share:.1%} of the tokens: k3 is not to be trusted")
    size = np.abs(split)
    if size.sum() > 0 and (carrying := float(size.sum() ** 2 / (size**2).sum())) < FEW_TOKENS:
        said.append(f"it hangs on about {carrying:.0f} of {len(split)} tokens: more of the kind may be unseen")
    return tuple(said)


def _negative_logps(rows: Sequence[Scored]) -> Terms:
    return (
        [-float(scores.logps(row).sum()) for row in rows],
        [float(scores.known(row).sum()) for row in rows],
        [row.prompt for row in rows],
    )


def _comparable(one: Scored, other: Scored) -> Any:
    return (one.best_ids >= 0) & (other.best_ids >= 0) & scores.known(one) & scores.known(other)


def _steps(own: dict[Who, list[Pair]], confidence: float) -> dict[str, Any] | None:
    known = {name: [pair for pair in pairs if pair[0].steps] for name, pairs in own.items()}
    most = min(MOST_STEPS, max((len(one.steps) for pairs in known.values() for one, _ in pairs), default=0))
    if not most:
        return None
    return {"at": list(range(1, most + 1)), **{f"{n}_own": _by_step(p, most, confidence) for n, p in known.items()}}


def _by_step(pairs: Sequence[Pair], most: int, confidence: float) -> dict[str, list[float]]:
    """KL per token in each step, of the responses that have it."""
    sums, sizes = np.zeros((len(pairs), most)), np.zeros((len(pairs), most))
    for row, (one, other) in enumerate(pairs):
        both = scores.known(one) & scores.known(other)
        step = np.searchsorted(np.asarray(one.steps), np.arange(len(one.tokens)), side="right")[both]
        keep = step < most
        sums[row] = np.bincount(step[keep], _split((one, other))[keep], minlength=most)
        sizes[row] = np.bincount(step[keep], minlength=most)
    prompts = [one.prompt for one, _ in pairs]
    terms = [(sums[:, at], sizes[:, at], prompts) for at in range(most)]
    found = [_not_below_zero(clusters.ratio(one, confidence=confidence)) for one in terms]
    return {key: [getattr(one, key) for one in found] for key in ("value", "low", "high")}
