"""Selective forgetting: what the policy solved of the guard prompts and solves no more, in all and family by family."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from orchestrator.probes import halves, support
from orchestrator.probes.curves import estimates
from orchestrator.probes.sequential import Counts
from orchestrator.probes.snapshot import Float64, Int64


@dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """The guard set at the run's start, as the stage found it, and now; rows are the same prompts."""

    prompts: tuple[str, ...]
    families: tuple[str, ...]
    start: Counts
    before: Counts
    now: Counts


def document(found: Guarded | None, *, epsilon: float, confidence: float) -> dict[str, Any] | None:
    """Forgetting, None without guard prompts.

    prompts: count. pass_rate: {"start", "before", "after", "change", "change_from_start": Interval}, change being from
        `before`.
    since_start, since_before: {"share": Interval of the pass@k (k in "k") that the prompts solved then had, what is
        gone now, by split draws (`probes.halves`): under no change it is 0 on average; "solved": prompts shown solved
        then, "forgotten": [ids] shown solved then and not now, multiplicity-corrected (`probes.support`), "kept",
        "undecided": counts of the others}.
    families: [{"family", "prompts", "change": Interval since the start, "share": Interval, "p": Holm-adjusted, of "its
        pass rate did not fall", "forgot": whether that is refuted}], the largest loss first.
    selective: whether a family is shown to have forgotten and the families are shown to differ (Cochran's Q).
    """
    if found is None or not len(found.prompts):
        return None
    return {
        "prompts": len(found.prompts),
        "pass_rate": _rates(found, confidence),
        "since_start": _since(found, found.start, epsilon, confidence),
        "since_before": _since(found, found.before, epsilon, confidence),
        **_by_family(found, confidence),
    }


def _rates(found: Guarded, confidence: float) -> dict[str, Any]:
    start, before, now = (estimates(one, 1) for one in (found.start, found.before, found.now))
    told = {"start": start, "before": before, "after": now, "change": now - before, "change_from_start": now - start}
    return {key: asdict(halves.mean(value, confidence)) for key, value in told.items()}


def _since(found: Guarded, then: Counts, epsilon: float, confidence: float) -> dict[str, Any]:
    change = support.change(then, found.now, epsilon=epsilon, confidence=confidence)
    solved = change.before_P == 1
    told = support.SupportChange(
        change.expanded,
        change.retained,
        change.attrited,
        change.absent,
        change.undecided,
        change.before_P,
        change.after_P,
        found.prompts,
    )
    kept = int(np.sum(solved & (change.after_P == 1)))
    return {
        "share": asdict(halves.forgotten(then, found.now, confidence)),
        "k": halves.depth(None, then, found.now),
        "solved": int(solved.sum()),
        "forgotten": told.ids(change.attrited),
        "kept": kept,
        "undecided": int(solved.sum()) - kept - int(np.sum(solved[change.attrited])),
    }


def _by_family(found: Guarded, confidence: float) -> dict[str, Any]:
    names = sorted(set(found.families))
    rows = {name: np.flatnonzero(np.array([own == name for own in found.families])) for name in names}
    losses = {name: loss(found.start.rows(at), found.now.rows(at)) for name, at in rows.items()}
    adjusted = dict(zip(names, holm([losses[name].p for name in names]), strict=True))
    told = [_family(found, name, rows[name], adjusted[name], confidence) for name in names]
    forgot = any(one["forgot"] for one in told)
    differ = differing(list(losses.values())) <= 1.0 - confidence
    return {
        "families": sorted(told, key=lambda one: (losses[one["family"]].change, one["family"])),
        "selective": bool(forgot and differ),
    }


def _family(found: Guarded, name: str, at: Int64, p: float, confidence: float) -> dict[str, Any]:
    start, now = found.start.rows(at), found.now.rows(at)
    return {
        "family": name,
        "prompts": len(at),
        "change": asdict(halves.mean(estimates(now, 1) - estimates(start, 1), confidence)),
        "share": asdict(halves.forgotten(start, now, confidence)),
        "p": p,
        "forgot": bool(p <= 1.0 - confidence),
    }


@dataclass(frozen=True, slots=True)
class Loss:
    """A family's mean change in pass rate."""

    change: float
    """NaN where nothing was drawn at both times."""
    variance: float
    """Of the mean: the draws' own, or the prompts' spread where that is larger."""

    @property
    def p(self) -> float:
        """Of the hypothesis that it did not fall, one-sided; 1 where nothing is known."""
        if math.isnan(self.change):
            return 1.0
        return float(special.ndtr(self.change / math.sqrt(self.variance)))


def loss(start: Counts, now: Counts) -> Loss:
    """The mean change of these very prompts. Each prompt's draws vary as those of its pooled rate would (with a success
    and a failure more, so that prompts that never failed are not called certain)."""
    change_P = estimates(now, 1) - estimates(start, 1)
    known = ~np.isnan(change_P)
    change_P, count = change_P[known], int(known.sum())
    if not count:
        return Loss(math.nan, math.nan)
    n0, n1 = start.n_P[known], now.n_P[known]
    pooled_P: Float64 = (start.c_P[known] + now.c_P[known] + 1) / (n0 + n1 + 2)
    drawn = float(np.sum(pooled_P * (1 - pooled_P) * (1 / n0 + 1 / n1))) / count**2
    spread = float(np.var(change_P, ddof=1)) / count if count > 1 else 0.0
    return Loss(float(change_P.mean()), max(drawn, spread))


def differing(losses: Sequence[Loss]) -> float:
    """P-value of the hypothesis that all families changed alike (Cochran's Q)."""
    known = [one for one in losses if not math.isnan(one.change)]
    if len(known) < 2:
        return 1.0
    weight = np.array([1 / one.variance for one in known])
    change = np.array([one.change for one in known])
    q = float(np.sum(weight * (change - np.sum(weight * change) / weight.sum()) ** 2))
    return float(special.chdtrc(len(known) - 1, q))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: of all hypotheses that are true, one at alpha or less is as likely as alpha at most (Holm,
    1979)."""
    order = np.argsort(p, kind="stable")
    left = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p)[order] * left)) if len(p) else []
    return [float(one) for one in adjusted]
