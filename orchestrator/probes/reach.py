"""Reach: how far along known good trajectories the policy gets, and where it would leave them.

A trajectory of the bank is teacher-forced: exp(sum of log p over its first t tokens) is the probability that the policy
writes that prefix by itself (the survey's d(s), up to the prompt), and p of the next token says whether the useful
action is available once there (pi(a|s)). No sampling is in these figures: intervals are over trajectories, by prompt.

R = trajectories, T = tokens of one, Q = points of a curve.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.probes import clusters, scores
from orchestrator.probes.clusters import Terms
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.scores import Floats, Pair
from orchestrator.probes.snapshot import Scored

POINTS, PLACES, REPLICATES, SEED = 41, 10, 300, 20260407
QUANTILES = (0.1, 0.5, 0.9)
SIDES = ("before", "after")


@dataclass(frozen=True, slots=True)
class Death:
    """Where one trajectory falls out of reach."""

    at: int | None
    """First position (from 0) up to and with which the cumulative probability is below the floor; None: it never is."""
    step: int | None
    """The step (from 0) that holds it; None where steps are unknown, or it never falls."""
    crucial: int
    """The position with the largest drop: the token that the policy is least likely to write."""
    drop: float
    """Its -log p, nats."""
    share: float
    """Of the trajectory's whole -log p; NaN where that is 0."""


def log_reach(row: Scored) -> Floats:
    """[T + 1]: log-probability of the prefix of each length; the empty one's is 0, the last is the trajectory's."""
    return np.concatenate([[0.0], np.cumsum(scores.logps(row))])


def death(row: Scored, floor: float) -> Death:
    """Where the reach of this trajectory falls below `floor`, and its crucial token."""
    single = scores.logps(row)
    below = np.flatnonzero(np.cumsum(single) < np.log(floor))
    at = int(below[0]) if len(below) else None
    step = None if at is None or not row.steps else int(np.searchsorted(row.steps, at, side="right"))
    crucial = int(np.argmin(single))
    whole = float(single.sum())
    return Death(at, step, crucial, -float(single[crucial]), float(single[crucial]) / whole if whole else float("nan"))


def available(row: Scored, least: float) -> Floats:
    """[T] 1 where the good token has at least probability `least`, 0 where it has not, NaN where it is unknown."""
    return np.where(scores.known(row), (scores.logps(row) >= np.log(least)).astype(np.float64), np.nan)


def gap(row: Scored) -> Floats:
    """[T] log p of the likeliest token less that of the good one, nats, >= 0; NaN where unknown."""
    out = np.asarray(row.best_logps, np.float64) - np.asarray(row.logps, np.float64)
    return np.where(row.best_ids >= 0, np.maximum(out, 0.0), np.nan)


def document(pairs: Sequence[Pair], *, epsilon: float, confidence: float) -> dict[str, Any] | None:
    """The bank before and after; None of an empty one. `pairs`: each trajectory under both models (`scores.paired`).

    trajectories, prompts: counts. epsilon: the floor of reach, and the least probability of an available action.
    curves: {"relative", "absolute"}: {"at": [Q] share of the trajectory or tokens from its start, "before" and "after":
        {"median", "low", "high", "q10", "q90"}: [Q] natural log of reach, low and high bound the median}. A trajectory
        that has ended keeps its last value, so that each curve is of the whole bank and never rises.
    steps: the same by whole steps ("at" counts steps), null where steps are unknown.
    places: {"at": [10] middles of tenths of the trajectory, "before", "after": {"available", "first_choice": {"value",
        "low", "high": [10]}, "dies": [10] share of the trajectories whose reach falls below epsilon there, "crucial":
        [10] share whose crucial token is there}}.
    tokens: {"available", "first_choice", "gap", "nll"}: {"before", "after", "change": Interval}: means over tokens.
    reached: {"before", "after", "change": Interval}: mean prefix reach, the mean over a trajectory's positions of the
        probability that the policy writes it up to there: the share of a good trajectory that the policy is expected
        to follow by itself before it leaves it.
    ends: {"before", "after": {"survives": Interval share that never falls below epsilon, "crucial_share": Interval, of
        the whole -log p}}.
    change: {"log_reach": Interval mean change of the trajectories' log-probability, nats, "whole" and "every_action":
        {"gained", "lost": [ids], "kept", "never": counts, "gained_share", "lost_share", "before_share": Interval}}.
        whole: the trajectory's probability is at least epsilon; every_action: each of its tokens' is, a weaker
        condition that long trajectories can meet.
    """
    if not pairs:
        return None
    sides = [[one[at] for one in pairs] for at in range(2)]
    prompts = [one.prompt for one, _ in pairs]
    weights = clusters.resampled(prompts, max(50, min(REPLICATES, 2_000_000 // len(pairs))), SEED)
    tail = (1 - confidence) / 2

    def curve(grid: Callable[[Scored], npt.NDArray[np.int64]]) -> dict[str, Any]:
        return {name: _curve(rows, grid, weights, tail) for name, rows in zip(SIDES, sides, strict=True)}

    at = np.linspace(0, 1, POINTS)
    longest = max(len(row.tokens) for row in sides[0])
    tokens = np.unique(np.round(np.linspace(0, longest, POINTS)).astype(np.int64))
    relative = {"at": at.tolist(), **curve(lambda row: np.ceil(at * len(row.tokens) - 1e-9).astype(np.int64))}
    absolute = {"at": tokens.tolist(), **curve(lambda row: np.minimum(tokens, len(row.tokens)))}
    return {
        "trajectories": len(pairs),
        "prompts": len(set(prompts)),
        "epsilon": epsilon,
        "curves": {"relative": relative, "absolute": absolute},
        "steps": _steps(pairs, tail),
        "places": {
            "at": [(place + 0.5) / PLACES for place in range(PLACES)],
            **{name: _places(rows, epsilon, confidence) for name, rows in zip(SIDES, sides, strict=True)},
        },
        "tokens": _tokens(sides, epsilon, confidence),
        "reached": _reached(sides, confidence),
        "ends": {name: _ends(rows, epsilon, confidence) for name, rows in zip(SIDES, sides, strict=True)},
        "change": _change(sides, epsilon, confidence),
    }


def followed(row: Scored) -> float:
    """Expected share of the trajectory that the policy writes by itself before it first leaves it."""
    return float(np.exp(log_reach(row)[1:]).mean())


def quantiles(values: Floats, weights: Floats, level: float) -> Floats:
    """[B, Q]: that quantile of each column of values [R, Q], each row counted as often as weights [B, R] say."""
    out = np.empty((len(weights), values.shape[1]))
    goal = level * weights.sum(1, keepdims=True) - 1e-9
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column], kind="stable")
        first = np.argmax(np.cumsum(weights[:, order], axis=1) >= goal, axis=1)
        out[:, column] = values[order[first], column]
    return out


def _curve(
    rows: Sequence[Scored], grid: Callable[[Scored], npt.NDArray[np.int64]], weights: Floats, tail: float
) -> dict[str, list[float]]:
    values = np.stack([log_reach(row)[grid(row)] for row in rows])
    low, middle, high = np.quantile(values, QUANTILES, axis=0, method="inverted_cdf")
    bounds = np.quantile(quantiles(values, weights, 0.5), [tail, 1 - tail], axis=0)
    return {
        "median": middle.tolist(),
        "low": bounds[0].tolist(),
        "high": bounds[1].tolist(),
        "q10": low.tolist(),
        "q90": high.tolist(),
    }


def _steps(pairs: Sequence[Pair], tail: float) -> dict[str, Any] | None:
    """Curves by step, of the trajectories whose steps are known."""
    known = [pair for pair in pairs if pair[0].steps]
    if not known:
        return None
    most = min(max(len(one.steps) for one, _ in known), POINTS - 1)
    weights = clusters.resampled([one.prompt for one, _ in known], REPLICATES, SEED)

    def ends(row: Scored) -> npt.NDArray[np.int64]:
        padded = [0, *row.steps[:most], *[row.steps[-1]] * max(0, most - len(row.steps))]
        return np.minimum(np.asarray(padded, np.int64), len(row.tokens))

    sides = {name: [(one, other)[at] for one, other in known] for at, name in enumerate(SIDES)}
    curves = {name: _curve(rows, lambda row: ends(row), weights, tail) for name, rows in sides.items()}
    return {"at": list(range(most + 1)), "trajectories": len(known), **curves}


def _place(row: Scored) -> npt.NDArray[np.int64]:
    """[T] the tenth of the trajectory that each position is in."""
    return np.arange(len(row.tokens)) * PLACES // max(len(row.tokens), 1)


def _places(rows: Sequence[Scored], epsilon: float, confidence: float) -> dict[str, Any]:
    prompts = [row.prompt for row in rows]

    def shares(measure: Callable[[Scored], Floats]) -> dict[str, list[float]]:
        sums = np.stack([_by_place(row, measure(row)) for row in rows])  # [R, 2, PLACES]
        found = [
            clusters.share((sums[:, 0, at], sums[:, 1, at], prompts), confidence=confidence) for at in range(PLACES)
        ]
        return {key: [getattr(one, key) for one in found] for key in ("value", "low", "high")}

    deaths = [(row, death(row, epsilon)) for row in rows]
    dies = [_place(row)[one.at] for row, one in deaths if one.at is not None]
    crucial = [_place(row)[one.crucial] for row, one in deaths]
    return {
        "available": shares(lambda row: available(row, epsilon)),
        "first_choice": shares(scores.first_choice),
        "dies": (np.bincount(dies, minlength=PLACES) / len(rows)).tolist() if dies else [0.0] * PLACES,
        "crucial": (np.bincount(crucial, minlength=PLACES) / len(rows)).tolist(),
    }


def _by_place(row: Scored, values: Floats) -> Floats:
    """[2, PLACES] sums and counts of what is known."""
    there, known = _place(row), ~np.isnan(values)
    return np.stack(
        [
            np.bincount(there[known], values[known], minlength=PLACES),
            np.bincount(there[known], minlength=PLACES).astype(np.float64),
        ]
    )


def _tokens(sides: Sequence[Sequence[Scored]], epsilon: float, confidence: float) -> dict[str, dict[str, Any]]:
    measures: dict[str, Callable[[Scored], Floats]] = {
        "available": lambda row: available(row, epsilon),
        "first_choice": scores.first_choice,
        "gap": gap,
        "nll": lambda row: np.where(scores.known(row), -scores.logps(row), np.nan),
    }
    out: dict[str, dict[str, Any]] = {}
    for name, measure in measures.items():
        before, after = (_terms(rows, measure) for rows in sides)
        level = clusters.share if name in ("available", "first_choice") else clusters.ratio
        found = {
            "before": level(before, confidence=confidence),
            "after": level(after, confidence=confidence),
            "change": clusters.difference(before, after, confidence=confidence),
        }
        out[name] = {key: asdict(one) for key, one in found.items()}
    return out


def _terms(rows: Sequence[Scored], measure: Callable[[Scored], Floats]) -> Terms:
    """Sums over each trajectory of what is known, how many, and whose."""
    values = [measure(row) for row in rows]
    return (
        [float(np.nansum(one)) for one in values],
        [float(np.sum(~np.isnan(one))) for one in values],
        [row.prompt for row in rows],
    )


def _reached(sides: Sequence[Sequence[Scored]], confidence: float) -> dict[str, dict[str, Any]]:
    """Mean prefix reach of both, over trajectories."""
    prompts, ones = [row.prompt for row in sides[0]], np.ones(len(sides[0]))
    before, after = (([followed(row) for row in rows], ones, prompts) for rows in sides)
    found = {
        "before": clusters.share(before, confidence=confidence),
        "after": clusters.share(after, confidence=confidence),
        "change": clusters.difference(before, after, confidence=confidence),
    }
    return {name: asdict(one) for name, one in found.items()}


def _ends(rows: Sequence[Scored], epsilon: float, confidence: float) -> dict[str, Any]:
    deaths, prompts = [death(row, epsilon) for row in rows], [row.prompt for row in rows]
    survives = [float(one.at is None) for one in deaths]
    known = [(one.share, row.prompt) for one, row in zip(deaths, rows, strict=True) if one.share == one.share]
    shares: Terms = ([one for one, _ in known], np.ones(len(known)), [prompt for _, prompt in known])
    return {
        "survives": asdict(clusters.share((survives, np.ones(len(rows)), prompts), confidence=confidence)),
        "crucial_share": asdict(clusters.ratio(shares, confidence=confidence) if known else UNKNOWN),
    }


def _change(sides: Sequence[Sequence[Scored]], epsilon: float, confidence: float) -> dict[str, Any]:
    ids, prompts = [row.id for row in sides[0]], [row.prompt for row in sides[0]]
    whole = np.array([[log_reach(row)[-1] for row in rows] for rows in sides])
    weakest = np.array([[scores.logps(row).min() for row in rows] for rows in sides])
    moved = clusters.ratio((whole[1] - whole[0], np.ones(len(ids)), prompts), confidence=confidence)
    return {
        "log_reach": asdict(moved),
        "whole": _crossed(whole >= np.log(epsilon), ids, prompts, confidence),
        "every_action": _crossed(weakest >= np.log(epsilon), ids, prompts, confidence),
    }


def _crossed(
    inside: npt.NDArray[np.bool_], ids: Sequence[str], prompts: Sequence[str], confidence: float
) -> dict[str, Any]:
    """inside [2, R]: which trajectories meet a condition before and after, paired."""
    gained, lost = ~inside[0] & inside[1], inside[0] & ~inside[1]

    def share(hits: npt.NDArray[np.bool_]) -> dict[str, Any]:
        found: Interval = clusters.share((hits.astype(float), np.ones(len(ids)), prompts), confidence=confidence)
        return asdict(found)

    return {
        "gained": [name for name, hit in zip(ids, gained, strict=True) if hit],
        "lost": [name for name, hit in zip(ids, lost, strict=True) if hit],
        "kept": int((inside[0] & inside[1]).sum()),
        "never": int((~inside[0] & ~inside[1]).sum()),
        "gained_share": share(gained),
        "lost_share": share(lost),
        "before_share": share(inside[0]),
    }
