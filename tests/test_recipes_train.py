"""Every recipe of the catalogue trains through the same loop, engine and learner."""

import asyncio
from typing import Any

import numpy as np
import pytest

from orchestrator import recipes
from policies.trajectory import Origin
from tests.recipe_world import train, trained

SHORTER: dict[str, dict[str, Any]] = {"gad": {"warmup": 0}}
"""Parameters without which three steps would not reach what the recipe is about."""


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_trains(name: str) -> None:
    ledger = asyncio.run(asyncio.wait_for(train(name, **SHORTER.get(name, {})), 120))
    rows = trained(ledger)
    assert rows, f"nothing trained: {[event['reason'] for event in ledger.events][:3]}"
    assert all(row["skipped"] == 0 for row in ledger.rows)
    assert any(row["gradient_norm"] > 0 for row in rows)
    for step, examples in ledger.added.items():
        for one in (example.trajectory for example in examples):
            own = one.origin == Origin.LEARNER
            assert (one.token_version[own] < step).all(), "nothing is of a later version than its step"
            assert not one.train_mask[one.origin == Origin.ENVIRONMENT].any()
            assert np.isnan(one.behavior_logps[~own & (one.origin != Origin.TEACHER)]).all()
