"""The braid: who wrote the tokens that train, step by step, as a stream; and the curves under it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from orchestrator.page.reading import Reading
from orchestrator.page.series import POINTS, Buckets, Float64, buckets, column, listed, names, within
from orchestrator.page.stages import bands
from orchestrator.probes.intervals import wilson
from orchestrator.report.origins import COLOURS, SHARES
from policies.trajectory import Origin

Document = dict[str, Any]

CURVES = {
    "reward_mean": ("reward of rollouts", "outcome"),
    "accuracy": ("accuracy of rollouts", "outcome"),
    "held_out": ("held-out score", "outcome"),
    "loss": ("loss", "learning"),
    "gradient_norm": ("gradient norm", "learning"),
    "learning_rate": ("learning rate", "learning"),
    "on_policy_share": ("on-policy share", "freshness"),
    "ess": ("effective sample size", "freshness"),
    "staleness_mean": ("staleness", "freshness"),
    "response_length_mean": ("tokens of a rollout", "length"),
    "truncated_share": ("cut rollouts", "length"),
    "tokens_generated": ("tokens generated", "work"),
    "tokens_trained": ("tokens trained", "work"),
    "seconds": ("seconds a step", "time"),
    "seconds_generate": ("generate", "time"),
    "seconds_score": ("score", "time"),
    "seconds_train": ("train", "time"),
    "seconds_publish": ("publish", "time"),
    "seconds_ledger": ("ledger", "time"),
}
"""Key of a metrics row -> its name and the chart that it belongs to."""


def braid(reading: Reading, start: int | None = None, stop: int | None = None, points: int = POINTS) -> Document:
    """Provenance as a stream: shares of trained tokens in buckets of neighbouring steps, weighted by tokens.

    {"steps": [first step of each bucket], "until": [last step of each bucket], "tokens": [trained tokens],
     "origins": [{"name", "colour", "shares": [0..1 or null where nothing trained]}], in the order of `Origin`,
     "strands": [{"name", "shares": [...], "gradient_mass": [mean share of the gradient, or null]}],
     "stages": [{"name", "first", "last", "planned"}], "first", "last": of the whole run, or null,
     "exact": whether every bucket is one step}

    A strand's tokens are those that it reads; two strands may read the same token.
    """
    found = buckets(reading, start, stop, points)
    origins = {name: _origin_tokens(reading, found, name) for name in _origins(reading)}
    strands = {name: within(reading, found.steps, "by_strand", name, "tokens") for name in names(reading, "by_strand")}
    return {
        **_axis(reading, found),
        "tokens": listed(found.sums(column(reading, found.steps, "tokens_trained")), 12),
        "origins": [
            {"name": name, "colour": COLOURS[Origin[name.upper()]], "shares": shares}
            for name, shares in _shares(found, origins).items()
        ],
        "strands": [
            {
                "name": name,
                "shares": shares,
                "gradient_mass": listed(found.means(within(reading, found.steps, "by_strand", name, "gradient_mass"))),
            }
            for name, shares in _shares(found, strands).items()
        ],
    }


def curves(reading: Reading, start: int | None = None, stop: int | None = None, points: int = POINTS) -> Document:
    """Figures of the steps, and probes with their intervals.

    {"steps", "until", "stages", "first", "last", "exact": as `braid`,
     "curves": [{"key", "name", "chart": curves of one chart share it, "values": [mean of the bucket, or null],
                 "low": [least], "high": [greatest]}]; low and high are null as a whole where every bucket is one step,
     "probes": [{"step", "stage", "n", "greedy": Interval, "sampled": Interval, "n_sampled"}]}

    Intervals are Wilson's at 95 %, of sampled responses with as many trials as prompts: a mean over prompts varies no
    more than that, whatever the draws of a prompt have in common. `support` has the narrower ones.
    """
    found = buckets(reading, start, stop, points)
    exact = _exact(found)
    made = []
    for key, (name, chart) in CURVES.items():
        values = column(reading, found.steps, key)
        if np.isnan(values).all():
            continue
        low, high = (None, None) if exact else map(listed, found.ranges(values))
        told = {"values": listed(found.means(values)), "low": low, "high": high}
        made.append({"key": key, "name": name, "chart": chart, **told})
    return {**_axis(reading, found), "curves": made, "probes": _probes(reading, start, stop)}


def _axis(reading: Reading, found: Buckets) -> Document:
    steps = reading.steps
    return {
        "steps": found.first,
        "until": found.last,
        "stages": bands(reading),
        "first": min(steps, default=None),
        "last": max(steps, default=None),
        "exact": _exact(found),
    }


def _exact(found: Buckets) -> bool:
    return len(found.steps) == len(found.edges) - 1


def _origins(reading: Reading) -> list[str]:
    """The origins that occur, in the order of `Origin`."""
    known = set(names(reading, "by_origin"))
    for key, origin in SHARES.items():
        if any(not row["by_origin"] and (row.get(key) or 0) > 0 for row in reading.steps.values()):
            known.add(origin.name.lower())
    return [origin.name.lower() for origin in Origin if origin.name.lower() in known]


def _origin_tokens(reading: Reading, found: Buckets, name: str) -> Float64:
    """[S] trained tokens of the origin; rows without counts by origin tell them by their shares."""
    counted = within(reading, found.steps, "by_origin", name, "tokens")
    key = next((key for key, origin in SHARES.items() if origin.name.lower() == name), "")
    told = column(reading, found.steps, key) * column(reading, found.steps, "tokens_trained")
    uncounted = np.array([not reading.steps[int(step)]["by_origin"] for step in found.steps], np.bool_)
    return np.where(uncounted, told, counted)


def _shares(found: Buckets, parts: dict[str, Float64]) -> dict[str, list[float | None]]:
    """Each name's share of the bucket's sum."""
    sums = {name: found.sums(values) for name, values in parts.items()}
    whole = np.sum(list(sums.values()), axis=0) if sums else np.zeros(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: listed(np.where(whole > 0, own / whole, np.nan)) for name, own in sums.items()}


def _probes(reading: Reading, start: int | None, stop: int | None) -> list[Document]:
    rows = sorted(reading.probes.values(), key=lambda row: int(row["step"]))
    inside: Callable[[int], bool] = lambda step: (start is None or step >= start) and (stop is None or step <= stop)  # noqa: E731
    return [
        {
            "step": row["step"],
            "stage": row.get("stage"),
            "n": row.get("n"),
            "n_sampled": row.get("n_sampled"),
            "greedy": _interval(row.get("greedy_accuracy"), row.get("n")),
            "sampled": _interval(row.get("sampled_accuracy"), row.get("n")),
        }
        for row in rows
        if inside(int(row["step"]))
    ]


def _interval(share: float | None, n: int | None) -> Document:
    if share is None:
        return {"value": None, "low": None, "high": None}
    low, high = wilson(share, int(n or 0))
    return {"value": share, **dict(zip(("low", "high"), listed([low, high]), strict=True))}
