"""The handoff: what survives of earlier gains, elsewhere, without help, and of what the policy could do before.

Snapshots are those of the policies that lead to the one of now: at the run's start, and at the end of each stage whose
weights the run went on with. A stage that was rolled back is not among them, and one that was repaired is there once,
as the repair left it. P = prompts.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from orchestrator.probes import fidelity, forgetting, halves
from orchestrator.probes.curves import estimates
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.sequential import Counts, Plan, counts
from orchestrator.probes.snapshot import Float64, Int64, SetName, Snapshot


def document(
    snapshots: Sequence[Snapshot], *, epsilon: float, confidence: float, plan: Plan | None = None
) -> dict[str, Any]:
    """The handoff of the stage that ended last; `snapshots` in order, two or more, `plan` is what drew them.

    retention: {"rate", "solved": Interval over all earlier stages together, "k", "stages": [{"stage", "steps": [from,
        to], "gain": Interval in mean pass rate, "rate", "solved": {"gained", "stands", "share": Interval}}]}. Of what a
        stage added to the pass rate (rate) and of the prompts that it newly solved (solved, in pass@k), the share that
        stands now, chosen and measured by different draws (`probes.halves`); a share is null where no gain is shown.
        None where no stage came before this one.
    portability: {"probe", "shifted": Interval gain in mean pass rate, "ratio": Interval shifted / probe, null where no
        gain on the probe is shown, "difference": Interval shifted - probe, "since_start": the same of the whole run}.
        None without shifted prompts.
    scaffold: {"before", "after", "change": Interval, pass rate under the scaffold less that without, on the same
        prompts, "amortised": Interval, share of the gap before that the bare policy has made good}. None without one.
    fidelity: `probes.fidelity.document`. forgetting: `probes.forgetting.document`.
    """
    if len(snapshots) < 2:
        raise ValueError(f"a handoff needs the policies before and after a stage (got {len(snapshots)} snapshots)")
    last, keen = snapshots[-1], {"epsilon": epsilon, "confidence": confidence}
    return {
        "retention": retention(snapshots, confidence, plan),
        "portability": _portability(snapshots, confidence, plan),
        "scaffold": _scaffold(snapshots, confidence, plan),
        "fidelity": fidelity.document(last.scored, confidence=confidence),
        "forgetting": forgetting.document(_guarded(snapshots, plan), **keen),
    }


# ---------------------------------------------------------------- retention


def retention(snapshots: Sequence[Snapshot], confidence: float, plan: Plan | None) -> dict[str, Any] | None:
    """What stands of each earlier stage's gain; `document` says the keys."""
    if len(snapshots) < 3:
        return None
    common = same(snapshots, "probe", plan)
    if common is None:
        return None
    _, rows = common
    now, stages = rows[-1], []
    sums: dict[str, list[halves.Stood]] = {"rate": [], "solved": []}
    for at in range(1, len(snapshots) - 1):
        before, after = rows[at - 1], rows[at]
        found = {
            "rate": halves.stood(before, after, now, "rate"),
            "solved": halves.stood(before, after, now, "solved"),
        }
        for name, one in found.items():
            sums[name].append(one)
        gain = halves.mean(estimates(after, 1) - estimates(before, 1), confidence)
        told = {name: _kept(one, confidence) for name, one in found.items()}
        where = {"stage": snapshots[at].stage, "steps": [snapshots[at - 1].step, snapshots[at].step]}
        stages.append({**where, "gain": asdict(gain), **told})
    whole = {name: asdict(halves.share(halves.together(some), confidence)) for name, some in sums.items()}
    depths = [halves.depth(rows[at - 1], rows[at], now) for at in range(1, len(rows) - 1)]
    return {**whole, "k": min(depths), "stages": stages}


def _kept(found: halves.Stood, confidence: float) -> dict[str, Any]:
    return {
        "gained": asdict(halves.mean(found.gain_P, confidence)),
        "stands": asdict(halves.mean(found.stands_P, confidence)),
        "share": asdict(halves.share(found, confidence)),
    }


# ---------------------------------------------------------------- elsewhere, and without help


def _portability(snapshots: Sequence[Snapshot], confidence: float, plan: Plan | None) -> dict[str, Any] | None:
    stage = _ported((snapshots[-2], snapshots[-1]), confidence, plan)
    if stage is None:
        return None
    return {**stage, "since_start": _ported((snapshots[0], snapshots[-1]), confidence, plan)}


def _ported(ends: tuple[Snapshot, Snapshot], confidence: float, plan: Plan | None) -> dict[str, Any] | None:
    here, there = (_gains(ends, name, plan) for name in ("probe", "shifted"))
    if here is None or there is None:
        return None
    ratio = halves.quotient(there, here, confidence, paired=False)
    return {
        "probe": asdict(halves.mean(here, confidence)),
        "shifted": asdict(halves.mean(there, confidence)),
        "ratio": asdict(ratio),
        "difference": asdict(halves.contrast(here, there, confidence)),
    }


def _gains(ends: tuple[Snapshot, Snapshot], name: SetName, plan: Plan | None) -> Float64 | None:
    """[P] each prompt's gain in pass rate; None where the set was not drawn both times."""
    common = same(ends, name, plan)
    if common is None:
        return None
    before, after = common[1]
    return estimates(after, 1) - estimates(before, 1)


def _scaffold(snapshots: Sequence[Snapshot], confidence: float, plan: Plan | None) -> dict[str, Any] | None:
    before, after = (_gap(one, plan) for one in snapshots[-2:])
    if after is None:
        return None
    now = halves.mean(_values(after, "gap"), confidence)
    if before is None:
        return {
            "before": asdict(UNKNOWN),
            "after": asdict(now),
            "change": asdict(UNKNOWN),
            "amortised": asdict(UNKNOWN),
        }
    shared = [name for name in before if name in after]
    gaps = np.array([before[name]["gap"] for name in shared])
    change = np.array([after[name]["gap"] for name in shared]) - gaps
    bare = np.array([after[name]["bare"] - before[name]["bare"] for name in shared])
    known = ~np.isnan(gaps + bare)
    return {
        "before": asdict(halves.mean(_values(before, "gap"), confidence)),
        "after": asdict(now),
        "change": asdict(_halved(halves.mean(change / 2, confidence))),
        "amortised": asdict(halves.quotient(bare[known], gaps[known], confidence, paired=True)),
    }


def _gap(one: Snapshot, plan: Plan | None) -> dict[str, dict[str, float]] | None:
    """Prompt -> its pass rate without the scaffold, and what the scaffold adds."""
    if "scaffolded" not in one.sets or "probe" not in one.sets:
        return None
    helped, bare = one.sets["scaffolded"], one.sets["probe"]
    rates = dict(zip(bare.prompts, estimates(counts(bare, plan), 1), strict=True))
    under = zip(helped.prompts, estimates(counts(helped, plan), 1), strict=True)
    return {
        name: {"bare": float(rates[name]), "gap": float(value - rates[name])} for name, value in under if name in rates
    }


def _values(found: dict[str, dict[str, float]], key: str) -> Float64:
    return np.array([one[key] for one in found.values()], np.float64)


def _halved(half: Interval) -> Interval:
    """The interval of a change within [-2, 2] from that of its half."""
    return Interval(2 * half.value, 2 * half.low, 2 * half.high)


# ---------------------------------------------------------------- rows


def _guarded(snapshots: Sequence[Snapshot], plan: Plan | None) -> forgetting.Guarded | None:
    ends = (snapshots[0], snapshots[-2], snapshots[-1])
    common = same(ends, "guard", plan)
    if common is None:
        return None
    prompts, rows = common
    own = ends[0].sets["guard"]
    families = dict(zip(own.prompts, own.families, strict=True))
    return forgetting.Guarded(prompts, tuple(families[name] for name in prompts), *rows)


def same(
    snapshots: Sequence[Snapshot], name: SetName, plan: Plan | None
) -> tuple[tuple[str, ...], list[Counts]] | None:
    """The prompts of a set that every snapshot drew, in the order of the first, and the counts of each snapshot; None
    where one lacks the set, or they have no prompt in common."""
    if any(name not in one.sets for one in snapshots):
        return None
    sets = [one.sets[name] for one in snapshots]
    places = [{prompt: at for at, prompt in enumerate(own.prompts)} for own in sets]
    prompts = tuple(one for one in sets[0].prompts if all(one in place for place in places))
    if not prompts:
        return None
    rows: list[Int64] = [np.array([place[one] for one in prompts], np.int64) for place in places]
    return prompts, [counts(own, plan).rows(at) for own, at in zip(sets, rows, strict=True)]
