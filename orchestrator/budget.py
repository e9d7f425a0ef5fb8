"""What a run has spent of its budget: a sum over the rows of its steps, so that a resumed run has spent the same."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.experiment_config import Budget

UNITS = ("steps", "trained_tokens", "generated_tokens", "seconds", "flops")
"""What may be budgeted; `Budget.unit`."""


class BudgetSpent(Exception):  # noqa: N818  (an end, not an error)
    """The run has spent what it may; its last step is measured and committed."""


@dataclass(slots=True)
class Spending:
    """Counts step by step; without a budget nothing is ever spent."""

    budget: Budget | None
    spent: float = 0.0

    def step(self, row: Mapping[str, Any]) -> None:
        """A step is done. ValueError where its row does not say what it cost: the budget would never end the run."""
        if self.budget is not None:
            price = cost(row, self.budget.unit)
            if math.isnan(price):
                unit = self.budget.unit
                told = f"step {row.get('step')} does not say its {unit}"
                raise ValueError(f"budget.unit: {told} (got '{unit}'); choose another unit")
            self.spent += price

    def remember(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Start from the steps that were done before."""
        self.spent = 0.0
        for row in rows:
            self.step(row)

    @property
    def over(self) -> bool:
        """Whether the budget is reached."""
        return self.budget is not None and self.budget.amount is not None and self.spent >= self.budget.amount

    @property
    def told(self) -> str:
        """`2,048 of 2,000 trained tokens`."""
        if self.budget is None:
            return "no budget"
        limit = "no end" if self.budget.amount is None else f"{self.budget.amount:,.6g}"
        return f"{self.spent:,.6g} of {limit} {self.budget.unit.replace('_', ' ')}"


def cost(row: Mapping[str, Any], unit: str) -> float:
    """A step's cost in that unit, from its row of metrics.jsonl; NaN where the row does not say."""
    match unit:
        case "steps":
            return 1.0
        case "trained_tokens":
            return _known(row.get("tokens_trained"))
        case "generated_tokens":
            return _known(row.get("tokens_generated")) + _known(row.get("label_tokens", 0))
        case "seconds":
            return _known(row.get("seconds"))
        case "flops":
            return _known(row.get("flops"))
        case _:
            raise ValueError(f"{unit}: no unit of a budget; those are {', '.join(UNITS)}")


def spent(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Unit -> what the steps cost in all; NaN where a row does not say."""
    known = list(rows)
    return {unit: math.fsum(cost(row, unit) for row in known) for unit in UNITS}


def _known(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
