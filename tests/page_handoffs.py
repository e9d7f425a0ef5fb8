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
        "handoff": measures(index),
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
                "file": f"handoffs/{stage}.recommended.yaml",
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
        {"figure": figure, "measured": interval(value), "bound": "at_least", "limit": limit}
        | {"when": "shown", "verdict": verdict, "otherwise": to}
        for figure, value, limit, verdict, to in terms
    ]
    none = {"value": None, "low": None, "high": None}
    rows.append(
        {"figure": "guard", "measured": none, "bound": "at_least", "limit": 0.5}
        | {"when": "shown", "verdict": "unmeasured", "otherwise": "warn"}
    )
    return {"terms": rows, "action": "repair" if index == 1 else None, "exhausted": False}


def cost(index: int) -> dict[str, Any]:
    """As `orchestrator.costs` tells it; the last stage's gain is not sure, and none has prices."""

    def row(seconds: float, generated: int, trained: int) -> dict[str, Any]:
        work = {"seconds": seconds, "tokens_generated": generated, "tokens_scored": generated // 2}
        return work | {"tokens_trained": trained, "flops": 2e10 * (generated + 3 * trained), "price": None}

    parts = {"training": row(60, 80_000, 96_000), "preparation": row(0, 0, 0), "lost": row(0, 0, 0)}
    parts |= {"probes": row(18, 40_000, 0), "all": row(78, 120_000, 96_000)}
    each = {"flops": 2.1e12, "seconds": 0.06, "price": None}
    none = {"value": None, "low": None, "high": None}
    point = {
        "gain": interval(0.1),
        "flops": interval(9.5e14, 2e14),
        "seconds": interval(8, 2),
        "price": none,
        "said": "",
    }
    unsure = {"gain": interval(0.01), "flops": none, "seconds": none, "price": none}
    answer = {"tokens": 60, "context": 200, "flops": 4e12}
    return {
        "parts": parts,
        "work": {"rollout generate": {"sequences": 3000, "positions": 90_000, "tokens": 120_000, "flops": 2.4e15}},
        "flops": {"generate": 2.4e15, "score": 1e15, "train": 5.8e15, "total": 9.2e15},
        "seconds": {"rollout": 40.0, "learner": 31.5, "scorer": 2.0, "wall": 78.0},
        "price_held": None,
        "samples": {"trained": {"responses": 900, **each}, "passed": {"responses": 610, **each}},
        "point": unsure | {"said": "the interval holds 0, so no cost of a point is finite"}
        if index == 3
        else point | {"said": ""},
        "scaffold": {
            "answers": {"scaffolded": answer, "bare_after": answer | {"context": 20, "flops": 2.2e12}},
            "saving_flops": 1.8e12,
            "pays_after": 5100,
            "said": "",
        },
        "said": ["no prices are in the pipeline"],
    }


def measures(index: int) -> dict[str, Any]:
    """As `probes.handoff` tells it."""
    sides = {"before": interval(0.3), "after": interval(0.1), "change": interval(-0.2)}
    moved = {"gained": interval(0.2), "stands": interval(0.18), "share": interval(0.93 - 0.03 * index)}
    earlier = [{"stage": "warm-start", "steps": [0, 24], "gain": interval(0.2), "rate": moved, "solved": moved}]
    retention = {"rate": interval(0.93 - 0.03 * index), "solved": interval(0.9), "k": 8, "stages": earlier}
    since = {"share": interval(0.02), "solved": 20, "forgotten": ["g3"], "kept": 18, "undecided": 1}
    return {
        "retention": retention if index else None,
        "portability": {"probe": interval(0.1), "shifted": interval(0.06), "ratio": interval(0.6 + 0.05 * index)}
        | {"difference": interval(-0.04)},
        "scaffold": sides | {"amortised": interval(0.66)},
        "fidelity": {"responses": 64, "tokens": 4000, "agreement": interval(0.86), "kl": interval(0.12, 0.02)}
        | {"teacher_probability": interval(0.8), "before": None, "change": None, "steps": []}
        if index == 2
        else None,
        "forgetting": {"prompts": 24, "pass_rate": sides, "since_start": since, "since_before": since}
        | {"families": [{"family": "algebra", "prompts": 8, "change": interval(-0.02), "share": interval(0.02)}]}
        | {"selective": False},
    }


RECOMMENDED = "name: next\nstages:\n- {name: sharpen, recipe: {kind: grpo}, steps: 100}\n"
"""The pipeline that each stage's diagnosis recommends."""
