"""How faithfully the policy does what its teacher would, on rollouts of its own."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from orchestrator.probes import clusters, divergence, scores
from orchestrator.probes.scores import Floats, Pair
from orchestrator.probes.snapshot import Scored

MOST_STEPS = 20
"""Steps of a response that are told one by one."""


def document(scored: Sequence[Scored], *, confidence: float) -> dict[str, Any] | None:
    """Of one snapshot's scores, None where no teacher scored the policy's own rollouts.

    responses, tokens: counts of those that both scored. agreement: Interval, share of the tokens at which both find the
    same token likeliest. teacher_probability: Interval, mean probability that the teacher gives the policy's token. kl:
    Interval, KL(policy || teacher) a token in nats (`probes.divergence`). before: {"agreement",
    "kl"} of the policy as the stage found it, on rollouts of its own, and change: {"agreement", "kl"}, paired by
    prompt; both null where these were not scored.
    steps: [{"step" (from 0), "tokens", "agreement", "kl"}] of responses whose steps are known; [] where none is.
    """
    pairs = scores.paired(scored, "after", "after", "teacher")
    if not pairs:
        return None
    earlier = scores.paired(scored, "before", "before", "teacher")
    return {
        "responses": len(pairs),
        "tokens": int(sum(_both(pair).sum() for pair in pairs)),
        "agreement": asdict(divergence.agreement(pairs, confidence)),
        "teacher_probability": asdict(clusters.share(terms(pairs, probability), confidence=confidence)),
        "kl": asdict(divergence.divergence(pairs, confidence).per_token),
        "before": _before(earlier, confidence),
        "change": _change(earlier, pairs, confidence),
        "steps": list(_steps(pairs, confidence)),
    }


def probability(pair: Pair) -> Floats:
    """[T] the teacher's probability of the policy's token; NaN where unknown."""
    return np.where(_both(pair), np.exp(scores.logps(pair[1])), np.nan)


def gap(pair: Pair) -> Floats:
    """[T] log of the policy's probability over the teacher's: on tokens that the policy drew, KL on average."""
    return np.where(_both(pair), scores.logps(pair[0]) - scores.logps(pair[1]), np.nan)


def terms(pairs: Sequence[Pair], measure: Callable[[Pair], Floats]) -> clusters.Terms:
    """A mean over tokens, as sums over responses and their numbers of tokens, by prompt."""
    values = [measure(pair) for pair in pairs]
    sums = [float(np.nansum(one)) for one in values]
    return sums, [float(np.sum(~np.isnan(one))) for one in values], [one.prompt for one, _ in pairs]


def _both(pair: Pair) -> Any:
    return scores.known(pair[0]) & scores.known(pair[1])


def _before(pairs: Sequence[Pair], confidence: float) -> dict[str, Any] | None:
    if not pairs:
        return None
    return {
        "agreement": asdict(divergence.agreement(pairs, confidence)),
        "kl": asdict(divergence.divergence(pairs, confidence).per_token),
    }


def _change(before: Sequence[Pair], after: Sequence[Pair], confidence: float) -> dict[str, Any] | None:
    if not before:
        return None
    both = {
        "agreement": (divergence.agreeing(before), divergence.agreeing(after)),
        "kl": (terms(before, gap), terms(after, gap)),
    }
    return {name: asdict(clusters.difference(*sides, confidence=confidence)) for name, sides in both.items()}


def _steps(pairs: Sequence[Pair], confidence: float) -> list[dict[str, Any]]:
    """Step by step, over the responses that have so many."""
    known = [(pair, (0, *pair[0].steps)) for pair in pairs if pair[0].steps]
    most = max((len(ends) - 1 for _, ends in known), default=0)
    found = []
    for at in range(min(most, MOST_STEPS)):
        parts = [(_cut(pair[0], ends, at), _cut(pair[1], ends, at)) for pair, ends in known if len(ends) > at + 1]
        found.append(
            {
                "step": at,
                "tokens": int(sum(_both(pair).sum() for pair in parts)),
                "agreement": asdict(divergence.agreement(parts, confidence)),
                "kl": asdict(divergence.divergence(parts, confidence).per_token),
            }
        )
    return found


def _cut(row: Scored, ends: Sequence[int], at: int) -> Scored:
    """The row's step `at`."""
    part = slice(ends[at], ends[at + 1])
    own = (getattr(row, name)[part] for name in ("tokens", "logps", "best_ids", "best_logps"))
    return Scored(row.id, row.prompt, row.family, row.writer, row.model, *own)
