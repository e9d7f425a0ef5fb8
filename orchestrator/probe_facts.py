"""What a probe's row of metrics.jsonl says: accuracies on the set `probe`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.probe_files import sampled
from orchestrator.probes.curves import estimates
from orchestrator.probes.sequential import Plan, counts


def accuracies(rows: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Any]:
    """greedy_accuracy: share passed of the `n` greedy responses with a verdict. sampled_accuracy: mean over prompts of
    the unbiased estimate of pass@1 under the plan that ended the draws, of `n_sampled` verdicts; pooled draws would
    count most the prompts that took most of them. unknown: responses without a verdict. NaN of none.
    """
    own = [row for row in rows if row["set"] == "probe"]
    greedy = [bool(row["passed"]) for row in own if row["greedy"] and row["passed"] is not None]
    drawn = sampled(own)
    each = estimates(counts(drawn, plan), 1) if drawn.prompts else np.zeros(0)
    known = each[~np.isnan(each)]
    return {
        "greedy_accuracy": math.fsum(greedy) / len(greedy) if greedy else math.nan,
        "sampled_accuracy": float(known.mean()) if len(known) else math.nan,
        "n": len(greedy),
        "n_sampled": int(drawn.n_P.sum()),
        "unknown": sum(row["passed"] is None for row in own),
    }
