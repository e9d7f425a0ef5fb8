"""Cases for the losses: recipes, drawn rows, and what must agree with the numpy oracles."""

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from policies.batch import TrajectoryBatch
from policies.config import (
    BoxCox,
    Clip,
    Div,
    Identity,
    Log,
    Only,
    Parabola,
    Point,
    Reduce,
    Saturate,
    Set,
    SoftGate,
    Source,
    Strand,
    Term,
    TokenWeight,
)
from policies.reduce import UNARY
from policies.strand_facts import merge
from tests import oracles

VOCABULARY, TOPK = 13, 4
LENGTHS = (5, 1, 7, 3, 4, 6)


def strand(name: str, *terms: Term) -> Strand:
    return Strand(name=name, source=Source(producer="rollout"), terms=terms)


def term(
    kernel: Point | Set | Div, *weights: str | TokenWeight, reduce: str = "token", coefficient: float = 1.0, **only: Any
) -> Term:
    return Term(
        name="t",
        kernel=kernel,
        only=Only(**only),
        weights=tuple(w if isinstance(w, TokenWeight) else TokenWeight(kind=w, cap=1.3) for w in weights),  # type: ignore[arg-type]
        reduce=Reduce(kind=reduce, length=9 if "length" in reduce else None),  # type: ignore[arg-type]
        coefficient=coefficient,
    )


PPO = Point(denominator="old", shape=Clip(low=0.2, high=0.28))
LIKELIHOOD = Point(denominator="current", shape=Log())
DPO = Set(link="logistic", beta=0.3)

RECIPES: dict[str, tuple[Strand, ...]] = {
    "sft": (strand("a", term(Point(denominator="current", shape=Log()))),),
    "likelihood of one": (strand("a", term(Point(denominator="one", shape=Log()), reduce="sequence")),),
    "reinforce": (strand("a", term(Point(denominator="current", shape=Identity()))),),
    "ppo": (strand("a", term(PPO)),),
    "dual clip": (strand("a", term(Point(shape=Clip(low=0.2, high=0.2, dual=1.4)))),),
    "grpo": (strand("a", term(PPO, reduce="sequence"), term(Div(form="k3"), reduce="sequence", coefficient=0.04)),),
    "dr grpo": (strand("a", term(PPO, reduce="batch_length")),),
    "gspo": (strand("a", term(Point(level="geometric", shape=Clip(low=0.1, high=0.15)), reduce="sequence")),),
    "importance": (strand("a", term(Point(denominator="behavior", shape=Identity()))),),
    "tis": (strand("a", term(PPO, "truncated_importance")),),
    "icepop": (strand("a", term(PPO, "masked_importance")),),
    "dft": (strand("a", term(Point(denominator="current", shape=Log()), "probability")),),
    "chord": (strand("a", term(Point(denominator="current", shape=Log()), "chord_phi")), strand("b", term(PPO))),
    "luffy": (
        strand("a", term(Point(denominator="old", shape=Identity()), reduce="length")),
        strand("b", term(Point(denominator="one", shape=Saturate(gamma=0.1)), reduce="length", coefficient=0.7)),
    ),
    "k2": (strand("a", term(Div(form="k2", target="teacher"))),),
    "entropy": (strand("a", term(PPO), term(Div(form="entropy", target="uniform"), coefficient=0.01)),),
    "forward": (strand("a", term(Div(form="forward", target="teacher"))),),
    "reverse": (strand("a", term(Div(form="reverse", target="teacher", temperature=2.0), reduce="sequence")),),
    "jsd": (strand("a", term(Div(form="jsd", target="teacher", beta=0.3))),),
    "gkd ends": (
        strand("a", term(Div(form="jsd", target="teacher", beta=0.0))),
        strand("b", term(Div(form="jsd", target="teacher", beta=1.0))),
    ),
    "dpo": (strand("a", term(DPO)),),
    "simpo": (strand("a", term(Set(beta=2.0, margin=0.5, aggregate="mean", reference=False))),),
    "slic": (strand("a", term(Set(link="hinge", beta=0.2))),),
    "ipo": (strand("a", term(Set(link="square", beta=0.2, margin=0.1, aggregate="mean"), reduce="sequence")),),
    "dpo and sft": (strand("a", term(DPO)), strand("b", term(Point(denominator="current", shape=Log())))),
    "box cox": (strand("a", term(Point(denominator="one", shape=BoxCox(alpha=0.5)))),),
    "box cox at 0": (strand("a", term(Point(denominator="one", shape=BoxCox(alpha=0.0)))),),
    "parabola": (strand("a", term(Point(denominator="one", shape=Parabola()))),),
    "sapo": (strand("a", term(Point(shape=SoftGate(tau_negative=1.5)), reduce="sequence")),),
    "gmpo": (strand("a", term(Point(level="geometric", log_clip=0.2, shape=Identity()), reduce="sequence")),),
    "rloo": (strand("a", term(Point(level="sequence", shape=Clip(low=0.5, high=0.5)), reduce="sequence")),),
    "s2r": (strand("a", term(Point(level="part"))),),
    "cispo": (strand("a", term(LIKELIHOOD, TokenWeight(kind="clipped_ratio", low=0.9, high=1.1))),),
    "topr": (strand("a", term(LIKELIHOOD, "tapered")),),
    "p squared": (strand("a", term(LIKELIHOOD, TokenWeight(kind="probability", power=2.0))),),
    "window": (strand("a", term(LIKELIHOOD, TokenWeight(kind="probability_window", low=0.05, high=0.2))),),
    "surprised": (
        strand(
            "a", term(LIKELIHOOD, "positive", TokenWeight(kind="entropy", power=-1.0)), term(LIKELIHOOD, "negative")
        ),
    ),
    "tis of a sequence": (strand("a", term(PPO, TokenWeight(kind="truncated_importance", level="sequence", cap=1.1))),),
    "mask of a sequence": (
        strand(
            "a",
            term(PPO, TokenWeight(kind="masked_importance", level="geometric", cap=1.2, keep_ratio=False)),
            term(PPO, TokenWeight(kind="masked_importance", level="sequence", cap=3.0)),
        ),
    ),
    "imitation beside reinforcement": (
        strand("a", term(PPO), term(Point(denominator="one", shape=Identity(), advantage="one"), coefficient=0.2)),
    ),
    "sum of a sequence": (strand("a", term(LIKELIHOOD, reduce="sequence_sum")),),
    "hint and answer": (
        strand(
            "a",
            term(PPO, origins=("learner",)),
            term(LIKELIHOOD, origins=("hint", "demonstration"), coefficient=0.3),
            term(Div(form="k2"), reduce="sequence", part=0),
        ),
    ),
    "k1": (strand("a", term(Div(form="k1"))),),
    "rk3": (strand("a", term(Div(form="rk3"))),),
    "asft": (strand("a", term(LIKELIHOOD, "probability"), term(Div(form="forward"), coefficient=0.1)),),
    "renormalised": (strand("a", term(Div(form="reverse", target="teacher", tail="renormalise"))),),
    "raw": (strand("a", term(Div(form="jsd", target="teacher", tail="raw", beta=0.5))),),
    "rpo": (strand("a", term(DPO), term(LIKELIHOOD, coefficient=0.5, label="chosen")),),
    "rejected alone": (strand("a", term(DPO), term(LIKELIHOOD, coefficient=-0.1, label="rejected")),),
    "margins of the data": (strand("a", term(Set(beta=0.5, margin=0.2, row_margin=True))),),
    "wpo": (strand("a", term(Set(beta=0.5, weighted=True))),),
    "ld dpo": (strand("a", term(Set(beta=0.5, tail=0.4))),),
    "kto": (strand("a", term(Set(link="kto", beta=0.4, desirable=1.3, undesirable=0.7))),),
    "unary bce": (strand("a", term(Set(link="bce", beta=0.4, margin=0.1, aggregate="mean"))),),
    "odds": (strand("a", term(Set(link="odds", aggregate="mean", reference=False), coefficient=0.1)),),
    **{
        f"link {link}": (strand("a", term(Set(link=link, beta=0.3, smoothing=0.1))),)
        for link in ("exponential", "robust", "exo", "nca", "sppo", "apo_zero", "apo_down", "bco", "logistic")
    },
    "link discopop": (strand("a", term(Set(link="discopop", beta=0.3, temperature=0.5))),),
    **{f"link {link}": (strand("a", term(Set(link=link, beta=0.3))),) for link in ("aot", "aot_unpaired")},
    **{
        f"f-dpo {name}": (strand("a", term(Set(beta=0.3, divergence=name, divergence_alpha=0.4))),)
        for name in ("forward_kl", "jensen_shannon", "alpha")
    },
}
"""Name -> strands. Rows 0 1 | 2 3 4 are preference sets, 2 | 3 pairs where a link wants pairs; row 5 is strand 1's."""


def case(recipe: str, seed: int = 0, noise: float = 0.4) -> tuple[list[oracles.Row], np.ndarray]:
    """Rows with every view, and logits [row][T][V]. Sets are rows 0 1 | 2 3 4 (one chosen, two rejected)."""
    rng = np.random.default_rng(seed)
    members = RECIPES[recipe]
    rows, logits = [], np.zeros((len(LENGTHS), max(LENGTHS), VOCABULARY))
    for i, size in enumerate(LENGTHS):
        logits[i, :size] = rng.normal(size=(size, VOCABULARY))
        tokens = rng.integers(0, VOCABULARY, size)
        c = log_softmax(logits[i, :size])[np.arange(size), tokens]
        teacher, reference = (log_softmax(rng.normal(size=(size, VOCABULARY))) for _ in range(2))
        best, likeliest = (np.argsort(-one, axis=1)[:, :TOPK] for one in (teacher, reference))
        mask = rng.random(size) < 0.8
        mask[0] = True
        rows.append(
            {
                "strand": 1 if len(members) == 2 and i == len(LENGTHS) - 1 else 0,
                "tokens": tokens,
                "mask": mask.tolist(),
                "advantage": np.full(size, rng.normal()),
                **{view: c + noise * rng.normal(size=size) for view in ("old", "behavior", "reference", "teacher")},
                "teacher_ids": best,
                "teacher_topk": np.take_along_axis(teacher, best, 1),
                "reference_ids": likeliest,
                "reference_topk": np.take_along_axis(reference, likeliest, 1),
                "origin": rng.choice([0, 1, 3], size),
                "part": np.sort(rng.integers(0, 2, size)),
                "margin": rng.random(),
                "set": [0, 0, 1, 1, 1, -1][i],
                "label": [1, 0, 1, 0, 0, math.nan][i],
            }
        )
    kernel = members[0].terms[0].kernel
    if kernel.kind == "set" and len(members) == 1:
        rows[-1]["mask"] = [kernel.link in UNARY] * LENGTHS[-1]
    if kernel.kind == "set" and kernel.link.startswith("aot"):
        rows[4]["mask"] = [False] * LENGTHS[4]
    return rows, logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def policy_of(rows: list[oracles.Row], logits: np.ndarray) -> oracles.Policy:
    """What the oracle reads of the policy."""
    full = [log_softmax(logits[i, : len(row["mask"])]) for i, row in enumerate(rows)]
    return {
        "c": [one[np.arange(len(one)), row["tokens"]] for one, row in zip(full, rows, strict=True)],
        "entropy": [-(np.exp(one) * one).sum(-1) for one in full],
        "topk": [np.take_along_axis(one, row["teacher_ids"], 1) for one, row in zip(full, rows, strict=True)],
        "reference_topk": [
            np.take_along_axis(one, row["reference_ids"], 1) for one, row in zip(full, rows, strict=True)
        ],
        "collision": [np.exp(2 * one).sum(-1) for one in full],
    }


COLUMNS = {
    "tokens_BT": "tokens",
    "mask_BT": "mask",
    "advantages_BT": "advantage",
    "old_logps_BT": "old",
    "behavior_logps_BT": "behavior",
    "reference_logps_BT": "reference",
    "teacher_logps_BT": "teacher",
    "teacher_topk_ids_BTK": "teacher_ids",
    "teacher_topk_logps_BTK": "teacher_topk",
    "reference_topk_ids_BTK": "reference_ids",
    "reference_topk_logps_BTK": "reference_topk",
    "origin_BT": "origin",
    "part_BT": "part",
}


def padded(rows: list[oracles.Row]) -> TrajectoryBatch:
    width = max(LENGTHS)
    columns: dict[str, Tensor] = {}
    for column, key in COLUMNS.items():
        parts = [np.asarray(row[key]) for row in rows]
        out = np.zeros((len(rows), width, *parts[0].shape[1:]), parts[0].dtype)
        for i, part in enumerate(parts):
            out[i, : len(part)] = part
        columns[column] = torch.from_numpy(out)
    return TrajectoryBatch(
        **columns,
        set_B=torch.tensor([row["set"] for row in rows]),
        label_B=torch.tensor([row["label"] for row in rows]),
        margin_B=torch.tensor([row["margin"] for row in rows], dtype=torch.float64),
        strand_B=torch.tensor([row["strand"] for row in rows]),
    )


def packed(rows: list[oracles.Row], logits: Tensor) -> tuple[TrajectoryBatch, Tensor]:
    """The same slots in one row."""
    batch = padded(rows)
    here = torch.tensor([i * max(LENGTHS) + t for i, row in enumerate(rows) for t in range(len(row["mask"]))])
    return batch.at(here), logits.flatten(0, 1)[here][None]


def agree(under_test: ModuleType, recipe: str, seed: int = 0) -> None:
    """Loss and g of the objective under test equal the oracle's; raises AssertionError otherwise."""
    rows, logits = case(recipe, seed)
    policy = policy_of(rows, logits)
    evaluation = under_test.evaluate(RECIPES[recipe], padded(rows), torch.from_numpy(logits))
    want = oracles.objective(RECIPES[recipe], rows, policy, policy["c"])
    np.testing.assert_allclose(float(evaluation.loss), want, rtol=1e-9, atol=1e-12)
    for row, g, line in zip(
        rows, oracles.coefficients(RECIPES[recipe], rows, policy), evaluation.coefficient_BT, strict=True
    ):
        np.testing.assert_allclose(line[: len(row["mask"])].numpy(), g, rtol=1e-5, atol=1e-8)
        assert not line[len(row["mask"]) :].any()


def logits_agree(under_test: ModuleType, recipe: str) -> None:
    """The gradient through some logits equals finite differences of the oracle; raises AssertionError otherwise."""
    rows, values = case(recipe)
    logits = torch.from_numpy(values).requires_grad_()
    under_test.evaluate(RECIPES[recipe], padded(rows), logits).loss.backward()
    assert logits.grad is not None
    frozen = policy_of(rows, values)
    constants = {f"frozen_{name}": value for name, value in frozen.items()}
    for i, t, v in [(0, 0, 3), (2, 1, int(rows[2]["tokens"][1])), (5, 0, int(rows[5]["teacher_ids"][0, 0])), (4, 2, 0)]:
        found = []
        for sign in (1, -1):
            moved = values.copy()
            moved[i, t, v] += sign * 1e-5
            policy = {**policy_of(rows, moved), **constants}
            found.append(oracles.objective(RECIPES[recipe], rows, policy, frozen["c"]))
        np.testing.assert_allclose(float(logits.grad[i, t, v]), (found[0] - found[1]) / 2e-5, rtol=1e-4, atol=1e-8)


def parts_agree(under_test: ModuleType, recipe: str) -> None:
    """Two micro-batches under the step's normalisers add up to one batch; raises AssertionError otherwise."""
    rows, values = case(recipe)
    whole = under_test.evaluate(RECIPES[recipe], padded(rows), torch.from_numpy(values))
    step = {
        "normalisers": oracles.denominators(RECIPES[recipe], rows),
        "statistics": oracles.statistics(RECIPES[recipe], rows, policy_of(rows, values)),
    }
    halves = ([0, 1, 2, 3], [4, 5]) if "aot" in recipe else ([0, 1, 5], [2, 3, 4])
    parts = []
    for here in halves:
        some = padded([rows[i] for i in here])
        parts.append(under_test.evaluate(RECIPES[recipe], some, torch.from_numpy(values[here]), **step))
        torch.testing.assert_close(parts[-1].coefficient_BT, whole.coefficient_BT[here])
    torch.testing.assert_close(parts[0].loss + parts[1].loss, whole.loss)
    merged = merge([part.by_strand for part in parts])
    for name, facts in whole.by_strand.items():
        assert merged[name] == pytest.approx(facts, nan_ok=True)
