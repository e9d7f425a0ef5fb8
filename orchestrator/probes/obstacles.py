"""What stands between a policy and a known good trajectory: one or a few tokens, or the whole way there.

Teacher-forced scores are exact, so that nothing here is an estimate. A token's cost is how much likelier the policy's
own favourite is at that place, log p(best) - log p(token): a place where many continuations are good costs a trajectory
little, whatever its length. The policy's own rollouts have such costs as well; what they pay on average is taken off.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.probes.snapshot import Float64, Scored

Shape = Literal["unknown", "open", "few", "spread", "unclear"]
"""Of a trajectory: nobody scored it; nothing stands out on it; few tokens are in the way; many are; between them."""

FEW = 2
"""Crucial tokens at most, and not more than a third of the trajectory's."""

CARRIED = 0.75
"""Share of the whole cost that few tokens carry where they are what stands in the way."""

SPREAD = 0.6
"""Share that the costliest tokens stay below where the whole way is unlikely."""


@dataclass(frozen=True, slots=True)
class Crucial:
    """A token that the policy hardly writes, and what it writes there instead."""

    position: int
    """In the response, from 0."""
    length: int
    """Tokens of the response."""
    token: int
    probability: float
    instead: int
    """The policy's favourite."""
    instead_probability: float


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Of the trajectory that is closest to the policy, among the known good ones of a prompt."""

    shape: Shape = "unknown"
    reach: float = math.nan
    """Probability that a response is one of the known good ones, exactly: a lower bound on the solve rate."""
    crucial: tuple[Crucial, ...] = ()
    """The costliest tokens, in their order."""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Own:
    """What the policy's own rollouts cost per token: their mean, and how far single tokens lie from it."""

    mean: float = 0.0
    deviation: float = 0.0


def own_costs(scored: Iterable[Scored]) -> Own:
    """Of the policy's own rollouts (writer and model `after`); zero where there are none, which is strict."""
    costs = [_costs(one) for one in scored if one.writer == one.model == "after"]
    whole = np.concatenate(costs) if costs else np.zeros(0)
    return Own(float(whole.mean()), float(whole.std())) if whole.size else Own()


def obstacles(scored: Iterable[Scored], epsilon: float) -> dict[str, Obstacle]:
    """Prompt -> what stands in the way there, of prompts that have a trajectory in the bank."""
    scored = tuple(scored)
    own, by_prompt = own_costs(scored), _bank(scored)
    return {prompt: _closest(rows, epsilon, own) for prompt, rows in by_prompt.items()}


def _bank(scored: Sequence[Scored]) -> Mapping[str, list[Scored]]:
    """Each prompt's good trajectories as the snapshot's own policy scored them, each text once."""
    model = "after" if any(one.writer == "bank" and one.model == "after" for one in scored) else "before"
    found: dict[str, dict[bytes, Scored]] = {}
    for one in scored:
        if one.writer == "bank" and one.model == model and len(one.tokens):
            found.setdefault(one.prompt, {})[one.tokens.tobytes()] = one
    return {prompt: list(rows.values()) for prompt, rows in found.items()}


def _closest(rows: Sequence[Scored], epsilon: float, own: Own) -> Obstacle:
    known = [one for one in rows if np.isfinite(one.logps).any()]  # an environment's tokens have no probability
    if not known:
        return Obstacle()
    reach = min(math.fsum(math.exp(float(np.nansum(one.logps, dtype=np.float64))) for one in known), 1.0)
    told = [_told(one, epsilon, own) for one in known]
    rank: dict[Shape, int] = {"few": 0, "open": 1, "unclear": 2, "spread": 3, "unknown": 4}
    shape, _, costs, one = min(told, key=lambda each: (rank[each[0]], each[1]))
    places = np.argsort(-costs, kind="stable")[: _few(len(costs))]
    crucial = tuple(_crucial(one, int(place)) for place in sorted(places) if costs[place] > 0)
    return Obstacle(shape, reach, _carrying(crucial, costs) if shape == "few" else crucial, one.id)


def _told(one: Scored, epsilon: float, own: Own) -> tuple[Shape, float, Float64, Scored]:
    """(shape, whole cost, costs, trajectory)."""
    costs = _costs(one)
    falling, few = np.sort(costs)[::-1], _few(len(costs))
    top, rest = float(falling[:few].sum()), float(falling[few:].sum())
    left = len(costs) - few
    usual = own.mean * left + 2.0 * own.deviation * math.sqrt(left)
    rest = max(rest - usual, 0.0)
    whole, enough = top + rest, -math.log(epsilon)
    if whole <= enough and top < enough * CARRIED:
        return ("open", whole, costs, one)
    share = top / whole
    if rest > enough or share < SPREAD:
        return ("spread", whole, costs, one)
    return ("few" if share >= CARRIED else "unclear", whole, costs, one)


def _carrying(crucial: tuple[Crucial, ...], costs: Float64) -> tuple[Crucial, ...]:
    """Those of the costliest tokens that matter: one that costs a tenth of the costliest is not crucial."""
    most = max(costs[one.position] for one in crucial)
    return tuple(one for one in crucial if costs[one.position] > 0.1 * most)


def _costs(one: Scored) -> Float64:
    """[T] log p(best) - log p(token), never negative; 0 where a position is unknown (an environment wrote it)."""
    gap = one.best_logps.astype(np.float64) - one.logps.astype(np.float64)
    return np.maximum(np.nan_to_num(gap, nan=0.0), 0.0)


def _few(tokens: int) -> int:
    return min(FEW, math.ceil(tokens / 3))


def _crucial(one: Scored, place: int) -> Crucial:
    chances = math.exp(float(one.logps[place])), math.exp(float(one.best_logps[place]))
    return Crucial(place, len(one.tokens), int(one.tokens[place]), chances[0], int(one.best_ids[place]), chances[1])
