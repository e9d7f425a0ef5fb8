"""Samples that stopping early saves at equal interval width: `python -m benchmarks.sequential_sampling [--json]`.

Nothing is drawn: probabilities of all outcomes are summed over mixes of prompts, so that the figures are exact. Per mix
and per largest number of samples N of a plan:

draws       mean samples of a prompt under the plan
support     fixed n / draws, for the least fixed n whose interval of the share of solved prompts, [share shown in
            support, 1 - share shown outside], is at most 1 % wider
rate        the fixed n at which the mean pass rate of the same prompts has an interval as narrow as under the plan
width       of the interval of the mean pass rate over the distribution of prompts, under the plan / with all N
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

from orchestrator.probes.sequential import Plan, plan
from orchestrator.probes.snapshot import Float64

EPSILON, CONFIDENCE = 0.05, 0.95
SIZES = (16, 32, 64, 128, 256)
RATES: Float64 = np.sin(np.linspace(0.0, np.pi / 2, 401)) ** 2


class Side(NamedTuple):
    """By pass rate: samples, chance to stay undecided, variance of the pass rate's estimate."""

    draws: Float64
    undecided: Float64
    variance: Float64


def spread(a: float, b: float) -> Float64:
    """Beta(a, b) on RATES."""
    cut = np.concatenate([[0.0], (RATES[1:] + RATES[:-1]) / 2, [1.0]])
    mass: Float64 = np.diff(special.betainc(a, b, cut))
    return mass


def mixes() -> Mapping[str, Float64]:
    """Unreached prompts never pass; mastered ones with Beta(20, 1), unreliable ones with Beta(0.8, 2)."""
    none, mastered, unreliable = (RATES == 0.0).astype(float), spread(20, 1), spread(0.8, 2)
    return {
        "half unreached (50/20/30)": 0.5 * none + 0.2 * mastered + 0.3 * unreliable,
        "half mastered (25/50/25)": 0.25 * none + 0.5 * mastered + 0.25 * unreliable,
        "most mastered (15/70/15)": 0.15 * none + 0.7 * mastered + 0.15 * unreliable,
        "Beta(0.3, 0.3)": spread(0.3, 0.3),
    }


def side(design: Plan) -> Side:
    """What a design costs and leaves open."""
    outcomes, alpha = design.outcomes(), 1.0 - CONFIDENCE
    at = np.array([EPSILON])
    open_ = (outcomes.at_most(at)[:, 0] > alpha) & (outcomes.at_least(at)[:, 0] > alpha)
    chances, x = outcomes.chances(RATES), design.pass_at_k(1)
    return Side(outcomes.n_O @ chances, open_ @ chances, np.maximum(x**2 @ chances - (x @ chances) ** 2, 0.0))


def measured() -> list[dict[str, float | str]]:
    """A row for each mix and N."""
    fixed = {n: side(Plan.fixed(n)) for n in range(1, max(SIZES) + 1)}
    rows: list[dict[str, float | str]] = []
    for most in SIZES:
        ours = side(plan(most, EPSILON, CONFIDENCE))
        for name, mix in mixes().items():
            draws, open_, within = (float(mix @ one) for one in ours)
            equal = next((n for n, one in fixed.items() if mix @ one.undecided <= 1.01 * open_), most)
            noise = float(mix @ (RATES * (1 - RATES)))
            between = float(mix @ RATES**2 - (mix @ RATES) ** 2)
            wider = float(np.sqrt((between + within) / (between + noise / most)))
            row = {"draws": draws, "undecided": open_, "fixed": equal, "support": equal / draws}
            rows.append({"N": most, "mix": name, **row, "rate": noise / within, "width": wider})
    return rows


def main() -> int:
    """Prints the table, or one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    rows = measured()
    if parser.parse_args().json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    sys.stdout.write(
        f"{'N':>4} {'mix':26} {'draws':>6} {'open':>6} {'fixed':>6} {'support':>8} {'rate':>6} {'width':>6}\n"
    )
    for row in rows:
        sys.stdout.write(
            f"{row['N']:>4} {row['mix']:26} {row['draws']:6.1f} {row['undecided']:6.3f} {row['fixed']:6} "
            f"{row['support']:7.1f}x {row['rate']:6.1f} {row['width']:6.3f}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
