"""What no recipe's loss may depend on: micro-batches, order, padding or packing, and strands without rows.

Each strand of a recipe reads rows of its own; sets, labels, targets and parts are given for whatever its terms read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator import recipes
from policies.batch import TrajectoryBatch
from policies.config import Set, Strand
from policies.objective import Evaluation, evaluate, evaluate_logps
from policies.slots import PolicyView
from tests import oracles
from tests.parity_case import random_case
from tests.recipe_bridge import batch_of

REQUIRED = {"teacher": "x", "teachers": {"*": "x"}}
WIDTH, ROWS, VOCABULARY = 6, 8, 9
"""Slots of a row, rows of each strand."""


@dataclass(frozen=True, slots=True)
class World:
    """Strands of one kind of head, their batch, and what the model says at its slots."""

    strands: list[Strand]
    batch: TrajectoryBatch
    logits_BTV: Tensor
    """Of a scalar head: its outputs, V = 1."""

    def evaluate(self, batch: TrajectoryBatch, logits_BTV: Tensor, **options: Any) -> Evaluation:
        if logits_BTV.shape[-1] > 1:
            return evaluate(self.strands, batch, logits_BTV, **options)
        return evaluate_logps(self.strands, batch, PolicyView(logits_BTV[..., 0], scalar=True), **options)

    def step(self) -> dict[str, Any]:
        """Normalisers and statistics of the whole batch, counted by hand."""
        rows = rows_of(self.batch)
        found: dict[str, Any] = {"normalisers": denominators(self.strands, rows), "statistics": {}}
        if self.logits_BTV.shape[-1] > 1:
            logps = self.logits_BTV.log_softmax(-1)
            c = logps.gather(-1, self.batch.tokens_BT[..., None])[..., 0].tolist()
            entropy = (-(logps.exp() * logps).sum(-1)).tolist()
            found["statistics"] = oracles.statistics(self.strands, rows, {"c": c}) | thresholds(
                self.strands, rows, entropy
            )
        return found


def worlds(name: str) -> list[World]:
    """The recipe's strands that train, and those of its co-learners: one world for each kind of head."""
    given = {key: REQUIRED[key] for key, one in recipes.file(name).parameters.items() if one.required}
    recipe = recipes.load(name, **given)
    beside = [one for learner in recipe.learners for one in learner.strands]
    renamed = [one.model_copy(update={"name": f"beside {at}"}) for at, one in enumerate(beside)]
    every = [one for one in (*recipe.strands, *renamed) if one.terms]
    kinds = ([one for one in every if not scalar(one)], [one for one in every if scalar(one)])
    return [world(strands) for strands in kinds if strands]


def scalar(strand: Strand) -> bool:
    return any(isinstance(term.kernel, Set) and term.kernel.score == "head" for term in strand.terms)


def world(strands: list[Strand]) -> World:
    """Sets are two rows that follow each other: chosen, rejected."""
    rows = ROWS * len(strands)
    case, rng = random_case(3, rows=rows, slots=WIDTH, vocabulary=VOCABULARY, group=4), np.random.default_rng(5)
    where = np.repeat(np.arange(len(strands)), ROWS)
    labels, sets = np.tile([1.0, 0.0], rows // 2), np.repeat(np.arange(rows // 2), 2)
    for index, strand in enumerate(strands):
        if any(isinstance(term.kernel, Set) and term.kernel.link == "kto" for term in strand.terms):
            labels[(index + 1) * ROWS - 2 : (index + 1) * ROWS] = np.nan  # rows that only serve the baseline
    columns = {
        "set_B": sets,
        "label_B": labels,
        "margin_B": np.full(rows, 0.1),
        "targets_BT": rng.random(case.mask_BT.shape),
        "old_values_BT": rng.normal(size=case.mask_BT.shape),
        "part_BT": np.tile(np.arange(WIDTH) // 3, (rows, 1)),
        "origin_BT": rng.choice([0, 1, 2, 3], case.mask_BT.shape).astype(np.int8),
        "behavior_logps_BT": case.behavior_BT,
    }
    batch = batch_of(case, where, np.repeat(case.advantages_B[:, None], WIDTH, 1), k=VOCABULARY, **columns)
    logits = torch.from_numpy(case.logits_BTV)
    return World(strands, batch, logits[..., :1] if scalar(strands[0]) else logits)


# ---------------------------------------------------------------- counting by hand


def rows_of(batch: TrajectoryBatch) -> list[oracles.Row]:
    named = {"mask": "mask_BT", "origin": "origin_BT", "part": "part_BT", "reference": "reference_logps_BT"}
    named |= {"set": "set_B", "label": "label_B", "strand": "strand_B"}
    values = {key: getattr(batch, name).tolist() for key, name in named.items()}
    return [{key: value[i] for key, value in values.items()} for i in range(batch.size)]


def denominators(strands: Sequence[Strand], rows: Sequence[oracles.Row]) -> tuple[tuple[float, ...], ...]:
    """The oracle's, and for links over tokens the number of tokens, each of which has a target here."""
    found = [list(one) for one in oracles.denominators(strands, rows)]
    for index, strand in enumerate(strands):
        for place, term in enumerate(strand.terms):
            if isinstance(term.kernel, Set) and term.kernel.unit == "token":
                seen = [oracles.read(term.only, row) for row in rows if row["strand"] == index]
                found[index][place] = float(sum(map(sum, seen)))
    return tuple(map(tuple, found))


def thresholds(strands: Sequence[Strand], rows: Sequence[oracles.Row], entropy: list[list[float]]) -> dict[str, float]:
    """The entropy that the highest share of a term's tokens reaches."""
    found = {}
    for index, strand in enumerate(strands):
        for term in strand.terms:
            for weight in term.weights:
                if weight.kind == "top_entropy":
                    own = [(i, row) for i, row in enumerate(rows) if row["strand"] == index]
                    read = [entropy[i][t] for i, row in own for t, on in enumerate(oracles.read(term.only, row)) if on]
                    found[f"{strand.name}/{term.name}/top_entropy"] = float(np.quantile(read, 1 - weight.share))
    return found


def some(batch: TrajectoryBatch, here: Sequence[int]) -> TrajectoryBatch:
    """These rows alone, in this order."""
    picked = {
        one.name: value[list(here)] for one in fields(batch) if isinstance(value := getattr(batch, one.name), Tensor)
    }
    return replace(batch, **picked)


NAMES = pytest.mark.parametrize("name", recipes.names())


@NAMES
def test_micro_batches_sum_to_the_undivided_step(name: str) -> None:
    for one in worlds(name):
        whole = one.evaluate(one.batch, one.logits_BTV)
        assert float(whole.coefficient_BT.abs().sum()) > 0 or name in DISTRIBUTIONS
        size, step, total = one.batch.size, one.step(), 0.0
        for here in ([i for i in range(size) if i // 2 % 3 == 0], [i for i in range(size) if i // 2 % 3]):
            part = one.evaluate(some(one.batch, here), one.logits_BTV[here], **step)
            torch.testing.assert_close(part.coefficient_BT, whole.coefficient_BT[here])
            total += float(part.loss)
        assert total == pytest.approx(float(whole.loss), rel=1e-9)


DISTRIBUTIONS = {"logit_distillation", "gkd", "opsd", "opcd", "sdpo", "minillm", "on_policy_distillation"}
"""Recipes that may have no term on sampled tokens: g speaks of these alone."""


@NAMES
def test_the_order_of_rows_and_padding_change_nothing(name: str) -> None:
    for one in worlds(name):
        whole = one.evaluate(one.batch, one.logits_BTV)
        order = np.random.default_rng(0).permutation(one.batch.size).tolist()
        moved = one.evaluate(some(one.batch, order), one.logits_BTV[order])
        torch.testing.assert_close(moved.loss, whole.loss)
        torch.testing.assert_close(moved.coefficient_BT, whole.coefficient_BT[order])
        here = one.batch.mask_BT.flatten().nonzero()[:, 0]
        packed = one.evaluate(one.batch.at(here), one.logits_BTV.flatten(0, 1)[here][None])
        torch.testing.assert_close(packed.loss, whole.loss)
        torch.testing.assert_close(packed.coefficient_BT[0], whole.coefficient_BT.flatten()[here])


@NAMES
def test_a_strand_without_rows_changes_nothing_and_an_empty_step_is_exactly_zero(name: str) -> None:
    for one in worlds(name):
        for index, strand in enumerate(one.strands):
            of_others = [i for i in range(one.batch.size) if int(one.batch.strand_B[i]) != index]  # type: ignore[index]
            if of_others:
                found = one.evaluate(some(one.batch, of_others), one.logits_BTV[of_others])
                facts = found.by_strand[strand.name]
                assert (facts["loss"], facts["tokens"], facts["gradient_mass"]) == (0.0, 0.0, 0.0)
                rest = sum(own["loss"] for name_, own in found.by_strand.items() if name_ != strand.name)
                assert float(found.loss) == pytest.approx(rest)
        logits = one.logits_BTV.clone().requires_grad_()
        nothing = replace(one.batch, mask_BT=torch.zeros_like(one.batch.mask_BT))
        empty = one.evaluate(nothing, logits)
        (gradient,) = torch.autograd.grad(empty.loss, [logits], allow_unused=True)
        assert float(empty.loss.detach()) == 0.0
        assert gradient is None or not gradient.any()
