"""Plausible handoff files in the shape that runs write, for the page's synthetic run: no figure is measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.probes import reach
from orchestrator.probes.snapshot import Scored

ROLES = ("expansion", "reshaping", "consolidation", "undecided")


def interval(value: float, half: float = 0.04) -> dict[str, float]:
    """An interval around a value."""
    return {"value": round(value, 4), "low": round(value - half, 4), "high": round(value + half, 4)}


def handoff(
    stage: str, index: int, steps: tuple[int, int], before: int, ids: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """One file; the second stage breaks a term of its contract, the third has terms that nobody could measure."""
    return {
        "version": 1,
        "stage": stage,
        "index": index,
        "steps": list(steps),
        "measured": {"before": before, "after": steps[1]},
        "epsilon": 0.05,
        "confidence": 0.95,
        "completion": completion(index, ids),
        "change": change(index),
        "handoff": {
            "retention": {"value": interval(0.93 - 0.03 * index), "stages": {"warm-start": interval(0.95)}},
            "portability": interval(0.6 + 0.05 * index),
            "scaffold": {"with": interval(0.7), "without": interval(0.6), "gap": interval(0.1)},
            "fidelity": {"agreement": interval(0.86), "kl": interval(0.12, 0.02)},
            "forgetting": {"guard": interval(0.02 + 0.02 * index, 0.01)},
        },
        "contract": contract(index),
        "cost": cost(index),
        "diagnosis": {
            "classes": {
                kind: {"share": interval(share), "named": round(96 * share), "headroom": interval(share / 2)}
                for kind, share in (("unreached", 0.2), ("unavailable", 0.15), ("unreliable", 0.3), ("mastered", 0.35))
            },
            "bottleneck": ("unreached", "unreliable", "undecided", "none")[index % 4],
            "pass_at_1": interval(0.4 + 0.1 * index),
            "recommendation": {
                "file": "name: next\nstages:\n- {name: sharpen, recipe: {kind: grpo}, steps: 100}\n",
                "told": "most of what is left is unreliable",
                "choices": [
                    {"key": "stages.0.recipe.kind", "value": "grpo", "reason": "prompts are reached, not sure"}
                ],
            },
        },
    }


def completion(index: int, ids: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Support and pass@k."""
    gained, lost = list(ids["gained"]), list(ids["lost"])
    low, high = 0.35 + 0.1 * index, 0.45 + 0.1 * index
    return {
        "pass_at_k": [
            {
                "k": k,
                "before": interval(1 - (1 - low) ** (1 + k / 6)),
                "after": interval(1 - (1 - high) ** (1 + k / 6)),
                "change": interval((1 - low) ** (1 + k / 6) - (1 - high) ** (1 + k / 6), 0.05),
            }
            for k in (1, 2, 4, 8, 16, 32, 64)
        ],
        "support": {
            "expanded": gained[index::4],
            "retained": [f"q{i:03d}" for i in range(1, 96, 8)],
            "attrited": lost[index::4],
            "undecided": [f"q{i:03d}" for i in range(3, 96, 8)],
            "absent": 12,
            "rates": {"srr": interval(0.9), "ndr": interval(0.2), "sds": interval(0.33), "nscr": interval(0.12)},
        },
        "answers": {"distinct": interval(3.1, 0.2), "entropy": interval(0.8)},
        "cot_pass_at_k": None if index else [{"k": 1, "before": interval(0.3), "after": interval(0.4)}],
        "samples": {"drawn": 4200, "fixed": 12288, "saved": 0.66},
    }


def change(index: int) -> dict[str, Any]:
    """Reach as `probes.reach` tells it, of planted scores; role and gain."""
    rng = np.random.default_rng(index)
    pairs = [(scored(f"b{i}", -1.2, rng), scored(f"b{i}", -1.2 + 0.2 * (index + 1), rng)) for i in range(24)]
    return {
        "reach": reach.document(pairs, epsilon=0.05, confidence=0.95),
        "divergence": {"from_before": interval(0.1 + 0.02 * index), "entropy": {"before": interval(1.1)}},
        "gain": {
            "total": interval(0.1),
            "expansion": interval(0.06 - 0.01 * index),
            "reshaping": interval(0.05),
            "attrition": interval(-0.01),
        },
        "role": {
            "name": ROLES[index % 4],
            "for": [{"evidence": "share of the gain on prompts that were unsolved", "value": interval(0.62)}],
            "against": [{"evidence": "pass@64 moved less than pass@1", "value": interval(0.03)}],
        },
    }


def scored(name: str, level: float, rng: np.random.Generator) -> Scored:
    """A trajectory of the bank of 60 tokens under a model of this mean log-probability."""
    logps = np.minimum(-0.001, level * rng.exponential(0.1, 60)).astype(np.float32)
    ids = np.arange(60, dtype=np.int32)
    best = np.maximum(logps, -0.3).astype(np.float32)
    return Scored(name, f"p-{name}", "algebra", "bank", "after", ids, logps, ids, best, (20, 40, 60))


def contract(index: int) -> dict[str, Any]:
    """Terms held, broken, undecided and unmeasured."""
    verdicts = ("held", "broken", "undecided", "unmeasured")
    terms = [
        ("retained_support", 0.93 - 0.03 * index, 0.9, verdicts[0 if index != 1 else 1], "repair"),
        ("pass_at_1", 0.45 + 0.1 * index, 0.3, "held", "stop"),
        ("portability", 0.6, 0.58, "undecided", "warn"),
    ]
    rows = [
        {
            "figure": figure,
            "measured": interval(value),
            "bound": {"at_least": bound},
            "verdict": verdict,
            "otherwise": to,
        }
        for figure, value, bound, verdict, to in terms
    ]
    none = {"value": None, "low": None, "high": None}
    rows.append(
        {"figure": "guard", "measured": none, "bound": {"at_most": 0.05}, "verdict": "unmeasured", "otherwise": "warn"}
    )
    return {"terms": rows, "action": "repair" if index == 1 else None}


def cost(index: int) -> dict[str, Any]:
    """Work and price."""
    return {
        "tokens": {"generated": 120_000 + index, "scored": 80_000, "trained": 96_000},
        "seconds": {"rollout": 40.0, "learner": 31.5, "scorer": 2.0, "frozen": 5.0},
        "flops": {"generated": 2.1e15, "scored": 1.0e15, "trained": 6.4e15},
        "price": None,
        "per_accepted": {"tokens": interval(310.0, 12.0)},
        "per_point": {"flops": interval(9.5e14, 2e14)},
        "scaffold": {"with": 3.1e15, "amortised": 2.2e15},
    }
